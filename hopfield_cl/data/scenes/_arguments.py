"""Checks of the arguments that several of these modules take."""

from __future__ import annotations

import torch
from torch import Tensor

from hopfield_cl import _checks
from hopfield_cl.data.scenes.factors import FACTORS

_LARGEST_SEED = 2**64 - 1
_SMALLEST_SIZE = 8


def check_seed(seed: int) -> None:
    """Require an integer from 0 to 2⁶⁴ − 1."""
    _checks.integer_from(seed, "seed", 0)
    if seed > _LARGEST_SEED:
        raise ValueError(f"seed must be at most 2⁶⁴ − 1, but is {seed}.")


def check_size(size: int) -> None:
    """Require an integer of pixels, at least 8."""
    _checks.integer_from(size, "size", _SMALLEST_SIZE)


def check_factors(factors: Tensor, *, lowest: int) -> None:
    """Require int64 of shape (N, 6), each from ``lowest`` to the index of the last value."""
    if not isinstance(factors, Tensor) or factors.dtype != torch.int64:
        kind = factors.dtype if isinstance(factors, Tensor) else type(factors).__name__
        raise TypeError(f"factors must be a torch.Tensor of int64, but is of {kind}.")
    if factors.ndim != 2 or factors.shape[1] != len(FACTORS) or len(factors) == 0:
        raise ValueError(
            f"factors must have shape (N, {len(FACTORS)}) with N at least 1, one scene a row, but "
            f"has shape {tuple(factors.shape)}."
        )
    for column, (name, values) in zip(factors.T, FACTORS.items(), strict=True):
        low, high = int(column.min()), int(column.max())
        if low < lowest or high >= len(values):
            raise ValueError(
                f"factors must have a {name} from {lowest} to {len(values) - 1}, but holds "
                f"{low if low < lowest else high}."
            )
