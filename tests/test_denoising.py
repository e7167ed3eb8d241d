import math

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import logsumexp
from scipy.stats import multivariate_normal
from sklearn.neighbors import KernelDensity

from hopfield_cl.denoising import cool, denoise, log_density, score
from hopfield_cl.energy import energy, retrieve
from hopfield_cl.memories import on_sphere

FUNCTIONS = [denoise, log_density, score]
each = pytest.mark.parametrize("function", FUNCTIONS, ids=lambda f: f.__name__)


def setting(seed=0, count=7, dim=4, points=5):
    """Points and data of unequal norm, in float64."""
    generator = torch.Generator().manual_seed(seed)
    norms = 0.2 + 3 * torch.rand(count, 1, generator=generator, dtype=torch.float64)
    data = norms * torch.randn(count, dim, generator=generator, dtype=torch.float64)
    return 2 * torch.randn(points, dim, generator=generator, dtype=torch.float64), data


def through_distances(x, data, sigma):
    """Posterior mean and log-density from the distances, as the definition has them."""
    logits = -torch.cdist(x, data).square() / (2 * sigma**2)
    size = 0.5 * data.shape[1] * math.log(2 * math.pi * sigma**2) + math.log(data.shape[0])
    return torch.softmax(logits, 1) @ data, torch.logsumexp(logits, 1) - size


SIGMAS = st.floats(-3, 3).map(lambda exponent: 10.0**exponent)


@given(st.integers(0, 2**32), st.integers(1, 12), st.integers(1, 6), SIGMAS)
def test_it_is_the_posterior_mean_and_the_log_density_of_the_definition(seed, count, dim, sigma):
    x, data = setting(seed, count, dim)
    mean, value = through_distances(x, data, sigma)
    slip = 1e-13 * (1 + 200 / sigma**2)
    torch.testing.assert_close(denoise(x, data, sigma), mean, rtol=0, atol=20 * slip)
    torch.testing.assert_close(log_density(x, data, sigma), value, rtol=1e-13, atol=slip)
    expected = (mean - x) / sigma**2
    torch.testing.assert_close(score(x, data, sigma), expected, rtol=0, atol=20 * slip / sigma**2)


@pytest.mark.parametrize("sigma", [0.05, 0.5, 5.0])
def test_the_log_density_is_that_of_scipys_normals_and_of_scikit_learns_kernel_density(sigma):
    x, data = setting()
    ours = log_density(x, data, sigma).numpy()
    parts = [multivariate_normal(m, sigma**2 * np.eye(4)).logpdf(x.numpy()) for m in data.numpy()]
    np.testing.assert_allclose(ours, logsumexp(parts, 0) - math.log(len(data)), rtol=1e-11)
    kde = KernelDensity(bandwidth=sigma, rtol=1e-12).fit(data.numpy())
    np.testing.assert_allclose(ours, kde.score_samples(x.numpy()), rtol=1e-9)


def test_minus_sigma_squared_times_the_log_density_is_the_energy_and_a_constant():
    x, data = setting()
    sigma, (count, dim) = 0.9, data.shape
    masses = torch.exp(-data.square().sum(1) / (2 * sigma**2))
    constant = sigma**2 * (math.log(count) + 0.5 * dim * math.log(2 * math.pi * sigma**2))
    expected = energy(x, data, sigma**-2, weights=masses) + constant
    torch.testing.assert_close(-(sigma**2) * log_density(x, data, sigma), expected)


def test_at_equal_norms_denoising_is_retrieval_without_masses():
    x, data = setting()
    data = on_sphere(data)
    torch.testing.assert_close(denoise(x, data, 0.3), retrieve(x, data, 1 / 0.3**2))


def test_the_score_is_the_gradient_of_the_log_density():
    x, data = setting()
    x.requires_grad_()
    (gradient,) = torch.autograd.grad(log_density(x, data, 0.7).sum(), x)
    torch.testing.assert_close(gradient, score(x.detach(), data, 0.7))


@each
def test_it_is_differentiable_in_points_and_data(function):
    x, data = setting(points=2, count=3, dim=2)
    x.requires_grad_()
    data.requires_grad_()
    assert torch.autograd.gradcheck(lambda x, data: function(x, data, 0.8), (x, data))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("sigma", [1e-2, 1e-4])
def test_with_little_noise_it_is_the_nearest_datum_where_the_masses_would_vanish(sigma, dtype):
    x, data = setting()
    x, data = x.to(dtype), data.to(dtype)
    assert torch.exp(-data.square().sum(1) / (2 * sigma**2)).min() == 0
    nearest = data[torch.cdist(x, data).argmin(1)]
    torch.testing.assert_close(denoise(x, data, sigma), nearest)


def test_with_much_noise_it_is_the_mean_of_the_data():
    x, data = setting()
    torch.testing.assert_close(denoise(x, data, 1e6), data.mean(0).expand_as(x))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_it_moves_with_the_data_however_far(dtype):
    x, data = setting()
    x, data = (x * 64).round().to(dtype) / 64, (data * 64).round().to(dtype) / 64
    shift = 1e4
    expected = denoise(x, data, 0.5) + shift
    moved = denoise(x + shift, data + shift, 0.5)
    torch.testing.assert_close(moved, expected, rtol=0, atol=5e3 * torch.finfo(dtype).eps * 10)


@each
def test_the_chunk_size_does_not_change_the_result(function):
    x, data = setting()
    for chunk_size in (1, 3, 100):
        torch.testing.assert_close(
            function(x, data, 0.6, chunk_size=chunk_size), function(x, data, 0.6)
        )


@each
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_dtype_and_shape_are_kept_and_half_precision_is_added_up_in_float32(function, dtype):
    x, data = setting(points=6)
    x, data = x.to(dtype).reshape(2, 3, 4), data.to(dtype)
    result = function(x, data, 0.5)
    assert result.dtype == dtype
    assert result.shape[:2] == (2, 3)
    wide = function(x.double(), data.double(), 0.5)
    tolerance = 4 * torch.finfo(dtype).eps
    torch.testing.assert_close(result.double(), wide, rtol=tolerance, atol=20 * tolerance)


# Cooling

LEVELS = np.geomspace(20.0, 0.02, 60).tolist()


def start(data, count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(count, data.shape[1], generator=generator, dtype=data.dtype)
    return data.mean(0) + LEVELS[0] * noise


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_cooling_the_exact_denoiser_returns_each_datum_as_often_as_the_next(eta):
    _, data = setting(count=4)
    generator = torch.Generator().manual_seed(1)
    x = start(data, 2000)
    drawn = cool(x, lambda x, s: denoise(x, data, s), LEVELS, eta=eta, generator=generator)
    distance, which = torch.cdist(drawn, data).min(1)
    assert distance.max() < 1e-6
    counts = torch.bincount(which, minlength=4).double()
    chi2 = float((counts - 500).square().sum() / 500)
    assert chi2 < 21.1  # exceeded once in 10,000, were the four equally likely


def test_cooling_without_fresh_noise_needs_no_generator_and_leaves_its_input():
    _, data = setting()
    x = start(data, 5)
    before = x.clone()
    first = cool(x, lambda x, s: denoise(x, data, s), LEVELS)
    assert torch.equal(first, cool(x, lambda x, s: denoise(x, data, s), LEVELS))
    assert torch.equal(x, before)


@pytest.mark.parametrize("eta", [0.0, 1.0])
@pytest.mark.parametrize("schedule", ["linear", "squaredcos_cap_v2"])
def test_cooling_is_what_the_sampler_of_diffusers_does_in_variance_preserving_coordinates(
    schedule, eta
):
    _, data = setting()
    scheduler = DDIMScheduler(beta_schedule=schedule, clip_sample=False)
    scheduler.set_timesteps(50)
    steps = scheduler.timesteps[:30]  # at the end all is memory, and every sampler would agree
    alpha_bar = scheduler.alphas_cumprod.double()[steps]
    alphas, sigmas = alpha_bar.sqrt(), ((1 - alpha_bar) / alpha_bar).sqrt()
    x = start(data, 20) / LEVELS[0] * sigmas[0]
    ours_noise, theirs_noise = (torch.Generator().manual_seed(3) for _ in range(2))
    y = alphas[0] * x
    for t, alpha, sigma in zip(steps, alphas, sigmas, strict=True):
        clean = denoise(y / alpha, data, float(sigma))
        noise = (y - alpha * clean) / (alpha * sigma)
        fresh = torch.randn(y.shape, generator=theirs_noise, dtype=y.dtype)
        y = scheduler.step(noise, t, y, eta=eta, variance_noise=fresh).prev_sample
    assert (torch.cdist(clean, data).min(1).values > 0.1).any()
    ours = cool(x, lambda x, s: denoise(x, data, s), sigmas.tolist(), eta=eta, generator=ours_noise)
    # The scheduler keeps its schedule in float32.
    torch.testing.assert_close(clean, ours, rtol=0, atol=1e-4)


# Bad input


@each
@pytest.mark.parametrize(
    ("changes", "error", "match"),
    [
        ({"sigma": 0.0}, ValueError, "^sigma must lie between 1e-150 and 1e\\+150, but is 0.0"),
        ({"sigma": -1.0}, ValueError, "^sigma must lie between"),
        ({"sigma": math.nan}, ValueError, "^sigma must lie between"),
        ({"sigma": 1e-200}, ValueError, "^sigma must lie between"),
        ({"sigma": "1"}, TypeError, "^sigma must be a number, but is a str"),
        ({"data": torch.ones(0, 4)}, ValueError, "^data must hold at least one memory"),
        ({"data": torch.ones(4)}, ValueError, "^data must have shape"),
        ({"data": torch.ones(3, 5)}, ValueError, "^x must have the dimension of data"),
        ({"data": torch.ones(3, 4).double()}, TypeError, "^data must have the dtype of x"),
        ({"data": torch.full((3, 4), math.inf)}, ValueError, "^data must be finite, but row 0"),
        ({"data": 1e30 * torch.eye(4)}, ValueError, "^the squared norm of the data overflows"),
        ({"x": [1.0]}, TypeError, "^x must be a torch.Tensor, but is a list"),
        ({"x": torch.full((2, 4), math.nan)}, ValueError, "^x must be finite, but row 0"),
        ({"chunk_size": 0}, ValueError, "^chunk_size must be at least 1, but is 0"),
    ],
)
def test_a_bad_argument_is_refused_by_name(function, changes, error, match):
    good = {"x": torch.ones(2, 4), "data": torch.eye(4), "sigma": 1.0}
    with pytest.raises(error, match=match):
        function(**(good | changes))


def test_a_result_that_overflows_its_dtype_is_refused():
    with pytest.raises(ValueError, match=r"^the score overflows torch\.float16"):
        score(torch.full((1, 2), 100.0).half(), torch.eye(2).half(), 0.01)


@pytest.mark.parametrize(
    ("changes", "error", "match"),
    [
        ({"x": 1.0}, TypeError, "^x must be a torch.Tensor, but is a float"),
        ({"x": torch.full((2, 4), math.inf)}, ValueError, "^x must be finite"),
        ({"denoiser": None}, TypeError, "^denoiser must be callable, but is a NoneType"),
        ({"denoiser": lambda x, s: x[0]}, ValueError, r"^denoiser must return the shape it is"),
        ({"sigmas": []}, ValueError, "^sigmas must hold at least one noise level"),
        ({"sigmas": [1.0, 1.0]}, ValueError, r"^sigmas\[1\] must be below the level before it"),
        ({"sigmas": [1.0, 0.0]}, ValueError, r"^sigmas\[1\] must lie between"),
        ({"sigmas": ["a"]}, TypeError, r"^sigmas\[0\] must be a number, but is a str"),
        ({"eta": 1.5}, ValueError, r"^eta must lie between 0.0 and 1.0, but is 1.5"),
    ],
)
def test_a_bad_argument_of_cooling_is_refused_by_name(changes, error, match):
    good = {"x": torch.ones(2, 4), "denoiser": lambda x, s: 0 * x, "sigmas": [2.0, 1.0]}
    with pytest.raises(error, match=match):
        cool(**(good | changes))
