"""The exact denoiser of a data set, its log-density and score, and sampling by cooling.

With data x_1..x_N in R^d and noise level σ, the data smoothed by Gaussian noise have the density

    p_σ(x) = (1/N) Σ_i N(x; x_i, σ²I),

whose energy is that of a modern Hopfield network at β = 1/σ² with masses w_i = exp(−β‖x_i‖²/2):

    −σ² log p_σ(x) = E(x) + σ² log N + ½ σ² d log(2πσ²),
    ∇log p_σ(x) = (D(x) − x) / σ²,   D(x) = E[x_0 | x] = T(x).

Those masses span hundreds of orders of magnitude when σ is small. They are therefore never formed:
each x_i carries −½‖x_i‖² as one more coordinate and x carries 1, so that one inner product holds
the memory and its mass together.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from hopfield_cl import _checks
from hopfield_cl.energy import energy, retrieve

# Beyond these, σ² or 1/σ² is no float.
_SMALLEST_SIGMA, _LARGEST_SIGMA = 1e-150, 1e150


def denoise(
    x: Float[Tensor, "*batch d"],
    data: Float[Tensor, "N d"],
    sigma: float,
    *,
    chunk_size: int | None = None,
) -> Float[Tensor, "*batch d"]:
    """Mean of the clean point given the noisy one, D(x) = E[x_0 | x_0 + σz = x].

    The clean point x_0 is one of the data, each as likely as the next, and z is standard normal. No
    function of x has a smaller mean squared error on the data.

    Parameters
    ----------
    x : Tensor, shape (..., d)
        Noisy points.
    data : Tensor, shape (N, d)
        Clean points, one a row.
    sigma : float
        Noise level, in the unit of x; from 1e-150 to 1e150.
    chunk_size : int, optional
        Data read at a time; does not change the result. Chosen by the package if not given.

    Returns
    -------
    Tensor, shape (..., d)
        The denoised points, each in the convex hull of the data.

    Raises
    ------
    TypeError
        If an argument is not of its kind, or dtypes differ.
    ValueError
        If shapes or devices differ, a value is not finite or out of range, or ``data`` is empty; or
        if the result overflows the dtype.

    References
    ----------
    Robbins (1956); Efron (2011), *Tweedie's Formula and Selection Bias*.
    """
    points, memories, center = _with_masses(x, data, sigma, chunk_size)
    kept = retrieve(points, memories, 1 / sigma**2, chunk_size=chunk_size)[..., :-1]
    return (kept + center).to(x.dtype)


def log_density(
    x: Float[Tensor, "*batch d"],
    data: Float[Tensor, "N d"],
    sigma: float,
    *,
    chunk_size: int | None = None,
) -> Float[Tensor, "*batch"]:
    """Logarithm of the smoothed density, log p_σ(x) with p_σ = (1/N) Σ_i N(x_i, σ²I).

    Parameters
    ----------
    x, data, sigma, chunk_size
        As for :func:`denoise`.

    Returns
    -------
    Tensor, shape (...)
        Log-densities, in nats, with all constants.

    Raises
    ------
    TypeError, ValueError
        As for :func:`denoise`.

    References
    ----------
    Parzen (1962), *On Estimation of a Probability Density Function and Mode*; Ota & Karakida (2022)
    for its tie to the energy.
    """
    points, memories, _ = _with_masses(x, data, sigma, chunk_size)
    beta = 1 / sigma**2
    # The coordinate that carries the masses is 1 in every point and adds ½ to the energy.
    lifted = energy(points, memories, beta, chunk_size=chunk_size) - 0.5
    count, dim = data.shape
    constant = math.log(count) + 0.5 * dim * (math.log(2 * math.pi) + 2 * math.log(sigma))
    value = (-beta * lifted - constant).to(x.dtype)
    _checks.no_overflow(value, "the log-density")
    return value


def score(
    x: Float[Tensor, "*batch d"],
    data: Float[Tensor, "N d"],
    sigma: float,
    *,
    chunk_size: int | None = None,
) -> Float[Tensor, "*batch d"]:
    """Gradient of the log-density, ∇log p_σ(x) = (D(x) − x)/σ².

    Parameters
    ----------
    x, data, sigma, chunk_size
        As for :func:`denoise`.

    Returns
    -------
    Tensor, shape (..., d)
        Scores, in 1 / (unit of x).

    Raises
    ------
    TypeError, ValueError
        As for :func:`denoise`.

    References
    ----------
    Efron (2011); Vincent (2011), *A Connection Between Score Matching and Denoising Autoencoders*.
    """
    points, memories, _ = _with_masses(x, data, sigma, chunk_size)
    kept = retrieve(points, memories, 1 / sigma**2, chunk_size=chunk_size)[..., :-1]
    value = ((kept - points[..., :-1]) / sigma**2).to(x.dtype)
    _checks.no_overflow(value, "the score")
    return value


def cool(
    x: Float[Tensor, "*batch d"],
    denoiser: Callable[[Tensor, float], Tensor],
    sigmas: Sequence[float],
    *,
    eta: float = 0.0,
    generator: torch.Generator | None = None,
) -> Float[Tensor, "*batch d"]:
    """Carry points from the highest noise level to none, one denoising a level.

    From σ to the next level σ' the noise that the denoiser finds shrinks, part of it is renewed:

        x ← D + √(σ'² − s²)/σ (x − D) + s z,   D = denoiser(x, σ),   s = η σ' √(1 − σ'²/σ²).

    At η = 0 it follows the probability flow, without chance; at η = 1 it is ancestral sampling.
    After the last level comes σ' = 0, so that the last denoised point is returned. A
    variance-preserving sampler does the same, written in x_t/α_t with σ_t = s_t/α_t.

    Parameters
    ----------
    x : Tensor, shape (..., d)
        Where to start: noise of standard deviation ``sigmas[0]`` around the mean of the data.
    denoiser : callable
        Takes points (..., d) and a noise level; returns denoised points of the same shape.
    sigmas : sequence of float
        Noise levels, above 0 and falling, in the unit of x.
    eta : float
        Share η of fresh noise, from 0 to 1.
    generator : torch.Generator, optional
        Source of the fresh noise. PyTorch's default generator if not given.

    Returns
    -------
    Tensor, shape (..., d)
        The points after the last level.

    Raises
    ------
    TypeError, ValueError
        If an argument is not of its kind or out of range, or the denoiser changes the shape.

    References
    ----------
    Song, Meng & Ermon (2021), *Denoising Diffusion Implicit Models*, eq. (12) and (16).
    """
    _checks.float_tensor(x, "x")
    _checks.finite(x, "x")
    if not callable(denoiser):
        raise TypeError(f"denoiser must be callable, but is a {type(denoiser).__name__}.")
    levels = _falling(sigmas)
    _checks.number_between(eta, "eta", 0.0, 1.0)
    for sigma, colder in zip(levels, [*levels[1:], 0.0], strict=True):
        mean = denoiser(x, sigma)
        if mean.shape != x.shape:
            raise ValueError(
                f"denoiser must return the shape it is given, {tuple(x.shape)}, but returned "
                f"{tuple(mean.shape)}."
            )
        ratio = colder / sigma
        fresh = eta * colder * math.sqrt(1 - ratio**2)
        x = mean + ratio * math.sqrt(1 - eta**2 * (1 - ratio**2)) * (x - mean)
        if fresh > 0:
            noise = torch.randn(x.shape, generator=generator, dtype=x.dtype, device=x.device)
            x = x + fresh * noise
    return x


def _with_masses(
    x: Tensor, data: Tensor, sigma: float, chunk_size: int | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Points (x − m, 1), memories (x_i − m, −½‖x_i − m‖²), and the mean m of the data.

    Measured from m the norms are as small as they can be, and rounding with them.
    """
    _checks.points_and_memories(x, data, "data")
    _checks.number_between(sigma, "sigma", _SMALLEST_SIGMA, _LARGEST_SIGMA)
    _checks.chunk_size(chunk_size)
    dtype = torch.promote_types(x.dtype, torch.float32)
    wide = data.to(dtype)
    center = wide.mean(0)
    apart = wide - center
    memories = torch.cat([apart, -0.5 * apart.square().sum(1, keepdim=True)], dim=1)
    _checks.no_overflow(memories, "the squared norm of the data")
    away = x.to(dtype) - center
    return torch.cat([away, torch.ones_like(away[..., :1])], dim=-1), memories, center


def _falling(sigmas: Sequence[float]) -> list[float]:
    levels = list(sigmas)
    if not levels:
        raise ValueError("sigmas must hold at least one noise level, but is empty.")
    for index, level in enumerate(levels):
        name = f"sigmas[{index}]"
        _checks.number_between(level, name, _SMALLEST_SIGMA, _LARGEST_SIGMA)
        if index and level >= levels[index - 1]:
            raise ValueError(f"{name} must be below the level before it, but is {level}.")
    return levels
