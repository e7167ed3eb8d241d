"""Three energies of a sample, all U = −log p in nats.

Everything is said in the coordinate x = x_0 + σε of chapter 3, in which a trained network is a
denoiser D(x, σ) and p_σ is the law of x.

``dataset_energy``
    −log p_σ(x) of a data set smoothed by noise: the list of memories is known.
``flow_energy``
    −log p_σ(x) from a denoiser alone: the probability flow carries x to noise, whose density is
    known, and the divergence on the way says how volumes change.
``denoising_energy``
    E_ε[−log p_σ(x + σε)] from a denoiser alone: the error of denoising x, summed over noise levels.

If D is the exact denoiser of the data, the first two are the same number. In the unit of chapter 3
an energy is σ²U, up to the constant ½σ² d log(2πσ²) + σ² log N.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torchdiffeq import odeint

from hopfield_cl import _checks
from hopfield_cl.diffusion.noise import Denoiser
from hopfield_cl.intervals import Estimate, mean

# Beyond these, σ² or 1/σ² is no float.
_SMALLEST_SIGMA, _LARGEST_SIGMA = 1e-150, 1e150
# Entries of a block of points × data.
_BLOCK_ENTRIES = 4_000_000


def dataset_energy(
    x: Float[Tensor, "M d"],
    data: Float[Tensor, "N d"],
    sigma: float,
    *,
    own: Int64[Tensor, " M"] | None = None,
    chunk_size: int | None = None,
) -> Float[Tensor, " M"]:
    """Energy of samples under a data set smoothed by noise, U = −log p_σ(x).

    A sample that stands in the data is its own nearest neighbour, and with little noise its only
    one: then σ²U → σ² log N + ½σ² d log(2πσ²), whatever the sample. ``own`` leaves it out of its
    own density, which is then the mean over the N − 1 others.

    Parameters
    ----------
    x : Tensor, shape (M, d)
        Samples.
    data : Tensor, shape (N, d)
        Clean points, one a row.
    sigma : float
        Noise level, in the unit of x; from 1e-150 to 1e150.
    own : Tensor of int64, shape (M,), optional
        Row of ``data`` to leave out for each sample, −1 to leave out none. All data count if not
        given.
    chunk_size : int, optional
        Data read at a time; does not change the result. Chosen by the package if not given.

    Returns
    -------
    Tensor, shape (M,)
        Energies, in nats, with all constants.

    Raises
    ------
    TypeError
        If an argument is not of its kind, or dtypes differ.
    ValueError
        If shapes or devices differ, a value is not finite or out of range, or nothing is left of
        the data; or if the result overflows the dtype.

    References
    ----------
    Parzen (1962); Takeda, Oizumi & Karakida (2026), for the energy of a data set as that of a
    diffusion model trained on it.
    """
    _check_samples(x)
    _checks.points_and_memories(x, data, "data")
    _checks.number_between(sigma, "sigma", _SMALLEST_SIGMA, _LARGEST_SIGMA)
    _checks.chunk_size(chunk_size)
    count, dim = data.shape
    left_out = torch.full((len(x),), -1, device=x.device) if own is None else own
    _check_own(left_out, x, count)
    chunk = chunk_size or max(1, _BLOCK_ENTRIES // len(x))
    log_sum = x.new_full((len(x),), -torch.inf)
    for start in range(0, count, chunk):
        # Distances themselves, not ‖x‖² − 2x·y + ‖y‖²: no rounding when x is one of the data.
        apart = torch.cdist(
            x, data[start : start + chunk], compute_mode="donot_use_mm_for_euclid_dist"
        )
        logits = -0.5 * (apart / sigma).square()
        rows = torch.arange(start, start + logits.shape[1], device=x.device)
        logits = logits.masked_fill(rows == left_out[:, None], -torch.inf)
        log_sum = torch.logaddexp(log_sum, logits.logsumexp(1))
    others = (count - (left_out >= 0).to(x.dtype)).log()
    energy = others - log_sum + 0.5 * dim * (math.log(2 * math.pi) + 2 * math.log(sigma))
    _checks.no_overflow(energy, "the energy")
    return energy


def flow_energy(
    x: Float[Tensor, "M d"],
    denoiser: Denoiser,
    *,
    sigmas: tuple[float, float],
    steps: int = 20,
    probes: int | None = 1,
    prior_variance: float = 1.0,
    generator: torch.Generator | None = None,
    batch_size: int = 256,
) -> Float[Tensor, " M"]:
    """Energy of samples by the probability flow, U = −log p_σ(x) at the lower of two noise levels.

    Along dx/dσ = (x − D(x, σ))/σ the density obeys d log p_σ(x)/d log σ = −(d − tr ∂D/∂x). The
    flow is followed up to the higher noise level, where the density is taken for a normal one with
    mean 0. With a mean m of the data that is off by about ‖m‖/σ nats.

    The trace is estimated as zᵀ(∂D/∂x)z with random signs z that stay the same along the path. The
    steps are those of a Runge–Kutta method of order 4, equal in log σ. As the grid is fixed, the
    energy of a sample does not depend on the samples beside it.

    Parameters
    ----------
    x : Tensor of float32 or float64, shape (M, d)
        Samples.
    denoiser : callable
        Takes points (B, d) and a noise level; returns denoised points (B, d), differentiable in
        the points and row by row.
    sigmas : tuple of two floats
        Lowest and highest noise level, in the unit of x.
    steps : int
        Steps, with four calls of the denoiser each.
    probes : int or None
        Random vectors z a sample. What they add by chance falls with the square root of their
        number and can rival what samples differ by. None: the trace is exact, at the price of d
        derivatives a call.
    prior_variance : float
        Variance of a coordinate of the clean data, of which only an order of magnitude matters.
    generator : torch.Generator, optional
        Source of the random signs. PyTorch's default generator if not given.
    batch_size : int
        Samples carried at a time; does not change the result.

    Returns
    -------
    Tensor, shape (M,)
        Energies, in nats, with all constants.

    Raises
    ------
    TypeError, ValueError
        If an argument is not of its kind or out of range, or the denoiser changes the shape; or if
        the flow leaves the range of the dtype.

    References
    ----------
    Song, Sohl-Dickstein et al. (2021), *Score-Based Generative Modeling through Stochastic
    Differential Equations*, eq. (39); Hutchinson (1990) for the trace.
    """
    _check_problem(x, denoiser, sigmas, batch_size)
    _checks.integer_from(steps, "steps", 1)
    _checks.positive_number(prior_variance, "prior_variance")
    if probes is not None:
        _checks.integer_from(probes, "probes", 1)
    dim = x.shape[1]
    grid = torch.linspace(
        math.log(sigmas[0]), math.log(sigmas[1]), steps + 1, dtype=torch.float64, device=x.device
    )
    if probes is None:
        # Scaled so that the mean of zzᵀ over the probes is the identity, as it is for signs.
        along = (math.sqrt(dim) * torch.eye(dim, dtype=x.dtype, device=x.device)).expand(
            len(x), dim, dim
        )
    else:
        # All drawn before the first batch: which ones a sample gets must not depend on its batch.
        home = "cpu" if generator is None else generator.device
        drawn = torch.randint(2, (len(x), probes, dim), generator=generator, device=home)
        along = (2 * drawn - 1).to(x)
    energies = []
    for start, signs in zip(x.split(batch_size), along.split(batch_size), strict=True):
        end, rise = _follow(start, signs.transpose(0, 1), denoiser, grid, sigmas)
        variance = prior_variance + sigmas[1] ** 2
        square = end.square().sum(1) / variance
        energies.append(0.5 * (square + dim * math.log(2 * math.pi * variance)) - rise)
    energy = torch.cat(energies)
    _checks.no_overflow(energy, "the energy")
    return energy


def denoising_energy(
    x: Float[Tensor, "M d"],
    denoiser: Denoiser,
    *,
    sigmas: tuple[float, float],
    levels: int = 16,
    noises: int = 8,
    generator: torch.Generator | None = None,
    batch_size: int = 256,
) -> Estimate:
    """Energy of noisy samples from the error of denoising them, E_ε[−log p_σ(x + σε)].

    With σ the lower of two noise levels, snr = 1/σ² and mse(x, snr) = E_ε‖x − D(x + σε, σ)‖²,

        E_ε[−log p_σ(x + σε)] = ½ d log(2πeσ²) + ½ ∫_0^{1/σ²} mse(x, snr) dsnr.

    The integral is taken by Gauss and Legendre's rule in log snr. Below the lowest snr the error is
    taken to be that at the lowest snr. Each noise ε comes with its mirror image −ε, so that
    terms linear in it cancel: they make most of what differs from sample to sample by chance. All
    samples share the noise, so that their energies are paired, and so are those of one sample under
    two models if the generators are in the same state.

    Parameters
    ----------
    x : Tensor of float32 or float64, shape (M, d)
        Samples.
    denoiser : callable
        Takes points (B, d) and a noise level; returns denoised points (B, d), row by row.
    sigmas : tuple of two floats
        Lowest and highest noise level, in the unit of x.
    levels : int
        Noise levels in between at which the error is measured.
    noises : int
        Draws of ε and −ε at each level, at least 2. The denoiser is called on
        2 · ``noises`` · (``levels`` + 1) noisy samples a sample.
    generator : torch.Generator, optional
        Source of the noise. PyTorch's default generator if not given.
    batch_size : int
        Noisy samples denoised at a time; does not change the result.

    Returns
    -------
    Estimate of shape (M,)
        Energies in nats, with all constants; the standard error and the 95 % interval are those of
        the mean over the draws of the noise.

    Raises
    ------
    TypeError, ValueError
        If an argument is not of its kind or out of range, or the denoiser changes the shape.

    References
    ----------
    Guo, Shamai & Verdú (2005), *Mutual Information and Minimum Mean-Square Error in Gaussian
    Channels*; Kong, Brekelmans & Ver Steeg (2023), *Information-Theoretic Diffusion*, for the
    limit σ → 0.
    """
    _check_problem(x, denoiser, sigmas, batch_size)
    _checks.integer_from(levels, "levels", 1)
    _checks.integer_from(noises, "noises", 2)
    (low, high), dim = sigmas, x.shape[1]
    nodes, widths = _gauss_legendre(levels, -2 * math.log(high), -2 * math.log(low))
    # The last level is the highest noise: its error stands for all below the lowest snr.
    grid = [*(math.exp(-node / 2) for node in nodes), high]
    factors = [*(0.5 * w / s**2 for w, s in zip(widths, grid, strict=False)), 0.5 / high**2]
    home = "cpu" if generator is None else generator.device
    shape = (len(grid), noises, dim)
    noise = torch.randn(shape, generator=generator, dtype=x.dtype, device=home).to(x.device)
    samples = max(1, batch_size // (2 * noises))
    sums = [_weighted_errors(part, denoiser, grid, factors, noise) for part in x.split(samples)]
    constant = 0.5 * dim * (math.log(2 * math.pi) + 1 + 2 * math.log(low))
    energies = torch.cat(sums, dim=1) + constant
    _checks.no_overflow(energies, "the energy")
    return mean(energies)


def _follow(
    x: Tensor, probes: Tensor, denoiser: Denoiser, grid: Tensor, sigmas: tuple[float, float]
) -> tuple[Tensor, Tensor]:
    """Carry points up a grid of log σ; return them and ∫ (d − tr ∂D/∂x) dlog σ, shape (B,)."""

    def slope(log_sigma: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        # exp(log σ) may round to the outside, where a schedule has no time.
        sigma = min(max(math.exp(log_sigma), sigmas[0]), sigmas[1])
        with torch.enable_grad():
            points = state[0].detach().requires_grad_()
            clean = _called(denoiser, points, sigma)
            trace = points.new_zeros(len(points))
            for k, z in enumerate(probes):
                (pulled,) = torch.autograd.grad(clean, points, z, retain_graph=k + 1 < len(probes))
                trace += (pulled * z).sum(1) / len(probes)
        return points.detach() - clean.detach(), points.shape[1] - trace

    with torch.no_grad():
        ends, rises = odeint(
            slope,
            (x, x.new_zeros(len(x))),
            grid[[0, -1]],
            method="rk4",
            options={"grid_constructor": lambda *_: grid},
        )
    return ends[-1], rises[-1]


@torch.no_grad()
def _weighted_errors(
    x: Tensor, denoiser: Denoiser, grid: list[float], factors: list[float], noise: Tensor
) -> Tensor:
    """Σ_l factor_l ‖x − D(x ± σ_l ε_l, σ_l)‖² for each draw of the noise, shape (noises, B)."""
    total = x.new_zeros(noise.shape[1], len(x))
    for sigma, factor, draws in zip(grid, factors, noise, strict=True):
        noisy = x + sigma * torch.stack([draws, -draws])[:, :, None]
        clean = _called(denoiser, noisy.flatten(0, 2), sigma).view_as(noisy)
        total += factor * (x - clean).square().sum(3).mean(0)
    return total


def _gauss_legendre(count: int, low: float, high: float) -> tuple[list[float], list[float]]:
    """Nodes and weights of the rule on an interval."""
    nodes, weights = np.polynomial.legendre.leggauss(count)
    half = (high - low) / 2
    return (low + half * (nodes + 1)).tolist(), (half * weights).tolist()


def _called(denoiser: Denoiser, points: Tensor, sigma: float) -> Tensor:
    clean = denoiser(points, sigma)
    if clean.shape != points.shape:
        raise ValueError(
            f"denoiser must return the shape it is given, {tuple(points.shape)}, but returned "
            f"{tuple(clean.shape)}."
        )
    return clean


def _check_samples(x: Tensor) -> None:
    _checks.memory_set(x, "x")
    if x.dtype not in (torch.float32, torch.float64):
        raise TypeError(
            f"x must be float32 or float64, but has {x.dtype}; convert it with x.float()."
        )


def _check_problem(
    x: Tensor, denoiser: Denoiser, sigmas: tuple[float, float], batch_size: int
) -> None:
    _check_samples(x)
    if not callable(denoiser):
        raise TypeError(f"denoiser must be callable, but is a {type(denoiser).__name__}.")
    if not isinstance(sigmas, tuple) or len(sigmas) != 2:
        raise TypeError(
            f"sigmas must be a tuple of the lowest and the highest noise level, but is {sigmas!r}."
        )
    for k, sigma in enumerate(sigmas):
        _checks.number_between(sigma, f"sigmas[{k}]", _SMALLEST_SIGMA, _LARGEST_SIGMA)
    if sigmas[0] >= sigmas[1]:
        raise ValueError(f"sigmas must rise, lowest noise level first, but are {sigmas}.")
    _checks.integer_from(batch_size, "batch_size", 1)


def _check_own(own: Tensor, x: Tensor, count: int) -> None:
    if not isinstance(own, Tensor) or own.dtype != torch.int64:
        kind = own.dtype if isinstance(own, Tensor) else type(own).__name__
        raise TypeError(f"own must be a tensor of int64, but is {kind}.")
    if own.shape != x.shape[:1] or own.device != x.device:
        raise ValueError(
            f"own must have shape ({len(x)},), one index for each sample, on the device of x, "
            f"{x.device}, but has shape {tuple(own.shape)} on {own.device}."
        )
    low, high = (int(end) for end in torch.aminmax(own))
    if low < -1 or high >= count:
        raise ValueError(
            f"own must hold rows of data, from 0 to {count - 1}, or −1, but holds "
            f"{low if low < -1 else high}."
        )
    if count == 1 and high == 0:
        raise ValueError("own must leave some data, but data holds one point and it is left out.")
