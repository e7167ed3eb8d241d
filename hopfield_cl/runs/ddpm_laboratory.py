"""What the full-scale runs share: the prepared seed, the judge of generated images, the gallery."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from hopfield_cl import _checks
from hopfield_cl.data import ImageSet
from hopfield_cl.diffusion import quality
from hopfield_cl.diffusion.continual import (
    SETTINGS,
    Probe,
    Setting,
    Task,
    learn_first,
    likeliest_sigma,
    load_tasks,
)
from hopfield_cl.diffusion.energies import dataset_energy
from hopfield_cl.diffusion.models import DiffusionModel
from hopfield_cl.diffusion.sampling import generate
from hopfield_cl.records.workspace import Workspace

# Raised when the parts of a run come out otherwise under the same settings; see CONTRIBUTING.md.
VERSION = 1
# Different parts of one seed's randomness must not repeat each other.
_STREAMS = {"probe": 1, "noise": 2, "generate": 3, "choose": 4, "energy": 5, "fisher": 6}


@dataclass(frozen=True)
class RunConfig:
    """What all full-scale runs of diffusion models have in common.

    Attributes
    ----------
    dataset : str
        Image set: one that :data:`hopfield_cl.diffusion.continual.SETTINGS` has a setting for.
    seeds : tuple of int
        One for each repetition, at least 2.
    times : tuple of int
        Noise times from which samples are reconstructed; the first is the one to sort by.
    probes : int
        Samples that are reconstructed, as many seen as held-out.
    generated : int
        Images drawn from each model.
    """

    dataset: str = "mnist"
    seeds: tuple[int, ...] = (0, 1, 2)
    times: tuple[int, ...] = (599,)
    probes: int = 300
    generated: int = 128

    def __post_init__(self) -> None:
        if self.dataset not in SETTINGS:
            raise ValueError(
                f"dataset must be one of {', '.join(SETTINGS)}, but is {self.dataset!r}."
            )
        for name, fewest in (("seeds", 2), ("times", 1)):
            values = getattr(self, name)
            if not isinstance(values, tuple) or len(set(values)) != len(values):
                raise ValueError(f"{name} must be a tuple of different values, but is {values!r}.")
            if len(values) < fewest:
                raise ValueError(f"{name} must hold at least {fewest}, but holds {len(values)}.")
            for value in values:
                _checks.integer_from(value, name, 0)
        _checks.integer_from(self.probes, "probes", 10)
        _checks.integer_from(self.generated, "generated", 10)

    @property
    def setting(self) -> Setting:
        """Which images, which network, how long."""
        return SETTINGS[self.dataset]


@dataclass(frozen=True)
class Judged:
    """How good the images of a model are, by a classifier's features.

    Attributes
    ----------
    shares : Tensor, shape (C,)
        Share of each class among them, as the classifier sees it.
    precision, recall, distance : Tensor, shape ()
        Of those taken for old classes, against held-out images of these: the share that looks real,
        the share of real images that is covered, and the kernel distance (KID). NaN if fewer than
        ten are taken for old ones.
    """

    shares: Float[Tensor, " C"]
    precision: Float[Tensor, ""]
    recall: Float[Tensor, ""]
    distance: Float[Tensor, ""]


class Laboratory:
    """One seed of a run, with all that its arms share.

    Parameters
    ----------
    config : RunConfig
        The run.
    seed : int
        The seed.
    workspace : Workspace
        Where finished parts are kept.
    device : torch.device
        Where to compute.

    Attributes
    ----------
    tasks : list of Task
        The images of each task, on the device.
    sigma : float
        Noise level of the data set's energies: the likeliest for the seen images of task 1.
    """

    def __init__(
        self, config: RunConfig, seed: int, workspace: Workspace, device: torch.device
    ) -> None:
        self.config, self.seed, self.workspace, self.device = config, seed, workspace, device
        self.setting = config.setting
        self.tasks: list[Task] = load_tasks(self.setting, seed=seed)
        self.sigma, _ = likeliest_sigma(self.tasks[0].seen.images)
        self._energies: dict[tuple[float, str, int], Tensor] = {}

    def part(self, name: str, compute: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        """A finished part of this seed; see :meth:`Workspace.part`."""
        return self.workspace.part(f"seed{self.seed}/{name}", compute)

    def generator(self, purpose: str) -> torch.Generator:
        """Randomness of this seed for one purpose."""
        return torch.Generator().manual_seed(1000 * (self.seed + 1) + _STREAMS[purpose])

    def images(self, task: int) -> Float[Tensor, "N C H W"]:
        """Seen images of a task, on the device."""
        return self.tasks[task].seen.images.to(self.device)

    @cached_property
    def first(self) -> DiffusionModel:
        """The network after task 1."""
        checkpoint: Path = self.workspace.path(f"seed{self.seed}/first_training")
        return self.model(
            "first",
            lambda: learn_first(
                self.setting, self.images(0), seed=self.seed, checkpoint=checkpoint
            ),
        )

    def model(self, name: str, train: Callable[[], DiffusionModel]) -> DiffusionModel:
        """A network that is trained once and then read."""
        weights = self.part(name, lambda: train().state_dict())
        model = DiffusionModel(self.setting.model)
        model.load_state_dict(weights)
        return model.to(self.device).eval()

    @cached_property
    def chosen(self) -> dict[str, Tensor]:
        """Which samples of task 1 are reconstructed: ``seen`` and ``held out``, by index."""
        generator = self.generator("probe")
        half = self.config.probes // 2
        sets = {"seen": self.tasks[0].seen, "held out": self.tasks[0].held_out}
        return {
            name: torch.randperm(len(images), generator=generator)[:half]
            for name, images in sets.items()
        }

    @cached_property
    def every_seen(self) -> Probe:
        """All seen samples of task 1, each with its noise."""
        return Probe.of(self.images(0), self.config.times, seed=self._noise_seed)

    @cached_property
    def probes(self) -> dict[str, Probe]:
        """The samples of task 1 that are reconstructed."""
        held_out = self.tasks[0].held_out.images.to(self.device)
        held = Probe.of(held_out, self.config.times, seed=self._noise_seed + 1)
        every = {"seen": self.every_seen, "held out": held}
        return {name: every[name][index] for name, index in self.chosen.items()}

    @cached_property
    def later_probe(self) -> Probe:
        """Held-out samples of task 2."""
        held_out = self.tasks[1].held_out.images[: self.config.probes // 5].to(self.device)
        return Probe.of(held_out, self.config.times[:1], seed=self._noise_seed + 2)

    @property
    def _noise_seed(self) -> int:
        return 1000 * (self.seed + 1) + 100 * _STREAMS["noise"]

    def energies(self, sigma: float, name: str, *, of_task: int = 0) -> Float[Tensor, " N"]:
        """Energy −log p_σ of the probe ``name`` under the seen images of a task, in nats.

        Under task 1 a seen sample is left out of its own density.
        """
        asked = (sigma, name, of_task)
        if asked not in self._energies:  # every arm and every row of a table asks again
            stored = self.images(of_task).flatten(1)
            points = self.probes[name].images.flatten(1)
            own = None
            if name == "seen" and of_task == 0:
                own = self.chosen["seen"].to(self.device)
            self._energies[asked] = dataset_energy(points, stored, sigma, own=own)
        return self._energies[asked]

    @cached_property
    def judge(self) -> quality.Classifier:
        """A classifier of all classes, trained on what is seen of all tasks."""
        seen = [task.seen for task in self.tasks]
        images = torch.cat([part.images for part in seen]).to(self.device)
        labels = torch.cat([part.labels for part in seen]).to(self.device)
        return quality.train_classifier(
            ImageSet(images, labels, self.setting.dataset), seed=self.seed
        )

    def judged(self, model: DiffusionModel, classes: Sequence[int]) -> Judged:
        """Draw images from a model and judge them; every model starts from the same noise."""
        images = generate(model, self.config.generated, generator=self.generator("generate"))
        return self.judged_images(images, classes)

    def judged_images(self, images: Tensor, classes: Sequence[int]) -> Judged:
        """Judge images against the held-out ones of some classes."""
        judge = self.judge
        old = torch.tensor(list(classes), device=self.device)
        everyone = range(sum(len(task.seen.labels.unique()) for task in self.tasks))
        shares = quality.class_shares(judge, images, list(everyone))
        taken = images[torch.isin(quality.predict(judge, images), old)]
        if len(taken) < 10:
            nothing = torch.tensor(float("nan"))
            return Judged(shares, nothing, nothing, nothing)
        held_out = [task.held_out for task in self.tasks]
        real = torch.cat([part.images[torch.isin(part.labels, old.cpu())] for part in held_out])
        real_features = quality.features(judge, real.to(self.device))
        features = quality.features(judge, taken)
        precision, recall = quality.precision_recall(real_features, features)
        distance = quality.kernel_distance(real_features, features).value
        return Judged(shares, *(torch.as_tensor(x).cpu() for x in (precision, recall, distance)))
