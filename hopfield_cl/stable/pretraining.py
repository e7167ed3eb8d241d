"""The small Stable Diffusion, trained from nothing on scenes: first to see, then to draw.

The autoencoder learns on fresh scenes at every step. Then it is frozen: the latents of a pool of
scenes are computed once, and the text encoder and the U-Net learn together to undo noise in them.
"""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline
from torch import Tensor
from torch.nn.functional import mse_loss

from hopfield_cl import _checks
from hopfield_cl.data.scenes import scenes, stream
from hopfield_cl.diffusion.steps import (
    StepsRecord,
    TrainingConfig,
    fingerprint,
    generator,
    gradient_steps,
    rows,
    training_mode,
)
from hopfield_cl.stable.pipelines import image_size
from hopfield_cl.stable.prompts import tokenize

AUTOENCODER_TRAINING = TrainingConfig(
    steps=4000,
    batch_size=8,
    learning_rate=4e-3,
    warmup=50,
    decay=0.5,
    ema_decay=0.99,
    checkpoint_every=200,
)
TEXT_TO_IMAGE_TRAINING = TrainingConfig(
    steps=6000,
    batch_size=16,
    learning_rate=1.5e-3,
    warmup=100,
    decay=0.4,
    ema_decay=0.995,
    checkpoint_every=200,
)
TRAINING_SEED = 2**32
"""Seed of the scenes that the small pipeline learns from; all others are new to it."""

# Weight of the KL divergence, in nats an image, against the error of a pixel.
_KL_WEIGHT = 3e-6
_COLOUR_WEIGHT = 8.0
# Share of the captions that are left out, so that the U-Net learns to draw without one as well.
_EMPTY_SHARE = 0.1
_SCENES_MEASURED = 512
_SCENES_PER_BATCH = 64


def train_autoencoder(
    pipeline: StableDiffusionPipeline,
    config: TrainingConfig = AUTOENCODER_TRAINING,
    *,
    checkpoint: str | Path | None = None,
) -> StepsRecord:
    """Train the autoencoder of a pipeline on scenes, in place, and set its scaling factor.

    The loss is the absolute plus the squared error of a pixel, weighted by how colourful the pixel
    is, and a little of the KL divergence of the latents from a standard normal. Without the weight
    the shapes, a small part of an image, are learnt last. In the end the scaling factor
    is set to 1/std of the latents, so that the U-Net sees latents of variance 1.

    Parameters
    ----------
    pipeline : StableDiffusionPipeline
        The pipeline, in float32.
    config : TrainingConfig
        How to train.
    checkpoint : path, optional
        As for :func:`hopfield_cl.diffusion.steps.gradient_steps`.

    Returns
    -------
    StepsRecord
        The losses and the time.

    Raises
    ------
    TypeError, ValueError, FloatingPointError
        As for :func:`hopfield_cl.diffusion.steps.gradient_steps`.

    References
    ----------
    Kingma & Welling (2014), *Auto-Encoding Variational Bayes*; Rombach et al. (2022), section 3.1.
    """
    vae = pipeline.vae
    size = image_size(pipeline)

    def loss(step: int, part: slice) -> Tensor:
        first, count = step * config.batch_size + part.start, part.stop - part.start
        drawn = scenes(count, seed=TRAINING_SEED + config.seed, size=size, start=first)
        images = drawn.images.to(vae.device)
        latents = vae.encode(images).latent_dist
        noise = torch.randn(
            config.batch_size,
            *latents.mean.shape[1:],
            generator=generator(config.seed, step, "latents", device=vae.device),
            device=vae.device,
        )
        shown = vae.decode(latents.mean + latents.std * noise[part]).sample.float()
        divergence = latents.kl().mean()
        error = (shown - images).abs()
        return (_weight(images) * (error + error.square())).mean() + _KL_WEIGHT * divergence

    trained = dict(vae.named_parameters())
    with training_mode(vae):
        record = gradient_steps(
            trained,
            loss,
            config,
            fingerprint=fingerprint("autoencoder", size, _KL_WEIGHT, _COLOUR_WEIGHT),
            checkpoint=checkpoint,
        )
    mean, std = _latents(pipeline, _SCENES_MEASURED, size, TRAINING_SEED + config.seed)
    variance = mean.var() + std.square().mean()
    vae.register_to_config(scaling_factor=1 / variance.sqrt().item())
    return record


def train_text_to_image(
    pipeline: StableDiffusionPipeline,
    config: TrainingConfig = TEXT_TO_IMAGE_TRAINING,
    *,
    pool: int = 16_384,
    checkpoint: str | Path | None = None,
) -> StepsRecord:
    """Train the text encoder and the U-Net of a pipeline on captioned scenes, in place.

    A tenth of the captions is left empty, for guidance without a classifier.

    Parameters
    ----------
    pipeline : StableDiffusionPipeline
        The pipeline, in float32, with a trained autoencoder, which is not changed.
    config : TrainingConfig
        How to train.
    pool : int
        Number of scenes that are learnt from.
    checkpoint : path, optional
        As for :func:`hopfield_cl.diffusion.steps.gradient_steps`.

    Returns
    -------
    StepsRecord
        The losses and the time.

    Raises
    ------
    TypeError, ValueError, FloatingPointError
        As for :func:`hopfield_cl.diffusion.steps.gradient_steps`; or if ``pool`` is no integer
        from 1.

    References
    ----------
    Rombach et al. (2022), section 3.3; Ho & Salimans (2022), *Classifier-Free Diffusion Guidance*.
    """
    _checks.integer_from(pool, "pool", 1)
    unet, text_encoder, scheduler = pipeline.unet, pipeline.text_encoder, pipeline.scheduler
    seed, size, device = TRAINING_SEED + config.seed, image_size(pipeline), unet.device
    mean, std = _latents(pipeline, pool, size, seed)
    scale, captions = pipeline.vae.config.scaling_factor, _captions(pool, seed)
    tokens, empty = tokenize(pipeline, captions).to(device), tokenize(pipeline, [""]).to(device)

    def loss(step: int, part: slice) -> Tensor:
        chosen = rows(pool, config.batch_size, step, seed=config.seed, purpose="scenes")
        draw = generator(config.seed, step, "times")
        times = torch.randint(
            scheduler.config.num_train_timesteps, (config.batch_size,), generator=draw
        )
        unsaid = torch.rand(config.batch_size, generator=draw) < _EMPTY_SHARE
        source = generator(config.seed, step, "noise", device=device)
        shape = (2, config.batch_size, *mean.shape[1:])
        jitter, noise = torch.randn(shape, generator=source, device=device)[:, part]
        chosen, times, unsaid = (x[part].to(device) for x in (chosen, times, unsaid))
        clean = scale * (mean[chosen] + std[chosen] * jitter)
        words = torch.where(unsaid[:, None], empty, tokens[chosen])
        condition = text_encoder(words).last_hidden_state
        noisy = scheduler.add_noise(clean, noise, times)
        predicted = unet(noisy, times, condition, return_dict=False)[0]
        return mse_loss(predicted.float(), noise)

    trained = {
        f"{name}.{key}": parameter
        for name, part in (("text_encoder", text_encoder), ("unet", unet))
        for key, parameter in part.named_parameters()
    }
    with training_mode(text_encoder, unet):
        return gradient_steps(
            trained,
            loss,
            config,
            fingerprint=fingerprint("text to image", pool, scale, mean[:64]),
            checkpoint=checkpoint,
        )


def _weight(images: Tensor) -> Tensor:
    """Weight of each pixel: 1 if it is grey, and more by the distance of its channels from that."""
    apart = (images - images.mean(1, keepdim=True)).abs().amax(1, keepdim=True)
    return 1 + _COLOUR_WEIGHT * apart


@torch.no_grad()
def _latents(
    pipeline: StableDiffusionPipeline, count: int, size: int, seed: int
) -> tuple[Tensor, Tensor]:
    """Means and standard deviations of the latents of scenes, before scaling."""
    found = [
        pipeline.vae.encode(part.images.to(pipeline.vae.device)).latent_dist
        for part in stream(count, _SCENES_PER_BATCH, seed=seed, size=size)
    ]
    return torch.cat([one.mean for one in found]), torch.cat([one.std for one in found])


def _captions(count: int, seed: int) -> list[str]:
    parts = stream(count, _SCENES_PER_BATCH, seed=seed, size=8)
    return [caption for part in parts for caption in part.captions]
