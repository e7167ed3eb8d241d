"""Memory sets whose geometry is known, and the changes a task makes to them.

The solvable setting of the book is a cluster of unit vectors with one common pairwise product, and
one more unit vector, the outlier, whose place relative to the cluster is a single number.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from hopfield_cl import _checks


def cluster_with_outlier(
    n_cluster: int = 12,
    dim: int = 50,
    correlation: float = 0.35,
    outlier_overlap: float = 0.0,
    *,
    dtype: torch.dtype = torch.float64,
) -> Float[Tensor, "N dim"]:
    """Unit vectors with pairwise product c, and one outlier at a chosen distance from them.

    With orthonormal u, v, v_1..v_n the cluster is x_i = √c u + √(1−c) v_i and the outlier is
    s u + √(1−s²) v. Its product with every cluster vector is s√c: at s = 0 it is orthogonal to all
    of them, at s = √c it is one more member, and at s = 1 it points along their common direction.

    Parameters
    ----------
    n_cluster : int
        Number n of vectors in the cluster, at least 1.
    dim : int
        Dimension of the space, at least ``n_cluster`` + 2.
    correlation : float
        Pairwise product c of cluster vectors, from 0 to 1.
    outlier_overlap : float
        Product s of the outlier with the common direction u, from 0 to 1.
    dtype : torch.dtype
        Floating-point dtype of the result.

    Returns
    -------
    Tensor, shape (n_cluster + 1, dim)
        The memories, one a row; the outlier is last.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range.
    """
    _checks.integer_from(n_cluster, "n_cluster", 1)
    _checks.integer_from(dim, "dim", n_cluster + 2)
    _checks.number_between(correlation, "correlation", 0.0, 1.0)
    _checks.number_between(outlier_overlap, "outlier_overlap", 0.0, 1.0)
    _checks.float_dtype(dtype)
    memories = torch.zeros(n_cluster + 1, dim, dtype=dtype)
    memories[:-1, 0] = math.sqrt(correlation)
    memories[:-1, 1 : n_cluster + 1].fill_diagonal_(math.sqrt(1 - correlation))
    memories[-1, 0] = outlier_overlap
    memories[-1, n_cluster + 1] = math.sqrt(1 - outlier_overlap**2)
    return memories


def random_rotation(
    dim: int,
    epsilon: float,
    *,
    generator: torch.Generator | None = None,
    dtype: torch.dtype = torch.float64,
) -> Float[Tensor, "dim dim"]:
    """Random rotation V = exp(εΩ) with Ω = (W − Wᵀ)/2 and W_ij ~ N(0, 1).

    Parameters
    ----------
    dim : int
        Dimension of the space, at least 1.
    epsilon : float
        Size ε of the rotation, in radians, at least 0 and finite. A unit vector turns by about
        ε√((dim−1)/2).
    generator : torch.Generator, optional
        Source of W. PyTorch's default generator if not given.
    dtype : torch.dtype
        Floating-point dtype of the result.

    Returns
    -------
    Tensor, shape (dim, dim)
        An orthogonal matrix of determinant 1, on the device of the generator.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range.
    """
    _checks.integer_from(dim, "dim", 1)
    _checks.number_between(epsilon, "epsilon", 0.0, math.inf)
    _checks.float_dtype(dtype)
    device = None if generator is None else generator.device
    wide = torch.promote_types(dtype, torch.float32)
    w = torch.randn(dim, dim, generator=generator, dtype=wide, device=device)
    # iΩ is Hermitian. Through its eigenvalues V is orthogonal to rounding at every ε; torch's
    # matrix_exp is off by up to 1e-10 in float64, and by any amount in half precision.
    angles, axes = torch.linalg.eigh(1j * (w - w.mT) / 2)
    rotation = ((axes * torch.exp(-1j * epsilon * angles)) @ axes.mH).real.to(dtype)
    _checks.no_overflow(rotation, "the rotation")
    return rotation


def random_drift(
    memories: Float[Tensor, "N d"],
    epsilon: float,
    *,
    generator: torch.Generator | None = None,
) -> Float[Tensor, "N d"]:
    """Move each memory on its own, by Gaussian noise along the sphere on which it lies.

    With unit vector u = x/‖x‖ and noise g ~ N(0, I), the memory x turns by the angle ‖θ‖, where
    θ = (ε/√2) (g − (g·u) u), along the great circle through u and θ. Lengths do not change. To
    first order in ε one memory alone moves as under ``random_rotation`` of the same ε, by about
    ε√((d−1)/2) for a unit vector; but different memories move independently, not as one body.

    Parameters
    ----------
    memories : Tensor, shape (N, d)
        Memories, one a row. A memory at the origin stays there.
    epsilon : float
        Size ε of the drift, in radians, at least 0 and finite.
    generator : torch.Generator, optional
        Source of the noise. PyTorch's default generator if not given.

    Returns
    -------
    Tensor, shape (N, d)
        The memories after the drift, in the dtype and on the device of ``memories``.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range.
    """
    _checks.memory_set(memories, "memories")
    _checks.number_between(epsilon, "epsilon", 0.0, math.inf)
    source = memories.device if generator is None else generator.device
    wide = memories.to(torch.promote_types(memories.dtype, torch.float32))
    noise = torch.randn(wide.shape, generator=generator, dtype=wide.dtype, device=source)
    noise = noise.to(wide.device)
    scale = wide.detach().abs().amax(1, keepdim=True)
    scale = torch.where(scale > 0, scale, 1)  # so that no square overflows or vanishes
    unit = torch.nn.functional.normalize(wide / scale, dim=1)
    across = noise - (noise * unit).sum(1, keepdim=True) * unit
    angle = epsilon / math.sqrt(2) * across.norm(dim=1, keepdim=True)
    length = (wide * unit).sum(1, keepdim=True)
    way = length * torch.nn.functional.normalize(across, dim=1)
    drifted = (torch.cos(angle) * wide + torch.sin(angle) * way).to(memories.dtype)
    _checks.no_overflow(drifted, "the drift")
    return drifted


def on_sphere(
    vectors: Float[Tensor, "N d"], *, center: Float[Tensor, " d"] | None = None
) -> Float[Tensor, "N d"]:
    """Unit vectors that point from a centre to each of the given vectors.

    Images share most of their pixels. Taken from their mean, what is left is what tells them apart;
    scaled to length one, each weighs the same in the energy.

    Parameters
    ----------
    vectors : Tensor, shape (N, d)
        One vector a row, for instance flattened images.
    center : Tensor, shape (d,), optional
        Point to measure from; the mean of ``vectors`` if not given.

    Returns
    -------
    Tensor, shape (N, d)
        Unit vectors, in the dtype and on the device of ``vectors``.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or shape, is not finite, or a vector lies on the centre.
    """
    _checks.memory_set(vectors, "vectors")
    if center is None:
        center = vectors.mean(0)
    else:
        _checks.float_tensor(center, "center")
        if center.shape != vectors.shape[1:]:
            raise ValueError(
                f"center must have shape ({vectors.shape[1]},), but has {tuple(center.shape)}."
            )
        _checks.same_kind(center, "center", vectors, "vectors")
        _checks.finite(center, "center")
    apart = vectors - center
    _checks.no_overflow(apart, "the distance of vectors from the center")
    size = apart.detach().abs().amax(1, keepdim=True)
    if bool((size == 0).any()):
        row = int((size[:, 0] == 0).nonzero()[0])
        raise ValueError(f"vectors must differ from the center, but row {row} lies on it.")
    apart = apart / size  # so that no square overflows or vanishes
    return apart / apart.norm(dim=1, keepdim=True)
