"""The public door: every argument of the package is checked here, once.

Each function returns nothing when the argument is good. Otherwise it raises ``TypeError`` (wrong
kind of thing) or ``ValueError`` (wrong value) with a sentence that names the argument, says what
came and what would be right.
"""

from __future__ import annotations

import math
from numbers import Integral, Real
from typing import Any

import torch
from torch import Tensor

_DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
# Entries read at a time when looking for NaN or infinity: keeps the temporary small at any N.
_ENTRIES_PER_LOOK = 2**20


def float_tensor(value: Any, name: str) -> None:
    """Require a tensor of float64, float32, bfloat16 or float16."""
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} must be a torch.Tensor, but is a {type(value).__name__}.")
    if value.dtype not in _DTYPES:
        raise TypeError(
            f"{name} must have a floating-point dtype of 16 bits or more, but has {value.dtype}; "
            f"convert it, for instance with {name}.float()."
        )


def float_dtype(value: Any) -> None:
    """Require float64, float32, bfloat16 or float16."""
    if value not in _DTYPES:
        raise TypeError(
            f"dtype must be a floating-point torch.dtype of 16 bits or more, but is {value!r}."
        )


def finite(value: Tensor, name: str) -> None:
    """Require that no entry is NaN or infinite, reading a bounded number of rows at a time."""
    if value.numel() == 0:
        return
    rows = value.detach().reshape(-1, value.shape[-1] if value.ndim else 1)
    step = max(1, _ENTRIES_PER_LOOK // rows.shape[1])
    for start in range(0, rows.shape[0], step):
        block = rows[start : start + step]
        # One NaN makes both extremes NaN; two numbers tell of all, at one read and no copy.
        low, high = torch.aminmax(block)
        if not math.isfinite(low) or not math.isfinite(high):
            bad = (~torch.isfinite(block)).nonzero()[0].tolist()
            entry = block[bad[0], bad[1]].item()
            raise ValueError(
                f"{name} must be finite, but row {start + bad[0]} holds {entry}; "
                "remove or repair it first."
            )


def points_and_memories(x: Any, memories: Any, name: str = "memories") -> None:
    """Require ``x`` (..., d) and a non-empty set of memories (N, d) that fit each other."""
    float_tensor(x, "x")
    _matrix(memories, name)
    if x.ndim < 1:
        raise ValueError("x must have shape (..., d), but is a scalar; give a vector.")
    if x.shape[-1] != memories.shape[1]:
        raise ValueError(
            f"x must have the dimension of {name} in its last axis, d = {memories.shape[1]}, "
            f"but has shape {tuple(x.shape)}."
        )
    same_kind(memories, name, x, "x")
    finite(memories, name)
    finite(x, "x")


def memory_set(memories: Any, name: str) -> None:
    """Require a non-empty, finite matrix (N, d) with one memory a row."""
    _matrix(memories, name)
    finite(memories, name)


def _matrix(memories: Any, name: str) -> None:
    float_tensor(memories, name)
    if memories.ndim != 2:
        raise ValueError(
            f"{name} must have shape (N, d), one memory a row, but has shape "
            f"{tuple(memories.shape)}."
        )
    if memories.shape[0] == 0 or memories.shape[1] == 0:
        raise ValueError(
            f"{name} must hold at least one memory of at least one dimension, but has shape "
            f"{tuple(memories.shape)}."
        )


def same_kind(value: Tensor, name: str, reference: Tensor, reference_name: str) -> None:
    """Require the dtype and device of a reference tensor: nothing is cast or moved silently."""
    if value.dtype != reference.dtype:
        raise TypeError(
            f"{name} must have the dtype of {reference_name}, {reference.dtype}, but has "
            f"{value.dtype}; convert one of them."
        )
    if value.device != reference.device:
        raise ValueError(
            f"{name} must be on the device of {reference_name}, {reference.device}, but is on "
            f"{value.device}; move one of them."
        )


def beta(value: Any, reference: Tensor | None = None) -> None:
    """Require an inverse temperature: a finite number above zero, or a scalar tensor of one.

    A tensor must lie on the CPU, or on the device of ``reference`` if that is given.
    """
    if isinstance(value, Tensor):
        if value.ndim != 0 or not value.is_floating_point():
            raise TypeError(
                "beta must be a number or a floating-point tensor with no dimensions, but is a "
                f"tensor of shape {tuple(value.shape)} and dtype {value.dtype}."
            )
        home = torch.device("cpu") if reference is None else reference.device
        if value.device not in (torch.device("cpu"), home):
            raise ValueError(
                f"beta must be on the CPU or on the device of x, {home}, but is on {value.device}; "
                "move one of them."
            )
        value = value.item()
    positive_number(value, "beta")


def positive_number(value: Any, name: str) -> None:
    """Require a finite real number above zero."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} must be a number, but is a {type(value).__name__}.")
    if not (_fits_float(value) and value > 0):
        raise ValueError(f"{name} must be finite and above 0, but is {value}.")


def number_between(value: Any, name: str, low: float, high: float) -> None:
    """Require a finite real number in the closed interval from ``low`` to ``high``."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} must be a number, but is a {type(value).__name__}.")
    if not (_fits_float(value) and low <= value <= high):
        raise ValueError(f"{name} must lie between {low} and {high}, but is {value}.")


def _fits_float(value: Real) -> bool:
    """Whether a number is finite and, if it is an integer, not too large for a float."""
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def integer_from(value: Any, name: str, low: int) -> None:
    """Require an integer that is at least ``low``."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{name} must be an integer, but is a {type(value).__name__}.")
    if value < low:
        raise ValueError(f"{name} must be at least {low}, but is {value}.")


def images(
    value: Any, name: str, shape: tuple[int, ...] | None = None, *, reason: str = ""
) -> None:
    """Require one image or more, finite, and of the shape (C, H, W) that is given for a reason."""
    float_tensor(value, name)
    wrong = value.ndim != 4 or len(value) == 0 or (shape is not None and value.shape[1:] != shape)
    if wrong:
        wanted = "C, H, W" if shape is None else ", ".join(map(str, shape))
        raise ValueError(
            f"{name} must have shape (N, {wanted}) with N at least 1{reason}, but has shape "
            f"{tuple(value.shape)}."
        )
    finite(value, name)


def weights(
    value: Any, memories: Tensor, name: str = "weights", memories_name: str = "memories"
) -> None:
    """Require None or one finite mass above zero for each memory."""
    if value is None:
        return
    float_tensor(value, name)
    if value.shape != memories.shape[:1]:
        raise ValueError(
            f"{name} must have shape ({memories.shape[0]},), one mass for each memory, but has "
            f"shape {tuple(value.shape)}."
        )
    same_kind(value, name, memories, memories_name)
    low, high = torch.aminmax(value.detach())
    if not (low > 0 and high < math.inf):  # NaN fails both
        good = torch.isfinite(value) & (value > 0)
        first = int((~good).nonzero()[0])
        raise ValueError(
            f"{name} must be finite and above 0, but entry {first} is {value[first].item()}."
        )


def chunk_size(value: Any) -> None:
    """Require None or a positive number of memories."""
    if value is not None:
        integer_from(value, "chunk_size", 1)


def no_overflow(result: Tensor, what: str) -> None:
    """Require a finite result: good arguments can still overflow the dtype they came in."""
    if not bool(torch.isfinite(result.detach()).all()):
        raise ValueError(
            f"{what} overflows {result.dtype}: the arguments are too large for it; scale them "
            "down or use a wider dtype."
        )


def signs(value: Any, name: str) -> None:
    """Require a floating-point tensor with at least one dimension whose entries are −1 or 1."""
    float_tensor(value, name)
    if value.ndim < 1:
        raise ValueError(f"{name} must have shape (..., d), but is a scalar; give a vector.")
    bad = value.detach().abs() != 1  # true for NaN as well
    if bool(bad.any()):
        raise ValueError(
            f"{name} must hold only −1 and 1, but holds {value.detach()[bad][0].item()}; take its "
            "sign first."
        )
