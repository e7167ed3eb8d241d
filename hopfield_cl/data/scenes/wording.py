"""Factors in words, and words read back as factors."""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch
from jaxtyping import Int
from torch import Tensor

from hopfield_cl.data.scenes._arguments import check_factors
from hopfield_cl.data.scenes.factors import FACTORS


def captions(factors: Int[Tensor, "N 6"]) -> tuple[str, ...]:
    """Say factors in words: "a small red star on a striped grey background, top left".

    Parameters
    ----------
    factors : Tensor of int64, shape (N, 6)
        Indices into the values of :data:`FACTORS`; −1 for what shall not be said: "a red shape",
        "a star on a grey background".

    Returns
    -------
    tuple of str
        One caption a row.

    Raises
    ------
    TypeError, ValueError
        If the factors are no such matrix or an index is out of range.
    """
    check_factors(factors, lowest=-1)
    return tuple(_caption(row) for row in factors.tolist())


def parse(captions: Sequence[str]) -> Int[Tensor, "N 6"]:
    """Read the factors from captions; the inverse of :func:`captions`.

    Parameters
    ----------
    captions : sequence of str
        Captions of the form "a [size] [colour] SHAPE [on a [texture] [background] background][,
        place]", in which SHAPE is the name of one or the word "shape".

    Returns
    -------
    Tensor of int64, shape (N, 6)
        Indices into the values of :data:`FACTORS`; −1 for what a caption does not say.

    Raises
    ------
    TypeError, ValueError
        If ``captions`` is no sequence of strings, is empty, or one has another form.
    """
    if isinstance(captions, str) or not isinstance(captions, Sequence):
        raise TypeError(
            f"captions must be a sequence of strings, but is a {type(captions).__name__}."
        )
    if not captions:
        raise ValueError("captions must hold at least one caption, but is empty.")
    return torch.tensor([_factors_said(caption) for caption in captions], dtype=torch.int64)


def _caption(row: Sequence[int]) -> str:
    said = [
        values[index] if index >= 0 else ""
        for index, values in zip(row, FACTORS.values(), strict=True)
    ]
    shape, colour, size, place, background, texture = said
    thing = " ".join(word for word in (size, colour, shape or "shape") if word)
    words = [f"an {thing}" if thing[0] in "aeiou" else f"a {thing}"]
    if background or texture:
        ground = " ".join(word for word in (texture, background, "background") if word)
        words.append(f"on a {ground}")
    return " ".join(words) + (f", {place}" if place else "")


def _one_of(factor: str) -> str:
    return f"(?P<{factor}>{'|'.join(FACTORS[factor])})"


_GRAMMAR = re.compile(
    f"an? (?:{_one_of('size')} )?(?:{_one_of('colour')} )?(?:{_one_of('shape')}|shape)"
    f"(?: on a (?:{_one_of('texture')} )?(?:{_one_of('background')} )?background)?"
    f"(?:, {_one_of('place')})?"
)


def _factors_said(caption: str) -> list[int]:
    if not isinstance(caption, str):
        raise TypeError(f"captions must hold strings, but holds a {type(caption).__name__}.")
    found = _GRAMMAR.fullmatch(caption)
    if found is None:
        raise ValueError(
            f"captions must read like 'a small red star on a striped grey background, top left', "
            f"but one is {caption!r}."
        )
    return [
        -1 if found[factor] is None else values.index(found[factor])
        for factor, values in FACTORS.items()
    ]
