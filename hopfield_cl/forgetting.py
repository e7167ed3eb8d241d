"""Forgetting as a rise in energy: what a change of task takes from an old memory.

When the memories X give way to X', a point x loses ΔE(x) = E(x | X') − E(x | X). If the change is a
small random rotation V = exp(εΩ), then E(x | XVᵀ) = E(Vᵀx | X): to turn the memories is to turn the
point back. The mean loss at a fixed point ξ is therefore a matter of the curvature H = ∇²E(ξ),

    E_Ω[ΔE(ξ)] = (ε²/4) (‖ξ‖² tr H − ξᵀHξ) + O(ε⁴)
               = (ε²/4) [(d−1)‖ξ‖² − β Σ_i p_i (‖ξ‖²‖x_i‖² − (ξ·x_i)²)] + O(ε⁴).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from hopfield_cl import _checks
from hopfield_cl._streaming import log_partition

# Entries of a block of points × memories, or of points × dimensions.
_BLOCK_ENTRIES = 4_000_000
# Where the iteration of `cluster_and_outlier` stops: a step of the shares, and a number of steps.
_SHARE_TOLERANCE, _MOST_STEPS = 1e-13, 5_000


@dataclass(frozen=True)
class ClusterAndOutlier:
    """The two kinds of fixed point of a cluster with an outlier; the outlier's is last.

    Attributes
    ----------
    energy : Tensor, shape (..., 2)
        E(ξ), in the unit of x squared.
    norm2 : Tensor, shape (..., 2)
        ‖ξ‖², in the unit of x squared.
    rise : Tensor, shape (..., 2)
        Mean rise divided by ε², to second order, in the unit of x squared.
    outlier_share : Tensor, shape (..., 2)
        Attention of ξ to the outlier, without unit. Equal in both where one basin holds all.
    converged : Tensor of bool, shape (..., 2)
        Whether retrieval settled. It may not where a basin is just about to vanish.
    """

    energy: Float[Tensor, "*batch 2"]
    norm2: Float[Tensor, "*batch 2"]
    rise: Float[Tensor, "*batch 2"]
    outlier_share: Float[Tensor, "*batch 2"]
    converged: Bool[Tensor, "*batch 2"]


def intrinsic_forgetting(
    x: Float[Tensor, "*batch d"],
    old: Float[Tensor, "N d"],
    new: Float[Tensor, "M d"],
    beta: float | Tensor,
    *,
    old_weights: Float[Tensor, " N"] | None = None,
    new_weights: Float[Tensor, " M"] | None = None,
    chunk_size: int | None = None,
) -> Float[Tensor, "*batch"]:
    """Rise in energy when the memories change, ΔE(x) = E(x | X_new) − E(x | X_old).

    Parameters
    ----------
    x : Tensor, shape (..., d)
        Points at which to evaluate, as a rule the fixed points of the old memories.
    old, new : Tensor, shapes (N, d) and (M, d)
        Memories before and after the change.
    beta : float or scalar Tensor
        Inverse temperature, above 0.
    old_weights, new_weights : Tensor, shapes (N,) and (M,), optional
        Masses, above 0; 1 each if not given.
    chunk_size : int, optional
        Memories read at a time. Chosen by the package if not given.

    Returns
    -------
    Tensor, shape (...)
        Rises, in the unit of x squared. A positive one is forgetting.

    Raises
    ------
    TypeError, ValueError
        As for :func:`hopfield_cl.energy.energy`.

    References
    ----------
    Takeda, Oizumi & Karakida (2026).
    """
    _checks.points_and_memories(x, old, "old")
    _checks.points_and_memories(x, new, "new")
    _checks.beta(beta, x)
    _checks.weights(old_weights, old)
    _checks.weights(new_weights, new)
    _checks.chunk_size(chunk_size)
    # ½‖x‖² is in both energies. Without it, and in the wider dtype, less is lost to cancellation.
    queries = beta * _flat(x)
    before = log_partition(queries, old, old_weights, chunk_size)
    after = log_partition(queries, new, new_weights, chunk_size)
    rise = ((before - after) / beta).to(x.dtype).reshape(x.shape[:-1])
    _checks.no_overflow(rise, "the rise")
    return rise


def rise_under_rotations(
    x: Float[Tensor, "*batch d"],
    memories: Float[Tensor, "N d"],
    beta: float | Tensor,
    rotations: Float[Tensor, "R d d"],
    *,
    weights: Float[Tensor, " N"] | None = None,
    chunk_size: int | None = None,
) -> Float[Tensor, "R ..."]:
    """Rise in energy under each of many rotations of the memories, in one call.

    Since x·(Vx_i) = (Vᵀx)·x_i, thousands of rotated memory sets are thousands of points and one
    memory set. This holds for any linear map V of the memories, rotation or not.

    Parameters
    ----------
    x, memories, beta, weights, chunk_size
        As for :func:`hopfield_cl.energy.energy`.
    rotations : Tensor, shape (R, d, d)
        Matrices V, which take each memory x_i to V x_i.

    Returns
    -------
    Tensor, shape (R, ...)
        ΔE of each point under each rotation, in the unit of x squared.

    Raises
    ------
    TypeError, ValueError
        As for :func:`hopfield_cl.energy.energy`, and if ``rotations`` does not fit.
    """
    _check(x, memories, beta, weights)
    _checks.chunk_size(chunk_size)
    _check_rotations(rotations, x)
    points, maps = _flat(x), rotations.to(_wide(x.dtype))
    before = log_partition(beta * points, memories, weights, chunk_size)
    rises = []
    for part in maps.split(max(1, _BLOCK_ENTRIES // max(1, points.numel()))):
        turned_back = (points @ part).reshape(-1, x.shape[-1])  # rows (Vᵀx)ᵀ = xᵀV
        after = log_partition(beta * turned_back, memories, weights, chunk_size)
        rises.append((before - after.reshape(part.shape[0], -1)) / beta)
    rise = torch.cat(rises).to(x.dtype).reshape(-1, *x.shape[:-1])
    _checks.no_overflow(rise, "the rise")
    return rise


def expected_rise(
    points: Float[Tensor, "*batch d"],
    memories: Float[Tensor, "N d"],
    beta: float | Tensor,
    epsilon: float,
    *,
    weights: Float[Tensor, " N"] | None = None,
) -> Float[Tensor, "*batch"]:
    """Mean rise under a small random rotation of any memory set, to second order in its size.

    For V = exp(εΩ) with Ω = (W − Wᵀ)/2 and W_ij ~ N(0, 1), with H = ∇²E(x), at any point x

        E_Ω[ΔE(x)] = (ε²/4) [‖x‖² tr H − xᵀHx − (d−1) x·∇E(x)] + O(ε⁴).

    The last term vanishes at a fixed point ξ, where this is

        E_Ω[ΔE(ξ)] = (ε²/4) [(d−1)‖ξ‖² − β Σ_i p_i (‖ξ‖²‖x_i‖² − (ξ·x_i)²)] + O(ε⁴).

    Parameters
    ----------
    points : Tensor, shape (..., d)
        Points at which to evaluate, as a rule fixed points of the memories.
    memories, beta, weights
        As for :func:`hopfield_cl.energy.energy`.
    epsilon : float
        Size ε of the rotation, in radians, at least 0.

    Returns
    -------
    Tensor, shape (...)
        Mean rises, in the unit of x squared.

    Raises
    ------
    TypeError, ValueError
        As for :func:`hopfield_cl.energy.energy`, and if ``epsilon`` is below 0 or not finite.

    References
    ----------
    Derived in this book, chapter 5.
    """
    _checks.points_and_memories(points, memories)
    _checks.beta(beta, points)
    _checks.number_between(epsilon, "epsilon", 0.0, math.inf)
    _checks.weights(weights, memories)
    flat, wide = _flat(points), memories.to(_wide(points.dtype))
    log_weights = None if weights is None else weights.to(wide.dtype).log()
    rates = [
        _rise_rate(part, wide, beta, log_weights)
        for part in flat.split(max(1, _BLOCK_ENTRIES // wide.shape[0]))
    ]
    rise = (epsilon**2 * torch.cat(rates)).to(points.dtype).reshape(points.shape[:-1])
    _checks.no_overflow(rise, "the expected rise")
    return rise


def cluster_and_outlier(
    beta: float | Tensor,
    *,
    n_cluster: float | Tensor = 12,
    dim: float | Tensor = 50,
    correlation: float | Tensor = 0.35,
    outlier_overlap: float | Tensor = 0.0,
) -> ClusterAndOutlier:
    """Energies and rises of a cluster and its outlier, for whole grids of settings at once.

    By symmetry a fixed point is a mixture of the memories with three different shares at most: that
    of its own cluster vector, of each other one, and of the outlier. Retrieval moves those three
    numbers, so no memory set is built, and all arguments may be tensors that broadcast.

    Parameters
    ----------
    beta : float or Tensor
        Inverse temperature, above 0.
    n_cluster : float or Tensor
        Number n of cluster vectors, at least 1.
    dim : float or Tensor
        Dimension d of the space, at least n + 2. It enters the rise alone.
    correlation : float or Tensor
        Pairwise product c of cluster vectors, from 0 to 1.
    outlier_overlap : float or Tensor
        Product s of the outlier with the cluster's common direction, from 0 to 1.

    Returns
    -------
    ClusterAndOutlier
        At the fixed point reached from a cluster vector, and at that reached from the outlier, in
        float64.

    Raises
    ------
    TypeError, ValueError
        If an argument is not a number or a tensor of them, is out of range, or they do not
        broadcast.

    See Also
    --------
    hopfield_cl.memories.cluster_with_outlier : the memory set itself.

    References
    ----------
    Derived in this book, chapter 5.
    """
    beta, n, dim, c, s = _settings(
        beta=(beta, 0.0, math.inf),
        n_cluster=(n_cluster, 1.0, math.inf),
        dim=(dim, 1.0, math.inf),
        correlation=(correlation, 0.0, 1.0),
        outlier_overlap=(outlier_overlap, 0.0, 1.0),
    )
    # Shares of the basin's own cluster vector, of each other one, and of the outlier; the last axis
    # holds the two starting points. A product with each of the three follows from the shares.
    start = torch.eye(2, dtype=torch.float64).expand(*beta.shape[:-1], 2, 2)
    own, outlier = start[..., 0], start[..., 1]
    other = torch.zeros_like(own)
    for _ in range(_MOST_STEPS):
        products = _products(own, other, outlier, n, c, s)
        log_z = _log_sum(beta, products, n)
        moved = [(beta * product - log_z).exp() for product in products]
        step = torch.maximum((moved[0] - own).abs(), (moved[2] - outlier).abs())
        own, other, outlier = moved
        if bool((step <= _SHARE_TOLERANCE).all()):
            break
    products = _products(own, other, outlier, n, c, s)
    mass = own, (n - 1) * other, outlier
    norm2 = sum(m * product for m, product in zip(mass, products, strict=True))
    aside = norm2 - sum(m * product**2 for m, product in zip(mass, products, strict=True))
    return ClusterAndOutlier(
        energy=0.5 * norm2 - _log_sum(beta, products, n) / beta,
        norm2=norm2,
        rise=((dim - 1) * norm2 - beta * aside) / 4,
        outlier_share=outlier,
        converged=step <= _SHARE_TOLERANCE,
    )


def _products(
    own: Tensor, other: Tensor, outlier: Tensor, n: Tensor, c: Tensor, s: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """ξ·x for the own cluster vector, for each other one and for the outlier."""
    common = c * (own + (n - 1) * other) + s * c.sqrt() * outlier
    across = s * c.sqrt() * (own + (n - 1) * other)
    return common + (1 - c) * own, common + (1 - c) * other, across + outlier


def _log_sum(beta: Tensor, products: tuple[Tensor, Tensor, Tensor], n: Tensor) -> Tensor:
    own, other, outlier = (beta * product for product in products)
    return torch.logaddexp(torch.logaddexp(own, outlier), (n - 1).log() + other)


def _rise_rate(
    points: Tensor, memories: Tensor, beta: float | Tensor, log_weights: Tensor | None
) -> Tensor:
    """Expected rise divided by ε², from the first two moments of the attended memories."""
    dim = memories.shape[1]
    products = points @ memories.mT
    scores = beta * products if log_weights is None else beta * products + log_weights
    share = torch.softmax(scores, dim=-1)
    _checks.no_overflow(share, "the attention")
    mean = share @ memories
    norm2, along = points.square().sum(-1), (points * mean).sum(-1)
    total_variance = share @ memories.square().sum(-1) - mean.square().sum(-1)
    variance_along = (share * products.square()).sum(-1) - along.square()
    # ‖x‖² tr H − xᵀHx is the curvature in the d − 1 directions in which a rotation moves x.
    across = (dim - 1) * norm2 - beta * (norm2 * total_variance - variance_along)
    return (across - (dim - 1) * (norm2 - along)) / 4


def _check(x: Tensor, memories: Tensor, beta: float | Tensor, weights: Tensor | None) -> None:
    _checks.points_and_memories(x, memories)
    _checks.beta(beta, x)
    _checks.weights(weights, memories)


def _check_rotations(rotations: Tensor, x: Tensor) -> None:
    _checks.float_tensor(rotations, "rotations")
    dim = x.shape[-1]
    if rotations.ndim != 3 or rotations.shape[1:] != (dim, dim):
        raise ValueError(
            f"rotations must have shape (R, {dim}, {dim}), but has shape {tuple(rotations.shape)}."
        )
    if rotations.shape[0] == 0:
        raise ValueError("rotations must hold at least one matrix, but is empty.")
    _checks.same_kind(rotations, "rotations", x, "x")
    _checks.finite(rotations, "rotations")


def _settings(**arguments: tuple[float | Tensor, float, float]) -> tuple[Tensor, ...]:
    """Arguments as float64 tensors of one shape, (..., 1), each checked against its range."""
    tensors = []
    for name, (value, low, high) in arguments.items():
        if not isinstance(value, Tensor):
            _checks.number_between(value, name, low, high)
        tensor = torch.as_tensor(value, dtype=torch.float64)
        _checks.finite(tensor, name)
        if bool((tensor < low).any()) or bool((tensor > high).any()):
            worst = tensor[(tensor < low) | (tensor > high)][0].item()
            raise ValueError(f"{name} must lie between {low} and {high}, but holds {worst}.")
        tensors.append(tensor)
    beta, n, dim = tensors[:3]
    if bool((beta <= 0).any()):
        raise ValueError(f"beta must be above 0, but holds {beta.min().item()}.")
    try:
        beta, n, dim, *rest = torch.broadcast_tensors(*tensors)
    except RuntimeError:
        shapes = ", ".join(f"{k} {tuple(t.shape)}" for k, t in zip(arguments, tensors, strict=True))
        raise ValueError(f"the arguments must broadcast, but have shapes {shapes}.") from None
    if bool((dim < n + 2).any()):
        raise ValueError("dim must be at least n_cluster + 2 everywhere, but is below somewhere.")
    return tuple(tensor[..., None] for tensor in (beta, n, dim, *rest))


def _wide(dtype: torch.dtype) -> torch.dtype:
    """At least float32: a rise is a small difference, lost in half precision."""
    return torch.promote_types(dtype, torch.float32)


def _flat(x: Tensor) -> Tensor:
    return x.reshape(-1, x.shape[-1]).to(_wide(x.dtype))
