"""What a replayed memory gives back, and how to spend a replay budget.

Adding an old memory x_r with mass w to the new memories lowers the energy at a point x by

    G_r(x) = β⁻¹ log(1 + w a_r(x)),   a_r(x) = e^{β x_r·x} / Σ_i w_i e^{β x_i·x},

with the sum over the new memories, and a set S of them lowers it by β⁻¹ log(1 + Σ_{r∈S} w a_r(x)).
Summed over targets this is monotone and submodular in S, so that greedy choice is within 1 − 1/e of
the best set.

The odds w a grow like e^{βΔE} and leave the range of floating-point numbers where forgetting is
strong. Everything here is therefore computed from their logarithms.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import softplus

from hopfield_cl import _checks
from hopfield_cl._streaming import log_partition

# Entries of the largest temporary: candidates × targets.
_BLOCK_ENTRIES = 4_000_000
# Candidates that lazy greedy brings up to date at first; twice as many each further time.
_FIRST_REFRESH = 16
_MOST_SUBSETS = 1_000_000


def replay_gain(
    x: Float[Tensor, "*batch d"],
    new: Float[Tensor, "M d"],
    replayed: Float[Tensor, "R d"],
    beta: float | Tensor,
    *,
    mass: float = 1.0,
    new_weights: Float[Tensor, " M"] | None = None,
) -> Float[Tensor, "*batch R"]:
    """Fall in energy when one memory is added to the new ones, for each replayed memory alone.

    Parameters
    ----------
    x : Tensor, shape (..., d)
        Targets: where the energy is read.
    new : Tensor, shape (M, d)
        Memories of the new task.
    replayed : Tensor, shape (R, d)
        Old memories, each added by itself.
    beta : float or scalar Tensor
        Inverse temperature, above 0.
    mass : float
        Mass w of a replayed memory, above 0.
    new_weights : Tensor, shape (M,), optional
        Masses of the new memories; 1 each if not given.

    Returns
    -------
    Tensor, shape (..., R)
        Gains G_r(x) = β⁻¹ log(1 + w a_r(x)), in the unit of x squared; never negative.

    Raises
    ------
    TypeError, ValueError
        As for :func:`hopfield_cl.energy.energy`, and if ``replayed`` or ``mass`` does not fit.

    References
    ----------
    Takeda, Oizumi & Karakida (2026).
    """
    _check(x, new, "new", replayed, beta, mass, new_weights)
    gain = _log1p_exp(_log_ratio(x, new, replayed, beta, mass, new_weights)) / beta
    return gain.to(x.dtype)


def replay_gain_set(
    x: Float[Tensor, "*batch d"],
    new: Float[Tensor, "M d"],
    replayed: Float[Tensor, "R d"],
    beta: float | Tensor,
    *,
    mass: float = 1.0,
    new_weights: Float[Tensor, " M"] | None = None,
) -> Float[Tensor, "*batch"]:
    """Fall in energy when all replayed memories are added together.

    Parameters
    ----------
    x, new, replayed, beta, mass, new_weights
        As for :func:`replay_gain`.

    Returns
    -------
    Tensor, shape (...)
        Gains β⁻¹ log(1 + Σ_r w a_r(x)), in the unit of x squared.

    Raises
    ------
    TypeError, ValueError
        As for :func:`replay_gain`.

    References
    ----------
    Derived in this book, chapter 7.
    """
    _check(x, new, "new", replayed, beta, mass, new_weights)
    queries = _queries(x, beta)
    log_added = math.log(mass) + log_partition(queries, replayed, None, None)
    gain = _log1p_exp(log_added - log_partition(queries, new, new_weights, None)) / beta
    return gain.to(x.dtype).reshape(x.shape[:-1])


def susceptibility(
    x: Float[Tensor, "*batch d"],
    old: Float[Tensor, "N d"],
    replayed: Float[Tensor, "R d"],
    beta: float | Tensor,
    *,
    mass: float = 1.0,
) -> Float[Tensor, "*batch R"]:
    """Share of a target's rise that one replayed memory takes back, to first order.

    With p = e^{β x_r·x} / Σ_i e^{β x_i·x} over the *old* memories, ρ = w p / (1 + w p), and the
    gain beyond that of mere mass is ρ ΔE + O(ΔE²).

    Parameters
    ----------
    x, replayed, beta, mass
        As for :func:`replay_gain`.
    old : Tensor, shape (N, d)
        Memories before the change of task.

    Returns
    -------
    Tensor, shape (..., R)
        Susceptibilities ρ, between 0 and 1, without unit.

    Raises
    ------
    TypeError, ValueError
        As for :func:`replay_gain`.

    References
    ----------
    Takeda, Oizumi & Karakida (2026).
    """
    _check(x, old, "old", replayed, beta, mass, None)
    return torch.sigmoid(_log_ratio(x, old, replayed, beta, mass, None)).to(x.dtype)


def replay_log_odds(
    x: Float[Tensor, "K d"],
    new: Float[Tensor, "M d"],
    replayed: Float[Tensor, "R d"],
    beta: float | Tensor,
    *,
    mass: float = 1.0,
    new_weights: Float[Tensor, " M"] | None = None,
) -> Float[Tensor, "R K"]:
    """Matrix log(w a_rk) on which choice works: every candidate against every target.

    Parameters
    ----------
    x : Tensor, shape (K, d)
        Targets.
    new, replayed, beta, mass, new_weights
        As for :func:`replay_gain`.

    Returns
    -------
    Tensor, shape (R, K)
        Logarithm of the odds of each replayed memory (a row) against all new memories at each
        target (a column), without unit. It is finite where the odds themselves overflow.

    Raises
    ------
    TypeError, ValueError
        As for :func:`replay_gain`, and if ``x`` is not a matrix.

    References
    ----------
    Derived in this book, chapter 7.
    """
    _check(x, new, "new", replayed, beta, mass, new_weights)
    if x.ndim != 2:
        raise ValueError(f"x must have shape (K, d), but has shape {tuple(x.shape)}.")
    odds = _log_ratio(x, new, replayed, beta, mass, new_weights).to(x.dtype).mT.contiguous()
    _checks.no_overflow(odds, "the logarithm of the odds")
    return odds


def budget_curve(
    order: Int[Tensor, "*draws B"], log_odds: Float[Tensor, "R K"], beta: float | Tensor
) -> Float[Tensor, "*draws B_plus_1"]:
    """Total gain of the first 0, 1, ..., B choices, for many orders in one call.

    Parameters
    ----------
    order : Tensor of int64, shape (..., B)
        Indices of candidates in order of choice, none of them twice.
    log_odds : Tensor, shape (R, K)
        The matrix log(w a_rk) of :func:`replay_log_odds`.
    beta : float or scalar Tensor
        Inverse temperature, above 0.

    Returns
    -------
    Tensor, shape (..., B + 1)
        G(S) = Σ_k β⁻¹ log(1 + Σ_{r∈S} w a_rk), in the unit of x squared.

    Raises
    ------
    TypeError, ValueError
        If ``log_odds`` is not a matrix of numbers below infinity, ``order`` does not fit it, or
        ``beta`` is out of range.

    References
    ----------
    Derived in this book, chapter 7.
    """
    _check_log_odds(log_odds)
    _check_order(order, log_odds.shape[0])
    _checks.beta(beta, log_odds)
    draws = order.reshape(math.prod(order.shape[:-1]), order.shape[-1])
    total = torch.zeros(draws.shape[0], draws.shape[1] + 1, dtype=torch.float64)
    total = total.to(log_odds.device)
    block = max(1, _BLOCK_ENTRIES // max(1, draws.shape[1]))
    for row, choices in zip(total, draws, strict=True):
        for part in log_odds.split(block, dim=1):
            held = part[choices].to(_accumulator(part.dtype)).logcumsumexp(0)
            row[1:] += _log1p_exp(held).sum(1, dtype=torch.float64)
    return (total / beta).to(log_odds.dtype).reshape(*order.shape[:-1], -1)


def greedy_order(log_odds: Float[Tensor, "R K"], budget: int) -> Int[Tensor, " budget"]:
    """Add, one at a time, the candidate that raises the total gain most.

    The choice is lazy: a gain that was too small before cannot have grown since, so only the
    candidates that still may win are computed again. The result is that of plain greedy.

    Parameters
    ----------
    log_odds : Tensor, shape (R, K)
        The matrix log(w a_rk) of :func:`replay_log_odds`; −inf where a candidate adds nothing.
    budget : int
        Number of candidates to choose, from 0 to R.

    Returns
    -------
    Tensor of int64, shape (budget,)
        Indices in order of choice. Gains that are equal but for rounding go to the lower index.

    Raises
    ------
    TypeError, ValueError
        If ``log_odds`` is not a matrix of numbers below infinity, or ``budget`` is out of range.

    References
    ----------
    Nemhauser, Wolsey & Fisher (1978) for the guarantee; Minoux (1978) for laziness.
    """
    _check_log_odds(log_odds)
    _check_budget(budget, log_odds.shape[0])
    log_odds = log_odds.detach().to(_accumulator(log_odds.dtype))
    log_held = log_odds.new_zeros(log_odds.shape[1])  # log(1 + Σ w a) over what is chosen
    bound = _added(log_odds, log_held)
    left = torch.ones_like(bound, dtype=torch.bool)
    stale = torch.zeros_like(left)
    chosen = bound.new_zeros(budget, dtype=torch.int64)
    for step in range(budget):
        refresh = _FIRST_REFRESH
        while True:
            fresh = torch.where(left & ~stale, bound, -math.inf)
            enough = _nearly(fresh.max(), log_odds.dtype)
            rivals = torch.where(stale & (bound >= enough), bound, -math.inf)
            count = min(refresh, int((rivals > -math.inf).sum()))
            if count == 0:
                break
            rows = rivals.topk(count).indices
            bound[rows] = _added(log_odds[rows], log_held)
            stale[rows] = False
            refresh *= 2
        best = (fresh >= enough).nonzero()[0, 0]
        chosen[step] = best
        left[best] = False
        log_held = torch.logaddexp(log_held, log_odds[best])
        stale = left.clone()
    return chosen


def best_subset(log_odds: Float[Tensor, "R K"], budget: int) -> Int[Tensor, " budget"]:
    """Find the best set of a given size by trying all of them.

    Parameters
    ----------
    log_odds : Tensor, shape (R, K)
        The matrix log(w a_rk) of :func:`replay_log_odds`.
    budget : int
        Size of the set, from 0 to R.

    Returns
    -------
    Tensor of int64, shape (budget,)
        Indices in ascending order; among sets that are equal but for rounding, the first in
        lexicographic order.

    Raises
    ------
    TypeError, ValueError
        If an argument is out of range, or there are more than a million sets to try.

    References
    ----------
    Derived in this book, chapter 7.
    """
    _check_log_odds(log_odds)
    pool = log_odds.shape[0]
    _check_budget(budget, pool)
    count = math.comb(pool, budget)
    if count > _MOST_SUBSETS:
        raise ValueError(
            f"budget must leave at most {_MOST_SUBSETS} sets to try, but {budget} of {pool} leaves "
            f"{count}."
        )
    wide = log_odds.detach().to(_accumulator(log_odds.dtype))
    subsets = torch.tensor(list(itertools.combinations(range(pool), budget)), dtype=torch.int64)
    subsets = subsets.reshape(count, budget).to(log_odds.device)
    block = max(1, _BLOCK_ENTRIES // (max(1, budget) * log_odds.shape[1]))
    values = torch.cat(
        [
            _log1p_exp(wide[part].logsumexp(1)).sum(1, dtype=torch.float64)
            for part in subsets.split(block)
        ]
    )
    return subsets[(values >= _nearly(values.max(), wide.dtype)).nonzero()[0, 0]]


def select_replay(
    energies: Float[Tensor, " N"],
    budget: int,
    strategy: str,
    *,
    gains: Float[Tensor, "N K"] | None = None,
    generator: torch.Generator | None = None,
) -> Int[Tensor, " budget"]:
    """Choose which memories to replay.

    Parameters
    ----------
    energies : Tensor, shape (N,)
        Energy of each memory of the pool.
    budget : int
        Number of memories to choose, from 0 to N.
    strategy : {"highest", "lowest", "random", "greedy", "stratified"}
        "highest" and "lowest" go by energy; "random" draws without replacement; "stratified" cuts
        the pool, sorted by energy, into as many equal parts as the budget and draws one from each,
        from the highest part down; "greedy" adds, one at a time, the memory that raises the total
        gain most.
    gains : Tensor, shape (N, K), optional
        Odds w a_rk of each memory at each target: the exponential of :func:`replay_log_odds`.
        Needed by "greedy", not used by the others. Where the odds overflow, call
        :func:`greedy_order`, which chooses the same from their logarithms.
    generator : torch.Generator, optional
        Source of randomness for "random" and "stratified". PyTorch's default one if not given.

    Returns
    -------
    Tensor of int64, shape (budget,)
        Indices in order of choice. Ties go to the lower index.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range, ``strategy`` is unknown, or it is
        "greedy" and ``gains`` is missing or does not fit.

    References
    ----------
    Takeda, Oizumi & Karakida (2026) for highest, random and lowest energy.
    """
    _checks.float_tensor(energies, "energies")
    if energies.ndim != 1:
        raise ValueError(f"energies must have shape (N,), but has shape {tuple(energies.shape)}.")
    _checks.finite(energies, "energies")
    _check_budget(budget, energies.shape[0])
    if not isinstance(strategy, str) or strategy not in _STRATEGIES:
        known = ", ".join(repr(name) for name in _STRATEGIES)
        raise ValueError(f"strategy must be one of {known}, but is {strategy!r}.")
    if strategy == "greedy":
        _check_gains(gains, energies)
    return _STRATEGIES[strategy](energies, budget, gains, generator)


def _highest(energies: Tensor, budget: int, *_unused: object) -> Tensor:
    return torch.sort(energies, descending=True, stable=True).indices[:budget]


def _lowest(energies: Tensor, budget: int, *_unused: object) -> Tensor:
    return torch.sort(energies, stable=True).indices[:budget]


def _random(
    energies: Tensor, budget: int, _gains: object, generator: torch.Generator | None
) -> Tensor:
    device = "cpu" if generator is None else generator.device
    order = torch.randperm(energies.shape[0], generator=generator, device=device)
    return order[:budget].to(energies.device)


def _stratified(
    energies: Tensor, budget: int, _gains: object, generator: torch.Generator | None
) -> Tensor:
    device = "cpu" if generator is None else generator.device
    # Stratum b holds the ranks from ⌊bN/budget⌋ to ⌊(b+1)N/budget⌋ − 1, from the highest energy.
    edges = torch.arange(budget + 1, device=device) * energies.shape[0] // max(1, budget)
    draw = torch.rand(budget, generator=generator, device=device, dtype=torch.float64)
    ranks = edges[:-1] + (draw * (edges[1:] - edges[:-1])).long()
    return _highest(energies, energies.shape[0])[ranks.to(energies.device)]


def _greedy(_energies: object, budget: int, gains: Tensor, _generator: object) -> Tensor:
    return greedy_order(gains.log(), budget)


_STRATEGIES: dict[str, Callable[..., Tensor]] = {
    "highest": _highest,
    "lowest": _lowest,
    "random": _random,
    "greedy": _greedy,
    "stratified": _stratified,
}


def _added(log_odds: Tensor, log_held: Tensor) -> Tensor:
    """What each candidate adds to the total gain, times β, given what is held; float64 (R,)."""
    block = max(1, _BLOCK_ENTRIES // log_odds.shape[1])
    parts = [
        _log1p_exp(part - log_held).sum(1, dtype=torch.float64) for part in log_odds.split(block)
    ]
    return torch.cat(parts)


def _log1p_exp(z: Tensor) -> Tensor:
    # PyTorch returns z itself above 20, which is off by 2e-9; above 40 the difference is rounding.
    return softplus(z, threshold=40.0)


def _nearly(best: Tensor, dtype: torch.dtype) -> Tensor:
    """Value above which a sum counts as equal to the best: rounding must not decide a tie."""
    return best - 16 * torch.finfo(dtype).eps * best.abs()


def _log_ratio(
    x: Tensor,
    against: Tensor,
    replayed: Tensor,
    beta: float | Tensor,
    mass: float,
    weights: Tensor | None,
) -> Tensor:
    """Logarithm log w + β x_r·x − log Σ_i w_i exp(β x_i·x), shape (..., R), at least float32."""
    queries = _queries(x, beta)
    scores = queries @ replayed.to(queries.dtype).mT
    ratio = scores + (math.log(mass) - log_partition(queries, against, weights, None))[:, None]
    return ratio.reshape(*x.shape[:-1], replayed.shape[0])


def _queries(x: Tensor, beta: float | Tensor) -> Tensor:
    points = x.reshape(math.prod(x.shape[:-1]), x.shape[-1])
    return beta * points.to(_accumulator(x.dtype))


def _accumulator(dtype: torch.dtype) -> torch.dtype:
    """At least float32: half precision keeps too few digits to add up many terms."""
    return torch.promote_types(dtype, torch.float32)


def _check(
    x: Tensor,
    against: Tensor,
    against_name: str,
    replayed: Tensor,
    beta: float | Tensor,
    mass: float,
    weights: Tensor | None,
) -> None:
    _checks.points_and_memories(x, against, against_name)
    _checks.points_and_memories(x, replayed, "replayed")
    _checks.beta(beta, x)
    _checks.positive_number(mass, "mass")
    _checks.weights(weights, against, "new_weights", against_name)


def _check_budget(budget: int, pool: int) -> None:
    _checks.integer_from(budget, "budget", 0)
    if budget > pool:
        raise ValueError(f"budget must be at most the size of the pool, {pool}, but is {budget}.")


def _check_gains(gains: Tensor | None, energies: Tensor) -> None:
    if gains is None:
        raise ValueError(
            "gains must be given for strategy 'greedy': the exponential of replay_log_odds."
        )
    _checks.memory_set(gains, "gains")
    if gains.shape[0] != energies.shape[0]:
        raise ValueError(
            f"gains must have one row for each of the {energies.shape[0]} energies, but has "
            f"{gains.shape[0]}."
        )
    if bool((gains < 0).any()):
        raise ValueError(f"gains must be at least 0, but the lowest is {gains.min().item()}.")


def _check_log_odds(log_odds: Tensor) -> None:
    _checks.float_tensor(log_odds, "log_odds")
    if log_odds.ndim != 2 or 0 in log_odds.shape:
        raise ValueError(
            "log_odds must have shape (R, K), candidates by targets, at least one of each, but has "
            f"shape {tuple(log_odds.shape)}."
        )
    highest = log_odds.detach().max().item()
    if not highest < math.inf:  # NaN fails as well
        raise ValueError(f"log_odds must be numbers below infinity, but some entry is {highest}.")


def _check_order(order: Tensor, pool: int) -> None:
    if not isinstance(order, Tensor) or order.dtype != torch.int64 or order.ndim == 0:
        what = f"{order.dtype}" if isinstance(order, Tensor) else type(order).__name__
        raise TypeError(f"order must be an int64 tensor of shape (..., B), but is {what}.")
    ranked = order.sort(-1).values
    if order.numel() and (int(ranked.min()) < 0 or int(ranked.max()) >= pool):
        raise ValueError(
            f"order must hold indices from 0 to {pool - 1}, but holds "
            f"{int(ranked.min())} to {int(ranked.max())}."
        )
    if bool((ranked[..., 1:] == ranked[..., :-1]).any()):
        raise ValueError("order must name no candidate twice, but some row does.")
