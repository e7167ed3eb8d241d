"""Noise levels of a diffusion model, and the model as a denoiser.

A variance-preserving model sees x_t = α_t x_0 + s_t ε with α_t² + s_t² = 1. Divided by α_t it is
x_0 + σ_t ε with σ_t = s_t/α_t: the data plus noise of level σ_t, as in chapter 3. In these
coordinates a trained network is a denoiser D(x, σ), and everything that holds for the exact
denoiser of a data set can be asked of it.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from hopfield_cl import _checks
from hopfield_cl.diffusion.models import DiffusionModel

Denoiser = Callable[[Float[Tensor, "B d"], float], Float[Tensor, "B d"]]


def noise_levels(model: DiffusionModel) -> Float[Tensor, " T"]:
    """Noise level σ_t = s_t/α_t at each time of a model's schedule.

    Parameters
    ----------
    model : DiffusionModel
        The model.

    Returns
    -------
    Tensor of float64, shape (T,)
        Rising with t, in the unit of a pixel.

    References
    ----------
    Karras et al. (2022), *Elucidating the Design Space of Diffusion-Based Generative Models*.
    """
    # add_noise leaves the scheduler's table on the device of its images.
    kept = model.scheduler.alphas_cumprod.cpu().double()
    return ((1 - kept) / kept).sqrt()


def time_at(model: DiffusionModel, sigma: float) -> float:
    """Time at which a model's noise has a given level.

    Parameters
    ----------
    model : DiffusionModel
        The model.
    sigma : float
        Noise level, between the model's lowest and highest.

    Returns
    -------
    float
        Between two whole times where log σ, which is interpolated, lies between theirs.

    Raises
    ------
    TypeError, ValueError
        If ``sigma`` is no number in the model's range.
    """
    levels = noise_levels(model).numpy()
    _checks.number_between(sigma, "sigma", float(levels[0]), float(levels[-1]))
    return float(np.interp(np.log(sigma), np.log(levels), np.arange(len(levels))))


def as_denoiser(model: DiffusionModel) -> Denoiser:
    """Take a trained model for a denoiser of flat points.

    Parameters
    ----------
    model : DiffusionModel
        The model.

    Returns
    -------
    callable
        Takes x = x_0 + σε, shape (B, d), images row by row, and σ; returns the model's estimate of
        x_0, shape (B, d), differentiable in x. It refuses a σ outside the model's schedule.
    """

    def denoiser(x: Float[Tensor, "B d"], sigma: float) -> Float[Tensor, "B d"]:
        alpha = (1 + sigma**2) ** -0.5
        time = torch.full((len(x),), time_at(model, sigma), dtype=x.dtype, device=x.device)
        noisy = alpha * x.unflatten(1, model.config.image_shape)
        predicted = model(noisy, time).flatten(1)
        if model.config.prediction == "epsilon":
            return x - sigma * predicted
        if model.config.prediction == "sample":
            return predicted
        return alpha * (noisy.flatten(1) - sigma * predicted)

    return denoiser
