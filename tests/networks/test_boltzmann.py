import functools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ks_2samp
from sklearn.mixture import GaussianMixture
from torch.testing import assert_close

from hopfield_cl import data, energy
from hopfield_cl.memories import on_sphere
from hopfield_cl.networks.boltzmann import (
    HopfieldBoltzmannMachine,
    contrastive_divergence,
    fit_em,
    fit_gradient,
    initialise,
    likelihood_gradient,
)

ALL = ("memories", "weights", "beta")
META = torch.device("meta")


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=seeded(seed), dtype=torch.float64)


def masses(count, seed=0):
    return 0.2 + torch.rand(count, generator=seeded(seed), dtype=torch.float64)


def machine(count=5, dim=3, beta=1.7, *, seed=0, learned=ALL):
    memories = normal(count, dim, seed=seed)
    return HopfieldBoltzmannMachine(memories, beta, weights=masses(count), learned=learned)


def groups(seed=0, centres=4, dim=3, size=60, spread=0.3):
    """Samples around well-separated centres."""
    means = 3 * normal(centres, dim, seed=seed)
    return (means[:, None] + spread * normal(centres, size, dim, seed=seed + 1)).flatten(0, 1)


@functools.cache
def mnist():
    return data.load("mnist").images.flatten(1)


def digits(dtype=torch.float64):
    return on_sphere(data.load("digits").images.flatten(1).to(dtype))


def as_gaussian_mixture(model):
    """scikit-learn's mixture, with one variance for all."""
    count = len(model.memories)
    mixture = GaussianMixture(count, covariance_type="spherical")
    mixture.means_ = model.memories.detach().numpy()
    mixture.weights_ = model.proportions().detach().numpy()
    mixture.covariances_ = np.full(count, 1 / model.beta.item())
    mixture.precisions_cholesky_ = np.full(count, math.sqrt(model.beta.item()))
    return mixture


# The density


def test_the_density_is_exp_of_minus_beta_times_the_energy_over_its_numerical_integral():
    model, weights = machine(count=3, dim=2), masses(3)

    def log_kernel(x):
        return -1.7 * energy.energy(x, model.memories.detach(), 1.7, weights=weights)

    axis = torch.linspace(-10, 10, 401, dtype=torch.float64)
    plane = torch.cartesian_prod(axis, axis)
    total = torch.logsumexp(log_kernel(plane), 0) + 2 * math.log(axis[1] - axis[0])
    x = normal(6, 2, seed=1)
    expected = log_kernel(x) - total
    assert_close(model.log_likelihood(x).detach(), expected, rtol=0, atol=1e-6)


@given(st.integers(0, 2**31), st.integers(1, 8), st.integers(1, 6), st.floats(-2, 2))
@settings(max_examples=30, deadline=None)
def test_the_likelihood_and_posterior_are_those_of_scikit_learns_mixture(seed, count, dim, power):
    model = machine(count, dim, 10.0**power, seed=seed)
    x = normal(7, dim, seed=seed + 1)
    mixture = as_gaussian_mixture(model)
    ours = model.log_likelihood(x).detach().numpy()
    np.testing.assert_allclose(ours, mixture.score_samples(x.numpy()), rtol=1e-8, atol=1e-8)
    posterior = model.posterior(x).detach().numpy()
    np.testing.assert_allclose(posterior, mixture.predict_proba(x.numpy()), atol=1e-8)


def test_the_energy_is_that_of_the_network_with_the_machines_masses():
    model, x = machine(), normal(2, 4, 3, seed=1)
    weights = model.weights.detach()
    expected = energy.energy(x, model.memories.detach(), model.beta.item(), weights=weights)
    assert_close(model.energy(x).detach(), expected)
    expected = energy.attention(x, model.memories.detach(), model.beta.item(), weights=weights)
    assert_close(model.posterior(x).detach(), expected)
    expected = energy.retrieve(x, model.memories.detach(), model.beta.item(), weights=weights)
    assert_close(model.retrieve(x).detach(), expected)


def test_masses_given_are_kept_in_ratio_and_scaled_so_that_energies_compare():
    model, given = machine(), masses(5)
    weights = model.weights.detach()
    assert_close(weights / weights.sum(), given / given.sum())
    expected = given * torch.exp(0.5 * 1.7 * model.memories.detach().square().sum(1))
    assert_close(model.proportions().detach(), expected / expected.sum())
    x = normal(4, 3, seed=1)
    offset = 3 / (2 * 1.7) * math.log(2 * math.pi / 1.7)
    assert_close(model.energy(x), -model.log_likelihood(x) / 1.7 - offset)


def test_the_score_points_from_x_to_what_is_retrieved():
    model, x = machine(), normal(4, 3, seed=1).requires_grad_()
    (score,) = torch.autograd.grad(model.log_likelihood(x).sum(), x)
    assert_close(score, model.beta.detach() * (model.retrieve(x) - x).detach())


@pytest.mark.parametrize("beta", [1e-3, 1.0, 1e3])
def test_float32_agrees_with_float64_at_784_dimensions(beta):
    wide = mnist()[:400].double()
    model = initialise(wide, 30, beta, generator=seeded(), learned=ALL)
    narrow = initialise(wide.float(), 30, beta, generator=seeded(), learned=ALL)
    narrow.load_state_dict(model.state_dict())
    # β‖x‖² is near 1e6; float32 keeps seven digits of it.
    slip = 1e-6 * (784 + beta * 784)
    x = wide[200:].float()
    likelihood = model.log_likelihood(x.double())
    assert_close(narrow.log_likelihood(x).double(), likelihood, rtol=0, atol=slip)
    gradient, wide_gradient = likelihood_gradient(narrow, x), likelihood_gradient(model, x.double())
    for name, expected in wide_gradient.items():
        assert_close(gradient[name].double(), expected, rtol=1e-2, atol=1e-4 + slip / 10)
    record = fit_em(narrow, x, steps=5)
    assert torch.isfinite(record.log_likelihood).all()
    assert all(torch.isfinite(value).all() for value in narrow.parameters())


def test_logarithms_of_masses_are_finite_where_masses_vanish():
    memories = mnist()[:20]
    model = HopfieldBoltzmannMachine(memories, 1e3)
    model.logits.data.zero_()
    assert torch.isfinite(model.log_weights).all()
    assert (model.weights == 0).all()
    assert torch.isfinite(model.energy(memories)).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_results_keep_the_dtype(dtype):
    x = normal(6, 3).to(dtype)
    model = initialise(x, 3, 2.0, generator=seeded())
    fit_em(model, x, steps=2)
    results = [model.energy(x), model.log_likelihood(x), model.posterior(x), model.retrieve(x)]
    results += [model.sample(4, generator=seeded()), model.gibbs(x, steps=1, generator=seeded())]
    results += [model.proportions(), model.weights, model.beta, *model.parameters()]
    assert {result.dtype for result in results} == {dtype}


def test_all_shapes_of_x_give_the_same():
    model, x = machine(), normal(2, 4, 3, seed=1)
    for call in (model.energy, model.log_likelihood, model.posterior, model.retrieve):
        assert_close(call(x)[1, 2], call(x[1, 2]))


# The gradient


def test_the_gradient_of_the_likelihood_passes_gradcheck():
    model, x = machine(count=3, dim=2), normal(4, 2, seed=1)

    def likelihood(memories, logits, log_beta):
        values = {"memories": memories, "logits": logits, "log_beta": log_beta}
        return torch.func.functional_call(Likelihood(model), prefixed(values), (x,))

    values = tuple(value.detach().clone().requires_grad_() for value in model.parameters())
    assert torch.autograd.gradcheck(likelihood, values)
    assert torch.autograd.gradgradcheck(likelihood, values)


class Likelihood(torch.nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x):
        return self.model.log_likelihood(x)


def prefixed(values):
    return {f"model.{name}": value for name, value in values.items()}


def test_the_exact_gradient_is_that_of_finite_differences_of_the_mean():
    model, x, weights = machine(), normal(9, 3, seed=1), masses(9, seed=2)
    gradient = likelihood_gradient(model, x, weights=weights)
    mean = (weights * model.log_likelihood(x)).sum() / weights.sum()
    expected = torch.autograd.grad(-mean, list(model.parameters()))
    assert list(gradient) == ["memories", "logits", "log_beta"]
    for found, wanted in zip(gradient.values(), expected, strict=True):
        assert_close(found, wanted)


def test_contrastive_divergence_at_long_chains_is_the_exact_gradient_within_its_error():
    model = machine(count=3, dim=2, beta=0.6)  # basins overlap: chains mix
    x = 1 + normal(4000, 2, seed=1)
    exact = likelihood_gradient(model, x)
    draws = [contrastive_divergence(model, x, steps=25, generator=seeded(s)) for s in range(8)]
    for name, expected in exact.items():
        found = torch.stack([draw[name] for draw in draws])
        error = found.std(0) / math.sqrt(len(draws))
        assert ((found.mean(0) - expected).abs() < 5 * error + 2e-3).all()


def test_contrastive_divergence_of_short_chains_misses_weight_in_a_basin_without_data():
    memories = torch.tensor([[-5.0, 0.0], [5.0, 0.0]], dtype=torch.float64)
    model = HopfieldBoltzmannMachine(memories, 4.0)
    x = memories[0] + 0.5 * normal(500, 2)
    exact = likelihood_gradient(model, x)["logits"]
    short = contrastive_divergence(model, x, steps=1, generator=seeded())["logits"]
    assert_close(exact, torch.tensor([-0.5, 0.5], dtype=torch.float64), rtol=0, atol=1e-6)
    assert short.abs().max() < 1e-6


# Sampling


def test_samples_pass_a_two_sample_test_against_scikit_learns():
    model = machine()
    ours = model.sample(4000, generator=seeded()).numpy()
    mixture = as_gaussian_mixture(model)
    mixture.random_state = 1
    theirs, _ = mixture.sample(4000)
    for direction in normal(8, 3, seed=3).numpy():
        assert ks_2samp(ours @ direction, theirs @ direction).pvalue > 1e-3
    likelihoods = [model.log_likelihood(torch.tensor(x)).detach() for x in (ours, theirs)]
    assert ks_2samp(*likelihoods).pvalue > 1e-3


def test_a_gibbs_chain_leaves_the_density_unchanged():
    model = machine()
    start = model.sample(4000, generator=seeded())
    end = model.gibbs(start, steps=3, generator=seeded(1))
    fresh = model.sample(4000, generator=seeded(2))
    assert not torch.equal(start, end)
    for direction in normal(8, 3, seed=3):
        assert ks_2samp(end @ direction, fresh @ direction).pvalue > 1e-3


# Fitting


@given(st.integers(0, 2**31), st.integers(1, 40), st.floats(-1, 3), st.sampled_from([2, 3]))
@settings(max_examples=25, deadline=None)
def test_em_never_lowers_the_likelihood(seed, count, power, learns):
    x = groups(seed, size=8)
    model = initialise(x, count, 10.0**power, generator=seeded(seed), learned=ALL[:learns])
    model.memories.data += normal(count, 3, seed=seed)  # some memories are then far from all data
    weights = masses(len(x), seed)
    record = fit_em(model, x, steps=30, weights=weights)
    assert (record.log_likelihood.diff() >= 0).all()
    now = (weights * model.log_likelihood(x)).sum() / weights.sum()
    assert_close(now.detach(), record.log_likelihood[-1], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("learned", [("memories",), ("weights",), ("beta",), ALL])
def test_em_reaches_a_point_without_gradient_and_leaves_the_rest(learned):
    x = groups()
    model = initialise(x, 4, 5.0, generator=seeded(), learned=learned)
    model.memories.data += 0.1 * normal(4, 3)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    record = fit_em(model, x, steps=3000, tol=0.0)
    assert record.converged
    for name, value in likelihood_gradient(model, x).items():
        assert value.abs().max() < 1e-5, name
    names = {"memories": "memories", "weights": "logits", "beta": "log_beta"}
    for name in set(ALL) - set(learned):
        assert torch.equal(model.state_dict()[names[name]], before[names[name]])


def test_em_and_gradient_reach_the_same_machine():
    x = groups(size=15)
    by_em, by_gradient = (HopfieldBoltzmannMachine(x[::15], 5.0, learned=ALL) for _ in range(2))
    for model in (by_em, by_gradient):
        model.logits.data.zero_()  # equal proportions, in place of equal masses
    fit_em(by_em, x, steps=1000, tol=1e-13)
    for rate in (3e-2, 3e-3, 3e-4):
        settings = {"steps": 250, "batch_size": len(x), "generator": None}
        fit_gradient(by_gradient, x, learning_rate=rate, **settings)
    assert_close(by_gradient.memories, by_em.memories, rtol=0, atol=1e-4)
    assert_close(by_gradient.proportions(), by_em.proportions(), rtol=0, atol=1e-4)
    assert_close(by_gradient.beta, by_em.beta, rtol=1e-4, atol=0)


def test_minibatches_come_close_to_the_likelihood_of_em():
    x = groups()
    by_em = initialise(x, 4, 11.0, generator=seeded())
    by_gradient = initialise(x, 4, 11.0, generator=seeded())
    fit_em(by_em, x, steps=1000)
    for rate in (3e-2, 3e-3):
        settings = {"steps": 300, "batch_size": 32, "generator": seeded(1)}
        record = fit_gradient(by_gradient, x, learning_rate=rate, **settings)
    gap = by_em.log_likelihood(x).mean() - by_gradient.log_likelihood(x).mean()
    assert 0 <= gap < 5e-3
    assert record.log_likelihood.shape == (300,)
    assert not record.converged


def fit_all(model, x, weights):
    fit_em(model, x, steps=5, tol=0.0, weights=weights)


def fit_whole(model, x, weights):
    settings = {"learning_rate": 1e-2, "batch_size": len(x), "generator": None}
    fit_gradient(model, x, steps=50, weights=weights, **settings)


@pytest.mark.parametrize("fit", [fit_all, fit_whole])
def test_a_sample_of_mass_three_counts_three_times(fit):
    x = groups(size=10)
    times = torch.ones(len(x), dtype=torch.int64)
    times[:10] = 3
    one = initialise(x, 2, 3.0, generator=seeded())
    other = initialise(x, 2, 3.0, generator=seeded())
    fit(one, x, times.double())
    fit(other, x.repeat_interleave(times, 0), None)
    assert_close(one.memories, other.memories, rtol=0, atol=1e-8)
    assert_close(one.proportions(), other.proportions(), rtol=0, atol=1e-8)


def test_batches_hold_a_sample_as_often_as_its_mass():
    x = torch.tensor([[-1.0], [1.0]], dtype=torch.float64)
    model = initialise(x, 1, 1.0, generator=seeded(), learned=("memories",))
    weights = torch.tensor([3.0, 1.0], dtype=torch.float64)
    seen = []
    settings = {"learning_rate": 1e-2, "batch_size": 1, "generator": seeded(), "weights": weights}
    keep = lambda step: step > 200 and seen.append(model.memories.item())  # noqa: E731
    fit_gradient(model, x, steps=900, after_step=keep, **settings)
    assert abs(sum(seen) / len(seen) + 0.5) < 0.15


def test_after_step_is_called_with_the_number_of_steps():
    seen = []
    settings = {"learning_rate": 1e-2, "batch_size": 8, "generator": seeded()}
    fit_gradient(machine(), groups(), steps=3, after_step=seen.append, **settings)
    assert seen == [1, 2, 3]


def test_fits_are_the_same_each_time():
    x = groups()
    runs = []
    for _ in range(2):
        model = initialise(x, 6, 5.0, generator=seeded())
        fit_em(model, x, steps=3)
        settings = {"learning_rate": 1e-2, "batch_size": 16, "generator": seeded()}
        fit_gradient(model, x, steps=5, **settings)
        runs.append(model.memories.detach())
    assert torch.equal(*runs)


@pytest.mark.parametrize("beta", [5.0, 1e3])
def test_em_does_not_depend_on_the_size_of_its_blocks_or_on_rows_left_out(monkeypatch, beta):
    x = digits()
    found = []
    steps = "hopfield_cl.networks.boltzmann._expectation_maximisation"
    for score_bytes, sparse in [(1, 10**12), (2**30, 0)]:
        monkeypatch.setattr(f"{steps}._SCORE_BYTES", score_bytes)
        monkeypatch.setattr(f"{steps}._SPARSE", sparse)
        model = initialise(x, 20, beta, generator=seeded(), learned=ALL)
        record = fit_em(model, x, steps=4, tol=0.0)
        found.append((model.memories.detach(), record.log_likelihood))
    assert_close(*found, rtol=1e-9, atol=1e-9)


# Initialisation and empty memories


@given(st.integers(0, 2**31), st.integers(1, 30))
@settings(max_examples=20, deadline=None)
def test_initial_memories_are_different_samples_in_equal_proportions(seed, count):
    x = normal(30, 3, seed=seed)
    model = initialise(x, count, 4.0, generator=seeded(seed))
    nearest, _ = torch.cdist(model.memories.detach(), x).min(1)
    assert nearest.max() < 1e-6
    assert len(model.memories.detach().unique(dim=0)) == count
    assert_close(model.proportions(), torch.full_like(model.proportions(), 1 / count))


def test_seeding_draws_by_the_squared_distance_to_the_nearest_memory():
    x = torch.tensor([[0.0], [1.0], [3.0]], dtype=torch.float64)
    pairs = [initialise(x, 2, 1.0, generator=seeded(seed)).memories[:, 0] for seed in range(1200)]
    drawn = torch.stack(pairs).detach()
    second = drawn[drawn[:, 0] == 0, 1]  # 1 with chance 1/10, 3 with 9/10
    share = (second == 1).double().mean().item()
    assert abs(share - 0.1) < 4 * math.sqrt(0.09 / len(second))


def test_third_memories_are_drawn_given_the_first_two():
    x = torch.tensor([[0.0], [2.0], [5.0], [6.0]], dtype=torch.float64)
    runs = [initialise(x, 3, 1.0, generator=seeded(seed)).memories[:, 0] for seed in range(1200)]
    drawn = torch.stack(runs).detach()
    third = drawn[(drawn[:, 0] == 0) & (drawn[:, 1] == 6), 2]  # distances² 4 and 1
    share = (third == 2).double().mean().item()
    assert len(third) > 100
    assert abs(share - 0.8) < 4 * math.sqrt(0.16 / len(third))


def test_more_memories_than_samples_are_all_different():
    x = normal(6, 3)[[0, 0, 1, 2, 3, 4, 5]]
    model = initialise(x, 20, 4.0, generator=seeded())
    assert torch.pdist(model.memories.detach()).min() > 0
    record = fit_em(model, x, steps=50)
    assert torch.isfinite(record.log_likelihood).all()


@pytest.mark.parametrize("count", [2, 20, 200])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_fit_to_digits_does_not_collapse(count, seed):
    x = digits(torch.float32)
    model = initialise(x, count, 100.0, generator=seeded(seed))
    record = fit_em(model, x, steps=20)
    assert not record.empty.any()
    assert torch.pdist(model.memories.detach()).min() > 1e-3
    assert model.proportions().min() > 1e-5


def test_an_empty_memory_is_placed_anew_and_said_to_be():
    x = groups()
    model = initialise(x, 4, 10.0, generator=seeded())
    model.memories.data[2] = 1e3
    record = fit_em(model, x, steps=100)
    assert record.reseeded.tolist() == [0, 0, 1, 0]
    assert not record.empty.any()
    assert (record.log_likelihood.diff() >= 0).all()
    whole = initialise(x, 4, 10.0, generator=seeded())
    fit_em(whole, x, steps=100)
    assert model.log_likelihood(x).mean() > whole.log_likelihood(x).mean() - 1e-2


def test_an_empty_memory_is_left_where_placing_it_anew_would_lower_the_likelihood():
    x = groups(centres=1)
    middle, step = x.mean(0), 0.01 * normal(1, 3)
    pair = torch.cat([middle + step, middle - step])
    two = HopfieldBoltzmannMachine(pair, 2.0)
    two.logits.data.zero_()
    three = HopfieldBoltzmannMachine(torch.cat([pair, middle[None] + 1e3]), 2.0)
    three.logits.data = torch.tensor([0.0, 0.0, -700.0], dtype=torch.float64)
    expected, record = (fit_em(model, x, steps=300, tol=0.0) for model in (two, three))
    assert record.empty.tolist() == [False, False, True]
    assert record.reseeded.sum() == 0
    assert len(record.log_likelihood) > 3
    assert_close(record.log_likelihood[-1], expected.log_likelihood[-1])


def test_an_empty_memory_that_may_not_move_is_reported():
    x = groups()
    model = initialise(x, 4, 10.0, generator=seeded(), learned=("weights",))
    model.memories.data[2] = 1e3
    record = fit_em(model, x, steps=10)
    assert record.empty.tolist() == [False, False, True, False]
    assert record.reseeded.sum() == 0
    assert torch.isfinite(model.logits).all()
    settings = {"learning_rate": 1e-2, "batch_size": 16, "generator": seeded()}
    record = fit_gradient(model, x, steps=2, **settings)
    assert record.empty.tolist() == [False, False, True, False]


def test_beta_stays_finite_when_memories_lie_on_all_samples():
    x = normal(5, 3)
    model = initialise(x, 5, 1e4, generator=seeded(), learned=ALL)
    record = fit_em(model, x, steps=50)
    assert torch.isfinite(record.log_likelihood).all()
    assert torch.isfinite(model.beta)


# Bad input


def refuse(error, match, call, *arguments, **options):
    with pytest.raises(error, match=match):
        call(*arguments, **options)


FITS = [
    lambda model, x, **options: fit_em(model, x, **{"steps": 1} | options),
    lambda model, x, **options: fit_gradient(
        model,
        x,
        **{"steps": 1, "learning_rate": 0.1, "batch_size": 2, "generator": None} | options,
    ),
    lambda model, x, **options: likelihood_gradient(model, x, **options),
    lambda model, x, **options: contrastive_divergence(model, x, generator=None, **options),
]
each_fit = pytest.mark.parametrize("fit", FITS, ids=["em", "gradient", "exact", "cd"])


@pytest.mark.parametrize(
    ("changes", "error", "match"),
    [
        ({"memories": [[1.0]]}, TypeError, "^memories must be a torch.Tensor"),
        ({"memories": torch.ones(3)}, ValueError, "^memories must have shape"),
        ({"memories": torch.ones(0, 3)}, ValueError, "^memories must hold at least one"),
        ({"memories": torch.full((2, 3), math.nan)}, ValueError, "^memories must be finite"),
        ({"beta": 0.0}, ValueError, "^beta must be finite and above 0, but is 0.0"),
        ({"beta": "2"}, TypeError, "^beta must be a number"),
        ({"weights": torch.ones(3)}, ValueError, r"^weights must have shape \(2,\)"),
        ({"weights": torch.tensor([1.0, 0.0])}, ValueError, "^weights must be finite and above 0"),
        ({"learned": "beta"}, TypeError, "^learned must be a sequence of names"),
        ({"learned": ("mean",)}, ValueError, "^learned must hold names .* but holds 'mean'"),
    ],
)
def test_a_machine_refuses_bad_arguments(changes, error, match):
    good = {"memories": torch.ones(2, 3), "beta": 1.0} | changes
    memories, beta = good.pop("memories"), good.pop("beta")
    refuse(error, match, HopfieldBoltzmannMachine, memories, beta, **good)


@pytest.mark.parametrize("name", ["energy", "log_likelihood", "posterior", "retrieve"])
def test_points_that_do_not_fit_the_machine_are_refused(name):
    call = getattr(machine(), name)
    refuse(TypeError, "^x must be a torch.Tensor", call, [0.0, 0.0, 0.0])
    refuse(TypeError, "^memories must have the dtype of x", call, torch.ones(3))
    refuse(ValueError, "^x must have the dimension of memories", call, normal(4))
    refuse(ValueError, "^x must be finite", call, torch.full((3,), math.inf).double())


@pytest.mark.parametrize("value", [0, -1])
def test_counts_below_one_are_refused(value):
    model, x = machine(), groups()
    refuse(ValueError, "^count must be at least 1", model.sample, value, generator=None)
    refuse(ValueError, "^steps must be at least 1", model.gibbs, x, steps=value, generator=None)
    refuse(ValueError, "^count must be at least 1", initialise, x, value, 1.0, generator=None)
    refuse(ValueError, "^steps must be at least 1", FITS[0], model, x, steps=value)
    refuse(ValueError, "^steps must be at least 1", FITS[1], model, x, steps=value)
    refuse(ValueError, "^steps must be at least 1", FITS[3], model, x, steps=value)
    refuse(ValueError, "^batch_size must be at least 1", FITS[1], model, x, batch_size=value)


@each_fit
def test_fits_refuse_what_is_no_machine_or_learns_nothing_and_data_that_do_not_fit(fit):
    x = groups()
    refuse(TypeError, "^machine must be a HopfieldBoltzmannMachine, but is a Linear", fit,
           torch.nn.Linear(3, 3), x)  # fmt: skip
    refuse(ValueError, "^machine must learn something", fit, machine(learned=()), x)
    refuse(TypeError, "^data must be a torch.Tensor", fit, machine(), None)
    refuse(ValueError, "^data must have shape", fit, machine(), x[0])
    refuse(ValueError, "^data must be finite", fit, machine(), x * math.nan)
    refuse(TypeError, "dtype", fit, machine(), x.float())


@pytest.mark.parametrize("fit", FITS[:3], ids=["em", "gradient", "exact"])
def test_bad_masses_of_samples_are_refused(fit):
    x = groups()
    refuse(ValueError, r"^weights must have shape \(240,\)", fit, machine(), x, weights=masses(3))
    wrong = masses(240)
    wrong[7] = -1
    refuse(ValueError, "^weights must be finite and above 0, but entry 7", fit, machine(), x,
           weights=wrong)  # fmt: skip


def test_gradient_in_half_precision_is_refused():
    model = machine().half()
    refuse(TypeError, "^machine must be in float32 or float64", FITS[1], model, groups().half())


def test_bad_tolerances_and_rates_are_refused():
    refuse(ValueError, "^tol must lie between 0.0 and inf", FITS[0], machine(), groups(), tol=-1)
    refuse(ValueError, "^learning_rate must be finite", FITS[1], machine(), groups(),
           learning_rate=0.0)  # fmt: skip
