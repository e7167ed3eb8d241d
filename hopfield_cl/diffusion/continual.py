"""Task after task: what a diffusion model is shown, what it is shown again, what it then forgets.

A setting says which images, which network, how long. Everything random follows from its seed: the
split, the first weights, the order of the images, the noise in which a sample is reconstructed. Two
ways to train under one seed differ in nothing else and can be compared sample by sample.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor

from hopfield_cl import _checks, data
from hopfield_cl.data import ImageSet
from hopfield_cl.diffusion.energies import dataset_energy
from hopfield_cl.diffusion.models import DiffusionModel, ModelConfig, new_model
from hopfield_cl.diffusion.sampling import reconstruction_error
from hopfield_cl.diffusion.steps import TrainingConfig
from hopfield_cl.diffusion.training import train
from hopfield_cl.replay import greedy_order, replay_log_odds, select_replay

STRATEGIES = ("greedy", "highest", "stratified", "random", "lowest")
# Noise levels among which the likeliest is chosen: a fifth of an octave apart.
SIGMAS = tuple(2 ** (step / 5 - 4) for step in range(31))

# Rows of a block of the matrix of distances.
_ROWS_AT_ONCE = 1024


@dataclass(frozen=True)
class Setting:
    """Which images, which network, how long.

    Attributes
    ----------
    dataset : str
        Image set, as for :func:`hopfield_cl.data.load`.
    root : str, optional
        Folder to read it from.
    model : ModelConfig
        The network and its noise schedule.
    first : TrainingConfig
        How task 1 is learned; its seed is replaced.
    later : TrainingConfig
        How each further task is learned; its seed is replaced.
    classes_per_task : int
        Classes in each task.
    held_out : float
        Share of each task's images that no network sees.
    """

    dataset: str = "mnist"
    root: str | None = None
    model: ModelConfig = field(default_factory=ModelConfig)
    first: TrainingConfig = field(default_factory=lambda: TrainingConfig(steps=2000, decay=0.5))
    later: TrainingConfig = field(
        default_factory=lambda: TrainingConfig(steps=160, batch_size=32, learning_rate=1e-3)
    )
    classes_per_task: int = 5
    held_out: float = 0.2

    def __post_init__(self) -> None:
        _checks.integer_from(self.classes_per_task, "classes_per_task", 1)
        _checks.number_between(self.held_out, "held_out", 0.0, 0.9)


SETTINGS = {
    "digits": Setting(
        dataset="digits",
        model=ModelConfig(image_size=8, patch=2, widths=(16, 32)),
        first=TrainingConfig(steps=400, decay=0.5),
        later=TrainingConfig(steps=120, batch_size=32, learning_rate=1e-3),
    ),
    "mnist": Setting(),
    "cifar10": Setting(
        dataset="cifar10",
        model=ModelConfig(
            channels=3,
            patch=1,
            widths=(128, 256, 256, 256),
            layers=2,
            attention=(1,),
            groups=32,
            prediction="epsilon",
        ),
        first=TrainingConfig(
            steps=200_000, batch_size=128, learning_rate=2e-4, warmup=5000, precision="bf16"
        ),
        later=TrainingConfig(
            steps=20_000, batch_size=128, learning_rate=1e-4, warmup=500, precision="bf16"
        ),
    ),
}


@dataclass(frozen=True)
class Task:
    """The images of one task.

    Attributes
    ----------
    seen : ImageSet
        What the network learns from.
    held_out : ImageSet
        What it never sees.
    """

    seen: ImageSet
    held_out: ImageSet


def load_tasks(setting: Setting, *, seed: int) -> list[Task]:
    """Load the images of a setting and split them into tasks, seen and held-out.

    Parameters
    ----------
    setting : Setting
        Which images.
    seed : int
        Seed of the split into seen and held-out images.

    Returns
    -------
    list of Task
        In the order of the class numbers.

    Raises
    ------
    TypeError, ValueError
        As for :func:`hopfield_cl.data.load` and :func:`hopfield_cl.data.split_tasks`.
    """
    images = data.load(setting.dataset, root=setting.root)
    images = data.padded(images, setting.model.image_size)
    generator = torch.Generator().manual_seed(seed)
    return [
        Task(*data.hold_out(task, setting.held_out, generator=generator))
        for task in data.split_tasks(images, setting.classes_per_task)
    ]


def likeliest_sigma(
    images: Float[Tensor, "N C H W"], sigmas: Sequence[float] = SIGMAS
) -> tuple[float, Float[Tensor, " S"]]:
    """Noise level under which each image is likeliest given the others.

    Of the smoothed densities p_σ of the data, the one that foretells an image it has not seen best:
    Σ_i log p_σ(x_i | all but x_i) is largest. It needs no network and no experiment.

    Parameters
    ----------
    images : Tensor, shape (N, C, H, W)
        The data, at least 2.
    sigmas : sequence of float
        Noise levels to choose from, in the unit of a pixel.

    Returns
    -------
    sigma : float
        The best of them.
    log_likelihood : Tensor, shape (S,)
        Mean of log p_σ(x_i | all but x_i) at each level, in nats.

    Raises
    ------
    TypeError, ValueError
        If the images are fewer than 2 or not finite, or there are no noise levels.

    References
    ----------
    Habbema, Hermans & van den Broek (1974); Duin (1976), *On the choice of smoothing parameters for
    Parzen estimators of probability density functions*.
    """
    _checks.float_tensor(images, "images")
    if len(images) < 2:
        raise ValueError(f"images must be at least 2, but are {len(images)}.")
    _checks.finite(images, "images")
    if not sigmas:
        raise ValueError("sigmas must hold at least one noise level, but is empty.")
    for sigma in sigmas:
        _checks.positive_number(sigma, "sigmas")
    flat = images.flatten(1).double()
    total = torch.zeros(len(sigmas), dtype=torch.float64, device=flat.device)
    for rows in torch.arange(len(flat), device=flat.device).split(_ROWS_AT_ONCE):
        squares = torch.cdist(flat[rows], flat).square()
        squares[torch.arange(len(rows), device=flat.device), rows] = torch.inf
        exponents = (-0.5 * squares / sigma**2 for sigma in sigmas)
        total += torch.stack([exponent.logsumexp(1).sum() for exponent in exponents])
    levels = torch.tensor(sigmas, dtype=torch.float64, device=flat.device)
    constant = math.log(len(flat) - 1) + flat.shape[1] / 2 * (2 * math.pi * levels**2).log()
    means = total / len(flat) - constant
    return sigmas[int(means.argmax())], means


@dataclass(frozen=True)
class Pool:
    """Old images that may be replayed, and what a strategy knows of them.

    Attributes
    ----------
    images : Tensor, shape (N, C, H, W)
        The images.
    energies : Tensor, shape (N,)
        Energy of each among the others, −log p_σ, in nats.
    log_odds : Tensor, shape (N, N)
        Logarithm of the odds of each image (a row) against all of the new task at each (a column).
    """

    images: Float[Tensor, "N C H W"]
    energies: Float[Tensor, " N"]
    log_odds: Float[Tensor, "N N"]


def replay_pool(old: Float[Tensor, "N C H W"], new: Float[Tensor, "M C H W"], sigma: float) -> Pool:
    """Find what the strategies need to know of the old images.

    Parameters
    ----------
    old, new : Tensor, shapes (N, C, H, W) and (M, C, H, W)
        Images of the old task, and of the new one.
    sigma : float
        Noise level of the energies, in the unit of a pixel.

    Returns
    -------
    Pool

    Raises
    ------
    TypeError, ValueError
        As for :func:`hopfield_cl.diffusion.energies.dataset_energy`.
    """
    flat, later = old.flatten(1), new.flatten(1)
    center = flat.mean(0)
    own = torch.arange(len(flat), device=flat.device)
    # With −½‖x‖² as one more coordinate of each memory, and 1 of each point, the odds are those of
    # Gaussians, whatever the lengths of the images.
    points, memories, others = flat - center, flat - center, later - center
    points = torch.cat([points, torch.ones_like(points[:, :1])], dim=1)
    memories = torch.cat([memories, -0.5 * memories.square().sum(1, keepdim=True)], dim=1)
    others = torch.cat([others, -0.5 * others.square().sum(1, keepdim=True)], dim=1)
    return Pool(
        images=old,
        energies=dataset_energy(flat, flat, sigma, own=own),
        log_odds=replay_log_odds(points, others, memories, 1 / sigma**2),
    )


def choose(
    pool: Pool, budget: int, strategy: str, *, generator: torch.Generator
) -> Int[Tensor, " budget"]:
    """Choose which old images to replay.

    Parameters
    ----------
    pool : Pool
        The old images.
    budget : int
        How many, from 0 to N.
    strategy : {"greedy", "highest", "stratified", "random", "lowest"}
        As for :func:`hopfield_cl.replay.select_replay`.
    generator : torch.Generator
        Source of randomness, on the CPU.

    Returns
    -------
    Tensor of int64, shape (budget,)
        Their indices, in order of choice.

    Raises
    ------
    TypeError, ValueError
        As for :func:`hopfield_cl.replay.select_replay`.
    """
    if strategy == "greedy":
        return greedy_order(pool.log_odds, budget)
    return select_replay(pool.energies, budget, strategy, generator=generator)


def learn_first(
    setting: Setting,
    images: Float[Tensor, "N C H W"],
    *,
    seed: int,
    checkpoint: str | Path | None = None,
) -> DiffusionModel:
    """Train a fresh network on the first task.

    Parameters
    ----------
    setting : Setting
        The network, and how it is trained.
    images : Tensor, shape (N, C, H, W)
        Images of the task, on the device to train on.
    seed : int
        Seed of the weights, the order of the images, noise and times.
    checkpoint : path, optional
        File to resume from and to write to.

    Returns
    -------
    DiffusionModel
        With the averaged weights, in evaluation mode.

    Raises
    ------
    TypeError, ValueError
        As for :func:`hopfield_cl.diffusion.training.train`.
    """
    model = new_model(setting.model, seed=seed).to(images.device)
    config = replace(setting.first, seed=seed)
    return train(model, images, config, checkpoint=checkpoint).averaged


def learn_next(
    model: DiffusionModel,
    images: Float[Tensor, "N C H W"],
    setting: Setting,
    *,
    seed: int,
    replay: Float[Tensor, "K C H W"] | None = None,
    penalty: Callable[[DiffusionModel], Tensor] | None = None,
    observe: Mapping[int, Callable[[DiffusionModel], None]] | None = None,
) -> DiffusionModel:
    """Train a copy of a network on the next task.

    Parameters
    ----------
    model : DiffusionModel
        The network after the tasks before; it is not changed.
    images : Tensor, shape (N, C, H, W)
        Images of the next task.
    setting : Setting
        How it is trained.
    seed : int
        Seed of the order of the images, noise and times.
    replay, penalty
        As for :func:`hopfield_cl.diffusion.training.train`.
    observe : mapping of int to callable, optional
        What to do with the averaged model after a number of gradient steps.

    Returns
    -------
    DiffusionModel
        With the averaged weights, in evaluation mode.

    Raises
    ------
    TypeError, ValueError
        As for :func:`hopfield_cl.diffusion.training.train`.
    """
    config = replace(setting.later, seed=seed)
    options: dict[str, object] = {"replay": replay, "penalty": penalty}
    if observe:
        config = replace(config, observe_at=tuple(observe))
        options["observe"] = lambda step, averaged: observe[step](averaged)
    return train(copy.deepcopy(model), images, config, **options).averaged


@dataclass(frozen=True)
class Probe:
    """Images on which forgetting is measured, each with a noise of its own that never changes.

    Attributes
    ----------
    images, noise : Tensor, shape (N, C, H, W)
        The images, and the noise in which they are reconstructed.
    times : tuple of int
        Noise times from which they are reconstructed.
    """

    images: Float[Tensor, "N C H W"]
    noise: Float[Tensor, "N C H W"]
    times: tuple[int, ...]

    @classmethod
    def of(cls, images: Tensor, times: Sequence[int], *, seed: int) -> Probe:
        """Draw the noise for some images, the same for the same seed and place in the list."""
        generator = torch.Generator().manual_seed(seed)
        noise = torch.randn(images.shape, generator=generator).to(images)
        return cls(images, noise, tuple(times))

    def __getitem__(self, index: object) -> Probe:
        return Probe(self.images[index], self.noise[index], self.times)

    def __len__(self) -> int:
        return len(self.images)

    def errors(self, model: DiffusionModel) -> Float[Tensor, "T N"]:
        """Mean squared error of each reconstruction, per pixel, from each time."""
        return reconstruction_error(model, self.images, self.times, noise=self.noise)
