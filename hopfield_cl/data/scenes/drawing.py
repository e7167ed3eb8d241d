"""Factors and jitter to images."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from hopfield_cl.data.scenes._arguments import check_factors, check_size
from hopfield_cl.data.scenes.factors import JITTER
from hopfield_cl.data.scenes.outlines import SHAPES, TEXTURES

# What is drawn, in sRGB from 0 to 1 and in widths of the image.
_COLOURS = (
    (0.88, 0.08, 0.08),
    (1.00, 0.52, 0.02),
    (1.00, 0.90, 0.10),
    (0.10, 0.62, 0.15),
    (0.05, 0.82, 0.88),
    (0.08, 0.20, 0.92),
    (0.50, 0.12, 0.68),
    (1.00, 0.52, 0.76),
)
_GROUNDS = ((0.96, 0.96, 0.96), (0.55, 0.55, 0.55), (0.05, 0.05, 0.05), (0.40, 0.24, 0.10))
# The second tone of a texture, as a step from the first.
_SECOND_TONE = (-0.18, -0.14, 0.20, -0.11)
_TONE = 0.03
_SHIFT = 0.02
_RADII = ((0.115, 0.130), (0.180, 0.195))
_LARGEST_ANGLE = math.pi / 15
# Pixels drawn at a time: keeps the temporaries small at any count.
_PIXELS_PER_BLOCK = 2**17

CELLS = (0.28, 0.5, 0.72)
"""Middles of the left, central and right places, and of the upper, central and lower ones."""


def render(
    factors: Int[Tensor, "N 6"], *, jitter: Float[Tensor, "N 7"] | None = None, size: int = 64
) -> Float[Tensor, "N 3 size size"]:
    """Draw the images that factors describe.

    Each edge is as wide as a pixel: a pixel's coverage is read off its distance to the edge.

    Parameters
    ----------
    factors : Tensor of int64, shape (N, 6)
        Indices into the values of :data:`FACTORS`, as :func:`parse` finds them in full captions.
    jitter : Tensor of float32, shape (N, 7), optional
        Numbers from 0 to 1 in the order of :data:`JITTER`. All ½ if not given: each shape upright,
        in the middle of its cell and of its range of sizes.
    size : int
        Height and width in pixels, at least 8.

    Returns
    -------
    Tensor of float32, shape (N, 3, size, size)
        Images in [−1, 1], on the device of the factors.

    Raises
    ------
    TypeError, ValueError
        If an argument is not of its kind, a shape or device does not fit, or a value is out of
        range.
    """
    check_factors(factors, lowest=0)
    check_size(size)
    if jitter is None:
        jitter = torch.full((len(factors), len(JITTER)), 0.5, device=factors.device)
    _check_jitter(jitter, factors)
    block = max(1, _PIXELS_PER_BLOCK // size**2)
    pairs = zip(factors.split(block), jitter.split(block), strict=True)
    return torch.cat([_draw_block(some, how, size) for some, how in pairs])


def _draw_block(factors: Tensor, jitter: Tensor, size: int) -> Float[Tensor, "N 3 size size"]:
    shape, colour, large, place, background, texture = factors.T
    across, down, radius, angle, phase_across, phase_down, tone = jitter.T[:, :, None, None]
    centres = (torch.arange(size, device=factors.device) + 0.5) / size
    x, y = centres[None, None, :], centres[None, :, None]

    def table(values: Sequence) -> Tensor:
        return torch.tensor(values, dtype=torch.float32, device=factors.device)

    # The background, in two tones.
    first = table(_GROUNDS)[background] + _TONE * (2 * tone[:, 0] - 1)
    second = first + table(_SECOND_TONE)[background, None]
    ground = _mix(first, second, _by_kind(texture, TEXTURES, x, y, phase_across, phase_down), size)

    # The shape, in coordinates that are turned with it and in which its radius is 1.
    cells = table(CELLS)
    x = x - cells[place % 3, None, None] - _SHIFT * (2 * across - 1)
    y = y - cells[place // 3, None, None] - _SHIFT * (2 * down - 1)
    low, high = table(_RADII)[large, :, None, None].unbind(1)
    unit = low + (high - low) * radius
    turn = _LARGEST_ANGLE * (2 * angle - 1)
    u = (turn.cos() * x + turn.sin() * y) / unit
    v = (turn.cos() * y - turn.sin() * x) / unit
    depth = unit * _by_kind(shape, SHAPES, u, v)
    return 2 * _mix(ground, table(_COLOURS)[colour], depth, size).clamp(0, 1) - 1


def _mix(below: Tensor, above: Tensor, depth: Tensor, size: int) -> Tensor:
    """Lay a colour over another; ``depth`` is the distance inside its edge, negative outside."""
    cover = (0.5 + size * depth[:, None]).clamp(0, 1)
    under = below if below.ndim == 4 else below[:, :, None, None]
    return under + cover * (above[:, :, None, None] - under)


def _by_kind(kinds: Tensor, functions: Sequence, *arguments: Tensor) -> Tensor:
    """Evaluate for each row the function of its kind, each function once on all its rows."""
    rows = torch.broadcast_tensors(*arguments)
    value = torch.empty_like(rows[0])
    for kind, function in enumerate(functions):
        chosen = (kinds == kind).nonzero()[:, 0]
        value[chosen] = function(*(row[chosen] for row in rows))
    return value


def _check_jitter(jitter: Tensor, factors: Tensor) -> None:
    if not isinstance(jitter, Tensor) or jitter.dtype != torch.float32:
        kind = jitter.dtype if isinstance(jitter, Tensor) else type(jitter).__name__
        raise TypeError(f"jitter must be a torch.Tensor of float32, but is of {kind}.")
    if jitter.shape != (len(factors), len(JITTER)):
        raise ValueError(
            f"jitter must have shape ({len(factors)}, {len(JITTER)}), one row for each row of "
            f"factors, but has shape {tuple(jitter.shape)}."
        )
    if jitter.device != factors.device:
        raise ValueError(
            f"jitter must be on the device of factors, {factors.device}, but is on {jitter.device}."
        )
    inside = (jitter >= 0) & (jitter <= 1)  # false for NaN
    if not bool(inside.all()):
        raise ValueError(f"jitter must lie between 0 and 1, but holds {jitter[~inside][0].item()}.")
