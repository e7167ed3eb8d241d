"""A pipeline in a folder, with the list of its files and their hashes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from diffusers import StableDiffusionPipeline

from hopfield_cl.stable.pipelines._bars import without_bars
from hopfield_cl.stable.pipelines.properties import PipelineError, check_pipeline, has_adapter

MANIFEST = "hopfield_cl.json"
"""Name of the list of a saved pipeline's files, which lies beside them."""

_FORMAT = "hopfield_cl pipeline, version 1"


def save_pipeline(
    folder: str | Path, pipeline: StableDiffusionPipeline, *, training: Mapping[str, object]
) -> None:
    """Write a pipeline to a folder, in the layout of diffusers, as safetensors.

    Anyone can read it with ``StableDiffusionPipeline.from_pretrained(folder)``. Beside it stands a
    list of its files with their SHA-256, which :func:`load_pipeline` compares.

    Parameters
    ----------
    folder : path
        Where to; made if it is not there. A saved pipeline in it is replaced.
    pipeline : StableDiffusionPipeline
        The pipeline, with no adapter attached.
    training : mapping
        How it was trained: anything that JSON can hold.

    Raises
    ------
    TypeError
        If an argument is not of its kind.
    ValueError
        If the pipeline has an adapter, ``training`` cannot be written as JSON, or the folder holds
        files of something else.
    """
    folder = Path(folder)
    check_pipeline(pipeline)
    if has_adapter(pipeline):
        raise ValueError(
            "pipeline must have no adapter attached, but has one; call merge_adapter first."
        )
    if not isinstance(training, Mapping):
        raise TypeError(f"training must be a mapping, but is a {type(training).__name__}.")
    try:
        record = json.dumps(dict(training), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"training must hold what JSON can hold, but does not: {error}.") from None
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        verify_pipeline(folder)
    with without_bars():
        pipeline.save_pretrained(folder, safe_serialization=True)
    manifest = {
        "format": _FORMAT,
        "training": json.loads(record),
        "files": {name: _sha256(folder / name) for name in _files(folder)},
    }
    # Written last: until then the folder does not agree with any list in it, and is refused.
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")


def verify_pipeline(folder: str | Path) -> dict[str, Any]:
    """Check that a folder holds what :func:`save_pipeline` wrote and nothing else; build nothing.

    Parameters
    ----------
    folder : path
        Where the pipeline lies.

    Returns
    -------
    dict
        How it was trained, as it was given to :func:`save_pipeline`.

    Raises
    ------
    PipelineError
        If a file is missing, altered or not of the pipeline, or the list of files is none.
    """
    folder = Path(folder)
    path = folder / MANIFEST
    if not path.is_file():
        raise PipelineError(
            f"folder must hold a pipeline saved by save_pipeline, but {path} is missing."
        )
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # what is no JSON, and what is no UTF-8
        raise PipelineError(f"{path} must be JSON in UTF-8, but is not: {error}.") from error
    if not isinstance(manifest, dict) or manifest.get("format") != _FORMAT:
        raise PipelineError(f"{path} must have the format {_FORMAT!r}, but has another.")
    listed, found = manifest["files"], _files(folder)
    # What is listed is compared with what is there, so that no name can lead out of the folder.
    for name in sorted(set(listed) ^ set(found)):
        what = "is missing" if name in listed else "is not part of it"
        raise PipelineError(f"folder must hold the pipeline as it was saved, but {name} {what}.")
    for name in found:
        digest = _sha256(folder / name)
        if digest != listed[name]:
            raise PipelineError(
                f"{folder / name} must be the file that was saved, with SHA-256 {listed[name]}, "
                f"but is altered or cut short: its SHA-256 is {digest}."
            )
    return manifest["training"]


def _files(folder: Path) -> list[str]:
    """Names of all files in a folder but the list of them and a model card."""
    names = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return sorted(name for name in names if name not in (MANIFEST, "README.md"))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
