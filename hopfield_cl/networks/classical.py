"""The networks before the modern one, on ±1 patterns, and how much a network can store.

With patterns x_1..x_N in {−1, 1}^d and an interaction z^n of degree n, the dense associative memory
of Krotov & Hopfield (2016) has the energy

    E(x) = −(d/n) Σ_i (x_i·x / d)^n,   x in {−1, 1}^d,

and a neuron turns over where that lowers E. At n = 2 it is the network of Hopfield (1982): up to
the constant N/2, E is −½ xᵀWx with the Hebb weights W = (1/d) Σ_i x_i x_iᵀ, diagonal removed.

States ``x`` have shape (..., d), ``patterns`` (N, d), both of −1 and 1 in one floating-point dtype
and on one device. Half precision is accumulated in float32.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from hopfield_cl import _checks

Update = Callable[[Tensor, Tensor], Tensor]

# Entries of the largest temporary: a block of states × patterns.
_BLOCK_ENTRIES = 4_000_000
# `capacity` stops where its two bounds differ by less than this factor, or by one pattern.
_RESOLUTION = 1.03


@dataclass(frozen=True)
class Criterion:
    """What counts as storing: one definition for every network.

    A stored pattern is corrupted by turning over a share of its entries. The network is updated
    until it stands still. The pattern is retrieved if the signs of the final state differ from it
    in at most a given share of entries. A set of patterns is stored if a given share of such trials
    succeeds.

    Attributes
    ----------
    flipped : float
        Share of entries turned over, from 0 to 0.5; rounded to whole entries.
    wrong : float
        Share of entries that may be wrong at the end, from 0 to 0.5.
    success : float
        Share of trials that must succeed, from 0 to 1.
    max_steps : int
        Number of updates after which the state is read even if it still moves; at least 1.
    """

    flipped: float = 0.2
    wrong: float = 0.05
    success: float = 0.5
    max_steps: int = 20

    def __post_init__(self) -> None:
        _checks.number_between(self.flipped, "flipped", 0.0, 0.5)
        _checks.number_between(self.wrong, "wrong", 0.0, 0.5)
        _checks.number_between(self.success, "success", 0.0, 1.0)
        _checks.integer_from(self.max_steps, "max_steps", 1)


def random_patterns(
    count: int,
    dim: int,
    *,
    generator: torch.Generator | None = None,
    dtype: torch.dtype = torch.float64,
) -> Float[Tensor, "N d"]:
    """Independent patterns whose entries are −1 or 1 with equal probability.

    Parameters
    ----------
    count : int
        Number N of patterns, at least 1.
    dim : int
        Dimension d, at least 1.
    generator : torch.Generator, optional
        Source of the entries. PyTorch's default generator if not given.
    dtype : torch.dtype
        Floating-point dtype of the result.

    Returns
    -------
    Tensor, shape (count, dim)
        The patterns, on the device of the generator.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range.
    """
    _checks.integer_from(count, "count", 1)
    _checks.integer_from(dim, "dim", 1)
    _checks.float_dtype(dtype)
    device = None if generator is None else generator.device
    bits = torch.randint(2, (count, dim), generator=generator, device=device, dtype=torch.int8)
    return bits.mul_(2).sub_(1).to(dtype)


def corrupt(
    patterns: Float[Tensor, "*batch d"],
    flipped: float,
    *,
    generator: torch.Generator | None = None,
) -> Float[Tensor, "*batch d"]:
    """Turn over a share of the entries of each pattern, chosen at random.

    Parameters
    ----------
    patterns : Tensor, shape (..., d)
        Patterns of −1 and 1.
    flipped : float
        Share of entries, from 0 to 1. Each pattern loses the same number, round(flipped · d).
    generator : torch.Generator, optional
        Source of the choice, on the device of ``patterns``. PyTorch's default if not given.

    Returns
    -------
    Tensor, shape (..., d)
        The corrupted patterns.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range.
    """
    _checks.signs(patterns, "patterns")
    _checks.number_between(flipped, "flipped", 0.0, 1.0)
    count = round(flipped * patterns.shape[-1])
    keys = torch.rand(patterns.shape, generator=generator, device=patterns.device)
    chosen = torch.zeros_like(patterns, dtype=torch.bool)
    chosen.scatter_(-1, keys.topk(count, dim=-1).indices, True)
    return torch.where(chosen, -patterns, patterns)


def hebb_weights(patterns: Float[Tensor, "N d"]) -> Float[Tensor, "d d"]:
    """Weights of the 1982 network, W = (1/d) Σ_i x_i x_iᵀ with a diagonal of zeros.

    Parameters
    ----------
    patterns : Tensor, shape (N, d)
        Patterns of −1 and 1.

    Returns
    -------
    Tensor, shape (d, d)
        The weights, symmetric and without unit.

    Raises
    ------
    TypeError, ValueError
        If ``patterns`` is not a non-empty matrix of −1 and 1.

    References
    ----------
    Hopfield (1982).
    """
    _check_patterns(patterns)
    wide = patterns.to(_accumulator(patterns.dtype))
    weights = (wide.mT @ wide / wide.shape[1]).fill_diagonal_(0)
    return weights.to(patterns.dtype)


def dense_energy(
    x: Float[Tensor, "*batch d"], patterns: Float[Tensor, "N d"], degree: int
) -> Float[Tensor, "*batch"]:
    """Energy of each state, E(x) = −(d/n) Σ_i (x_i·x / d)^n.

    Parameters
    ----------
    x : Tensor, shape (..., d)
        States of −1 and 1.
    patterns : Tensor, shape (N, d)
        Stored patterns of −1 and 1, one a row.
    degree : int
        Degree n of the interaction, at least 2; 2 is the network of 1982.

    Returns
    -------
    Tensor, shape (...)
        Energies, in the unit of x squared.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind, shape or range, or the result overflows its dtype.

    References
    ----------
    Krotov & Hopfield (2016), eq. (1), here with the factor d^(1−n)/n.
    """
    _check(x, patterns, degree)
    states = _flat(x)
    dim = states.shape[1]
    total = states.new_zeros(states.shape[0])
    for part in _blocks(patterns, states):
        total += (states @ part.mT / _unit(dim)).pow(degree).sum(1)
    value = (-_scale(dim, degree) * total).to(x.dtype).reshape(x.shape[:-1])
    _checks.no_overflow(value, "the energy")
    return value


def flip_cost(
    x: Float[Tensor, "*batch d"], patterns: Float[Tensor, "N d"], degree: int
) -> Float[Tensor, "*batch d"]:
    """By how much the energy rises when one neuron alone turns over, for each neuron.

    A state is a minimum where no cost is negative.

    Parameters
    ----------
    x, patterns, degree
        As for :func:`dense_energy`.

    Returns
    -------
    Tensor, shape (..., d)
        E(x with neuron j turned over) − E(x), in the unit of x squared.

    Raises
    ------
    TypeError, ValueError
        As for :func:`dense_energy`.

    References
    ----------
    Krotov & Hopfield (2016), eq. (3), as a difference of energies.
    """
    _check(x, patterns, degree)
    cost = _flip_cost(_flat(x), patterns, degree).to(x.dtype).reshape(x.shape)
    _checks.no_overflow(cost, "the cost of a flip")
    return cost


def update(
    x: Float[Tensor, "*batch d"], patterns: Float[Tensor, "N d"], degree: int
) -> Float[Tensor, "*batch d"]:
    """Turn over, all at once, each neuron that would lower the energy by turning over alone.

    Together they may raise it: a synchronous update can run in a circle.

    Parameters
    ----------
    x, patterns, degree
        As for :func:`dense_energy`.

    Returns
    -------
    Tensor, shape (..., d)
        The states after one update.

    Raises
    ------
    TypeError, ValueError
        As for :func:`dense_energy`.

    References
    ----------
    Hopfield (1982) for degree 2; Krotov & Hopfield (2016).
    """
    return torch.where(flip_cost(x, patterns, degree) < 0, -x, x)


def sweep(
    x: Float[Tensor, "*batch d"],
    patterns: Float[Tensor, "N d"],
    degree: int,
    *,
    generator: torch.Generator | None = None,
) -> Float[Tensor, "*batch d"]:
    """Visit each neuron once, in random order, and turn it over if that lowers the energy.

    The energy never rises, so repeated sweeps end in a minimum.

    Parameters
    ----------
    x, patterns, degree
        As for :func:`dense_energy`.
    generator : torch.Generator, optional
        Source of the order, which all states share; a CPU generator. PyTorch's default if not
        given.

    Returns
    -------
    Tensor, shape (..., d)
        The states after one sweep.

    Raises
    ------
    TypeError, ValueError
        As for :func:`dense_energy`.

    References
    ----------
    Hopfield (1982) for degree 2; Krotov & Hopfield (2016).
    """
    _check(x, patterns, degree)
    order = torch.randperm(x.shape[-1], generator=generator)
    stored = patterns.to(_accumulator(x.dtype))
    rows = max(1, _BLOCK_ENTRIES // stored.shape[0])
    swept = [_sweep(part.clone(), stored, degree, order) for part in _flat(x).split(rows)]
    return torch.cat(swept).to(x.dtype).reshape(x.shape)


def settle(
    update: Update, x: Float[Tensor, "Q d"], patterns: Float[Tensor, "N d"], *, max_steps: int = 20
) -> Float[Tensor, "Q d"]:
    """Repeat an update until no state moves.

    Parameters
    ----------
    update : callable
        One update of the network under test: takes states (Q, d) and patterns (N, d), returns the
        next states. For instance ``partial(update, degree=3)``, or retrieval at some β.
    x : Tensor, shape (Q, d)
        Where to start.
    patterns : Tensor, shape (N, d)
        Stored patterns.
    max_steps : int
        Number of updates after which a state is returned even if it still moves; at least 1.

    Returns
    -------
    Tensor, shape (Q, d)
        The last states.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind, shape or range.
    """
    _check_update(update)
    _checks.points_and_memories(x, patterns, "patterns")
    if x.ndim != 2:
        raise ValueError(f"x must have shape (Q, d), one state a row, but has {tuple(x.shape)}.")
    _checks.integer_from(max_steps, "max_steps", 1)
    states = x.clone()
    active = torch.arange(states.shape[0], device=x.device)
    for _ in range(max_steps):
        if active.numel() == 0:
            break
        here = states[active]
        moved = update(here, patterns)
        states[active] = moved
        # A neuron of ±1 moves by 2; a continuous state has arrived when it moves by far less.
        active = active[(moved - here).abs().amax(1) > 1e-3]
    return states


def is_retrieved(
    x: Float[Tensor, "*batch d"], targets: Float[Tensor, "*batch d"], wrong: float
) -> Bool[Tensor, "*batch"]:
    """Whether the signs of each state agree with its target but for a share of entries.

    Parameters
    ----------
    x : Tensor, shape (..., d)
        Final states, of ±1 or continuous; an entry of 0 counts as wrong.
    targets : Tensor, shape (..., d)
        Patterns of −1 and 1.
    wrong : float
        Share of entries that may differ, from 0 to 1.

    Returns
    -------
    Tensor of bool, shape (...)

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind, shape or range.
    """
    _checks.float_tensor(x, "x")
    _checks.signs(targets, "targets")
    _checks.number_between(wrong, "wrong", 0.0, 1.0)
    if x.shape != targets.shape:
        raise ValueError(
            f"x must have the shape of targets, {tuple(targets.shape)}, but has {tuple(x.shape)}."
        )
    differ = (x * targets <= 0).sum(-1)
    return differ <= math.floor(wrong * x.shape[-1] + 1e-9)


def retrieval_rate(
    update: Update,
    patterns: Float[Tensor, "N d"],
    criterion: Criterion,
    *,
    trials: int,
    generator: torch.Generator | None = None,
) -> float:
    """Share of trials in which a corrupted pattern is retrieved from among the stored ones.

    Parameters
    ----------
    update : callable
        As for :func:`settle`.
    patterns : Tensor, shape (N, d)
        Stored patterns of −1 and 1.
    criterion : Criterion
        How a pattern is corrupted, and what counts as retrieved.
    trials : int
        Number of corrupted patterns, at least 1, drawn in turn from a random order of the stored.
    generator : torch.Generator, optional
        Source of the choice and of the corruption. PyTorch's default if not given.

    Returns
    -------
    float
        The share, from 0 to 1.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind, shape or range.
    """
    _check_update(update)
    _check_patterns(patterns)
    _check_criterion(criterion)
    _checks.integer_from(trials, "trials", 1)
    order = torch.randperm(patterns.shape[0], generator=generator, device=patterns.device)
    turn = torch.arange(trials, device=patterns.device) % patterns.shape[0]
    targets = patterns[order[turn]]
    states = corrupt(targets, criterion.flipped, generator=generator)
    states = settle(update, states, patterns, max_steps=criterion.max_steps)
    return is_retrieved(states, targets, criterion.wrong).double().mean().item()


def capacity(
    update: Update,
    dim: int,
    criterion: Criterion,
    *,
    trials: int = 100,
    most: int = 1_000_000,
    generator: torch.Generator | None = None,
    dtype: torch.dtype = torch.float32,
) -> float:
    """Measure how many random patterns a network stores.

    The number is doubled until storing fails, then the last interval is halved on a logarithmic
    scale. Each number is tried on a fresh set of patterns, so the result is random: measure it with
    several generators.

    Parameters
    ----------
    update : callable
        As for :func:`settle`.
    dim : int
        Dimension d of the patterns, at least 1.
    criterion : Criterion
        What counts as storing.
    trials : int
        Corrupted patterns for each number tried, at least 1.
    most : int
        Number of patterns beyond which the search gives up, at least 1.
    generator : torch.Generator, optional
        Source of all random numbers. PyTorch's default if not given.
    dtype : torch.dtype
        Floating-point dtype of the patterns.

    Returns
    -------
    float
        Geometric mean of the largest number found to be stored and the smallest found not to be;
        they differ by one, or by less than 3 %.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range.
    RuntimeError
        If one pattern is not stored, or ``most`` still are.

    References
    ----------
    The definition follows McEliece et al. (1987), with a share of errors allowed as in Amit,
    Gutfreund & Sompolinsky (1985).
    """
    _check_update(update)
    _checks.integer_from(dim, "dim", 1)
    _check_criterion(criterion)
    _checks.integer_from(most, "most", 1)

    def stores(count: int) -> bool:
        patterns = random_patterns(count, dim, generator=generator, dtype=dtype)
        rate = retrieval_rate(update, patterns, criterion, trials=trials, generator=generator)
        return rate >= criterion.success

    low = 1
    if not stores(low):
        raise RuntimeError(f"the network does not even store one pattern of dimension {dim}.")
    high = 2
    while stores(high):
        low, high = high, 2 * high
        if high > most:
            raise RuntimeError(f"the network still stores {low} patterns; most is {most}.")
    while high > low + 1 and high > _RESOLUTION * low:
        middle = min(max(round(math.sqrt(low * high)), low + 1), high - 1)
        low, high = (middle, high) if stores(middle) else (low, middle)
    return math.sqrt(low * high)


def _flip_cost(states: Tensor, patterns: Tensor, degree: int) -> Tensor:
    """Costs (Q, d) of single flips, from the overlaps alone.

    With F(z) = z^n, a flip of neuron j takes the overlap z = x_i·x to z − 2 x_ij x_j. Since
    x_ij x_j is ±1, F there is ½(F₊ + F₋) − ½ x_ij x_j (F₊ − F₋), where F± = F(z ± 2): two matrix
    products give what would be a sum over patterns for every neuron.
    """
    unit = _unit(states.shape[1])
    even = states.new_zeros(states.shape[0], 1)
    odd = torch.zeros_like(states)
    for part in _blocks(patterns, states):
        overlap = states @ part.mT / unit
        above, below = (overlap + 2 / unit).pow(degree), (overlap - 2 / unit).pow(degree)
        even += (overlap.pow(degree) - (above + below) / 2).sum(1, keepdim=True)
        odd += ((above - below) / 2) @ part
    return _scale(states.shape[1], degree) * (even + states * odd)


def _sweep(states: Tensor, patterns: Tensor, degree: int, order: Tensor) -> Tensor:
    """Sweep over the states (Q, d) in place, keeping their overlaps (Q, N) up to date."""
    unit = _unit(states.shape[1])
    overlap = states @ patterns.mT / unit
    for neuron in order.tolist():
        change = -2 / unit * states[:, neuron, None] * patterns[:, neuron]
        cost = (overlap.pow(degree) - (overlap + change).pow(degree)).sum(1)
        turned = (cost < 0).to(states.dtype)
        overlap += turned[:, None] * change
        states[:, neuron] *= 1 - 2 * turned
    return states


def _unit(dim: int) -> int:
    """Power of two near d, by which overlaps are divided.

    That keeps high powers in range and rounds nothing: at small degrees costs are exact even in
    float32, so that ties stay ties and no result depends on the order of a sum.
    """
    return 2 ** round(math.log2(dim))


def _scale(dim: int, degree: int) -> float:
    """Factor from Σ (z/unit)^n to (d/n) Σ (z/d)^n."""
    return dim / degree * (_unit(dim) / dim) ** degree


def _blocks(patterns: Tensor, states: Tensor) -> list[Tensor]:
    rows = max(1, _BLOCK_ENTRIES // max(1, states.shape[0]))
    return [part.to(states.dtype) for part in patterns.split(rows)]


def _flat(x: Tensor) -> Tensor:
    return x.reshape(-1, x.shape[-1]).to(_accumulator(x.dtype))


def _accumulator(dtype: torch.dtype) -> torch.dtype:
    """At least float32: half precision keeps too few digits to add up N terms."""
    return torch.promote_types(dtype, torch.float32)


def _check(x: Tensor, patterns: Tensor, degree: int) -> None:
    _checks.points_and_memories(x, patterns, "patterns")
    _checks.signs(x, "x")
    _checks.signs(patterns, "patterns")
    _checks.integer_from(degree, "degree", 2)


def _check_patterns(patterns: Tensor) -> None:
    _checks.memory_set(patterns, "patterns")
    _checks.signs(patterns, "patterns")


def _check_update(update: Update) -> None:
    if not callable(update):
        raise TypeError(
            f"update must be a function of states and patterns, but is a {type(update).__name__}."
        )


def _check_criterion(criterion: Criterion) -> None:
    if not isinstance(criterion, Criterion):
        raise TypeError(f"criterion must be a Criterion, but is a {type(criterion).__name__}.")
