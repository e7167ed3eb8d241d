"""How many basins a cluster with an outlier has, as a function of β.

In the geometry of :func:`hopfield_cl.memories.cluster_with_outlier` the fixed points that matter
give equal shares to all cluster vectors, or to all but one. Their shares then obey one or two
scalar equations, and a basin is born or dies where a root of these is double. So the boundaries
come from root finding, not from counting where iterations end.

With a = c + (1−c)/n the squared length of the cluster's mean, g = s√c the product of the outlier
with a cluster vector, and D = 1 + a − 2g the squared distance of the outlier from that mean:

* equal shares (1−q)/n for the cluster and q for the outlier are a fixed point where
  log(qn/(1−q)) = β (Dq − (a−g));
* shares p and r = p e^{−τ} for one cluster vector and each of the others, and q for the outlier,
  where τ = β(1−c)(p−r) and log(q/r) = β ((1−q)(g−c) + q(1−g) − (1−c)r).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.optimize import brentq
from scipy.special import lambertw
from torch import Tensor

from hopfield_cl import _checks

# Entries of the largest temporary of `basins`: a block of points × points.
_DISTANCE_ENTRIES = 4_000_000
# Values of τ between which the birth of a member's basin is bracketed.
_GRID = 2000
# Where the two shares p and r count as equal: β(τ) is flat there, so the error is of order τ².
_TAU_NEAR_ZERO = 1e-6


@dataclass(frozen=True)
class Boundaries:
    """Values of β, in 1 / (unit of x)², at which basins appear or disappear.

    Each says where a stable fixed point exists. Retrieval from a memory ends in the basin of that
    memory as soon as there is one, so the first two are also where the number of basins *reached
    from the memories* changes. The third is not: no memory leads there any more.

    Attributes
    ----------
    outlier : float or None
        Above it, a fixed point exists that has more than half of its attention on the outlier, and
        goes to the outlier as β → ∞. None if that fixed point is never born, because the one global
        basin turns into it without a jump (an outlier deep inside the cluster).
    member : float or None
        Above it, each cluster vector has a basin of its own, which goes to that vector as β → ∞.
        None if there is nothing to split: one cluster vector, or all the same.
    merged : float or None
        The basin that all cluster vectors share, which is the global one at small β, ends here.
        None if it never ends.
    """

    outlier: float | None
    member: float | None
    merged: float | None


def boundaries(
    n_cluster: int = 12, correlation: float = 0.35, outlier_overlap: float = 0.0
) -> Boundaries:
    """Find the boundaries in β of the phases of a cluster with an outlier, by root finding.

    Parameters
    ----------
    n_cluster, correlation, outlier_overlap
        Size n, product c and overlap s, as for :func:`hopfield_cl.memories.cluster_with_outlier`.
        The dimension of the space plays no part.

    Returns
    -------
    Boundaries
        The values of β; None for a boundary that does not exist.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range.

    References
    ----------
    The mean-field Potts model has the same equation for the cluster alone: Wu (1982), *The Potts
    model*, Rev. Mod. Phys. 54, 235.
    """
    _checks.integer_from(n_cluster, "n_cluster", 1)
    _checks.number_between(correlation, "correlation", 0.0, 1.0)
    _checks.number_between(outlier_overlap, "outlier_overlap", 0.0, 1.0)
    n, c = int(n_cluster), float(correlation)
    a, g = c + (1 - c) / n, float(outlier_overlap) * math.sqrt(c)
    if 1 - g == 0:  # all the memories are one point
        return Boundaries(outlier=None, member=None, merged=None)
    splits = n > 1 and c < 1
    return Boundaries(
        outlier=_outlier_birth(n, a, g),
        member=_member_birth(n, c, g) if splits else None,
        merged=_merged_end(n, c, a, g),
    )


def basins(points: Float[Tensor, "N d"], *, tol: float = 1e-6) -> Int[Tensor, " N"]:
    """Say which fixed points are the same, so which memories share a basin.

    Two points are the same if a chain of points leads from one to the other in steps of at most
    ``tol``. A fixed point is known only up to its residual divided by its smallest curvature, so
    ``tol`` should be well above the tolerance with which the points were found.

    Parameters
    ----------
    points : Tensor, shape (N, d)
        Fixed points, for instance those reached from N memories.
    tol : float
        Length, in the unit of x, up to which two points count as the same; above 0.

    Returns
    -------
    Tensor of int64, shape (N,)
        The number of each point's basin: 0, 1, 2… in the order in which they first appear.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range.
    """
    _checks.memory_set(points, "points")
    _checks.positive_number(tol, "tol")
    count = points.shape[0]
    wide = points.detach().to(torch.promote_types(points.dtype, torch.float32))
    first = torch.arange(count, device=points.device)
    while True:
        lowest = _lowest_neighbour(wide, first, tol)
        if torch.equal(lowest, first):
            break
        first = lowest
    return torch.unique(first, return_inverse=True)[1]


def _lowest_neighbour(points: Tensor, label: Tensor, tol: float) -> Tensor:
    """Lowest label among the points within ``tol`` of each point."""
    block = max(1, _DISTANCE_ENTRIES // points.shape[0])
    # The quick formula ‖x‖² + ‖y‖² − 2x·y loses half of the digits, and small distances are asked.
    exact = "donot_use_mm_for_euclid_dist"
    lowest = [
        torch.where(torch.cdist(part, points, compute_mode=exact) <= tol, label, len(label)).amin(1)
        for part in points.split(block)
    ]
    return torch.cat(lowest)


def _outlier_birth(n: int, a: float, g: float) -> float | None:
    """Fold of the equal-shares branch at q ≥ ½; it exists where log n + 4(a−g)/D ≥ 2."""
    distance2 = 1 + a - 2 * g
    fold = _equal_shares_fold(n, a, g)
    if fold(0.5) < 0:
        return None
    q = brentq(fold, 0.5, 1 - 1e-15, xtol=1e-15)
    return 1 / (distance2 * q * (1 - q))


def _equal_shares_fold(n: int, a: float, g: float) -> Callable[[float], float]:
    """Function of q that is zero where a fixed point with equal shares is double."""
    lead = (a - g) / (1 + a - 2 * g)

    def fold(q: float) -> float:
        return math.log(q / (1 - q)) + math.log(n) + lead / (q * (1 - q)) - 1 / (1 - q)

    return fold


def _member_birth(n: int, c: float, g: float) -> float | None:
    """Lowest β of the branch that leads to a single member as τ → ∞, followed down from there."""
    taus = np.linspace(_TAU_NEAR_ZERO, 3 * math.log(n) + 12, _GRID)[::-1]
    with np.errstate(over="ignore", invalid="ignore"):  # where there is no solution, below the turn
        slopes = _member_branch(taus, n, c, g)[1]
    turns = np.flatnonzero(slopes <= 0)
    if turns.size == 0:  # n = 2: the two members part at τ = 0, in a pitchfork
        return float(_member_branch(taus[-1], n, c, g)[0])
    low, high = taus[turns[0]], taus[turns[0] - 1]
    tau = brentq(lambda tau: float(_member_branch(tau, n, c, g)[1]), low, high, xtol=1e-13)
    return float(_member_branch(tau, n, c, g)[0])


def _member_branch(
    tau: float | np.ndarray, n: int, c: float, g: float
) -> tuple[float | np.ndarray, float | np.ndarray]:
    """β and dβ/dτ where one member has e^τ times the share of each other one.

    With y = q/(1−q) and B = β(1−q), τ fixes B, and y solves log y − B(1−g) y = K. The smaller
    solution, with little attention on the outlier, is Lambert's principal branch. Where there is
    none the values mean nothing; followed down from large τ, β turns before that.
    """
    less = -np.expm1(-tau)  # (t − 1)/t with t = e^τ, which itself may overflow
    total = 1 + (n - 1) * np.exp(-tau)  # (t + n − 1)/t
    rest = np.exp(-tau) / total  # 1/(t + n − 1)
    b = tau * total / less / (1 - c)
    db = b * (1 / tau + 1 / total - 1 / less)
    k = b * (g - c - (1 - c) * rest) + np.log(rest)
    dk = db * (g - c - (1 - c) * rest) + b * (1 - c) * rest / total - 1 / total
    scale = b * (1 - g)
    y = -np.real(lambertw(-scale * np.exp(k))) / scale
    dy = (dk + db * (1 - g) * y) * y / (1 - scale * y)
    return b * (1 + y), db * (1 + y) + b * dy


def _merged_end(n: int, c: float, a: float, g: float) -> float | None:
    """End of the equal-shares branch that starts at β = 0, q = 1/(n+1).

    Either the members part, where β(1−c)(1−q)/n = 1, or the branch folds into the outlier's side.
    """
    if n == 1 or c == 1:
        return None
    start, distance2 = 1 / (n + 1), 1 + a - 2 * g

    def part(log_q: float) -> float:
        """Zero where the members part; concave in q, so with one root below ``start``."""
        q = math.exp(log_q)
        log_ratio = log_q - math.log1p(-q) + math.log(n)
        return (1 - c) * (1 - q) * log_ratio - n * (distance2 * q - (a - g))

    if part(math.log(start)) > 0:  # q falls as β rises
        log_q = brentq(part, math.log(start) - 1 - n / (1 - c), math.log(start))
        return n / ((1 - c) * (1 - math.exp(log_q)))
    # q rises; on a grid of n, c and s (in the tests) the branch always folds before members part.
    fold = _equal_shares_fold(n, a, g)
    if fold(0.5) < 0:
        return None
    lowest = max(start, (a - g) / distance2)
    q = brentq(fold, lowest, 0.5, xtol=1e-15) if fold(lowest) < 0 else lowest
    return 1 / (distance2 * q * (1 - q))
