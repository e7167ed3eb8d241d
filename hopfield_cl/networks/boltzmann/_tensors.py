"""Precision, distances and random draws that several modules of the machine need."""

from __future__ import annotations

import torch
from torch import Tensor


def wide(value: Tensor) -> Tensor:
    """At least float32: half precision keeps too few digits to add up many terms."""
    return value.to(torch.promote_types(value.dtype, torch.float32))


def squared_distances(points: Tensor, square: Tensor, rows: list[int] | Tensor) -> Tensor:
    """Squared distances of some points (R,) from all (N,), exactly 0 between equals: (R, N)."""
    scale = square[rows][:, None] + square
    distances = scale - 2 * points[rows] @ points.mT
    # Rounding leaves noise where the distance is 0; there, and only there, take differences.
    first, second = (distances <= 64 * torch.finfo(scale.dtype).eps * scale).nonzero(as_tuple=True)
    apart = (points[rows][first] - points[second]).square().sum(1)
    return distances.index_put((first, second), apart)


def draw(shares: Tensor, count: int, generator: torch.Generator | None) -> Tensor:
    """``count`` draws with replacement from each row, on the device of the shares."""
    home = shares.device if generator is None else generator.device
    drawn = torch.multinomial(shares.to(home), count, replacement=True, generator=generator)
    return drawn.to(shares.device)


def uniform(like: Tensor, generator: torch.Generator | None) -> Tensor:
    """Uniform numbers in [0, 1), as many and on the device of ``like``."""
    home = like.device if generator is None else generator.device
    return torch.rand(like.shape, generator=generator, dtype=like.dtype, device=home).to(
        like.device
    )


def normal(like: Tensor, generator: torch.Generator | None) -> Tensor:
    """Standard normal numbers, as many and on the device of ``like``."""
    home = like.device if generator is None else generator.device
    noise = torch.randn(like.shape, generator=generator, dtype=like.dtype, device=home)
    return noise.to(like.device)
