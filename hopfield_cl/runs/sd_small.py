"""The run that makes the book's small Stable Diffusion, and asks it to draw."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from jaxtyping import Int
from torch import Tensor

from hopfield_cl import _checks
from hopfield_cl.data.scenes import FACTORS, Judge, SceneSet, scenes, train_judge
from hopfield_cl.data.scenes import decode as shown_factors
from hopfield_cl.diffusion.steps import TrainingConfig
from hopfield_cl.records.recording import Gallery, Recording
from hopfield_cl.records.workspace import Workspace
from hopfield_cl.stable.latents import decode, encode, generate
from hopfield_cl.stable.pipelines import PipelineConfig, new_pipeline, save_pipeline
from hopfield_cl.stable.pretraining import (
    AUTOENCODER_TRAINING,
    TEXT_TO_IMAGE_TRAINING,
    train_autoencoder,
    train_text_to_image,
)

if TYPE_CHECKING:  # diffusers speaks of image processors unless hopfield_cl.stable comes first
    from diffusers import StableDiffusionPipeline

# Raised when the parts of a run come out otherwise under the same settings; see CONTRIBUTING.md.
VERSION = 1
_DIGITS = 4  # decimals in the table
_FOLDER = "small_sd"


@dataclass(frozen=True)
class SmallConfig:
    """Settings of :func:`small_run`.

    Attributes
    ----------
    pipeline : PipelineConfig
        What the pipeline is made of.
    autoencoder, text_to_image : TrainingConfig
        How its two stages are trained; their seeds are replaced.
    seeds : tuple of int
        One: of the weights, the scenes and the noise.
    judged : int
        Fresh scenes whose captions are drawn.
    guidances : tuple of float
        Guidance under which they are drawn, from 1.
    examples : int
        Of these, how many are shown.
    """

    pipeline: PipelineConfig = field(default_factory=PipelineConfig)
    autoencoder: TrainingConfig = AUTOENCODER_TRAINING
    text_to_image: TrainingConfig = TEXT_TO_IMAGE_TRAINING
    seeds: tuple[int, ...] = (0,)
    judged: int = 512
    guidances: tuple[float, ...] = (1.0, 2.0, 3.0, 5.0)
    examples: int = 16

    def __post_init__(self) -> None:
        if not isinstance(self.seeds, tuple) or len(self.seeds) != 1:
            raise ValueError(f"seeds must hold one seed, but is {self.seeds!r}.")
        _checks.integer_from(self.seeds[0], "seeds", 0)
        _checks.integer_from(self.judged, "judged", 1)
        _checks.integer_from(self.examples, "examples", 1)
        if self.examples > self.judged:
            raise ValueError(
                f"examples must be at most judged, {self.judged}, but is {self.examples}."
            )
        if not self.guidances:
            raise ValueError("guidances must hold at least one, but is empty.")
        for guidance in self.guidances:
            _checks.number_between(guidance, "guidances", 1.0, 100.0)


def small_run(
    config: SmallConfig = SmallConfig(),
    *,
    device: str | torch.device = "cpu",
    work: str | Path = "_work/runs",
    models: str | Path | None = None,
) -> Recording:
    """Train autoencoder, then text encoder and U-Net; count how often the drawing obeys.

    Fresh scenes are judged as they are, after the autoencoder, and as drawn from their captions
    under each guidance. The judge is a classifier that was trained on scenes, and has not seen
    these.

    Parameters
    ----------
    config : SmallConfig
        Settings.
    device : str or torch.device
        Where to compute.
    work : path
        Folder for the state of both trainings, which go on from it when they were killed.
    models : path, optional
        Folder in which the pipeline is saved, under the name small_sd.

    Returns
    -------
    Recording
        One row for each kind of image: of each factor the share that shows what the caption says.

    Raises
    ------
    TypeError, ValueError, FloatingPointError
        As for :func:`hopfield_cl.stable.pretraining.train_text_to_image`.

    References
    ----------
    Rombach et al. (2022), *High-Resolution Image Synthesis with Latent Diffusion Models*.
    """
    seed = config.seeds[0]
    pipeline = new_pipeline(config.pipeline, seed=seed).to(device)
    state = Workspace(work, config, version=VERSION)
    stages = (
        (train_autoencoder, config.autoencoder, "autoencoder"),
        (train_text_to_image, config.text_to_image, "text_to_image"),
    )
    training: dict[str, object] = {"seed": seed}
    for train, how, name in stages:
        how = replace(how, seed=seed)
        record = train(pipeline, how, checkpoint=state.path(name))
        last = record.loss[-max(1, len(record.loss) // 20) :].mean().item()
        training[name] = asdict(how) | {"seconds": record.seconds, "last_loss": last}
    if models is not None:
        save_pipeline(Path(models) / _FOLDER, pipeline, training=training)
    size = config.pipeline.image_size
    drawn = scenes(config.judged, seed=seed, size=size)
    judge = train_judge(seed=seed).to(device)
    images = drawn.images.to(device)
    coded = decode(pipeline, encode(pipeline, images))
    kinds = {"scenes": images, "after the autoencoder": coded}
    kinds |= {f"drawn, guidance {g:g}": _drawn(pipeline, drawn, g) for g in config.guidances}
    error = (coded - images).square().mean().item()
    gallery = Gallery()
    rows = [_row(name, judge, some, drawn, gallery, config) for name, some in kinds.items()]
    details = {
        "autoencoder_error": round(error, _DIGITS + 2),
        "autoencoder_psnr": round(10 * math.log10(4 / error), 2),
        "scaling_factor": pipeline.vae.config.scaling_factor,
        "captions": list(drawn.captions[: config.examples]),
        "training": training,
    }
    notes = (
        f"{config.judged} fresh scenes; shares of images that show what the caption says, with "
        "standard errors of a share; the autoencoder's error is the mean squared one of a pixel in "
        "[−1, 1]"
    )
    return Recording(rows, gallery.images(), details, config.seeds, notes)


def obeyed(judge: Judge, images: Tensor, factors: Int[Tensor, "N 6"]) -> Tensor:
    """Say which factors of what was asked for the images show.

    Parameters
    ----------
    judge : Judge
        A trained judge of scenes.
    images : Tensor, shape (N, 3, H, W)
        What was drawn.
    factors : Tensor of int64, shape (N, 6)
        What was asked for; −1 for what was left open.

    Returns
    -------
    Tensor of bool, shape (N, 6)
        True also for what was left open.

    Raises
    ------
    TypeError, ValueError
        As for :func:`hopfield_cl.data.scenes.decode`, or if there are not as many factors as
        images.
    """
    if len(images) != len(factors):
        raise ValueError(
            f"factors must be as many as images, {len(images)}, but are {len(factors)}."
        )
    asked = factors.to(images.device)
    return (shown_factors(judge, images) == asked) | (asked < 0)


def _drawn(pipeline: StableDiffusionPipeline, drawn: SceneSet, guidance: float) -> Tensor:
    source = torch.Generator().manual_seed(0)
    return generate(pipeline, drawn.captions, generator=source, guidance=guidance)


def _row(
    name: str,
    judge: Judge,
    images: Tensor,
    drawn: SceneSet,
    gallery: Gallery,
    config: SmallConfig,
) -> dict[str, object]:
    right = obeyed(judge, images, drawn.factors)
    shares = [*right.double().mean(0).tolist(), right.all(1).double().mean().item()]
    row: dict[str, object] = {"images_are": name, "count": len(images)}
    for factor, share in zip((*FACTORS, "all"), shares, strict=True):
        row[factor] = round(share, _DIGITS)
        row[f"{factor}_error"] = round(math.sqrt(share * (1 - share) / len(images)), _DIGITS)
    row["images"] = " ".join(map(str, gallery.add(images[: config.examples])))
    return row
