"""What the runs with Stable Diffusion share: the settings, and one seed with all its arms.

A pipeline, small or large, is fine-tuned on task 1, and the outcome on task 2. Everything random
follows from the seed, so two ways to train differ in nothing else and can be compared sample by
sample and prompt by prompt.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import interpolate, normalize

from hopfield_cl import _checks
from hopfield_cl.diffusion.continual import Pool, likeliest_sigma, replay_pool
from hopfield_cl.diffusion.energies import dataset_energy
from hopfield_cl.diffusion.steps import TrainingConfig, fingerprint
from hopfield_cl.records.workspace import Workspace
from hopfield_cl.stable.finetuning import (
    Adaptation,
    Captioned,
    captioned,
    fine_tune,
    merge_adapter,
)
from hopfield_cl.stable.latents import decode, generate, reconstruct
from hopfield_cl.stable.pipelines import SMALL_SD, has_adapter, image_size, load_pipeline
from hopfield_cl.stable.prompts import pooled
from hopfield_cl.stable.tasks import SOURCES, CaptionedTask, Judge, load_captioned_tasks

if TYPE_CHECKING:  # diffusers speaks of image processors unless hopfield_cl.stable comes first
    from diffusers import StableDiffusionPipeline

# Raised when the parts of a run come out otherwise under the same settings; see CONTRIBUTING.md.
VERSION = 1
# Parameters of a U-Net above which it is trained as one of the full size is.
_LARGE = 100_000_000
_SHOWN_SIZE = 64
# Different parts of one seed's randomness must not repeat each other.
_STREAMS = {"noise": 1, "generate": 2, "choose": 3}


@dataclass(frozen=True)
class Learning:
    """How a pipeline learns a task.

    Attributes
    ----------
    training : TrainingConfig
        Its seed is replaced.
    recomputed : {"nothing", "activations"}
        As for :class:`hopfield_cl.stable.finetuning.Adaptation`.
    batch_size : int
        Images at a time where nothing is trained.
    """

    training: TrainingConfig
    recomputed: str
    batch_size: int


def _by_method(full: Learning, rate_of_lora: float) -> dict[str, Learning]:
    """The same way to learn by either method; an adapter wants a higher rate."""
    lora = replace(full, training=replace(full.training, learning_rate=rate_of_lora))
    return {"full": full, "lora": lora}


SMALL = _by_method(
    Learning(
        TrainingConfig(
            steps=400, batch_size=16, learning_rate=4e-3, warmup=20, decay=0.8, ema_decay=0.0
        ),
        recomputed="nothing",
        batch_size=32,
    ),
    rate_of_lora=5e-3,
)
"""How the small pipeline learns, by method.

It already knows both tasks when it is loaded, and at small rates forgets next to nothing. This rate
was chosen, in a trial on one seed and before any energy was looked at, for prompts to fade."""

LARGE = _by_method(
    Learning(
        TrainingConfig(
            steps=2000,
            batch_size=8,
            learning_rate=1e-5,
            warmup=100,
            decay=0.5,
            ema_decay=0.0,
            precision="bf16",
        ),
        recomputed="activations",
        batch_size=4,
    ),
    rate_of_lora=1e-4,
)
"""How a pipeline of the size of Stable Diffusion v1.5 learns, by method."""


@dataclass(frozen=True)
class PromptRunConfig:
    """What all runs with Stable Diffusion have in common.

    Attributes
    ----------
    model : str
        Pipeline: a folder, or a name on the Hugging Face hub, or the book's small one.
    dataset : {"scenes", "cifar10"}
        Captioned images, one of :data:`hopfield_cl.stable.tasks.SOURCES`.
    method : {"full", "lora"}
        Whether all weights of the U-Net are trained or a low-rank addition.
    seeds : tuple of int
        One for each repetition, at least 2.
    seen, held_out : int
        Images of each task that are learnt from, and that are not.
    time : int
        Noise time from which samples are reconstructed.
    prompts : int
        Held-out captions of task 1 that are drawn.
    guidance : float
        Guidance of what is drawn.
    examples : int
        Prompts whose images are shown.
    """

    model: str = SMALL_SD
    dataset: str = "scenes"
    method: str = "full"
    seeds: tuple[int, ...] = (0, 1, 2)
    seen: int = 1000
    held_out: int = 150
    time: int = 599
    prompts: int = 64
    guidance: float = 3.0
    examples: int = 6

    def __post_init__(self) -> None:
        if self.dataset not in SOURCES:
            raise ValueError(
                f"dataset must be one of {', '.join(SOURCES)}, but is {self.dataset!r}."
            )
        if self.method not in SMALL:
            raise ValueError(f"method must be one of {', '.join(SMALL)}, but is {self.method!r}.")
        if not isinstance(self.seeds, tuple) or len(set(self.seeds)) != len(self.seeds):
            raise ValueError(f"seeds must be a tuple of different values, but is {self.seeds!r}.")
        if len(self.seeds) < 2:
            raise ValueError(f"seeds must hold at least 2, but holds {len(self.seeds)}.")
        for seed in self.seeds:
            _checks.integer_from(seed, "seeds", 0)
        for name, fewest in (("seen", 2), ("held_out", 5), ("time", 0), ("prompts", 1)):
            _checks.integer_from(getattr(self, name), name, fewest)
        if self.prompts > self.held_out:
            raise ValueError(
                f"prompts must be at most held_out, {self.held_out}, but is {self.prompts}."
            )
        _checks.number_between(self.guidance, "guidance", 1.0, 100.0)
        _checks.integer_from(self.examples, "examples", 1)
        if self.examples > self.prompts:
            raise ValueError(
                f"examples must be at most prompts, {self.prompts}, but is {self.examples}."
            )


def learning_of(pipeline: StableDiffusionPipeline, method: str) -> Learning:
    """Say how a pipeline learns: the small one in seconds, a large one with memory spared.

    Parameters
    ----------
    pipeline : StableDiffusionPipeline
        The pipeline.
    method : {"full", "lora"}
        What is trained.

    Returns
    -------
    Learning

    Raises
    ------
    ValueError
        If there is no such method.
    """
    large = pipeline.unet.num_parameters() > _LARGE
    known = LARGE if large else SMALL
    if method not in known:
        raise ValueError(f"method must be one of {', '.join(known)}, but is {method!r}.")
    return known[method]


class PromptLaboratory:
    """One seed of a run, with all that its arms share.

    Parameters
    ----------
    config : PromptRunConfig
        The run.
    seed : int
        The seed.
    pipeline : StableDiffusionPipeline
        The pipeline as it was loaded; its U-Net is changed by every arm.
    loaded : dict of Tensor
        Weights that the U-Net was loaded with: where every seed starts, whatever was trained since.
    workspace : Workspace
        Where finished parts are kept.

    Attributes
    ----------
    tasks : list of CaptionedTask
        The images of each task, on the CPU.
    learning : Learning
        How the pipeline learns.
    """

    def __init__(
        self,
        config: PromptRunConfig,
        seed: int,
        pipeline: StableDiffusionPipeline,
        *,
        loaded: dict[str, Tensor],
        workspace: Workspace,
    ) -> None:
        self.config, self.seed, self.pipeline, self.workspace = config, seed, pipeline, workspace
        self.learning = learning_of(pipeline, config.method)
        self._loaded = loaded
        self.tasks: list[CaptionedTask] = load_captioned_tasks(
            config.dataset,
            image_size(pipeline),
            seen=config.seen,
            held_out=config.held_out,
            seed=seed,
        )

    @property
    def device(self) -> torch.device:
        """Where the pipeline is."""
        return self.pipeline.device

    def part(self, name: str, compute: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        """A finished part of this seed; see :meth:`Workspace.part`."""
        return self.workspace.part(f"seed{self.seed}/{name}", compute)

    def generator(self, purpose: str) -> torch.Generator:
        """Randomness of this seed for one purpose."""
        return torch.Generator().manual_seed(1000 * (self.seed + 1) + _STREAMS[purpose])

    @cached_property
    def captioned(self) -> dict[tuple[int, str], Captioned]:
        """Latents with captions, by task and by "seen" or "held out"."""
        size = self.learning.batch_size
        return {
            (number, name): captioned(self.pipeline, part.images, part.captions, batch_size=size)
            for number, task in enumerate(self.tasks)
            for name, part in (("seen", task.seen), ("held out", task.held_out))
        }

    def latents(self, task: int, name: str) -> Float[Tensor, "N d"]:
        """Latents of a task, one a row."""
        return self.captioned[task, name].latents.flatten(1)

    @cached_property
    def words(self) -> dict[tuple[int, str], Float[Tensor, "N d"]]:
        """Captions in the space of CLIP's text encoder, one a row, of length 1."""
        return {
            key: normalize(pooled(self.pipeline, part.captions).float(), dim=1)
            for key, part in self.captioned.items()
        }

    def points(self, space: str, task: int, name: str) -> Float[Tensor, "N d"]:
        """A task in the space "latent" or "caption", one sample a row."""
        return self.latents(task, name) if space == "latent" else self.words[task, name]

    @cached_property
    def sigma(self) -> dict[str, float]:
        """The likeliest noise level of what is seen of task 1, in each space.

        Each caption counts once: among twins, no noise would be the likeliest.
        """
        captions = self.tasks[0].seen.captions
        once = list({caption: row for row, caption in enumerate(captions)}.values())
        rows = {"latent": slice(None), "caption": once}
        return {
            space: likeliest_sigma(self.points(space, 0, "seen")[rows[space], :, None, None])[0]
            for space in SOURCES[self.config.dataset].spaces
        }

    def energies(self, space: str, name: str, *, of_task: int = 0) -> Float[Tensor, " N"]:
        """Energy −log p_σ of samples of task 1 under what is seen of a task, in nats.

        Under task 1 a seen sample is left out of its own density.
        """
        points, stored = self.points(space, 0, name), self.points(space, of_task, "seen")
        own = None
        if name == "seen" and of_task == 0:
            own = torch.arange(len(points), device=points.device)
        return dataset_energy(points, stored, self.sigma[space], own=own)

    @cached_property
    def pool(self) -> Pool:
        """What the strategies know of the seen samples of task 1, in the space of latents."""
        old, new = (self.captioned[task, "seen"].latents for task in (0, 1))
        return replay_pool(old, new, self.sigma["latent"])

    @cached_property
    def judge(self) -> Judge:
        """Sees what an image shows."""
        return SOURCES[self.config.dataset].judge(self.seed, self.device)

    @cached_property
    def first(self) -> dict[str, Tensor]:
        """Weights of the U-Net after task 1."""

        def train() -> dict[str, Tensor]:
            self._take(self._loaded)
            self._learn(0, None, "first_training")
            return self.pipeline.unet.state_dict()

        weights = self.part("first", train)
        self._state("first_training").unlink(missing_ok=True)  # gigabytes, and done with
        return weights

    def _state(self, name: str) -> Path:
        """File of the state of a training."""
        return self.workspace.path(f"seed{self.seed}/{name}")

    def before(self) -> dict[str, Tensor]:
        """What the pipeline makes of task 1 before task 2; see :meth:`measure`."""

        def compute() -> dict[str, Tensor]:
            self._take(self.first)
            return self.measure()

        return self.part("arms/before", compute)

    def after(
        self, strategy: str = "none", replay: Int[Tensor, " K"] | None = None
    ) -> dict[str, Tensor]:
        """The same after task 2, with some rows of task 1 replayed under a strategy's name."""

        def compute() -> dict[str, Tensor]:
            self._take(self.first)
            self._learn(1, replay, None)
            return self.measure()

        count = 0 if replay is None else len(replay)
        return self.part(f"arms/{strategy}_{count}", compute)

    def _take(self, weights: dict[str, Tensor]) -> None:
        self.pipeline.unet.load_state_dict(weights)

    def _learn(self, task: int, replay: Int[Tensor, " K"] | None, state: str | None) -> None:
        old = self.captioned[0, "seen"]
        buffer = None
        if replay is not None:
            captions = tuple(old.captions[row] for row in replay.tolist())
            buffer = Captioned(old.latents[replay.to(old.latents.device)], captions)
        fine_tune(
            self.pipeline,
            self.captioned[task, "seen"],
            # Of two tasks one after the other, neither repeats the noise of the other.
            replace(self.learning.training, seed=2 * self.seed + task),
            replay=buffer,
            adaptation=Adaptation(self.config.method, recomputed=self.learning.recomputed),
            checkpoint=None if state is None else self._state(state),
        )
        if has_adapter(self.pipeline):
            merge_adapter(self.pipeline)

    def noise(self, task: int) -> Float[Tensor, "N c h w"]:
        """Noise in which the held-out samples of a task are reconstructed, the same in all arms."""
        shape = self.captioned[task, "held out"].latents.shape
        generator = self.generator("noise")
        return torch.randn((2, *shape), generator=generator)[task].to(self.device)

    def reconstructed(self, task: int) -> Float[Tensor, "N c h w"]:
        """Held-out latents of a task, after noise, as the network gives them back."""
        held_out = self.captioned[task, "held out"]
        return reconstruct(
            self.pipeline,
            held_out.latents,
            held_out.captions,
            self.config.time,
            noise=self.noise(task),
            batch_size=self.learning.batch_size,
        )

    @cached_property
    def shown(self) -> Int[Tensor, " E"]:
        """Prompts whose images are shown: from the highest energy to the lowest."""
        energies = self.energies("latent", "held out")[: self.config.prompts].cpu()
        places = torch.linspace(0, len(energies) - 1, self.config.examples).round().long()
        return energies.argsort(descending=True)[places]

    def measure(self) -> dict[str, Tensor]:
        """What the pipeline, as it is, makes of task 1, and how well it does on task 2.

        Returns
        -------
        dict of Tensor
            "latent" and "pixel": squared error of each held-out sample's reconstruction, per
            coordinate of the latent and, after decoding, per pixel. "obeyed": whether what is drawn
            for each prompt shows what it asks for, factor by factor; all arms draw from the same
            noise. "new": the error of held-out samples of task 2, in latents. "pictures": small
            images of what is drawn for the prompts :attr:`shown`.
        """
        size, config = self.learning.batch_size, self.config
        held_out, found = self.tasks[0].held_out, self.reconstructed(0)
        decoded = decode(self.pipeline, found, batch_size=size)
        drawn = generate(
            self.pipeline,
            held_out.captions[: config.prompts],
            generator=self.generator("generate"),
            guidance=config.guidance,
            batch_size=size,
        ).float()
        asked = held_out.labels[: config.prompts].to(self.device)
        return {
            "latent": _error(found, self.captioned[0, "held out"].latents),
            "pixel": _error(decoded, held_out.images.to(decoded)),
            "obeyed": self.judge(drawn) == asked,
            "new": _error(self.reconstructed(1), self.captioned[1, "held out"].latents),
            "pictures": small(drawn[self.shown.to(self.device)]),
        }


def small(images: Float[Tensor, "N 3 H W"]) -> Float[Tensor, "N 3 h w"]:
    """Bring images to the size in which they are recorded, 64 × 64 pixels.

    Parameters
    ----------
    images : Tensor, shape (N, 3, H, W)
        Images.

    Returns
    -------
    Tensor, shape (N, 3, 64, 64)
    """
    return interpolate(images, (_SHOWN_SIZE, _SHOWN_SIZE), mode="area")


def laboratories(
    config: PromptRunConfig, *, device: str | torch.device, work: str | Path
) -> Iterator[PromptLaboratory]:
    """Load a pipeline, and prepare one seed of a run after the other.

    The pipeline is loaded at once, so that one which cannot be is refused before a run begins. What
    one seed holds in memory can be given up before the next.

    Parameters
    ----------
    config : PromptRunConfig
        The run.
    device : str or torch.device
        Where to compute.
    work : path
        Where workspaces lie. Runs with the same settings, seeds and what one kind of run has beyond
        this class apart, and with the same weights share one.

    Returns
    -------
    iterator of PromptLaboratory

    Raises
    ------
    ValueError, ConnectionError
        If the pipeline or the images are not there, or the settings do not fit them.
    """
    pipeline = load_pipeline(config.model, device=device)
    common = {field.name: getattr(config, field.name) for field in fields(PromptRunConfig)}
    del common["seeds"], common["model"]
    parts = (pipeline.unet, pipeline.vae, pipeline.text_encoder)
    weights = [value for part in parts for _, value in sorted(part.state_dict().items())]
    made_of = (dict(pipeline.scheduler.config), pipeline.vae.config.scaling_factor)
    learning = learning_of(pipeline, config.method)
    workspace = Workspace(work, (common, learning, made_of, fingerprint(*weights)), version=VERSION)
    loaded = {name: value.cpu().clone() for name, value in pipeline.unet.state_dict().items()}
    return (
        PromptLaboratory(config, seed, pipeline, loaded=loaded, workspace=workspace)
        for seed in config.seeds
    )


def _error(found: Tensor, wanted: Tensor) -> Float[Tensor, " N"]:
    return (found - wanted).square().mean((1, 2, 3)).float()
