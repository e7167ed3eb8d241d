"""Random numbers that Python and the browser draw alike: the same as in ``random.js``.

mulberry32, a hash of a counter on 32 bits, gives uniform numbers; Box and Muller's transform makes
them normal. Good enough to turn a picture, not for statistics of many million draws.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor


def uniforms(seed: int, count: int) -> np.ndarray:
    """Numbers in [0, 1) from mulberry32, shape (count,) in float64."""
    step = np.arange(1, count + 1, dtype=np.uint32)
    state = np.uint32(seed) + step * np.uint32(0x6D2B79F5)  # the counter wraps around
    t = (state ^ (state >> 15)) * (state | 1)
    t = (t + (t ^ (t >> 7)) * (t | 61)) ^ t
    return (t ^ (t >> 14)) / 2.0**32


def normals(seed: int, count: int) -> Float[Tensor, " count"]:
    """Standard normal numbers in float64."""
    first, second = uniforms(seed, count + count % 2).reshape(-1, 2).T
    radius, angle = np.sqrt(-2 * np.log(1 - first)), 2 * np.pi * second
    pairs = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
    return torch.from_numpy(pairs.reshape(-1)[:count])
