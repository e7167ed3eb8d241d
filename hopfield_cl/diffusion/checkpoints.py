"""Trained models on disk: in the layout of diffusers, without pickle, and with their hashes.

A folder holds the four files that diffusers writes for a pipeline, and ``hopfield_cl.json``: what
the model is made of, how it was trained, and the SHA-256 of each file. Nothing is built from a
folder that is not, byte for byte, the one that was saved.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import torch
from diffusers import DDPMPipeline
from safetensors import SafetensorError
from safetensors.torch import load_file

from hopfield_cl.diffusion.models import DiffusionModel, ModelConfig, new_model

_FORMAT = "hopfield_cl model, version 1"
_MANIFEST = "hopfield_cl.json"
_WEIGHTS = "unet/diffusion_pytorch_model.safetensors"
_UNET, _SCHEDULER = "unet/config.json", "scheduler/scheduler_config.json"
_FILES = ("model_index.json", _SCHEDULER, _UNET, _WEIGHTS)
# What may lie beside them: a model card.
_HARMLESS = ("README.md",)


def save_model(
    folder: str | Path, model: DiffusionModel, *, training: Mapping[str, object]
) -> None:
    """Write a model to a folder.

    The folder is one that ``diffusers.DDPMPipeline.from_pretrained`` reads. With patches of more
    than one pixel, that pipeline draws the patches as channels, before they are put together.

    Parameters
    ----------
    folder : path
        Where to; made if it is not there. A saved model in it is replaced.
    model : DiffusionModel
        The model.
    training : mapping
        How it was trained: anything that JSON can hold.

    Raises
    ------
    TypeError
        If an argument is not of its kind.
    ValueError
        If ``training`` cannot be written as JSON, or the folder holds other things.
    """
    folder = _checked_folder(folder)
    if not isinstance(model, DiffusionModel):
        raise TypeError(f"model must be a DiffusionModel, but is a {type(model).__name__}.")
    if not isinstance(training, Mapping):
        raise TypeError(f"training must be a mapping, but is a {type(training).__name__}.")
    manifest = {"format": _FORMAT, "model": asdict(model.config), "training": dict(training)}
    _as_json(manifest)
    if folder.exists():
        _refuse_others(folder)
    DDPMPipeline(unet=model.unet, scheduler=model.scheduler).save_pretrained(folder)
    manifest["files"] = {name: _sha256(folder / name) for name in _FILES}
    # Written last: until then the folder does not agree with any manifest in it, and is refused.
    (folder / _MANIFEST).write_text(_as_json(manifest) + "\n", encoding="utf-8")


def load_model(folder: str | Path, *, device: str | torch.device = "cpu") -> DiffusionModel:
    """Read a model from a folder that :func:`save_model` wrote.

    Parameters
    ----------
    folder : path
        Where it lies.
    device : str or torch.device
        Where the model goes.

    Returns
    -------
    DiffusionModel
        The model in evaluation mode.

    Raises
    ------
    TypeError
        If ``folder`` is no path.
    ValueError
        If a file is missing, altered or not of the model, or the manifest is not one.
    """
    folder = _checked_folder(folder)
    manifest = _verified(folder)
    config = _model_config(manifest["model"], folder)
    model = new_model(config, seed=0)
    for part, name in ((model.unet, _UNET), (model.scheduler, _SCHEDULER)):
        _require_agreement(part.config, folder / name)
    try:
        model.unet.load_state_dict(load_file(folder / _WEIGHTS))
    except (RuntimeError, SafetensorError) as error:
        raise ValueError(
            f"folder must hold the weights of the model that {_MANIFEST} describes, but those in "
            f"{folder / _WEIGHTS} are of another."
        ) from error
    return model.to(device).eval()


def verify_model(folder: str | Path) -> dict[str, Any]:
    """Check that a folder holds what :func:`save_model` wrote and nothing else; build nothing.

    Parameters
    ----------
    folder : path
        Where the model lies.

    Returns
    -------
    dict
        How the model was trained, as it was given to :func:`save_model`.

    Raises
    ------
    TypeError, ValueError
        As for :func:`load_model`.
    """
    folder = _checked_folder(folder)
    manifest = _verified(folder)
    _model_config(manifest["model"], folder)
    return manifest["training"]


def _checked_folder(folder: str | Path) -> Path:
    if not isinstance(folder, str | Path):
        raise TypeError(f"folder must be a path, but is a {type(folder).__name__}.")
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"folder must be a folder, but {folder} is a file.")
    return folder


def _refuse_others(folder: Path) -> None:
    """Require that nothing lies in a folder but what a saved model consists of.

    A list of what may be there needs no list of the names under which pickles travel.
    """
    known = {*_FILES, _MANIFEST, *_HARMLESS}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if not path.is_dir() and name not in known:
            raise ValueError(
                f"folder must hold a saved model and nothing else, but {folder} holds {name}; "
                "remove it or choose another folder."
            )


def _verified(folder: Path) -> dict[str, Any]:
    """The manifest of a folder, after everything was compared with it."""
    manifest = _manifest(folder)
    _refuse_others(folder)
    # The names are known beforehand, so that none can lead out of the folder.
    if set(manifest["files"]) != set(_FILES):
        strange = sorted(set(manifest["files"]) ^ set(_FILES))[0]
        raise ValueError(
            f"{_MANIFEST} must list the files {', '.join(_FILES)}, but the one in {folder} "
            f"differs by {strange!r}."
        )
    for name in _FILES:
        path = folder / name
        if not path.is_file():
            raise ValueError(f"folder must hold {name}, but {path} is missing.")
        found = _sha256(path)
        if found != manifest["files"][name]:
            raise ValueError(
                f"{path} must be the file that was saved, with SHA-256 {manifest['files'][name]}, "
                f"but is altered or cut short: its SHA-256 is {found}."
            )
    return manifest


def _manifest(folder: Path) -> dict[str, Any]:
    path = folder / _MANIFEST
    if not path.is_file():
        raise ValueError(f"folder must hold a saved model, but there is no {path}.")
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # what is no JSON, and what is no UTF-8
        raise ValueError(f"{path} must be JSON in UTF-8, but is not: {error}.") from error
    if not isinstance(manifest, dict) or manifest.get("format") != _FORMAT:
        raise ValueError(f"{path} must have the format {_FORMAT!r}, but has another.")
    for part in ("model", "training", "files"):
        if not isinstance(manifest.get(part), dict):
            raise ValueError(f"{path} must hold an object {part!r}, but does not.")
    return manifest


def _model_config(values: dict[str, Any], folder: Path) -> ModelConfig:
    names = {field.name for field in fields(ModelConfig)}
    if set(values) != names:
        strange = sorted(set(values) ^ names)[0]
        raise ValueError(
            f"{folder / _MANIFEST} must hold what a ModelConfig holds, but differs by {strange!r}."
        )
    try:
        return ModelConfig(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})
    except TypeError as error:
        raise ValueError(
            f"{folder / _MANIFEST} must describe a model, but does not: {error}"
        ) from error


def _require_agreement(built: Mapping[str, object], path: Path) -> None:
    """Require that diffusers' own description of a part is that of the part that was built."""
    saved = json.loads(path.read_text(encoding="utf-8"))
    for name in sorted(set(saved) & set(built)):
        if not name.startswith("_") and _as_json(saved[name]) != _as_json(built[name]):
            raise ValueError(
                f"{_MANIFEST} must describe the model in its folder, but {path} says {name} = "
                f"{saved[name]} where it means {built[name]}."
            )


def _as_json(value: object) -> str:
    try:
        return json.dumps(value, indent=2, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"training must hold what JSON can hold, but does not: {error}."
        ) from error


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
