"""Random streams that hold no state: each follows from a seed, a step and a purpose."""

from __future__ import annotations

import hashlib

import torch
from jaxtyping import Int
from torch import Tensor

from hopfield_cl import _checks


def generator(
    seed: int, step: int, purpose: str, *, device: str | torch.device = "cpu"
) -> torch.Generator:
    """Make the source of the random numbers of one purpose in one step.

    Parameters
    ----------
    seed : int
        Seed of the training.
    step : int
        Number of the step, or of the epoch.
    purpose : str
        What is drawn: different purposes are independent.
    device : str or torch.device
        Where it draws.

    Returns
    -------
    torch.Generator
        The same for the same arguments.

    Raises
    ------
    TypeError, ValueError
        If ``seed`` or ``step`` is no integer from 0.
    """
    _checks.integer_from(seed, "seed", 0)
    _checks.integer_from(step, "step", 0)
    digest = hashlib.sha256(f"{seed}/{step}/{purpose}".encode()).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(digest[:7], "big"))


def rows(count: int, per_step: int, step: int, *, seed: int, purpose: str) -> Int[Tensor, " n"]:
    """Rows of a pool that a step takes: without replacement until all were taken.

    Parameters
    ----------
    count : int
        Rows of the pool; at least 1.
    per_step : int
        Rows of a step; may be 0.
    step : int
        Number of the step, from 0.
    seed, purpose
        As for :func:`generator`.

    Returns
    -------
    Tensor of int64, shape (per_step,)
        Row numbers. After ``count`` rows a new random order begins, in the middle of a step if need
        be.

    Raises
    ------
    TypeError, ValueError
        If a number is no integer or out of range.
    """
    for value, name, low in ((count, "count", 1), (per_step, "per_step", 0), (step, "step", 0)):
        _checks.integer_from(value, name, low)
    first, last = step * per_step, (step + 1) * per_step
    orders = [
        torch.randperm(count, generator=generator(seed, epoch, purpose))
        for epoch in range(first // count, max(first, last - 1) // count + 1)
    ]
    return torch.cat(orders)[first % count :][:per_step]
