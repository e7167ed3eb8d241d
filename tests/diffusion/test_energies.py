import math

import numpy as np
import pytest
import torch
from scipy.special import logsumexp
from scipy.stats import multivariate_normal

from hopfield_cl.denoising import denoise, log_density
from hopfield_cl.diffusion.energies import dataset_energy, denoising_energy, flow_energy
from hopfield_cl.diffusion.models import ModelConfig, new_model
from hopfield_cl.diffusion.noise import as_denoiser, noise_levels

SIGMAS = (0.01, 100.0)
dims = pytest.mark.parametrize("dim", [2, 16])


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def mixture(dim, *, spread=0.3, count=5, points=64):
    """Means, samples, and the exact denoiser of equal Gaussians of variance ``spread``²."""
    generator = seeded()
    means = 0.8 * torch.randn(count, dim, generator=generator, dtype=torch.float64)
    which = torch.randint(count, (points,), generator=generator)
    noise = torch.randn(points, dim, generator=generator, dtype=torch.float64)

    def denoiser(x, sigma):
        total = math.hypot(spread, sigma)
        return (spread**2 * x + sigma**2 * denoise(x, means, total)) / total**2

    return means, means[which] + spread * noise, denoiser


def true_energy(x, means, sigma, spread=0.3):
    return -log_density(x, means, math.hypot(spread, sigma))


# The energy of a data set


@pytest.mark.parametrize("sigma", [0.05, 0.5, 5.0])
def test_the_dataset_energy_is_minus_the_log_density_of_scipys_normals(sigma):
    data, x, _ = mixture(4, points=6)
    parts = [multivariate_normal(m, sigma**2 * np.eye(4)).logpdf(x.numpy()) for m in data.numpy()]
    expected = math.log(len(data)) - logsumexp(parts, 0)
    np.testing.assert_allclose(dataset_energy(x, data, sigma).numpy(), expected, rtol=1e-11)
    torch.testing.assert_close(dataset_energy(x, data, sigma), -log_density(x, data, sigma))


@pytest.mark.parametrize("chunk_size", [None, 1, 3, 100])
def test_a_sample_is_left_out_of_its_own_density_whatever_the_chunks(chunk_size):
    _, data, _ = mixture(4, points=9)
    own = torch.tensor([0, 1, -1, 3, 8, 5, -1, 7, 2])
    found = dataset_energy(data, data, 0.4, own=own, chunk_size=chunk_size)
    for k, leave in enumerate(own.tolist()):
        rest = data[[i for i in range(9) if i != leave]]
        torch.testing.assert_close(found[k], dataset_energy(data[k : k + 1], rest, 0.4)[0])


def test_without_noise_every_stored_sample_has_the_same_energy_unless_it_is_left_out():
    _, data, _ = mixture(4, points=9)
    sigma = 1e-4
    same = math.log(9) + 2 * math.log(2 * math.pi * sigma**2)
    torch.testing.assert_close(dataset_energy(data, data, sigma), torch.full_like(data[:, 0], same))
    left_out = dataset_energy(data, data, sigma, own=torch.arange(9)) * sigma**2
    nearest = torch.cdist(data, data).fill_diagonal_(torch.inf).min(1).values
    torch.testing.assert_close(left_out, nearest.square() / 2, rtol=1e-4, atol=0)


def test_with_much_noise_only_the_distance_to_the_mean_and_the_spread_are_left():
    _, data, _ = mixture(4, points=9)
    sigma = 1e4
    square = (data - data.mean(0)).square().sum(1)
    expected = (square + square.mean()) / 2
    constant = 2 * math.log(2 * math.pi * sigma**2)
    left = sigma**2 * (dataset_energy(data, data, sigma) - constant)
    torch.testing.assert_close(left, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_the_dataset_energy_of_far_points_keeps_its_digits(dtype):
    data = torch.tensor([[3000.0, 4000.0], [3000.0, 4001.0]], dtype=dtype)
    expected = math.log(2 * math.pi) - math.log(0.5 * (1 + math.exp(-0.5)))
    found = dataset_energy(data[:1], data, 1.0)
    torch.testing.assert_close(found, torch.tensor([expected], dtype=dtype))


# The probability flow


@dims
def test_the_flow_energy_of_a_mixture_is_right(dim):
    means, x, denoiser = mixture(dim)
    off = flow_energy(x, denoiser, sigmas=SIGMAS, probes=None, steps=40)
    off = off - true_energy(x, means, SIGMAS[0])
    # What is left: the normal law at the end has not the mean of the mixture.
    expected = means.mean(0).norm() / SIGMAS[1]
    assert off.square().mean().sqrt() < 1.5 * expected < 0.03
    assert off.abs().max() < 4 * expected


def one_gaussian(variance=0.49):
    x = torch.randn(10, 6, generator=seeded(), dtype=torch.float64)
    return x, lambda x, sigma: x * variance / (variance + sigma**2)


def test_the_flow_energy_is_of_fourth_order_in_the_step():
    x, denoiser = one_gaussian()
    coarse, fine, exact = (
        flow_energy(x, denoiser, sigmas=(0.1, 10.0), probes=None, steps=n) for n in (20, 40, 200)
    )
    ratio = (coarse - exact).square().mean().sqrt() / (fine - exact).square().mean().sqrt()
    assert 12 < ratio < 22


def test_the_flow_energy_of_one_gaussian_is_exact_with_its_own_prior():
    variance = 0.49
    x, denoiser = one_gaussian(variance)
    options = {"probes": None, "prior_variance": variance, "steps": 60}
    found = flow_energy(x, denoiser, sigmas=(0.1, 5.0), **options)
    total = variance + 0.01
    expected = (x.square().sum(1) / total + 6 * math.log(2 * math.pi * total)) / 2
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


def test_the_flow_energy_of_the_exact_denoiser_is_the_dataset_energy():
    _, data, _ = mixture(8, points=20)
    data = data - data.mean(0)
    x = data + 0.2 * torch.randn(data.shape, generator=seeded(1), dtype=torch.float64)

    def exact(x, sigma):
        return denoise(x, data, sigma)

    found = flow_energy(x, exact, sigmas=(0.2, 200.0), probes=None, steps=80)
    torch.testing.assert_close(found, dataset_energy(x, data, 0.2), rtol=0, atol=0.02)


def test_random_probes_are_right_in_the_mean():
    _, x, denoiser = mixture(16, points=4)
    options = {"sigmas": SIGMAS, "steps": 8}
    exact = flow_energy(x, denoiser, probes=None, **options)
    many = x.repeat_interleave(100, 0)
    found = flow_energy(many, denoiser, generator=seeded(), **options).view(4, 100)
    error = found.std(1) / math.sqrt(100)
    assert ((found.mean(1) - exact).abs() < 4 * error).all()
    assert (found.std(1) > 0.05).all()
    fewer = flow_energy(many, denoiser, generator=seeded(), probes=4, **options).view(4, 100)
    assert (fewer.std(1) < 0.65 * found.std(1)).all()


# The error of denoising


def noisy_energy(x, means, sigma, spread=0.3, draws=20_000):
    """E_ε[−log p_σ(x + σε)] and its standard error, with the kernel's own log as control."""
    noise = torch.randn(draws, x.shape[1], generator=seeded(9), dtype=torch.float64)
    ratio = torch.stack(
        [
            true_energy(point + sigma * noise, means, sigma, spread) - noise.square().sum(1) / 2
            for point in x
        ]
    )
    return ratio.mean(1) + x.shape[1] / 2, ratio.std(1) / math.sqrt(draws)


@dims
def test_the_denoising_energy_of_a_mixture_is_right(dim):
    means, x, denoiser = mixture(dim, points=24)
    sigmas = (0.1, 100.0)
    found = denoising_energy(x, denoiser, sigmas=sigmas, noises=200, generator=seeded())
    expected, error = noisy_energy(x, means, sigmas[0])
    deviation = (found.value - expected) / torch.hypot(error, found.standard_error)
    assert deviation.abs().max() < 4
    assert found.standard_error.max() < 0.05 * dim**0.5 + 0.1


def test_the_denoising_energy_of_one_gaussian_is_its_closed_form():
    variance, (low, high) = 0.49, (0.2, 50.0)
    x, denoiser = one_gaussian(variance)
    options = {"sigmas": (low, high), "noises": 2000, "generator": seeded(1)}
    found = denoising_energy(x, denoiser, **options)
    total = variance + low**2
    square = x.square().sum(1) + 6 * low**2
    expected = (square / total + 6 * math.log(2 * math.pi * total)) / 2
    assert ((found.value - expected) / found.standard_error).abs().max() < 4
    assert found.standard_error.max() < 0.05


def test_the_part_below_the_lowest_snr_is_closed():
    x = torch.randn(5, 3, generator=seeded(), dtype=torch.float64)

    def origin(x, _sigma):
        return torch.zeros_like(x)  # the denoiser of one datum at 0: the error is ‖x‖² throughout

    found = denoising_energy(x, origin, sigmas=(0.5, 2.0), generator=seeded())
    constant = 1.5 * math.log(2 * math.pi * math.e * 0.25)
    torch.testing.assert_close(found.value, constant + x.square().sum(1) / 2 / 0.25)
    torch.testing.assert_close(found.standard_error, torch.zeros_like(found.value))


def test_all_samples_share_the_noise_of_the_denoising_energy():
    _, x, denoiser = mixture(16, points=2)
    twice = denoising_energy(x[[0, 1, 0]], denoiser, sigmas=SIGMAS, generator=seeded()).value
    torch.testing.assert_close(twice[0], twice[2])


# Both


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_the_batch_does_not_change_the_energies_of_a_network(prediction):
    config = ModelConfig(image_size=8, patch=2, widths=(8, 16), groups=4, prediction=prediction)
    denoiser = as_denoiser(new_model(config, seed=0).eval())
    x = torch.randn(5, 64, generator=seeded())
    sigmas = (0.1, 50.0)
    for batch_size in (1, 3):
        small, large = [
            (
                flow_energy(x, denoiser, sigmas=sigmas, steps=1, probes=2, **options),
                denoising_energy(x, denoiser, sigmas=sigmas, levels=2, noises=2, **options).value,
            )
            for options in (
                {"generator": seeded(), "batch_size": size} for size in (batch_size, 256)
            )
        ]
        torch.testing.assert_close(small, large, rtol=1e-4, atol=1e-3)


def test_the_energies_reach_both_ends_of_a_schedule():
    model = new_model(ModelConfig(image_size=8, patch=2, widths=(8, 16), groups=4), seed=0)
    levels = noise_levels(model)
    sigmas = (float(levels[0]) * (1 + 1e-12), float(levels[-1]) * (1 - 1e-12))
    x = torch.randn(2, 64, generator=seeded())
    assert flow_energy(x, as_denoiser(model), sigmas=sigmas, steps=1).shape == (2,)
    assert denoising_energy(x, as_denoiser(model), sigmas=sigmas, levels=2).value.shape == (2,)


def test_no_gradient_of_the_network_is_kept():
    model = new_model(ModelConfig(image_size=8, patch=2, widths=(8, 16), groups=4), seed=0)
    x = torch.randn(2, 64, generator=seeded())
    energies = flow_energy(x, as_denoiser(model), sigmas=(0.1, 10.0), steps=1)
    assert not energies.requires_grad
    assert all(p.grad is None for p in model.parameters())


def test_equal_generators_give_equal_energies_and_others_do_not():
    _, x, denoiser = mixture(16, points=3)
    for function in (
        lambda seed: flow_energy(x, denoiser, sigmas=SIGMAS, steps=3, generator=seeded(seed)),
        lambda seed: denoising_energy(x, denoiser, sigmas=SIGMAS, generator=seeded(seed)).value,
    ):
        assert torch.equal(function(1), function(1))
        assert (function(1) != function(2)).all()


# Bad input

X = torch.zeros(3, 2)
OWN = torch.tensor([0, 1, 2])


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"x": [[0.0]]}, TypeError, "x must be a torch.Tensor"),
        ({"x": X.half(), "data": X.half()}, TypeError, "x must be float32 or float64"),
        ({"x": X[0]}, ValueError, "x must have shape"),
        ({"x": X * math.nan}, ValueError, "x must be finite"),
        ({"data": X.double()}, TypeError, "data must have the dtype of x"),
        ({"data": X[:0]}, ValueError, "data must hold at least one"),
        ({"data": torch.zeros(3, 4)}, ValueError, "x must have the dimension of data"),
        ({"sigma": 0}, ValueError, "sigma must lie between"),
        ({"sigma": "1"}, TypeError, "sigma must be a number"),
        ({"sigma": 1e-30, "x": X + 1}, ValueError, "the energy overflows"),
        ({"chunk_size": 0}, ValueError, "chunk_size must be at least 1"),
        ({"own": [0, 1, 2]}, TypeError, "own must be a tensor of int64, but is list"),
        ({"own": OWN.int()}, TypeError, "own must be a tensor of int64, but is torch.int32"),
        ({"own": OWN[:2]}, ValueError, r"own must have shape \(3,\)"),
        ({"own": OWN + 1}, ValueError, "from 0 to 2, or −1, but holds 3"),
        ({"own": OWN - 2}, ValueError, "from 0 to 2, or −1, but holds -2"),
        ({"own": OWN * 0, "data": X[:1]}, ValueError, "own must leave some data"),
    ],
)
def test_the_dataset_energy_refuses_bad_input(change, error, words):
    given = {"x": X, "data": X, "sigma": 0.5} | change
    with pytest.raises(error, match=words):
        dataset_energy(given.pop("x"), given.pop("data"), given.pop("sigma"), **given)


BAD = [
    ({"x": X.bfloat16()}, TypeError, "x must be float32 or float64"),
    ({"x": X[0]}, ValueError, "x must have shape"),
    ({"x": X * math.inf}, ValueError, "x must be finite"),
    ({"denoiser": 3}, TypeError, "denoiser must be callable"),
    ({"denoiser": lambda x, _: x[:, :1]}, ValueError, "denoiser must return the shape"),
    ({"sigmas": [0.1, 1.0]}, TypeError, "sigmas must be a tuple"),
    ({"sigmas": (0.1,)}, TypeError, "sigmas must be a tuple"),
    ({"sigmas": (1.0, 0.1)}, ValueError, "sigmas must rise"),
    ({"sigmas": (0.0, 0.1)}, ValueError, r"sigmas\[0\] must lie between"),
    ({"sigmas": (0.1, math.inf)}, ValueError, r"sigmas\[1\] must lie between"),
    ({"batch_size": 0}, ValueError, "batch_size must be at least 1"),
]
FLOW = [
    ({"steps": 0}, ValueError, "steps must be at least 1"),
    ({"probes": 0}, ValueError, "probes must be at least 1"),
    ({"probes": 1.0}, TypeError, "probes must be an integer"),
    ({"prior_variance": 0.0}, ValueError, "prior_variance must be finite and above 0"),
    ({"denoiser": lambda x, _: x * math.nan}, ValueError, "the energy overflows"),
]
ERROR = [
    ({"levels": 0}, ValueError, "levels must be at least 1"),
    ({"noises": 1}, ValueError, "noises must be at least 2"),
    ({"denoiser": lambda x, _: x * math.nan}, ValueError, "the energy overflows"),
]


@pytest.mark.parametrize(
    ("function", "change", "error", "words"),
    [(flow_energy, *case) for case in BAD + FLOW]
    + [(denoising_energy, *case) for case in BAD + ERROR],
)
def test_the_energies_of_a_denoiser_refuse_bad_input(function, change, error, words):
    given = {"x": X, "denoiser": lambda x, _: x / 2, "sigmas": (0.1, 1.0)} | change
    with pytest.raises(error, match=words):
        function(given.pop("x"), given.pop("denoiser"), **given)
