"""Forgetting of learned memories: how much of it the data foretell, and what learning adds.

A Boltzmann machine learns task 1, then task 2. At one β its energy rises at a point x by

    ΔE_learned(x) = ΔE_intrinsic(x) + remainder(x),

where ΔE_intrinsic is the rise in the network that stores the data themselves (Part II). With the
machine that training would end at, the remainder splits into what that machine does differently
from the data, and what training has not done yet. All energies are −β⁻¹ log of a normalised
density, up to one and the same constant, so that no number of memories can shift them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from hopfield_cl import _checks
from hopfield_cl.energy import energy
from hopfield_cl.intervals import Estimate, mean
from hopfield_cl.networks.boltzmann import HopfieldBoltzmannMachine


@dataclass(frozen=True)
class LearnedForgetting:
    """A machine's forgetting at some points, and its parts.

    Attributes
    ----------
    learned : Tensor, shape (...)
        Rise in the machine's energy, in the unit of x squared.
    intrinsic : Tensor, shape (...)
        Rise in the energy of the network that stores the data.
    capacity : Tensor, shape (...)
        Rise in the fully trained machine, less the intrinsic one.
    unfinished : Tensor, shape (...)
        Rise that is not in the fully trained machine; negative where training has yet to forget.
    """

    learned: Float[Tensor, "*batch"]
    intrinsic: Float[Tensor, "*batch"]
    capacity: Float[Tensor, "*batch"]
    unfinished: Float[Tensor, "*batch"]

    @property
    def remainder(self) -> Float[Tensor, "*batch"]:
        """What the data do not foretell, ΔE_learned − ΔE_intrinsic = capacity + unfinished."""
        return self.learned - self.intrinsic


def data_energy(
    x: Float[Tensor, "*batch d"], stored: Float[Tensor, "N d"], beta: float | Tensor
) -> Float[Tensor, "*batch"]:
    """Energy of the network that stores the data, in the scale of the Boltzmann machine.

    It is −β⁻¹ log[(1/N) Σ_i exp(−β‖x − x_i‖²/2)]: the machine whose memories are the data, in equal
    proportions. For data of length one it is E(x | X) + ½ + β⁻¹ log N.

    Parameters
    ----------
    x : Tensor, shape (..., d)
        Points at which to evaluate.
    stored : Tensor, shape (N, d)
        The data; one that occurs twice counts twice.
    beta : float or scalar Tensor
        Inverse temperature, above 0.

    Returns
    -------
    Tensor, shape (...)
        Energies, in the unit of x squared.

    Raises
    ------
    TypeError, ValueError
        As for :func:`hopfield_cl.energy.energy`.

    See Also
    --------
    hopfield_cl.networks.boltzmann.HopfieldBoltzmannMachine.energy : the same for learned memories.
    """
    _checks.points_and_memories(x, stored, "stored")
    _checks.beta(beta, x)
    center = stored.mean(0)
    points, memories = x - center, stored - center
    # Each memory carries −½‖x_i‖² as one more coordinate; its mass alone would overflow.
    memories = torch.cat([memories, -0.5 * memories.square().sum(1, keepdim=True)], dim=1)
    points = torch.cat([points, torch.ones_like(points[..., :1])], dim=-1)
    return energy(points, memories, beta) - 0.5 + math.log(len(stored)) / beta


def decompose(
    x: Float[Tensor, "*batch d"],
    old: Float[Tensor, "N d"],
    new: Float[Tensor, "K d"],
    *,
    before: HopfieldBoltzmannMachine,
    after: HopfieldBoltzmannMachine,
    limit: HopfieldBoltzmannMachine,
) -> LearnedForgetting:
    """Split the forgetting of a machine into what the data foretell and what learning adds.

    Parameters
    ----------
    x : Tensor, shape (..., d)
        Points at which to evaluate, as a rule samples of the old task.
    old, new : Tensor, shapes (N, d) and (K, d)
        What the machine was trained on before and after the change; ``new`` with what is replayed.
    before, after : HopfieldBoltzmannMachine
        The machine after training on ``old``, and after some training on ``new``.
    limit : HopfieldBoltzmannMachine
        The machine after ``before`` was trained on ``new`` to the end.

    Returns
    -------
    LearnedForgetting
        With ``learned`` = ``intrinsic`` + ``capacity`` + ``unfinished`` at every point.

    Raises
    ------
    TypeError, ValueError
        If the machines differ in β, or an argument does not fit.
    """
    beta = before.beta.detach()
    for name, machine in (("after", after), ("limit", limit)):
        if not torch.isclose(machine.beta.detach(), beta):
            raise ValueError(
                f"{name} must have the β of before, {float(beta):g}, but has "
                f"{float(machine.beta):g}: energies at two temperatures do not compare."
            )
    with torch.no_grad():
        start, now, end = (machine.energy(x) for machine in (before, after, limit))
        intrinsic = data_energy(x, new, beta) - data_energy(x, old, beta)
    return LearnedForgetting(now - start, intrinsic, end - start - intrinsic, now - end)


def first_step_rise(
    x: Float[Tensor, "*batch d"],
    machine: HopfieldBoltzmannMachine,
    new: Float[Tensor, "K d"],
) -> Float[Tensor, "*batch"]:
    """Rise per unit of learning rate in one small gradient step on the new data.

    A step of rate η along the gradient of the mean log-likelihood of y in ``new``, in memories and
    logits, changes the energy at x by η times

        −β Σ_j p_j(x) (x − ξ_j)·⟨p_j(y) (y − ξ_j)⟩ − β⁻¹ Σ_j (p_j(x) − π_j) (⟨p_j(y)⟩ − π_j),

    with ⟨⟩ the mean over the new data, to first order in η.

    Parameters
    ----------
    x : Tensor, shape (..., d)
        Points at which to evaluate.
    machine : HopfieldBoltzmannMachine
        The machine before the step.
    new : Tensor, shape (K, d)
        Data of the step.

    Returns
    -------
    Tensor, shape (...)
        Rises per unit of η.

    Raises
    ------
    TypeError, ValueError
        As for :meth:`hopfield_cl.networks.boltzmann.HopfieldBoltzmannMachine.posterior`.

    References
    ----------
    Derived in this book, chapter 8.
    """
    _checks.memory_set(new, "new")
    with torch.no_grad():
        memories, share, beta = machine.memories, machine.proportions(), machine.beta
        here, there = machine.posterior(x), machine.posterior(new)
        held = there.mean(0)
        pull = there.mT @ new / len(new) - held[:, None] * memories
        along = x @ pull.mT - (memories * pull).sum(1)
        moved = -beta * (here * along).sum(-1)
        return moved - ((here - share) * (held - share)).sum(-1) / beta


def slope(
    x: Float[Tensor, " N"],
    y: Float[Tensor, " N"],
    *,
    generator: torch.Generator | None = None,
    resamples: int = 1000,
    level: float = 0.95,
) -> Estimate:
    """Slope of the least-squares line of y on x, with a percentile interval from the bootstrap.

    Parameters
    ----------
    x, y : Tensor, shape (N,)
        Two quantities of the same N samples, at least 3.
    generator : torch.Generator, optional
        Source of the draws. PyTorch's default generator if not given.
    resamples : int
        Number of draws, at least 100.
    level : float
        Share of the resampled slopes inside the interval; between 0 and 1.

    Returns
    -------
    Estimate
        Of shape (), in the unit of y over that of x.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range, or ``x`` is constant.

    References
    ----------
    Efron & Tibshirani (1993), *An Introduction to the Bootstrap*, chapter 9.
    """
    for value, name in ((x, "x"), (y, "y")):
        _checks.float_tensor(value, name)
        if value.ndim != 1 or len(value) < 3:
            raise ValueError(
                f"{name} must have shape (N,) with at least 3 samples, but has shape "
                f"{tuple(value.shape)}."
            )
        _checks.finite(value, name)
    if x.shape != y.shape:
        raise ValueError(f"y must hold as many samples as x, {len(x)}, but holds {len(y)}.")
    if bool(x.min() == x.max()):
        raise ValueError("x must vary, but is constant: no line has a slope.")
    _checks.integer_from(resamples, "resamples", 100)
    _checks.number_between(level, "level", 0.0, 1.0)
    drawn = torch.randint(len(x), (resamples, len(x)), generator=generator)
    everyone = torch.arange(len(x))[None]
    value = _slopes(x, y, everyone)[0]
    again = _slopes(x, y, drawn)
    again = again[~again.isnan()]  # a draw of one and the same sample has no slope
    low, high = again.quantile(again.new_tensor([(1 - level) / 2, (1 + level) / 2]))
    return Estimate(*(part.to(y.dtype) for part in (value, again.std(), low, high)))


def _slopes(x: Tensor, y: Tensor, rows: Tensor) -> Tensor:
    first, second = x.double()[rows], y.double()[rows]
    first = first - first.mean(1, keepdim=True)
    return (first * second).sum(1) / first.square().sum(1)


def across_seeds(
    rows: Sequence[dict[str, float | str | None]], measure: str, **cell: float | str
) -> Estimate:
    """Mean of a measure over the seeds of one cell of the recorded table.

    Parameters
    ----------
    rows : sequence of dict
        Rows as read, one a seed and cell.
    measure : str
        Name of a column.
    **cell : float or str
        Values of other columns that single out the cell.

    Returns
    -------
    Estimate
        Of shape (), with Student's interval over seeds.

    Raises
    ------
    ValueError
        If fewer than 2 rows are left, or more than one a seed, or one has no such measure.
    """
    chosen = [row for row in rows if all(row.get(name) == value for name, value in cell.items())]
    seeds = {row["seed"] for row in chosen}
    if len(seeds) < 2 or len(seeds) != len(chosen):
        raise ValueError(
            f"cell must single out one row a seed for 2 seeds or more, but {cell} leaves "
            f"{len(chosen)} rows of {len(seeds)} seeds."
        )
    values = [row.get(measure) for row in chosen]
    if None in values:
        raise ValueError(f"measure must be filled in these rows, but {measure!r} is not.")
    return mean(torch.tensor(values, dtype=torch.float64))
