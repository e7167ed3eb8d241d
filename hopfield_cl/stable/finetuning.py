"""Fine-tuning: the U-Net of any Stable Diffusion 1.x on new captioned images, with replay.

Autoencoder and text encoder are frozen. Latents and conditions are therefore computed once,
before the first step, and only the U-Net is in memory's way while it learns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline
from jaxtyping import Float
from peft import LoraConfig
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from hopfield_cl import _checks
from hopfield_cl.diffusion.steps import (
    StepsRecord,
    TrainingConfig,
    fingerprint,
    generator,
    gradient_steps,
    replayed,
    rows,
    training_mode,
)
from hopfield_cl.stable.latents import encode
from hopfield_cl.stable.pipelines import check_pipeline, has_adapter, latent_shape
from hopfield_cl.stable.prompts import embed

_METHODS = ("full", "lora")
_RECOMPUTED = ("nothing", "activations")
# The attention of the U-Net, as in the original.
_ADAPTED = ("to_q", "to_k", "to_v", "to_out.0")
_EMPTY_SHARE = 0.1


@dataclass(frozen=True, eq=False)
class Captioned:
    """Captioned images, as the U-Net learns from them.

    Attributes
    ----------
    latents : Tensor, shape (N, c, h, w)
        Scaled latents.
    captions : tuple of str
        One caption a latent.
    """

    latents: Float[Tensor, "N c h w"]
    captions: tuple[str, ...]

    def __post_init__(self) -> None:
        _checks.float_tensor(self.latents, "latents")
        if not isinstance(self.captions, tuple):
            raise TypeError(f"captions must be a tuple, but is a {type(self.captions).__name__}.")
        if self.latents.ndim != 4 or len(self.latents) != len(self.captions) or not self.captions:
            raise ValueError(
                "latents must have shape (N, c, h, w) with N at least 1, one for each of the "
                f"{len(self.captions)} captions, but has shape {tuple(self.latents.shape)}."
            )

    def __len__(self) -> int:
        return len(self.captions)


@dataclass(frozen=True)
class Adaptation:
    """What of the U-Net is trained, and how memory is traded for time.

    Attributes
    ----------
    method : {"full", "lora"}
        "full" trains all weights. "lora" leaves them as they are and trains a low-rank addition to
        the attention's.
    rank : int
        Rank of the addition; "full" has none.
    recomputed : {"nothing", "activations"}
        "activations" keeps only some of them for the backward pass and computes the rest again:
        less memory, about a third more time, the same gradients.
    """

    method: str = "full"
    rank: int = 4
    recomputed: str = "nothing"

    def __post_init__(self) -> None:
        _checks.integer_from(self.rank, "rank", 1)
        for name, known in (("method", _METHODS), ("recomputed", _RECOMPUTED)):
            if getattr(self, name) not in known:
                raise ValueError(
                    f"{name} must be one of {', '.join(known)}, but is {getattr(self, name)!r}."
                )


def captioned(
    pipeline: StableDiffusionPipeline,
    images: Float[Tensor, "N 3 H W"],
    captions: Sequence[str],
    *,
    batch_size: int = 64,
) -> Captioned:
    """Make examples of captioned images.

    Parameters
    ----------
    pipeline : StableDiffusionPipeline
        Whose autoencoder is used.
    images : Tensor, shape (N, 3, H, W)
        Images in [−1, 1], of the pipeline's size.
    captions : sequence of str
        One caption an image.
    batch_size : int
        Images at a time; changes the result by no more than rounding.

    Returns
    -------
    Captioned
        Latents on the device of the pipeline, with their captions.

    Raises
    ------
    TypeError, ValueError
        If the images do not fit the pipeline, or the captions the images.
    """
    if isinstance(captions, str):
        raise TypeError("captions must be a sequence of strings, but is a single one.")
    return Captioned(encode(pipeline, images, batch_size=batch_size), tuple(captions))


def fine_tune(
    pipeline: StableDiffusionPipeline,
    learned: Captioned,
    config: TrainingConfig,
    *,
    replay: Captioned | None = None,
    adaptation: Adaptation = Adaptation(),
    checkpoint: str | Path | None = None,
    observe: Callable[[int, StableDiffusionPipeline], None] | None = None,
) -> StepsRecord:
    """Train the U-Net of a pipeline on examples, in place.

    Autoencoder and text encoder stay bit for bit as they were; with LoRA so do the weights of the
    U-Net, beside which the adapter stays attached: training again goes on with it, and
    :func:`merge_adapter` makes it part of the weights. A tenth of the captions is left empty.

    Under ``accelerate launch`` each of several processes, with the pipeline on its own device,
    takes its slice of the batch.

    Parameters
    ----------
    pipeline : StableDiffusionPipeline
        The pipeline. What is trained is in float32: with LoRA the rest may be in half precision if
        the training is in "bf16".
    learned : Captioned
        What is learnt.
    config : TrainingConfig
        How to train. With ``ema_decay`` above 0 the U-Net ends with its averaged weights.
    replay : Captioned, optional
        Replay buffer: round(``replay_share`` · ``batch_size``) examples of each batch are drawn
        from it, in an order of its own, as often as it takes.
    adaptation : Adaptation
        What is trained.
    checkpoint : path, optional
        A ``.safetensors`` file for the state of the training. If it is there, the training goes on
        from it and ends as it would have without the interruption: bit for bit on a CPU. On a GPU
        the backward pass of attention need not repeat its bits.
    observe : callable, optional
        Takes a step and the pipeline, as it is after that step (with averaged weights), in
        evaluation mode, at the steps ``observe_at``.

    Returns
    -------
    StepsRecord
        The losses and the time.

    Raises
    ------
    TypeError, ValueError, FloatingPointError
        If an argument is not of its kind, examples do not fit the pipeline, or an adapter is in the
        way of full training; else as for :func:`hopfield_cl.diffusion.steps.gradient_steps`.

    References
    ----------
    Hu et al. (2022), *LoRA: Low-Rank Adaptation of Large Language Models*.
    """
    check_pipeline(pipeline)
    if not isinstance(config, TrainingConfig):
        raise TypeError(f"config must be a TrainingConfig, but is a {type(config).__name__}.")
    _check_captioned(pipeline, learned, "learned")
    if replay is not None:
        _check_captioned(pipeline, replay, "replay")
    of_replay = replayed(config, replay)
    parameters = _trained(pipeline, adaptation, config)
    loss = _loss(pipeline, learned, replay, config, of_replay)
    unet = pipeline.unet

    def observed(step: int) -> None:
        unet.eval()
        observe(step, pipeline)
        unet.train()

    with _training(unet, adaptation):
        return gradient_steps(
            parameters,
            loss,
            config,
            fingerprint=_fingerprint(pipeline, learned, replay, adaptation),
            checkpoint=checkpoint,
            observe=None if observe is None else observed,
        )


def merge_adapter(pipeline: StableDiffusionPipeline) -> None:
    """Add a LoRA adapter to the weights of the U-Net, and detach it.

    Parameters
    ----------
    pipeline : StableDiffusionPipeline
        A pipeline that was fine-tuned by LoRA; its U-Net is changed, but not what it computes.

    Raises
    ------
    ValueError
        If no adapter is attached.
    """
    check_pipeline(pipeline)
    if not has_adapter(pipeline):
        raise ValueError("pipeline must have an adapter attached, but has none.")
    pipeline.unet.fuse_lora()
    pipeline.unet.unload_lora()
    pipeline.unet.requires_grad_(True)


def _loss(
    pipeline: StableDiffusionPipeline,
    learned: Captioned,
    replay: Captioned | None,
    config: TrainingConfig,
    of_replay: int,
) -> Callable[[int, slice], Tensor]:
    unet, scheduler, device = pipeline.unet, pipeline.scheduler, pipeline.unet.device
    parts = [learned] if replay is None else [learned, replay]
    # In half precision the noise levels would be rounded.
    pool = torch.cat([part.latents for part in parts]).to(device, torch.float32)
    # Many captions are the same: each is embedded once, after the empty one.
    captions = [caption for part in parts for caption in part.captions]
    known = {caption: k for k, caption in enumerate(dict.fromkeys(["", *captions]))}
    conditions = embed(pipeline, list(known)).to(device)
    which = torch.tensor([known[caption] for caption in captions])
    size = config.batch_size

    def loss(step: int, part: slice) -> Tensor:
        chosen = rows(len(learned), size - of_replay, step, seed=config.seed, purpose="learned")
        if replay is not None:
            old = rows(len(replay), of_replay, step, seed=config.seed, purpose="replay")
            chosen = torch.cat([chosen, old + len(learned)])
        draw = generator(config.seed, step, "times")
        times = torch.randint(scheduler.config.num_train_timesteps, (size,), generator=draw)
        said = torch.rand(size, generator=draw) >= _EMPTY_SHARE
        source = generator(config.seed, step, "noise", device=device)
        noise = torch.randn(size, *pool.shape[1:], generator=source, device=device)[part]
        words = (which[chosen] * said)[part].to(device)
        times, clean = times[part].to(device), pool[chosen[part].to(device)]
        noisy = scheduler.add_noise(clean, noise, times)
        predicted = unet(noisy, times, conditions[words], return_dict=False)[0]
        return mse_loss(predicted.float(), noise.float())

    return loss


def _trained(
    pipeline: StableDiffusionPipeline, adaptation: Adaptation, config: TrainingConfig
) -> dict[str, nn.Parameter]:
    """What is trained, by name; attaches an adapter if there is none."""
    unet = pipeline.unet
    if adaptation.method == "full":
        if has_adapter(pipeline):
            raise ValueError(
                "pipeline must have no adapter attached to be trained in full, but has one; call "
                "merge_adapter first."
            )
        unet.requires_grad_(True)
    elif has_adapter(pipeline):
        for attached in unet.peft_config.values():
            if attached.r != adaptation.rank:
                raise ValueError(
                    f"rank must be {attached.r}, that of the adapter that is attached, but is "
                    f"{adaptation.rank}."
                )
    else:
        unet.requires_grad_(False)
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(config.seed)
            unet.add_adapter(
                LoraConfig(
                    r=adaptation.rank, lora_alpha=adaptation.rank, target_modules=list(_ADAPTED)
                )
            )
        for parameter in unet.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.float()
    trained = {name: p for name, p in unet.named_parameters() if p.requires_grad}
    for parameter in trained.values():
        if parameter.dtype != torch.float32:
            raise TypeError(
                "pipeline must be in float32 where it is trained, but has a weight in "
                f"{parameter.dtype}; load it in float32. The precision 'bf16' computes in half."
            )
    if unet.dtype != torch.float32 and config.precision != "bf16":
        raise TypeError(
            f"pipeline must be in float32 unless precision is 'bf16', but is in {unet.dtype}."
        )
    return trained


@contextmanager
def _training(unet: nn.Module, adaptation: Adaptation) -> Iterator[None]:
    """Have a U-Net learn, with its activations recomputed if that is asked for."""
    if adaptation.recomputed == "activations":
        unet.enable_gradient_checkpointing()
    try:
        with training_mode(unet):
            yield
    finally:
        unet.disable_gradient_checkpointing()


def _fingerprint(
    pipeline: StableDiffusionPipeline,
    learned: Captioned,
    replay: Captioned | None,
    adaptation: Adaptation,
) -> str:
    """What the state of a training does not hold itself: the data, and all that is frozen."""
    parts = [learned] if replay is None else [learned, replay]
    data = [x for part in parts for x in (part.latents, list(part.captions))]
    frozen = [p for p in pipeline.unet.parameters() if not p.requires_grad]
    said = embed(pipeline, [learned.captions[0]])
    return fingerprint("fine-tuning", asdict(adaptation), *data, *frozen, said)


def _check_captioned(pipeline: StableDiffusionPipeline, value: Captioned, name: str) -> None:
    if not isinstance(value, Captioned):
        raise TypeError(f"{name} must be Captioned, but is a {type(value).__name__}.")
    if value.latents.shape[1:] != latent_shape(pipeline):
        raise ValueError(
            f"{name} must hold latents of the pipeline's shape, {latent_shape(pipeline)}, but "
            f"holds {tuple(value.latents.shape[1:])}."
        )
    _checks.finite(value.latents, name)
