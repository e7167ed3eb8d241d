"""A pipeline from a folder or from the hub, without pickle."""

from __future__ import annotations

import json
import re
from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline
from huggingface_hub.errors import LocalEntryNotFoundError

from hopfield_cl import _checks
from hopfield_cl.records import repository
from hopfield_cl.stable.pipelines._bars import without_bars
from hopfield_cl.stable.pipelines.properties import PipelineError, check_pipeline, ddim
from hopfield_cl.stable.pipelines.saving import MANIFEST, verify_pipeline

SMALL_SD = "small_sd"
"""Name of the small pipeline of the book, which lies in its repository."""

_PICKLES = (".bin", ".ckpt", ".pt", ".pth", ".pkl", ".pickle")
_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")


def load_pipeline(
    name_or_path: str | Path,
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
) -> StableDiffusionPipeline:
    """Read a Stable Diffusion 1.x pipeline from a folder or from the Hugging Face hub.

    Only safetensors are read: weights in pickle files can run any code. The noise schedule is the
    pipeline's own, sampled with DDIM whatever sampler it comes with. There is no safety checker.

    Parameters
    ----------
    name_or_path : str or path
        A folder in the layout of diffusers; or :data:`SMALL_SD`; or a name such as
        ``"stable-diffusion-v1-5/stable-diffusion-v1-5"``: taken from the hub's cache on this
        machine if it is there, else downloaded.
    device : str or torch.device
        Where the pipeline goes.
    dtype : torch.dtype
        What its weights are converted to.

    Returns
    -------
    StableDiffusionPipeline
        In evaluation mode.

    Raises
    ------
    TypeError
        If an argument is not of its kind.
    PipelineError
        If the folder is missing, altered, holds weights in pickle files only, or is of another
        kind of pipeline.
    ConnectionError
        If the name is not in the cache and the hub does not give it: it says what to download and
        where to put it.
    """
    source = check_source(name_or_path)
    _checks.float_dtype(dtype)
    if isinstance(source, Path):
        pipeline = _read(source, dtype, local_files_only=True)
    else:
        pipeline = _from_hub(source, dtype)
    check_pipeline(pipeline)
    pipeline.scheduler = ddim(pipeline)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline.to(device)


def check_source(name_or_path: str | Path) -> Path | str:
    """Require a folder that holds a pipeline, or what may be a name on the hub; read no weights.

    Parameters
    ----------
    name_or_path : str or path
        As for :func:`load_pipeline`.

    Returns
    -------
    Path or str
        The folder, or the name on the hub.

    Raises
    ------
    TypeError
        If it is neither.
    PipelineError
        If the folder is missing, altered, holds weights in pickle files only, or is of another
        kind of pipeline; or if it is the book's own, whose repository is not here.
    """
    if not isinstance(name_or_path, str | Path):
        raise TypeError(
            f"name_or_path must be a name or a path, but is a {type(name_or_path).__name__}."
        )
    path = Path(name_or_path)
    if name_or_path == SMALL_SD and not path.exists():
        try:
            path = repository.checkpoints(SMALL_SD)
        except FileNotFoundError as problem:
            raise PipelineError(str(problem)) from None
    if path.exists():
        _check_folder(path)
        return path
    if isinstance(name_or_path, str) and _HUB_NAME.fullmatch(name_or_path):
        return name_or_path
    raise PipelineError(
        f"name_or_path must be a folder or a name OWNER/NAME on the hub, but there is no {path}."
    )


def _check_folder(folder: Path) -> None:
    """Require a folder with the parts of a pipeline, all weights of it in safetensors."""
    index = folder / "model_index.json"
    if not index.is_file():
        raise PipelineError(
            f"name_or_path must be a folder in the layout of diffusers, but {index} is missing."
        )
    try:
        kind = json.loads(index.read_text(encoding="utf-8"))["_class_name"]
    except (ValueError, KeyError, TypeError) as error:
        raise PipelineError(f"{index} must name a kind of pipeline, but does not.") from error
    if kind != StableDiffusionPipeline.__name__:
        raise PipelineError(f"{index} must name a StableDiffusionPipeline, but names {kind!r}.")
    if (folder / MANIFEST).exists():
        verify_pipeline(folder)
    for part in ("unet", "vae", "text_encoder"):
        files = sorted(path.name for path in (folder / part).glob("*"))
        # A variant, "fp16" say, is not what is read.
        if any(name.endswith(".safetensors") and ".fp16." not in name for name in files):
            continue
        halves = [name for name in files if name.endswith(".safetensors")]
        if halves:
            raise PipelineError(
                f"name_or_path must hold its weights in full precision, but {folder / part} holds "
                f"them as {halves[0]} only: load and save that pipeline with diffusers once, "
                'from_pretrained(FOLDER, variant="fp16").save_pretrained(NEW_FOLDER).'
            )
        pickles = [name for name in files if name.endswith(_PICKLES)]
        if pickles:
            raise PipelineError(
                f"name_or_path must hold its weights as safetensors, but {folder / part} holds "
                f"them as {pickles[0]} only, a pickle, which can run any code when it is read."
            )
        raise PipelineError(
            f"name_or_path must hold weights of {part}, but {folder / part} has none."
        )


def _from_hub(name: str, dtype: torch.dtype) -> StableDiffusionPipeline:
    try:
        return _read(name, dtype, local_files_only=True)
    except LocalEntryNotFoundError:
        pass  # not in the cache: ask the hub
    try:
        return _read(name, dtype, local_files_only=False)
    except OSError as error:
        raise ConnectionError(
            f"name_or_path must be a folder, or a pipeline that the hub gives, but {name!r} is not "
            f"in the cache and could not be had from the hub: download from "
            f"https://huggingface.co/{name} model_index.json, the folders scheduler and tokenizer, "
            "and of text_encoder, unet and vae the config.json and the .safetensors; put them into "
            "a folder under the same names, and give its path instead."
        ) from error


def _read(source: str | Path, dtype: torch.dtype, **options: bool) -> StableDiffusionPipeline:
    with without_bars():
        return StableDiffusionPipeline.from_pretrained(
            source,
            dtype=dtype,
            use_safetensors=True,
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
            **options,
        )
