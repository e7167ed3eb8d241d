"""Prompts: words in, conditions of the U-Net out.

An empty prompt is the unconditional one, which guidance is measured from. A prompt that is too long
loses its end, and a warning says what was lost.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import torch
from diffusers import StableDiffusionPipeline
from jaxtyping import Float, Int
from torch import Tensor

from hopfield_cl import _checks


def tokenize(pipeline: StableDiffusionPipeline, prompts: Sequence[str]) -> Int[Tensor, "N length"]:
    """Turn prompts into tokens.

    Parameters
    ----------
    pipeline : StableDiffusionPipeline
        Whose tokenizer is used.
    prompts : sequence of str
        One prompt or more. An empty one, or one of blanks, stands for no condition. From one with
        more tokens than the text encoder takes, the end is cut off, with a warning.

    Returns
    -------
    Tensor of int64, shape (N, length)
        Start, tokens, end, and padding up to the length of the text encoder; on the CPU.

    Raises
    ------
    TypeError, ValueError
        If ``prompts`` is no sequence of strings, or is empty.

    Warns
    -----
    UserWarning
        For each prompt that is cut: it says what was cut off.
    """
    if isinstance(prompts, str) or not isinstance(prompts, Sequence):
        raise TypeError(
            f"prompts must be a sequence of strings, but is a {type(prompts).__name__}; put a "
            "single prompt in a list."
        )
    if not prompts:
        raise ValueError("prompts must hold at least one prompt, but is empty.")
    for prompt in prompts:
        if not isinstance(prompt, str):
            raise TypeError(f"prompts must hold strings, but holds a {type(prompt).__name__}.")
    tokenizer, length = pipeline.tokenizer, pipeline.tokenizer.model_max_length
    found = tokenizer(list(prompts), padding="max_length", max_length=length, truncation=True)
    room = length - 2  # start and end
    # Spelling a prompt out is slow, and few have as many tokens as fill the room.
    for prompt, ids in zip(prompts, found.input_ids, strict=True):
        if ids[-2] not in (tokenizer.eos_token_id, tokenizer.pad_token_id):
            _warn_if_cut(tokenizer, prompt, room)
    return torch.tensor(found.input_ids)


def embed(
    pipeline: StableDiffusionPipeline, prompts: Sequence[str], *, batch_size: int = 256
) -> Float[Tensor, "N length width"]:
    """Turn prompts into the conditions that the U-Net sees.

    Parameters
    ----------
    pipeline : StableDiffusionPipeline
        Whose tokenizer and text encoder are used.
    prompts : sequence of str
        As for :func:`tokenize`.
    batch_size : int
        Prompts at a time; changes the result by no more than rounding.

    Returns
    -------
    Tensor, shape (N, length, width)
        The last layer of the text encoder, on its device and in its dtype.

    Raises
    ------
    TypeError, ValueError
        As for :func:`tokenize`.

    Warns
    -----
    UserWarning
        As for :func:`tokenize`.
    """
    _checks.integer_from(batch_size, "batch_size", 1)
    tokens = tokenize(pipeline, prompts).to(pipeline.text_encoder.device)
    with torch.no_grad():
        parts = [pipeline.text_encoder(part).last_hidden_state for part in tokens.split(batch_size)]
    return torch.cat(parts)


def pooled(
    pipeline: StableDiffusionPipeline, prompts: Sequence[str], *, batch_size: int = 256
) -> Float[Tensor, "N width"]:
    """Place prompts in the space of CLIP's text encoder, one vector each.

    Parameters
    ----------
    pipeline : StableDiffusionPipeline
        Whose tokenizer and text encoder are used.
    prompts : sequence of str
        As for :func:`tokenize`.
    batch_size : int
        Prompts at a time; changes the result by no more than rounding.

    Returns
    -------
    Tensor, shape (N, width)
        The last layer of the text encoder where the prompt ends, on its device and in its dtype.

    Raises
    ------
    TypeError, ValueError
        As for :func:`tokenize`.

    Warns
    -----
    UserWarning
        As for :func:`tokenize`.

    References
    ----------
    Radford et al. (2021), *Learning Transferable Visual Models From Natural Language Supervision*.
    """
    _checks.integer_from(batch_size, "batch_size", 1)
    tokens = tokenize(pipeline, prompts).to(pipeline.text_encoder.device)
    with torch.no_grad():
        parts = [pipeline.text_encoder(part).pooler_output for part in tokens.split(batch_size)]
    return torch.cat(parts)


def _warn_if_cut(tokenizer: object, prompt: str, room: int) -> None:
    said = tokenizer(prompt, add_special_tokens=False, verbose=False).input_ids
    if len(said) > room:
        kept, lost = tokenizer.decode(said[:room]), tokenizer.decode(said[room:])
        warnings.warn(
            f"The prompt has {len(said)} tokens, {len(said) - room} more than fit: "
            f"{lost.strip()!r} was cut off, {kept.strip()!r} was kept.",
            stacklevel=4,
        )
