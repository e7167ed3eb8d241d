"""What a machine that learns its memories forgets, and what replay gives back: the recorded run.

The quantities that it measures are those of :mod:`hopfield_cl.networks.learned_forgetting`.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor
from tqdm.auto import tqdm

from hopfield_cl import _checks, data
from hopfield_cl.intervals import rank_correlation
from hopfield_cl.memories import on_sphere
from hopfield_cl.networks.boltzmann import (
    HopfieldBoltzmannMachine,
    fit_em,
    fit_gradient,
    initialise,
)
from hopfield_cl.networks.learned_forgetting import (
    data_energy,
    decompose,
    first_step_rise,
    slope,
)
from hopfield_cl.records.recording import Recording
from hopfield_cl.replay import greedy_order, replay_log_odds, select_replay
from hopfield_cl.runs.replay_in_closed_form import STRATEGIES

_DIGITS = 6  # decimals in the table
_WHITE = 255
# Rise of the mean log-likelihood, in nats, at which EM has come to its end.
_TOL = 1e-4
# A memory that holds less than this share of one sample is idle.
_IDLE = 1e-3


@dataclass(frozen=True)
class LearnedForgettingConfig:
    """Settings of :func:`learned_forgetting_run`.

    Attributes
    ----------
    datasets : tuple of str
        Image sets, as for :func:`hopfield_cl.data.load`; the first half of the classes is task 1.
    per_task : int
        Images drawn from each task, a new draw for each seed.
    betas : tuple of float
        Inverse temperatures, in 1/‖x‖². 32 as in chapter 7, then four times as cold.
    memories : tuple of int
        Numbers of learned memories, from fewer than images to more.
    rates : tuple of float
        Learning rates of the gradient (Adam), in the unit of x.
    steps : tuple of int
        Numbers of gradient steps after which to measure, ascending.
    batch_size : int
        Images in a minibatch.
    sweeps : int
        Most EM sweeps: training to the end.
    budgets : tuple of int
        Numbers of task-1 images replayed, at the first of the betas.
    replay_memories : tuple of int
        Numbers of learned memories under replay.
    seeds : tuple of int
        One for each repetition, at least 2: images, initial memories, batches, random replay.
    resamples : int
        Draws of a bootstrap interval over images, at least 100.
    """

    datasets: tuple[str, ...] = ("digits", "mnist")
    per_task: int = 200
    betas: tuple[float, ...] = (32.0, 128.0)
    memories: tuple[int, ...] = (5, 25, 100, 300)
    rates: tuple[float, ...] = (0.001, 0.01, 0.1)
    steps: tuple[int, ...] = (1, 10, 100, 200)
    batch_size: int = 64
    sweeps: int = 300
    budgets: tuple[int, ...] = (10, 40)
    replay_memories: tuple[int, ...] = (25, 200)
    seeds: tuple[int, ...] = (0, 1, 2, 3)
    resamples: int = 400

    def __post_init__(self) -> None:
        for name in ("datasets", "betas", "memories", "rates", "steps"):
            if not getattr(self, name):
                raise ValueError(f"{name} must hold at least one value, but is empty.")
        for name in ("betas", "rates"):
            for value in getattr(self, name):
                _checks.positive_number(value, name)
        for name, low in (("per_task", 3), ("batch_size", 1), ("sweeps", 1), ("resamples", 100)):
            _checks.integer_from(getattr(self, name), name, low)
        for name in ("memories", "steps", "budgets", "replay_memories", "seeds"):
            for value in getattr(self, name):
                _checks.integer_from(value, name, 0 if name == "seeds" else 1)
        if len(self.seeds) < 2 or len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds must be at least 2 different ones, but are {self.seeds}.")
        if list(self.steps) != sorted(set(self.steps)):
            raise ValueError(f"steps must ascend, but are {self.steps}.")
        if self.budgets and max(self.budgets) > self.per_task:
            raise ValueError(
                f"budgets must be at most per_task, {self.per_task}, but one is "
                f"{max(self.budgets)}."
            )


def learned_forgetting_run(
    config: LearnedForgettingConfig = LearnedForgettingConfig(),
    *,
    device: str | torch.device = "cpu",
) -> Recording:
    """Train on task 1, go on with task 2, and compare the rises with those that the data foretell.

    Images are seen from the mean of task 1 and scaled to length one. Task 1 is learned by EM to its
    end. Then come three parts, one row a seed and cell:

    * ``limit``: task 2 by EM to its end;
    * ``steps``: task 2 by minibatch gradient, after so many steps at each rate;
    * ``replay``: task 2 with replayed images by EM to its end, for each strategy and budget. Here
      the quantity is the gain, the rise without replay less the rise with it.

    A row holds the mean over all task-1 images of the learned and the intrinsic quantity, the parts
    of the remainder, Spearman's correlation and the slope of the learned on the intrinsic quantity
    with bootstrap intervals over images, the correlation of the learned rise with the first-step
    law (``first_step``), and the share of memories that hold no image of task 2 when it begins
    (``idle``).

    Parameters
    ----------
    config : LearnedForgettingConfig
        Settings.
    device : str or torch.device
        Where to compute; training in float32, energies in float64.

    Returns
    -------
    Recording
        Its images are the memories of a small machine of the last image set over training.

    Raises
    ------
    ValueError
        If a task has fewer images than ``per_task``.
    """
    trained = len(config.betas) * len(config.memories) * (1 + len(config.rates))
    replayed = len(STRATEGIES) * len(config.budgets) * len(config.replay_memories)
    total = len(config.datasets) * len(config.seeds) * (trained + replayed)
    rows = []
    with tqdm(total=total, desc="learned forgetting", unit="cell") as bar:
        for name in config.datasets:
            tasks = _Tasks.load(name, torch.device(device))
            for seed in config.seeds:
                run = _Run.start(config, tasks, seed)
                for cell in run.cells():
                    rows.extend(_rounded({"dataset": name, "seed": seed, **row}) for row in cell)
                    bar.update()
    images, details = _film(config, tasks)
    return Recording(
        rows=rows,
        images=images,
        details=details,
        seeds=config.seeds,
        notes="One row a seed. Low and high are 95 % bootstrap intervals over the images of a "
        "seed; energies are in the unit of x squared, per sample, of normalised densities.",
    )


@dataclass(frozen=True)
class _Tasks:
    """Images of both tasks as unit vectors from the mean of task 1, and the way back to pixels."""

    first: Tensor
    second: Tensor
    center: Tensor
    length: float
    shape: tuple[int, int]

    @classmethod
    def load(cls, name: str, device: torch.device) -> _Tasks:
        whole = data.load(name)
        tasks = data.split_tasks(whole, len(whole.labels.unique()) // 2)
        pixels = [task.images.flatten(1).to(device) for task in tasks]
        center = pixels[0].mean(0)
        length = float((pixels[0] - center).norm(dim=1).mean())
        unit = [on_sphere(part, center=center) for part in pixels]
        return cls(*unit, center, length, tuple(whole.images.shape[-2:]))

    def draw(self, count: int, generator: torch.Generator) -> list[Tensor]:
        """As many images of each task."""
        drawn = []
        for part in (self.first, self.second):
            if count > len(part):
                raise ValueError(
                    f"per_task must be at most the images of a task, {len(part)}, but is {count}."
                )
            rows = torch.randperm(len(part), generator=generator)[:count]
            drawn.append(part[rows.to(part.device)])
        return drawn

    def pixels(self, vectors: Tensor) -> UInt8[np.ndarray, "M h w"]:
        """Memories as images, at the mean length of an image."""
        values = (vectors.detach() * self.length + self.center).clamp(-1, 1)
        grey = ((values + 1) / 2 * _WHITE).round().to("cpu", torch.uint8)
        return grey.reshape(-1, *self.shape).numpy()


@dataclass(frozen=True)
class _Change:
    """A machine before the change of task and at the end of training, and what to compare with."""

    beta: float
    memories: int
    before: HopfieldBoltzmannMachine
    limit: HopfieldBoltzmannMachine
    first_step: Tensor
    idle: float


@dataclass(frozen=True)
class _Run:
    """One seed on one image set."""

    config: LearnedForgettingConfig
    old: Tensor
    new: Tensor
    generator: torch.Generator

    @classmethod
    def start(cls, config: LearnedForgettingConfig, tasks: _Tasks, seed: int) -> _Run:
        generator = torch.Generator().manual_seed(seed)
        return cls(config, *tasks.draw(config.per_task, generator), generator)

    def cells(self) -> Iterator[list[dict[str, object]]]:
        """The rows of each cell, one cell after another."""
        for beta in self.config.betas:
            for memories in self.config.memories:
                change = self.change(memories, beta)
                yield [self.rise(change, change.limit, "limit")]
                for rate in self.config.rates:
                    yield self.steps(change, rate)
        for memories in self.config.replay_memories:
            yield from self.replays(self.change(memories, self.config.betas[0]))

    def change(self, memories: int, beta: float) -> _Change:
        machine = initialise(self.old, memories, beta, generator=self.generator)
        before = self.trained(machine, self.old)
        wide = _double(before)
        near = first_step_rise(self.old.double(), wide, self.new.double())
        with torch.no_grad():
            idle = (wide.posterior(self.new.double()).sum(0) < _IDLE).double().mean().item()
        return _Change(beta, memories, before, self.trained(before, self.new), near, idle)

    def trained(
        self, machine: HopfieldBoltzmannMachine, samples: Tensor
    ) -> HopfieldBoltzmannMachine:
        machine = copy.deepcopy(machine)
        fit_em(machine, samples, steps=self.config.sweeps, tol=_TOL)
        return machine

    def steps(self, change: _Change, rate: float) -> list[dict[str, object]]:
        machine, rows = copy.deepcopy(change.before), []

        def measure(step: int) -> None:
            if step in self.config.steps:
                rows.append(self.rise(change, machine, "steps", rate=rate, step=step))

        fit_gradient(
            machine,
            self.new,
            steps=self.config.steps[-1],
            learning_rate=rate,
            batch_size=self.config.batch_size,
            generator=self.generator,
            after_step=measure,
        )
        return rows

    def rise(
        self, change: _Change, after: HopfieldBoltzmannMachine, part: str, **place: object
    ) -> dict[str, object]:
        found = decompose(
            self.old.double(),
            self.old.double(),
            self.new.double(),
            before=_double(change.before),
            after=_double(after),
            limit=_double(change.limit),
        )
        near = rank_correlation(
            change.first_step, found.learned, generator=self.again(), resamples=100
        )
        more = {
            "capacity": found.capacity.mean().item(),
            "unfinished": found.unfinished.mean().item(),
            "first_step": near.value.item(),
            "idle": change.idle,
        }
        return self.row(part, change, found.learned, found.intrinsic) | place | more

    def replays(self, change: _Change) -> Iterator[list[dict[str, object]]]:
        old, new, beta = self.old.double(), self.new.double(), change.beta
        energies, alone = data_energy(old, old, beta), data_energy(old, new, beta)
        greedy = greedy_order(replay_log_odds(old, new, old, beta), max(self.config.budgets))
        for strategy in STRATEGIES:
            for budget in self.config.budgets:
                chosen = greedy[:budget]
                if strategy != "greedy":
                    chosen = select_replay(energies, budget, strategy, generator=self.generator)
                after = self.trained(change.before, torch.cat([self.new, self.old[chosen]]))
                gain = alone - data_energy(old, torch.cat([new, old[chosen]]), beta)
                with torch.no_grad():
                    learned = _double(change.limit).energy(old) - _double(after).energy(old)
                row = self.row("replay", change, learned, gain)
                yield [row | {"strategy": strategy, "budget": budget, "idle": change.idle}]

    def row(
        self, part: str, change: _Change, learned: Tensor, intrinsic: Tensor
    ) -> dict[str, object]:
        """A row in the order of its columns; what a part has not stays empty."""
        resamples = self.config.resamples
        rank = rank_correlation(intrinsic, learned, generator=self.again(), resamples=resamples)
        line = slope(intrinsic, learned, generator=self.again(), resamples=resamples)
        row = {"part": part, "beta": change.beta, "memories": change.memories}
        row |= dict.fromkeys(("rate", "step", "strategy", "budget"))
        row |= {"learned": learned.mean().item(), "intrinsic": intrinsic.mean().item()}
        for name, estimate in (("spearman", rank), ("slope", line)):
            row |= {name: estimate.value.item()}
            row |= {f"{name}_low": estimate.low.item(), f"{name}_high": estimate.high.item()}
        return row | dict.fromkeys(("capacity", "unfinished", "first_step", "idle"))

    def again(self) -> torch.Generator:
        """The draws of the bootstrap, the same in each cell of a seed."""
        return torch.Generator().manual_seed(self.generator.initial_seed())


def _double(machine: HopfieldBoltzmannMachine) -> HopfieldBoltzmannMachine:
    """A copy in float64: a small rise is a difference that float32 loses."""
    return copy.deepcopy(machine).double()


def _rounded(row: dict[str, object]) -> dict[str, object]:
    return {
        name: round(value, _DIGITS) if isinstance(value, float) else value
        for name, value in row.items()
    }


def _film(
    config: LearnedForgettingConfig, tasks: _Tasks
) -> tuple[UInt8[np.ndarray, "T h w"], dict[str, object]]:
    """Learned memories as images while task 2 is trained, and which of them are where."""
    run = _Run.start(config, tasks, config.seeds[0])
    count, rate = config.memories[len(config.memories) > 1], config.rates[len(config.rates) // 2]
    machine = initialise(run.old, count, config.betas[0], generator=run.generator)
    machine = run.trained(machine, run.old)
    frames = [tasks.pixels(machine.memories)]

    def keep(step: int) -> None:
        if step in config.steps:
            frames.append(tasks.pixels(machine.memories))

    fit_gradient(
        machine,
        run.new,
        steps=config.steps[-1],
        learning_rate=rate,
        batch_size=config.batch_size,
        generator=run.generator,
        after_step=keep,
    )
    film = {"dataset": config.datasets[-1], "memories": count, "rate": rate}
    film |= {"steps": [0, *config.steps], "beta": config.betas[0]}
    return np.concatenate(frames), {"film": film, "per_task": config.per_task}
