"""Stable Diffusion pipelines: built from a configuration, saved, and read without pickle.

The small pipeline of the book and Stable Diffusion v1.5 are the same parts at two sizes, each given
by a :class:`PipelineConfig`: a tokenizer, a CLIP text encoder, an autoencoder, a U-Net with
cross-attention, and a noise schedule.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from diffusers.utils import logging as diffusers_logging
from huggingface_hub.errors import LocalEntryNotFoundError
from tokenizers.pre_tokenizers import ByteLevel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer
from transformers.utils import logging as transformers_logging

from hopfield_cl import _checks, repository
from hopfield_cl.scenes import FACTORS

SMALL_SD = "small_sd"
"""Name of the small pipeline of the book, which lies in its repository."""

_START, _END = "<|startoftext|>", "<|endoftext|>"
_FORMAT = "hopfield_cl pipeline, version 1"
_MANIFEST = "hopfield_cl.json"
_PICKLES = (".bin", ".ckpt", ".pt", ".pth", ".pkl", ".pickle")
_LIBRARIES = (diffusers_logging, transformers_logging)
_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
_OTHER_WORDS = ("a", "an", "on", "background", "shape", ",")


class PipelineError(ValueError):
    """A folder or a name does not give a pipeline that can be used here.

    Parameters
    ----------
    message : str
        What is wrong, in one sentence.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message)


@dataclass(frozen=True)
class PipelineConfig:
    """What a Stable Diffusion pipeline is made of.

    Attributes
    ----------
    image_size : int
        Height and width of the images, in pixels.
    autoencoder_widths : tuple of int
        Channels of the autoencoder at each resolution, each half the one before; the latents have
        the last one.
    autoencoder_layers : int
        Residual blocks of the encoder at each resolution.
    latent_channels : int
        Channels of the latents.
    unet_widths : tuple of int
        Channels of the U-Net at each resolution; all but the last have cross-attention.
    unet_layers : int
        Residual blocks of the U-Net at each resolution.
    heads : int
        Attention heads of the U-Net.
    groups : int
        Groups of the group normalisation, which all widths are multiples of.
    text_width, text_layers, text_heads : int
        Width, layers and attention heads of the text encoder.
    text_length : int
        Tokens of a prompt, start and end included.
    vocabulary : int
        Rows of the text encoder's table of tokens; at least as many as the tokenizer has.
    """

    image_size: int = 64
    autoencoder_widths: tuple[int, ...] = (8, 16, 32)
    autoencoder_layers: int = 1
    latent_channels: int = 4
    unet_widths: tuple[int, ...] = (32, 64, 128)
    unet_layers: int = 1
    heads: int = 2
    groups: int = 8
    text_width: int = 64
    text_layers: int = 2
    text_heads: int = 4
    text_length: int = 24
    vocabulary: int = 640

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not name.endswith("_widths"):
                _checks.integer_from(value, name, 1)
                continue
            if not isinstance(value, tuple):
                raise TypeError(f"{name} must be a tuple, but is {value!r}.")
            if len(value) < 2:
                raise ValueError(f"{name} must hold at least two widths, but is {value}.")
            for width in value:
                _checks.integer_from(width, name, 1)
                if width % self.groups:
                    raise ValueError(
                        f"{name} must be multiples of groups, {self.groups}, but one is {width}."
                    )
        halvings = len(self.autoencoder_widths) + len(self.unet_widths) - 2
        if self.image_size % 2**halvings:
            raise ValueError(
                f"image_size must be a multiple of {2**halvings}, which the resolutions ask for, "
                f"but is {self.image_size}."
            )
        for name, width, heads in (
            ("heads", self.unet_widths, self.heads),
            ("text_heads", (self.text_width,), self.text_heads),
        ):
            if any(one % heads for one in width):
                raise ValueError(f"{name} must divide {width}, but is {heads}.")

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of the latents of an image."""
        side = self.image_size // 2 ** (len(self.autoencoder_widths) - 1)
        return self.latent_channels, side, side


V1_5 = PipelineConfig(
    image_size=512,
    autoencoder_widths=(128, 256, 512, 512),
    autoencoder_layers=2,
    unet_widths=(320, 640, 1280, 1280),
    unet_layers=2,
    heads=8,
    groups=32,
    text_width=768,
    text_layers=12,
    text_heads=12,
    text_length=77,
    vocabulary=49408,
)
"""The sizes of Stable Diffusion v1.5 (Rombach et al. 2022)."""


def new_pipeline(config: PipelineConfig, *, seed: int) -> StableDiffusionPipeline:
    """Build a pipeline with fresh weights.

    Parameters
    ----------
    config : PipelineConfig
        What it is made of.
    seed : int
        Seed of its weights; PyTorch's default generator is left as it was.

    Returns
    -------
    StableDiffusionPipeline
        On the CPU, in float32 and evaluation mode, with the tokenizer of the scenes' words and the
        noise schedule of Stable Diffusion 1.x.

    Raises
    ------
    TypeError, ValueError
        If an argument is not of its kind, or the vocabulary is smaller than the tokenizer's.

    References
    ----------
    Rombach et al. (2022), *High-Resolution Image Synthesis with Latent Diffusion Models*.
    """
    if not isinstance(config, PipelineConfig):
        raise TypeError(f"config must be a PipelineConfig, but is a {type(config).__name__}.")
    _checks.integer_from(seed, "seed", 0)
    tokenizer = new_tokenizer(config.text_length)
    if config.vocabulary < len(tokenizer):
        raise ValueError(
            f"vocabulary must be at least {len(tokenizer)}, the size of the tokenizer, but is "
            f"{config.vocabulary}."
        )
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        parts = (_autoencoder(config), _text_encoder(config, tokenizer), _unet(config))
    for part in parts:
        part.eval()
    vae, text_encoder, unet = parts
    pipeline = StableDiffusionPipeline(
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


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
    with _without_bars():
        pipeline.save_pretrained(folder, safe_serialization=True)
    manifest = {
        "format": _FORMAT,
        "training": json.loads(record),
        "files": {name: _sha256(folder / name) for name in _files(folder)},
    }
    # Written last: until then the folder does not agree with any list in it, and is refused.
    (folder / _MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")


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
    path = folder / _MANIFEST
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


def check_pipeline(pipeline: StableDiffusionPipeline) -> None:
    """Require a Stable Diffusion 1.x pipeline.

    Parameters
    ----------
    pipeline : StableDiffusionPipeline
        What is checked.

    Raises
    ------
    TypeError
        If it is no ``StableDiffusionPipeline``.
    PipelineError
        If its U-Net does not predict the noise of its autoencoder's latents.
    """
    if not isinstance(pipeline, StableDiffusionPipeline):
        raise TypeError(
            f"pipeline must be a StableDiffusionPipeline, but is a {type(pipeline).__name__}."
        )
    latents, inputs = pipeline.vae.config.latent_channels, pipeline.unet.config.in_channels
    if latents != inputs:
        raise PipelineError(
            f"pipeline must have a U-Net that takes the autoencoder's {latents} channels and no "
            f"more, as that of Stable Diffusion 1.x, but it takes {inputs}."
        )
    prediction = pipeline.scheduler.config.get("prediction_type", "epsilon")
    if prediction != "epsilon":
        raise PipelineError(
            "pipeline must have a U-Net that predicts the noise, as that of Stable Diffusion 1.x, "
            f"but it predicts {prediction!r}."
        )


def has_adapter(pipeline: StableDiffusionPipeline) -> bool:
    """Whether the U-Net of a pipeline has a LoRA adapter attached.

    Parameters
    ----------
    pipeline : StableDiffusionPipeline
        The pipeline.

    Returns
    -------
    bool
    """
    return bool(getattr(pipeline.unet, "peft_config", None))


def ddim(
    pipeline: StableDiffusionPipeline, *, steps: int | None = None, **options: object
) -> DDIMScheduler:
    """Make the DDIM sampler of a pipeline's noise schedule.

    Parameters
    ----------
    pipeline : StableDiffusionPipeline
        Whose schedule is taken.
    steps : int, optional
        Denoising steps, at most as many as the schedule has noise levels. The sampler is then ready
        for them: its ``timesteps`` are set.
    **options
        What shall be otherwise than in its configuration.

    Returns
    -------
    DDIMScheduler
        It clips nothing: latents, unlike pixels, have no range.

    Raises
    ------
    TypeError, ValueError
        If ``steps`` is no such number.
    """
    unclipped = {"clip_sample": False, "thresholding": False}
    scheduler = DDIMScheduler.from_config(pipeline.scheduler.config, **unclipped, **options)
    if steps is None:
        return scheduler
    levels = scheduler.config.num_train_timesteps
    _checks.integer_from(steps, "steps", 1)
    if steps > levels:
        raise ValueError(f"steps must be at most {levels}, the noise levels, but is {steps}.")
    if scheduler.config.timestep_spacing == "leading":
        # With so many steps that the offset of Stable Diffusion, 1, would lead beyond the last
        # noise level, diffusers does go there.
        room = levels - 1 - (steps - 1) * (levels // steps)
        scheduler.register_to_config(steps_offset=min(scheduler.config.steps_offset, room))
    scheduler.set_timesteps(steps)
    return scheduler


def image_size(pipeline: StableDiffusionPipeline) -> int:
    """Height and width of a pipeline's images, in pixels.

    Parameters
    ----------
    pipeline : StableDiffusionPipeline
        The pipeline; its U-Net decides, as an exchanged autoencoder may name another size.

    Returns
    -------
    int
    """
    halvings = len(pipeline.vae.config.block_out_channels) - 1
    return latent_shape(pipeline)[1] * 2**halvings


def latent_shape(pipeline: StableDiffusionPipeline) -> tuple[int, int, int]:
    """Shape of the latents of a pipeline's images.

    Parameters
    ----------
    pipeline : StableDiffusionPipeline
        The pipeline.

    Returns
    -------
    tuple of int
        Channels, height and width.
    """
    side = pipeline.unet.config.sample_size
    return pipeline.vae.config.latent_channels, side, side


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
    if (folder / _MANIFEST).exists():
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
    with _without_bars():
        return StableDiffusionPipeline.from_pretrained(
            source,
            dtype=dtype,
            use_safetensors=True,
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
            **options,
        )


@contextmanager
def _without_bars() -> Iterator[None]:
    """Have diffusers and transformers show no progress bars of their own."""
    shown = [library for library in _LIBRARIES if library.is_progress_bar_enabled()]
    for library in shown:
        library.disable_progress_bar()
    try:
        yield
    finally:
        for library in shown:
            library.enable_progress_bar()


def _files(folder: Path) -> list[str]:
    """Names of all files in a folder but the list of them and a model card."""
    names = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return sorted(name for name in names if name not in (_MANIFEST, "README.md"))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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


def _autoencoder(config: PipelineConfig) -> AutoencoderKL:
    levels = len(config.autoencoder_widths)
    return AutoencoderKL(
        sample_size=config.image_size,
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        block_out_channels=config.autoencoder_widths,
        layers_per_block=config.autoencoder_layers,
        latent_channels=config.latent_channels,
        norm_num_groups=config.groups,
    )


def _text_encoder(config: PipelineConfig, tokenizer: CLIPTokenizer) -> CLIPTextModel:
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=config.vocabulary,
            hidden_size=config.text_width,
            intermediate_size=4 * config.text_width,
            projection_dim=config.text_width,
            num_hidden_layers=config.text_layers,
            num_attention_heads=config.text_heads,
            max_position_embeddings=config.text_length,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def _unet(config: PipelineConfig) -> UNet2DConditionModel:
    attended = len(config.unet_widths) - 1
    return UNet2DConditionModel(
        sample_size=config.latent_shape[1],
        in_channels=config.latent_channels,
        out_channels=config.latent_channels,
        down_block_types=("CrossAttnDownBlock2D",) * attended + ("DownBlock2D",),
        up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * attended,
        block_out_channels=config.unet_widths,
        layers_per_block=config.unet_layers,
        cross_attention_dim=config.text_width,
        attention_head_dim=config.heads,  # diffusers calls the number of heads so
        norm_num_groups=config.groups,
    )


def _scheduler() -> DDIMScheduler:
    """The schedule of Stable Diffusion 1.x."""
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )
