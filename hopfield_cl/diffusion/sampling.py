"""Sampling with DDIM: images from noise alone, and images from noisy images.

Both follow the probability flow without chance, on a grid of equally spaced times that ends at no
noise. What depends on chance is the noise to start from, and the caller gives it: two models that
start from the same noise can be compared sample by sample.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from diffusers import DDIMScheduler
from jaxtyping import Float
from torch import Tensor

from hopfield_cl import _checks
from hopfield_cl.diffusion.models import DiffusionModel


def generate(
    model: DiffusionModel,
    count: int,
    *,
    generator: torch.Generator,
    steps: int = 25,
    batch_size: int = 256,
) -> Float[Tensor, "count C H W"]:
    """Draw images from a model.

    Parameters
    ----------
    model : DiffusionModel
        The model; it is used in evaluation mode and left in the mode it was in.
    count : int
        How many images, at least 1.
    generator : torch.Generator
        Source of the noise to start from.
    steps : int
        Denoising steps; they must divide the model's number of noise levels.
    batch_size : int
        Images at a time; does not change the result.

    Returns
    -------
    Tensor of float32, shape (count, C, H, W)
        Images in [−1, 1], on the device of the model.

    Raises
    ------
    TypeError, ValueError
        If a number is out of range.

    References
    ----------
    Song, Meng & Ermon (2021), *Denoising Diffusion Implicit Models*.
    """
    _checks.integer_from(count, "count", 1)
    scheduler = _scheduler(model, steps)
    shape = (count, *model.config.image_shape)
    noise = torch.randn(shape, generator=generator, device=generator.device)
    return _denoise(model, noise.to(_device(model)), scheduler, batch_size=batch_size)


def reconstruct(
    model: DiffusionModel,
    images: Float[Tensor, "N C H W"],
    time: int,
    *,
    noise: Float[Tensor, "N C H W"],
    steps: int = 25,
    batch_size: int = 256,
) -> Float[Tensor, "N C H W"]:
    """Add noise up to a time, and denoise back.

    Parameters
    ----------
    model : DiffusionModel
        The model; it is used in evaluation mode and left in the mode it was in.
    images : Tensor of float32, shape (N, C, H, W)
        Clean images in [−1, 1].
    time : int
        Noise time t to go up to: one of those that :func:`sampling_times` lists.
    noise : Tensor of float32, shape (N, C, H, W)
        White noise ε, so that x_t = α_t x_0 + s_t ε.
    steps : int
        Denoising steps from pure noise; going back from t takes the share that lies below t.
    batch_size : int
        Images at a time; does not change the result.

    Returns
    -------
    Tensor of float32, shape (N, C, H, W)
        Images in [−1, 1].

    Raises
    ------
    TypeError, ValueError
        If the images or the noise do not fit the model, or a number is out of range.
    """
    _check_images(model, images, "images")
    _check_images(model, noise, "noise")
    if noise.shape != images.shape:
        raise ValueError(
            f"noise must have the shape of images, {tuple(images.shape)}, but has "
            f"{tuple(noise.shape)}."
        )
    scheduler = _scheduler(model, steps)
    times = scheduler.timesteps.tolist()
    if time not in times:
        listed = ", ".join(str(known) for known in times)
        raise ValueError(f"time must be one of {listed}, but is {time!r}.")
    at = torch.full((len(images),), time, device=images.device)
    noisy = model.scheduler.add_noise(images, noise, at)
    return _denoise(model, noisy, scheduler, start=times.index(time), batch_size=batch_size)


def reconstruction_error(
    model: DiffusionModel,
    images: Float[Tensor, "N C H W"],
    times: Sequence[int],
    *,
    noise: Float[Tensor, "N C H W"],
    steps: int = 25,
    batch_size: int = 256,
) -> Float[Tensor, "T N"]:
    """Mean squared error of each image's reconstruction, from each of several times.

    Parameters
    ----------
    model, images, noise, steps, batch_size
        As for :func:`reconstruct`; all times use the same noise.
    times : sequence of int
        Noise times.

    Returns
    -------
    Tensor of float32, shape (T, N)
        Mean over the pixels, in the unit of a pixel squared; pixels go from −1 to 1.

    Raises
    ------
    TypeError, ValueError
        As for :func:`reconstruct`, or if there are no times.

    References
    ----------
    Takeda, Oizumi & Karakida (2026), for the error of reconstruction as a measure of forgetting.
    """
    if not times:
        raise ValueError("times must hold at least one noise time, but is empty.")
    options = {"noise": noise, "steps": steps, "batch_size": batch_size}
    errors = [
        (reconstruct(model, images, time, **options) - images).square().mean((1, 2, 3))
        for time in times
    ]
    return torch.stack(errors)


def sampling_times(model: DiffusionModel, steps: int = 25) -> list[int]:
    """Noise times that DDIM visits.

    Parameters
    ----------
    model : DiffusionModel
        The model.
    steps : int
        Denoising steps from pure noise; they must divide the model's number of noise levels.

    Returns
    -------
    list of int
        Falling, from the highest noise; after the last comes no noise.

    Raises
    ------
    TypeError, ValueError
        If ``steps`` is out of range.
    """
    return _scheduler(model, steps).timesteps.tolist()


@torch.no_grad()
def _denoise(
    model: DiffusionModel,
    noisy: Tensor,
    scheduler: DDIMScheduler,
    *,
    start: int = 0,
    batch_size: int,
) -> Tensor:
    _checks.integer_from(batch_size, "batch_size", 1)
    was_training = model.training
    model.eval()
    clean = []
    for batch in noisy.split(batch_size):
        for time in scheduler.timesteps[start:]:
            predicted = model(batch, time.to(batch.device))
            batch = scheduler.step(predicted, time, batch, return_dict=False)[0]
        clean.append(batch)
    model.train(was_training)
    return torch.cat(clean)


def _scheduler(model: DiffusionModel, steps: int) -> DDIMScheduler:
    _checks.integer_from(steps, "steps", 1)
    levels = model.config.train_timesteps
    if levels % steps:
        raise ValueError(
            f"steps must divide the model's {levels} noise levels, so that they are equally "
            f"spaced, but is {steps}."
        )
    # "trailing" starts at the highest noise and ends at none (Lin et al. 2024).
    scheduler = DDIMScheduler.from_config(model.scheduler.config, timestep_spacing="trailing")
    scheduler.set_timesteps(steps)
    return scheduler


def _device(model: DiffusionModel) -> torch.device:
    return next(model.parameters()).device


def _check_images(model: DiffusionModel, value: Tensor, name: str) -> None:
    _checks.images(value, name, model.config.image_shape)
    if value.device != _device(model):
        raise ValueError(
            f"{name} must be on the device of the model, {_device(model)}, but is on "
            f"{value.device}; move one of them."
        )
