"""Images to latents and back: drawing from prompts, reconstruction, the network as a denoiser.

Latents are scaled as the U-Net sees them: the autoencoder's, times its scaling factor. With
x_t = α_t x_0 + s_t ε, the time t belongs to the noise level σ_t = s_t/α_t, in their unit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline
from jaxtyping import Float
from torch import Tensor

from hopfield_cl import _checks
from hopfield_cl.diffusion.noise import Denoiser, time_at
from hopfield_cl.stable.pipelines import check_pipeline, ddim, image_size, latent_shape
from hopfield_cl.stable.prompts import embed


def encode(
    pipeline: StableDiffusionPipeline, images: Float[Tensor, "N 3 H W"], *, batch_size: int = 64
) -> Float[Tensor, "N c h w"]:
    """Find the latents of images.

    Parameters
    ----------
    pipeline : StableDiffusionPipeline
        Whose autoencoder is used.
    images : Tensor, shape (N, 3, H, W)
        Images in [−1, 1], of the pipeline's size.
    batch_size : int
        Images at a time; changes the result by no more than rounding.

    Returns
    -------
    Tensor, shape (N, c, h, w)
        Means of the latents, scaled; on the device of the pipeline.

    Raises
    ------
    TypeError, ValueError
        If the images do not fit the pipeline.
    """
    check_pipeline(pipeline)
    _checks.integer_from(batch_size, "batch_size", 1)
    vae = pipeline.vae
    side = image_size(pipeline)
    _checks.images(images, "images", (vae.config.in_channels, side, side))
    with torch.no_grad():
        parts = [
            vae.encode(part.to(vae.device, vae.dtype)).latent_dist.mean
            for part in images.split(batch_size)
        ]
    return vae.config.scaling_factor * torch.cat(parts)


def decode(
    pipeline: StableDiffusionPipeline, latents: Float[Tensor, "N c h w"], *, batch_size: int = 64
) -> Float[Tensor, "N 3 H W"]:
    """Draw the images of latents.

    Parameters
    ----------
    pipeline : StableDiffusionPipeline
        Whose autoencoder is used.
    latents : Tensor, shape (N, c, h, w)
        Scaled latents.
    batch_size : int
        Latents at a time; changes the result by no more than rounding.

    Returns
    -------
    Tensor, shape (N, 3, H, W)
        Images in [−1, 1].

    Raises
    ------
    TypeError, ValueError
        If the latents do not fit the pipeline.
    """
    check_pipeline(pipeline)
    _checks.integer_from(batch_size, "batch_size", 1)
    _checks.images(latents, "latents", latent_shape(pipeline))
    vae = pipeline.vae
    with torch.no_grad():
        parts = [
            vae.decode(part.to(vae.device, vae.dtype) / vae.config.scaling_factor).sample
            for part in latents.split(batch_size)
        ]
    return torch.cat(parts).clamp(-1, 1)


def generate(
    pipeline: StableDiffusionPipeline,
    prompts: Sequence[str],
    *,
    generator: torch.Generator,
    steps: int = 25,
    guidance: float = 3.0,
    batch_size: int = 64,
) -> Float[Tensor, "N 3 H W"]:
    """Draw one image for each prompt.

    Parameters
    ----------
    pipeline : StableDiffusionPipeline
        What draws.
    prompts : sequence of str
        As for :func:`hopfield_cl.stable.prompts.tokenize`.
    generator : torch.Generator
        Source of the noise to start from.
    steps : int
        Denoising steps, at most as many as the schedule has noise levels.
    guidance : float
        From 1, for the conditional distribution itself, upwards, for images that show more of what
        the prompt adds to having none.
    batch_size : int
        Images at a time; changes the result by no more than rounding.

    Returns
    -------
    Tensor, shape (N, 3, H, W)
        Images in [−1, 1], on the device of the pipeline.

    Raises
    ------
    TypeError, ValueError
        If an argument is not of its kind or out of range.

    Warns
    -----
    UserWarning
        For each prompt that is cut.

    References
    ----------
    Ho & Salimans (2022), *Classifier-Free Diffusion Guidance*.
    """
    check_pipeline(pipeline)
    _check_sampling(steps, guidance, batch_size)
    conditions = embed(pipeline, prompts)
    shape = (len(conditions), *latent_shape(pipeline))
    noise = torch.randn(shape, generator=generator, device=generator.device).to(conditions)
    unsaid = embed(pipeline, [""])
    batches = zip(conditions.split(batch_size), noise.split(batch_size), strict=True)
    with _sampled_in(pipeline, steps):
        drawn = [
            pipeline(
                prompt_embeds=some,
                negative_prompt_embeds=unsaid.expand_as(some),
                latents=start,
                num_inference_steps=steps,
                guidance_scale=guidance,
                output_type="latent",
            ).images
            for some, start in batches
        ]
    return decode(pipeline, torch.cat(drawn), batch_size=batch_size)


def reconstruct(
    pipeline: StableDiffusionPipeline,
    latents: Float[Tensor, "N c h w"],
    prompts: Sequence[str],
    time: int,
    *,
    noise: Float[Tensor, "N c h w"],
    steps: int = 25,
    batch_size: int = 64,
) -> Float[Tensor, "N c h w"]:
    """Add noise to latents up to a time, and denoise back under their prompts, by DDIM.

    Parameters
    ----------
    pipeline : StableDiffusionPipeline
        What denoises.
    latents : Tensor, shape (N, c, h, w)
        Clean scaled latents, on the device of the pipeline.
    prompts : sequence of str
        One prompt a latent; empty for none.
    time : int
        Noise time to go up to: one of those that :func:`sampling_times` lists.
    noise : Tensor, shape (N, c, h, w)
        White noise ε, so that x_t = α_t x_0 + s_t ε.
    steps : int
        Denoising steps from pure noise; going back from t takes the share that lies below t.
    batch_size : int
        Latents at a time; changes the result by no more than rounding.

    Returns
    -------
    Tensor, shape (N, c, h, w)
        The latents that came back; in float32 if they were in half precision.

    Raises
    ------
    TypeError, ValueError
        If latents, noise or prompts do not fit the pipeline or each other, or a number is out of
        range.

    Warns
    -----
    UserWarning
        For each prompt that is cut.
    """
    _check_sampling(steps, 1.0, batch_size)
    times = sampling_times(pipeline, steps)
    if time not in times:
        listed = ", ".join(str(known) for known in times)
        raise ValueError(f"time must be one of {listed}, but is {time!r}.")
    for value, name in ((latents, "latents"), (noise, "noise")):
        _checks.images(value, name, latent_shape(pipeline))
    conditions = embed(pipeline, prompts)
    if not len(latents) == len(noise) == len(conditions):
        raise ValueError(
            f"latents, noise and prompts must be as many, but are {len(latents)}, {len(noise)} and "
            f"{len(conditions)}."
        )
    scheduler = _scheduler(pipeline, steps)
    # Noise levels are small differences of numbers near 1: half precision would round them away.
    exact = torch.promote_types(latents.dtype, torch.float32)
    latents, noise = latents.to(exact), noise.to(exact)
    noisy = scheduler.add_noise(latents, noise, torch.full((len(latents),), time))
    below, found = scheduler.timesteps[times.index(time) :], []
    for batch, some in zip(noisy.split(batch_size), conditions.split(batch_size), strict=True):
        for at in below:
            with torch.no_grad():
                predicted = pipeline.unet(batch.to(some.dtype), at, some, return_dict=False)[0]
            batch = scheduler.step(predicted.to(exact), at, batch, return_dict=False)[0]
        found.append(batch)
    return torch.cat(found)


def reconstruction_error(
    pipeline: StableDiffusionPipeline,
    latents: Float[Tensor, "N c h w"],
    prompts: Sequence[str],
    times: Sequence[int],
    *,
    noise: Float[Tensor, "N c h w"],
    steps: int = 25,
    batch_size: int = 64,
) -> Float[Tensor, "T N"]:
    """Mean squared error of each latent's reconstruction, from each of several times.

    Parameters
    ----------
    pipeline, latents, prompts, noise, steps, batch_size
        As for :func:`reconstruct`; all times use the same noise.
    times : sequence of int
        Noise times.

    Returns
    -------
    Tensor, shape (T, N)
        Mean over the coordinates of the latent, in the unit of a scaled latent squared.

    Raises
    ------
    TypeError, ValueError
        As for :func:`reconstruct`, or if there are no times.

    Warns
    -----
    UserWarning
        For each prompt that is cut.
    """
    if not times:
        raise ValueError("times must hold at least one noise time, but is empty.")
    options = {"noise": noise, "steps": steps, "batch_size": batch_size}
    errors = [
        (reconstruct(pipeline, latents, prompts, time, **options) - latents)
        .square()
        .mean((1, 2, 3))
        for time in times
    ]
    return torch.stack(errors)


def sampling_times(pipeline: StableDiffusionPipeline, steps: int = 25) -> list[int]:
    """Noise times that reconstruction visits.

    Parameters
    ----------
    pipeline : StableDiffusionPipeline
        The pipeline.
    steps : int
        Denoising steps from pure noise; they must divide the number of noise levels.

    Returns
    -------
    list of int
        Falling, from the highest noise; after the last comes no noise.

    Raises
    ------
    TypeError, ValueError
        If ``steps`` is out of range.
    """
    return _scheduler(pipeline, steps).timesteps.tolist()


def as_denoiser(pipeline: StableDiffusionPipeline, prompt: str = "") -> Denoiser:
    """Take the U-Net under a prompt for a denoiser of flat latents.

    Parameters
    ----------
    pipeline : StableDiffusionPipeline
        The pipeline.
    prompt : str
        The condition; empty for none.

    Returns
    -------
    callable
        Takes x = x_0 + σε, shape (B, d), scaled latents row by row, and σ; returns the estimate of
        x_0, shape (B, d), differentiable in x. It refuses a σ outside the schedule.

    Raises
    ------
    TypeError
        If ``prompt`` is no string.

    Warns
    -----
    UserWarning
        If the prompt is cut.
    """
    check_pipeline(pipeline)
    condition, shape = embed(pipeline, [prompt]), latent_shape(pipeline)

    def denoiser(x: Float[Tensor, "B d"], sigma: float) -> Float[Tensor, "B d"]:
        exact = torch.promote_types(x.dtype, torch.float32)
        time = torch.full((len(x),), time_at(pipeline, sigma), dtype=exact, device=x.device)
        noisy = (1 + sigma**2) ** -0.5 * x.unflatten(1, shape)
        words = condition.expand(len(x), -1, -1)
        predicted = pipeline.unet(noisy.to(words.dtype), time, words, return_dict=False)[0]
        return x - sigma * predicted.flatten(1).to(x.dtype)

    return denoiser


@contextmanager
def _sampled_in(pipeline: StableDiffusionPipeline, steps: int) -> Iterator[None]:
    """Give the pipeline a sampler that fits a number of steps, and then its own again."""
    own, pipeline.scheduler = pipeline.scheduler, ddim(pipeline, steps=steps)
    try:
        yield
    finally:
        pipeline.scheduler = own


def _scheduler(pipeline: StableDiffusionPipeline, steps: int) -> DDIMScheduler:
    check_pipeline(pipeline)
    _checks.integer_from(steps, "steps", 1)
    levels = pipeline.scheduler.config.num_train_timesteps
    if levels % steps:
        raise ValueError(
            f"steps must divide the pipeline's {levels} noise levels, so that they are equally "
            f"spaced, but is {steps}."
        )
    # "trailing" starts at the highest noise and, with α = 1 at the end, ends at none (Lin et al.
    # 2024).
    return ddim(pipeline, steps=steps, timestep_spacing="trailing", set_alpha_to_one=True)


def _check_sampling(steps: int, guidance: float, batch_size: int) -> None:
    _checks.integer_from(steps, "steps", 1)
    _checks.number_between(guidance, "guidance", 1.0, 100.0)
    _checks.integer_from(batch_size, "batch_size", 1)
