"""A CLIP tokenizer of the words of the scenes' captions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import chain, pairwise

from tokenizers.pre_tokenizers import ByteLevel
from transformers import CLIPTokenizer

from hopfield_cl import _checks
from hopfield_cl.data.scenes import FACTORS

_START, _END = "<|startoftext|>", "<|endoftext|>"
_OTHER_WORDS = ("a", "an", "on", "background", "shape", ",")


def new_tokenizer(length: int) -> CLIPTokenizer:
    """Build a CLIP tokenizer in which each word of the scenes' captions is one token.

    Parameters
    ----------
    length : int
        Tokens of a prompt, start and end included.

    Returns
    -------
    CLIPTokenizer
        Other words are spelt in shorter tokens, in the end in bytes: there is no unknown one.

    Raises
    ------
    TypeError, ValueError
        If ``length`` is no integer from 3.

    References
    ----------
    Sennrich, Haddow & Birch (2016), *Neural Machine Translation of Rare Words with Subword Units*.
    """
    _checks.integer_from(length, "length", 3)
    words = sorted({*" ".join(chain(*FACTORS.values())).split(), *_OTHER_WORDS})
    merges = _merges(words)
    characters = sorted(ByteLevel.alphabet())
    tokens = [*characters, *(c + "</w>" for c in characters), *("".join(m) for m in merges)]
    tokens = [*dict.fromkeys(tokens), _START, _END]
    return CLIPTokenizer(
        vocab={token: index for index, token in enumerate(tokens)},
        merges=merges,
        model_max_length=length,
    )


def _merges(words: Sequence[str]) -> list[tuple[str, str]]:
    """Pairs to join, the most frequent first, until every word is whole.

    A tie is broken by the alphabet: the trainer of tokenizers breaks it differently each time.
    """
    spelt = [[*word[:-1], word[-1] + "</w>"] for word in words]
    merges = []
    while pairs := Counter(pair for parts in spelt for pair in pairwise(parts)):
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        spelt = [_joined(parts, best) for parts in spelt]
    return merges


def _joined(parts: Sequence[str], pair: tuple[str, str]) -> list[str]:
    """Join a pair wherever it stands in a word."""
    joined: list[str] = []
    for part in parts:
        if joined and (joined[-1], part) == pair:
            joined[-1] += part
        else:
            joined.append(part)
    return joined
