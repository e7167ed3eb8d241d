"""Basins in the plane: what Landscape and Cooling share, by the same rules as ``plane.js``."""

from __future__ import annotations

import numpy as np
import torch
import traitlets
from torch import Tensor

from hopfield_cl.energy import fixed_points

HALF = 1.5  # the picture shows −1.5 to 1.5 in both directions
EDGE = 1.4  # how far out a memory may lie
MOST_MEMORIES = 7  # as many as the palette has colours
_TOL, _MAX_STEPS, _NEAR = 1e-13, 20_000, 1e-3
_NUDGE = (1e-7, -7e-8)  # so that no start balances on a ridge between two basins
_OFF = (0.5137, 0.4929)  # where in its cell a grid point lies: off the lines of symmetry


class Point(traitlets.List):
    """A trait: a point [x, y] of the plane, no further out than ``EDGE``."""

    def validate(self, obj: object, value: object) -> list[float]:
        """Return the point as two floats, or raise ``TraitError``."""
        points = _points(self, obj, [value])
        return points[0]


class Points(traitlets.List):
    """A trait: from one to ``MOST_MEMORIES`` points of the plane."""

    def validate(self, obj: object, value: object) -> list[list[float]]:
        """Return the points as lists of two floats, or raise ``TraitError``."""
        return _points(self, obj, value)


def _points(trait: traitlets.TraitType, obj: object, value: object) -> list[list[float]]:
    try:
        array = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        array = np.empty(0)
    good = array.ndim == 2 and array.shape[1] == 2 and 1 <= len(array) <= MOST_MEMORIES
    if not good or not (np.abs(array) <= EDGE).all():  # NaN fails too
        what = "a point [x, y]" if isinstance(trait, Point) else f"1 to {MOST_MEMORIES} points"
        raise traitlets.TraitError(
            f"{trait.name} of {type(obj).__name__} must be {what} with coordinates from {-EDGE} to "
            f"{EDGE}, but is {value!r}."
        )
    return array.tolist()


def smoothed_masses(memories: Tensor, beta: float) -> Tensor:
    """Masses exp(−β‖x_i‖²/2), with which E is that of the data smoothed by noise."""
    return torch.exp(-0.5 * beta * memories.square().sum(-1))


def attractors(memories: Tensor, beta: float, weights: Tensor | None) -> tuple[Tensor, list[int]]:
    """Fixed points (A, 2) reached from the memories, and the number of the one each reaches."""
    nudge = torch.tensor(_NUDGE, dtype=memories.dtype)
    return _distinct(memories + nudge, memories, beta, weights, [])


def grid_basins(
    size: int, known: Tensor, memories: Tensor, beta: float, weights: Tensor | None
) -> tuple[Tensor, list[int]]:
    """Grid points (size², 2), row by row from the top, and the number of the basin of each."""
    cell = torch.arange(size, dtype=memories.dtype)
    x = HALF * (2 * (cell + _OFF[0]) / size - 1)
    y = HALF * (1 - 2 * (cell + _OFF[1]) / size)
    points = torch.stack([x.repeat(size), y.repeat_interleave(size)], dim=-1)
    return points, _distinct(points, memories, beta, weights, list(known))[1]


def _distinct(
    starts: Tensor,
    memories: Tensor,
    beta: float,
    weights: Tensor | None,
    found: list[Tensor],
) -> tuple[Tensor, list[int]]:
    """Where retrieval from the starts ends, as numbers in a list to which new ends are added."""
    ends = fixed_points(
        starts, memories, beta, weights=weights, tol=_TOL, max_steps=_MAX_STEPS
    ).points
    numbers = []
    for end in ends:
        far = [float((end - point).norm()) for point in found]
        if not far or min(far) >= _NEAR:
            found.append(end)
            numbers.append(len(found) - 1)
        else:
            numbers.append(next(k for k, distance in enumerate(far) if distance < _NEAR))
    return torch.stack(found), numbers
