"""The modern Hopfield network: energy, attention, retrieval, fixed points, curvature.

With memories x_1..x_N in R^d, inverse temperature β and masses w_i (1 unless given),

    E(x) = ½‖x‖² − β⁻¹ log Σ_i w_i exp(β x_i·x)

    p_i(x) = softmax_i(β x_i·x + log w_i),   T(x) = Σ_i p_i(x) x_i,   ∇E(x) = x − T(x),
    ∇²E(x) = I − β Cov_p(x_i).

Every function takes points ``x`` of shape (..., d) and ``memories`` of shape (N, d) in one dtype
and on one device, returns that dtype and device, and is differentiable in ``x``, ``memories``,
``weights`` and ``beta``. Half-precision input is accumulated in float32. ``chunk_size`` is the
number of memories read at a time; it bounds the memory needed and does not change the result.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from hopfield_cl import _checks
from hopfield_cl._streaming import log_partition, softmax_mean

# Entries of the largest temporary of `curvature`: a block of points × memories × dimensions.
_CURVATURE_ENTRIES = 4_000_000


@dataclass(frozen=True)
class FixedPoints:
    """Where retrieval ends.

    Attributes
    ----------
    points : Tensor, shape (..., d)
        The last iterate, T applied ``steps`` times.
    steps : Tensor of int64, shape (...)
        Number of retrieval steps taken from each starting point.
    residual : Tensor, shape (...)
        ‖T(points) − points‖, the Euclidean length of the step that would come next.
    converged : Tensor of bool, shape (...)
        Whether the residual is at most ``tol``. Where it is False, ``points`` is not a fixed point.
    """

    points: Float[Tensor, "*batch d"]
    steps: Int[Tensor, "*batch"]
    residual: Float[Tensor, "*batch"]
    converged: Bool[Tensor, "*batch"]


def energy(
    x: Float[Tensor, "*batch d"],
    memories: Float[Tensor, "N d"],
    beta: float | Tensor,
    *,
    weights: Float[Tensor, " N"] | None = None,
    chunk_size: int | None = None,
) -> Float[Tensor, "*batch"]:
    """Energy of each point, E(x) = ½‖x‖² − β⁻¹ log Σ_i w_i exp(β x_i·x).

    No constant is added: the usual β⁻¹ log N + ½ max‖x_i‖² only shifts it.

    Parameters
    ----------
    x : Tensor, shape (..., d)
        Points at which to evaluate.
    memories : Tensor, shape (N, d)
        Stored patterns, one a row.
    beta : float or scalar Tensor
        Inverse temperature, above 0. Its unit is 1 / (unit of x)².
    weights : Tensor, shape (N,), optional
        Masses, above 0; 1 each if not given.
    chunk_size : int, optional
        Memories read at a time. Chosen by the package if not given.

    Returns
    -------
    Tensor, shape (...)
        Energies, in the unit of x squared.

    Raises
    ------
    TypeError
        If an argument is not a floating-point tensor, or dtypes differ.
    ValueError
        If shapes or devices differ, a value is not finite, ``memories`` is empty, or ``beta``,
        ``weights`` or ``chunk_size`` is out of range; or if the result overflows the dtype.

    References
    ----------
    Ramsauer et al. (2021), *Hopfield Networks is All You Need*, eq. (2).
    """
    _check(x, memories, beta, weights)
    _checks.chunk_size(chunk_size)
    points = _flat(x, _accumulator(x.dtype))
    log_z = log_partition(beta * points, memories, weights, chunk_size)
    value = 0.5 * points.square().sum(-1) - log_z / beta
    value = value.to(x.dtype).reshape(x.shape[:-1])
    _checks.no_overflow(value, "the energy")
    return value


def attention(
    x: Float[Tensor, "*batch d"],
    memories: Float[Tensor, "N d"],
    beta: float | Tensor,
    *,
    weights: Float[Tensor, " N"] | None = None,
) -> Float[Tensor, "*batch N"]:
    """Share of each memory in the retrieval of each point, p_i(x) = softmax_i(β x_i·x + log w_i).

    Parameters
    ----------
    x, memories, beta, weights
        As for :func:`energy`.

    Returns
    -------
    Tensor, shape (..., N)
        Shares; they are positive and sum to 1 over the last axis.

    Raises
    ------
    TypeError, ValueError
        As for :func:`energy`.

    References
    ----------
    Ramsauer et al. (2021), eq. (3); Vaswani et al. (2017) with keys = memories.
    """
    _check(x, memories, beta, weights)
    dtype = _accumulator(x.dtype)
    scores = beta * _flat(x, dtype) @ memories.to(dtype).mT
    if weights is not None:
        scores = scores + _log(weights, dtype)
    share = torch.softmax(scores, dim=-1).to(x.dtype).reshape(*x.shape[:-1], memories.shape[0])
    _checks.no_overflow(share, "the attention")
    return share


def retrieve(
    x: Float[Tensor, "*batch d"],
    memories: Float[Tensor, "N d"],
    beta: float | Tensor,
    *,
    weights: Float[Tensor, " N"] | None = None,
    chunk_size: int | None = None,
) -> Float[Tensor, "*batch d"]:
    """One retrieval step, T(x) = Σ_i p_i(x) x_i.

    It is one attention head whose keys and values are the memories, and one step of the
    concave–convex procedure on the energy, so the energy never rises along x ← T(x).

    Parameters
    ----------
    x, memories, beta, weights, chunk_size
        As for :func:`energy`.

    Returns
    -------
    Tensor, shape (..., d)
        The retrieved points, each inside the convex hull of the memories.

    Raises
    ------
    TypeError, ValueError
        As for :func:`energy`.

    References
    ----------
    Ramsauer et al. (2021), eq. (3).
    """
    _check(x, memories, beta, weights)
    _checks.chunk_size(chunk_size)
    points = _flat(x, _accumulator(x.dtype))
    mean, _ = softmax_mean(beta * points, memories, weights, chunk_size)
    retrieved = mean.to(x.dtype).reshape(x.shape)
    _checks.no_overflow(retrieved, "the retrieved point")
    return retrieved


def fixed_points(
    x: Float[Tensor, "*batch d"],
    memories: Float[Tensor, "N d"],
    beta: float | Tensor,
    *,
    weights: Float[Tensor, " N"] | None = None,
    tol: float = 1e-10,
    max_steps: int = 1000,
) -> FixedPoints:
    """Repeat retrieval from each point until it moves by at most ``tol``.

    The iteration runs in float64 whatever the dtype of ``x``, since the default tolerance is out of
    reach of float32. Each point stops as soon as it has converged.

    The points are differentiable in ``memories``, ``weights`` and ``beta`` by the implicit function
    theorem, ∂ξ = (∇²E)⁻¹ ∂T, once and not twice. They do not depend on small changes of ``x``, so
    its gradient is zero.

    Parameters
    ----------
    x : Tensor, shape (..., d)
        Where to start.
    memories, beta, weights
        As for :func:`energy`.
    tol : float
        Length of a step, in the unit of x, below which a point counts as fixed; above 0.
    max_steps : int
        Number of retrieval steps after which a point is given up; at least 1.

    Returns
    -------
    FixedPoints
        Points, steps, residuals, and which of them converged.

    Raises
    ------
    TypeError, ValueError
        As for :func:`energy`, and if ``tol`` or ``max_steps`` is out of range.

    References
    ----------
    Ramsauer et al. (2021), theorem 1 (the energy falls to a stationary point).
    """
    _check(x, memories, beta, weights)
    _checks.positive_number(tol, "tol")
    _checks.integer_from(max_steps, "max_steps", 1)
    with torch.no_grad():
        points, steps, residual = _iterate(x, memories, beta, weights, tol, max_steps)
    _checks.no_overflow(residual, "retrieval")
    if torch.is_grad_enabled() and _requires_grad(memories, beta, weights):
        points = _with_implicit_derivative(points, memories, beta, weights)
    batch = x.shape[:-1]
    return FixedPoints(
        points=points.to(x.dtype).reshape(x.shape),
        steps=steps.reshape(batch),
        residual=residual.to(x.dtype).reshape(batch),
        converged=(residual <= tol).reshape(batch),
    )


def curvature(
    x: Float[Tensor, "*batch d"],
    memories: Float[Tensor, "N d"],
    beta: float | Tensor,
    *,
    weights: Float[Tensor, " N"] | None = None,
) -> Float[Tensor, "*batch d"]:
    """Eigenvalues of the Hessian of the energy, ∇²E(x) = I − β Cov_p(x_i), in ascending order.

    They are 1 in all directions that the memories around x do not span: an isolated basin is sharp.
    Directions along which memories share a basin have smaller ones: that basin is flat there.

    Parameters
    ----------
    x, memories, beta, weights
        As for :func:`energy`.

    Returns
    -------
    Tensor, shape (..., d)
        Curvatures, without unit.

    Raises
    ------
    TypeError, ValueError
        As for :func:`energy`.

    References
    ----------
    Takeda, Oizumi & Karakida (2026).
    """
    _check(x, memories, beta, weights)
    dtype = _accumulator(x.dtype)
    points, wide = _flat(x, dtype), memories.to(dtype)
    block = max(1, _CURVATURE_ENTRIES // wide.numel())
    spectra = [
        _curvature_block(part, wide, beta, _log(weights, dtype)) for part in points.split(block)
    ]
    spectrum = torch.cat(spectra).to(x.dtype).reshape(x.shape)
    _checks.no_overflow(spectrum, "the curvature")
    return spectrum


def _curvature_block(
    points: Tensor, memories: Tensor, beta: float | Tensor, log_weights: Tensor | None
) -> Tensor:
    scores = beta * points @ memories.mT
    share = torch.softmax(scores if log_weights is None else scores + log_weights, dim=-1)
    _checks.no_overflow(share, "the curvature")
    # Rows √p_i (x_i − T(x)): their Gram matrix is Cov_p, and as accurate as centring makes it.
    root = share.clamp(min=torch.finfo(share.dtype).tiny).sqrt()  # at 0 it has no derivative
    spread = root[:, :, None] * (memories - (share @ memories)[:, None, :])
    count, dim = memories.shape
    # With fewer memories than dimensions, the other Gram matrix is smaller and has the same
    # spectrum, but for dim − count zeros.
    gram = spread.mT @ spread if count >= dim else spread @ spread.mT
    variances = torch.linalg.eigvalsh(gram).clamp(min=0)  # rounding may bring a zero below zero
    curvatures = 1 - beta * variances.flip(-1)
    flat = curvatures.new_ones(points.shape[0], max(0, dim - count))
    return torch.cat([curvatures, flat], dim=-1)


def _iterate(
    x: Tensor,
    memories: Tensor,
    beta: float | Tensor,
    weights: Tensor | None,
    tol: float,
    max_steps: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Points (Q, d), steps (Q,) and residuals (Q,) of retrieval repeated in float64."""
    points = _flat(x, torch.float64).clone()
    steps = torch.zeros(points.shape[0], dtype=torch.int64, device=x.device)
    residual = points.new_full((points.shape[0],), math.inf)
    active = torch.arange(points.shape[0], device=x.device)
    for step in range(max_steps + 1):
        here = points[active]
        image, _ = softmax_mean(beta * here, memories, weights, None)
        residual[active] = (image - here).norm(dim=-1)
        steps[active] = step
        moving = residual[active] > tol
        if step == max_steps or not bool(moving.any()):
            break
        active = active[moving]
        points[active] = image[moving]
    return points, steps, residual


def _with_implicit_derivative(
    points: Tensor, memories: Tensor, beta: float | Tensor, weights: Tensor | None
) -> Tensor:
    """Give the points the derivative of a fixed point, which is that of one Newton step."""
    wide = memories.to(points.dtype)
    image, _ = softmax_mean(beta * points, wide, weights, None)
    with torch.no_grad():
        log_weights = _log(weights, points.dtype)
        scores = beta * points @ wide.mT
        share = torch.softmax(scores if log_weights is None else scores + log_weights, dim=-1)
        spread = share.sqrt()[:, :, None] * (wide - image[:, None, :])
        hessian = torch.eye(wide.shape[1], dtype=wide.dtype, device=wide.device)
        hessian = hessian - beta * spread.mT @ spread
    step = torch.linalg.solve(hessian, (image - points)[..., None])[..., 0]
    return points + (step - step.detach())


def _check(x: Tensor, memories: Tensor, beta: float | Tensor, weights: Tensor | None) -> None:
    _checks.points_and_memories(x, memories)
    _checks.beta(beta, x)
    _checks.weights(weights, memories)


def _accumulator(dtype: torch.dtype) -> torch.dtype:
    """At least float32: half precision keeps too few digits to add up N terms."""
    return torch.promote_types(dtype, torch.float32)


def _flat(x: Tensor, dtype: torch.dtype) -> Tensor:
    return x.reshape(-1, x.shape[-1]).to(dtype)


def _log(weights: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    return None if weights is None else weights.to(dtype).log()


def _requires_grad(*values: object) -> bool:
    return any(isinstance(value, Tensor) and value.requires_grad for value in values)
