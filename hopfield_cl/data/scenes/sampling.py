"""Scenes drawn from their density, whole or in portions, and their split into two tasks.

Sample i comes from block i of a counter-based generator under the key ``seed``: it is the same
however many samples are drawn, in whatever portions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from hopfield_cl import _checks
from hopfield_cl.data.scenes._arguments import check_seed, check_size
from hopfield_cl.data.scenes.density import log_probability, probabilities
from hopfield_cl.data.scenes.drawing import render
from hopfield_cl.data.scenes.factors import FACTORS
from hopfield_cl.data.scenes.wording import captions

_DRAWS = 8  # numbers a sample takes: one for the factors, seven for the jitter


@dataclass(frozen=True)
class SceneSet:
    """Scenes with all that is known of them.

    Attributes
    ----------
    images : Tensor of float32, shape (N, 3, H, W)
        Pixel values from −1 to 1.
    factors : Tensor of int64, shape (N, 6)
        What each image shows: indices into the values of :data:`FACTORS`.
    jitter : Tensor of float32, shape (N, 7)
        How it shows it, each number from 0 to 1, in the order of :data:`JITTER`.
    captions : tuple of str
        The factors in words.
    log_density : Tensor of float64, shape (N,)
        Natural logarithm of the probability of the factors, and of the density of factors and
        jitter together. The lower, the more of an outlier.
    """

    images: Float[Tensor, "N 3 H W"]
    factors: Int[Tensor, "N 6"]
    jitter: Float[Tensor, "N 7"]
    captions: tuple[str, ...]
    log_density: Float[Tensor, " N"]

    def __len__(self) -> int:
        return len(self.captions)


def scenes(count: int, *, seed: int, size: int = 64, start: int = 0) -> SceneSet:
    """Draw scenes from the generating distribution.

    Parameters
    ----------
    count : int
        Number of scenes, at least 1. At 64 pixels a thousand of them take 49 MB; :func:`stream`
        draws them in portions.
    seed : int
        From 0 to 2⁶⁴ − 1.
    size : int
        Height and width in pixels, at least 8. The scene is the same at any size.
    start : int
        Number of the first scene. ``scenes(10, seed=s, start=5)`` are the last ten of
        ``scenes(15, seed=s)``.

    Returns
    -------
    SceneSet
        On the CPU.

    Raises
    ------
    TypeError, ValueError
        If an argument is no integer or out of range.

    References
    ----------
    Salmon et al. (2011), *Parallel Random Numbers: As Easy as 1, 2, 3*, for the generator, Philox.
    """
    _check_draw(count, seed, size, start)
    factors, jitter = _draw(count, seed, start)
    images = render(factors, jitter=jitter, size=size)
    return SceneSet(images, factors, jitter, captions(factors), log_probability(factors))


def stream(
    count: int, batch_size: int, *, seed: int, size: int = 64, start: int = 0
) -> Iterator[SceneSet]:
    """Draw scenes batch by batch: no more than one batch is in memory.

    Parameters
    ----------
    count : int
        Number of scenes in all, at least 1.
    batch_size : int
        Scenes in a batch, at least 1; the last one may have fewer.
    seed, size, start
        As for :func:`scenes`.

    Returns
    -------
    iterator of SceneSet
        One after the other they are ``scenes(count, ...)``.

    Raises
    ------
    TypeError, ValueError
        If an argument is no integer or out of range.
    """
    _check_draw(count, seed, size, start)
    _checks.integer_from(batch_size, "batch_size", 1)
    return (
        scenes(min(batch_size, count - done), seed=seed, size=size, start=start + done)
        for done in range(0, count, batch_size)
    )


def split(drawn: SceneSet, factor: str, values: Sequence[str]) -> tuple[SceneSet, SceneSet]:
    """Split scenes into two tasks by one factor.

    The log-densities stay those of the whole distribution; within a task they differ from its own
    by a constant, the log-probability of the task.

    Parameters
    ----------
    drawn : SceneSet
        What to split.
    factor : str
        A name in :data:`FACTORS`.
    values : sequence of str
        Names of the factor's values in the first task; all others go to the second.

    Returns
    -------
    first, second : SceneSet
        In the order of ``drawn``; one of them may be empty.

    Raises
    ------
    TypeError, ValueError
        If ``drawn`` is no set of scenes, or there is no such factor or value.
    """
    if not isinstance(drawn, SceneSet):
        raise TypeError(f"drawn must be a SceneSet, but is a {type(drawn).__name__}.")
    if factor not in FACTORS:
        raise ValueError(f"factor must be one of {', '.join(FACTORS)}, but is {factor!r}.")
    if isinstance(values, str):
        raise TypeError(f"values must be a sequence of names, but is the string {values!r}.")
    known, wanted = FACTORS[factor], list(values)
    unknown = [value for value in wanted if value not in known]
    if unknown:
        raise ValueError(f"values must be some of {', '.join(known)}, but hold {unknown[0]!r}.")
    column = drawn.factors[:, list(FACTORS).index(factor)]
    chosen = torch.isin(column, column.new_tensor([known.index(value) for value in wanted]))
    return _part(drawn, chosen), _part(drawn, ~chosen)


def _draw(count: int, seed: int, start: int) -> tuple[Tensor, Tensor]:
    """Factors (count, 6) and jitter (count, 7) of the samples from ``start`` on."""
    # One step of Philox's counter gives four numbers.
    counter = start * _DRAWS // 4
    raw = np.random.Philox(key=seed, counter=counter).random_raw(count * _DRAWS)
    uniform = torch.from_numpy((raw >> np.uint64(11)) * 2.0**-53).reshape(count, _DRAWS)
    table = probabilities()
    # Rounding may leave the last sum below 1.
    cumulative = table.flatten().cumsum(0)[:-1].contiguous()
    combination = torch.searchsorted(cumulative, uniform[:, 0].contiguous(), right=True)
    factors = torch.stack(torch.unravel_index(combination, table.shape), dim=1)
    return factors, uniform[:, 1:].float()


def _part(drawn: SceneSet, chosen: Tensor) -> SceneSet:
    said = tuple(drawn.captions[i] for i in chosen.nonzero()[:, 0].tolist())
    tensors = (drawn.images, drawn.factors, drawn.jitter)
    images, factors, jitter = (tensor[chosen] for tensor in tensors)
    return SceneSet(images, factors, jitter, said, drawn.log_density[chosen])


def _check_draw(count: int, seed: int, size: int, start: int) -> None:
    _checks.integer_from(count, "count", 1)
    check_seed(seed)
    check_size(size)
    _checks.integer_from(start, "start", 0)
