"""Shapes and textures as distances to their edges, in the order of the factors' values."""

from __future__ import annotations

import math

import torch
from torch import Tensor

_STRIPE, _CHECK, _DOT, _DOT_RADIUS = 0.18, 0.28, 0.18, 0.05

# Shapes: distance inside the edge of a shape of radius about 1, at (u, v) with v pointing down. The
# radii make them look equally large. Outside a corner it is the distance to the nearer edge's line,
# which leaves corners sharp.


def _disc(u: Tensor, v: Tensor) -> Tensor:
    return 0.92 - torch.hypot(u, v)


def _ring(u: Tensor, v: Tensor) -> Tensor:
    return 0.22 - (torch.hypot(u, v) - 0.80).abs()


def _cross(u: Tensor, v: Tensor) -> Tensor:
    long, wide = torch.maximum(u.abs(), v.abs()), torch.minimum(u.abs(), v.abs())
    # In the bar that points our way, or in the middle of both.
    return torch.minimum(1.04 - long, 0.36 - wide)


def _square(u: Tensor, v: Tensor) -> Tensor:
    return 0.82 - torch.maximum(u.abs(), v.abs())


def _triangle(u: Tensor, v: Tensor) -> Tensor:
    return _star_polygon(u, v, points=3, outer=1.20, inner=0.60)


def _star(u: Tensor, v: Tensor) -> Tensor:
    return _star_polygon(u, v, points=5, outer=1.22, inner=0.52)


def _star_polygon(u: Tensor, v: Tensor, *, points: int, outer: float, inner: float) -> Tensor:
    """A star with one tip up; with inner = outer · cos(π/points) it is a regular polygon."""
    half = math.pi / points
    # Folded onto half of one tip, all edges are the one from (outer, 0) to the next inner corner.
    angle = torch.remainder(torch.atan2(u, -v) + half, 2 * half) - half
    radius = torch.hypot(u, v)
    along, aside = radius * angle.cos(), radius * angle.abs().sin()
    step_along, step_aside = inner * math.cos(half) - outer, inner * math.sin(half)
    length = math.hypot(step_along, step_aside)
    return (step_along * aside - step_aside * (along - outer)) / length


# Textures: distance inside the part that has the second tone, at (x, y) and phases from 0 to 1.


def _plain(x: Tensor, y: Tensor, across: Tensor, down: Tensor) -> Tensor:
    return torch.full_like(x, -1.0)


def _striped(x: Tensor, y: Tensor, across: Tensor, down: Tensor) -> Tensor:
    return _wave((x + y) / math.sqrt(2), across, _STRIPE)


def _checked(x: Tensor, y: Tensor, across: Tensor, down: Tensor) -> Tensor:
    columns, rows = _wave(x, across, _CHECK), _wave(y, down, _CHECK)
    return (columns * rows).sign() * torch.minimum(columns.abs(), rows.abs())


def _dotted(x: Tensor, y: Tensor, across: Tensor, down: Tensor) -> Tensor:
    columns, rows = (_from_middle(z, p, _DOT) for z, p in ((x, across), (y, down)))
    return _DOT_RADIUS - torch.hypot(columns, rows)


def _from_middle(position: Tensor, phase: Tensor, period: float) -> Tensor:
    """Distance to the nearest middle of a period."""
    return period * (torch.remainder(position / period + phase, 1) - 0.5).abs()


def _wave(position: Tensor, phase: Tensor, period: float) -> Tensor:
    """Distance inside the middle half of each period, negative in the other half."""
    return period / 4 - _from_middle(position, phase, period)


SHAPES = (_disc, _square, _triangle, _star, _cross, _ring)
"""Functions of (u, v), one for each shape."""

TEXTURES = (_plain, _striped, _checked, _dotted)
"""Functions of (x, y) and two phases, one for each texture."""
