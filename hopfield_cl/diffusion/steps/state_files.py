"""State files of a training: written whole or not at all, and known by a fingerprint."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor


def fingerprint(*parts: object) -> str:
    """Identify what a training is given.

    Parameters
    ----------
    *parts : object
        Tensors, by their bytes; all else by what JSON makes of it.

    Returns
    -------
    str
        A SHA-256.
    """
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, Tensor):
            digest.update(str((tuple(part.shape), str(part.dtype))).encode())
            digest.update(part.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
        else:
            digest.update(json.dumps(part).encode())
    return digest.hexdigest()


def write_state(
    path: Path, tensors: Mapping[str, Tensor], state: Mapping[str, Any], *, file_format: str
) -> None:
    """Write the state of a training to a file: whole, or not at all.

    Parameters
    ----------
    path : Path
        The file; its folder is made.
    tensors : mapping of str to Tensor
        The tensors, by name.
    state : mapping
        All else: what JSON can hold.
    file_format : str
        Name of the format.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    save_file(
        {name: value.detach().contiguous() for name, value in tensors.items()},
        partial,
        metadata={"format": file_format, "state": json.dumps(state)},
    )
    _to_disk(partial)
    os.replace(partial, path)
    _to_disk(path.parent)


def read_state(path: Path, *, file_format: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what :func:`write_state` wrote.

    Parameters
    ----------
    path : Path
        The file.
    file_format : str
        Name of the format that it must have.

    Returns
    -------
    tensors : dict of str to Tensor
        The tensors, by name; on the CPU.
    state : dict
        All else.

    Raises
    ------
    ValueError
        If the file is damaged or of another format.
    """
    tensors, metadata = _read(path)
    if metadata.get("format") != file_format:
        raise ValueError(
            f"checkpoint must be the state of a training, but {path} is something else; name "
            "another file or remove it."
        )
    return tensors, json.loads(metadata["state"])


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safe_open(path, framework="pt") as file:
            names = file.keys()
            return {name: file.get_tensor(name) for name in names}, file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise ValueError(
            f"checkpoint must be a whole safetensors file, but {path} cannot be read ({error}); "
            "remove it to start anew."
        ) from error


def _to_disk(path: Path) -> None:
    """Have a file, or the names in a folder, written to the disk itself."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
