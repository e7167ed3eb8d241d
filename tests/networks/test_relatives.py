import itertools
import math

import pytest
import torch
from scipy.stats import ks_2samp
from torch.testing import assert_close

from hopfield_cl import energy
from hopfield_cl.networks.boltzmann import HopfieldBoltzmannMachine, fit_em, initialise
from hopfield_cl.networks.classical import dense_energy
from hopfield_cl.networks.relatives import GaussianBernoulliRBM, fit_denoising, harmonium_energy


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=seeded(seed), dtype=torch.float64)


def rbm(units=3, dim=2, beta=1.3):
    weights = 0.3 + torch.rand(units, generator=seeded(1), dtype=torch.float64)
    return GaussianBernoulliRBM(normal(units, dim), beta, weights=weights)


def groups(size=200):
    means = torch.tensor([[-3.0, 0.0], [3.0, 1.0], [0.0, 4.0]], dtype=torch.float64)
    return (means[:, None] + 0.3 * normal(3, size, 2)).flatten(0, 1)


# The Gaussian–Bernoulli restricted Boltzmann machine


def test_its_energy_sums_over_the_hidden_states():
    model, x = rbm(), normal(5, 2, seed=2)
    states = torch.tensor(list(itertools.product([0.0, 1.0], repeat=3)), dtype=torch.float64)
    joint = 1.3 * (x @ (states @ model.memories).mT) + states @ model.bias
    expected = 0.5 * x.square().sum(1) - torch.logsumexp(joint, 1) / 1.3
    assert_close(model.energy(x), expected)


def test_its_hidden_states_of_one_unit_make_the_hopfield_machine():
    model, x = rbm(), normal(5, 2, seed=2)
    joint = 1.3 * x @ model.memories.mT + model.bias
    expected = 0.5 * x.square().sum(1) - torch.logsumexp(joint, 1) / 1.3
    found = energy.energy(x, model.memories, 1.3, weights=model.bias.exp())
    assert_close(found, expected)


def test_it_is_a_hopfield_machine_with_a_memory_for_each_hidden_state():
    model, x = rbm(), normal(5, 2, seed=2)
    mixture = model.as_mixture()
    assert len(mixture.memories) == 8
    assert_close(model.log_likelihood(x), mixture.log_likelihood(x))


def test_its_likelihood_integrates_to_one_and_its_gradient_is_exact():
    model = rbm()
    axis = torch.linspace(-10, 10, 401, dtype=torch.float64)
    plane = torch.cartesian_prod(axis, axis)
    total = model.log_likelihood(plane).exp().sum() * (axis[1] - axis[0]) ** 2
    assert_close(total.item(), 1.0, rtol=0, atol=1e-6)


def test_its_gibbs_chain_ends_in_its_density():
    model = rbm()
    end = model.gibbs(torch.zeros(4000, 2, dtype=torch.float64), steps=40, generator=seeded())
    fresh = model.as_mixture().sample(4000, generator=seeded(1))
    for direction in normal(6, 2, seed=3):
        assert ks_2samp(end @ direction, fresh @ direction).pvalue > 1e-3


def test_its_contrastive_divergence_at_long_chains_is_the_exact_gradient_within_its_error():
    model, x = rbm(beta=0.6), 1 + normal(4000, 2, seed=1)
    parameters = list(model.parameters())
    exact = torch.autograd.grad(-model.log_likelihood(x).mean(), parameters)
    draws = [model.contrastive_divergence(x, steps=25, generator=seeded(s)) for s in range(8)]
    for name, expected in zip(("memories", "bias"), exact, strict=True):
        found = torch.stack([draw[name] for draw in draws])
        error = found.std(0) / math.sqrt(len(draws))
        assert ((found.mean(0) - expected).abs() < 5 * error + 2e-3).all()


# The denoising autoencoder with softmax units


def test_denoising_learns_the_memories_that_em_learns():
    x = groups()
    by_em = initialise(x, 3, 4.0, generator=seeded())
    by_denoising = initialise(x, 3, 4.0, generator=seeded())
    fit_em(by_em, x, steps=200)
    for rate in (3e-2, 3e-3):
        settings = {"steps": 400, "batch_size": 256, "generator": seeded(1)}
        fit_denoising(by_denoising, x, learning_rate=rate, **settings)
    assert (by_denoising.memories - by_em.memories).norm(dim=1).max() < 0.1


def test_denoising_hardly_feels_the_proportions_of_groups_apart_where_the_likelihood_does():
    x = groups()
    model = initialise(x, 3, 4.0, generator=seeded())
    fit_em(model, x, steps=200)
    noisy = x + 0.5 * normal(*x.shape, seed=3)
    found = []
    for proportions in ([1 / 3, 1 / 3, 1 / 3], [0.1, 0.3, 0.6]):
        model.logits.data = torch.tensor(proportions, dtype=torch.float64).log()
        error = (model.retrieve(noisy) - x).square().sum(1).mean().item()
        found.append((error, model.log_likelihood(x).mean().item()))
    (error, likelihood), (other_error, other_likelihood) = found
    assert abs(error / other_error - 1) < 0.02
    assert likelihood > other_likelihood + 0.2


def test_denoising_lowers_the_error_to_that_of_the_exact_density():
    x = groups()
    model = initialise(x, 3, 4.0, generator=seeded())
    losses = fit_denoising(
        model, x, steps=400, learning_rate=1e-2, batch_size=64, generator=seeded()
    )
    assert losses.shape == (400,)
    assert losses[-50:].mean() < losses[:10].mean()
    assert abs(losses[-50:].mean() - 0.18) < 0.05  # what is left is the spread in a group, 2 × 0.3²


# The harmonium of dense associative memory


def spins(*shape, seed=0):
    return torch.where(normal(*shape, seed=seed) > 0, 1.0, -1.0).double()


@pytest.mark.parametrize("degree", [2, 4, 6])
def test_at_its_most_likely_units_the_harmonium_has_the_energy_of_dense_memory(degree):
    x, patterns = spins(6, 8), spins(3, 8, seed=1)
    overlap = x @ patterns.mT
    lowest = harmonium_energy(x, overlap, patterns, degree)
    assert_close(lowest, dense_energy(x, patterns, degree))
    for seed in range(20):
        other = overlap + 3 * normal(6, 3, seed=seed)
        assert (harmonium_energy(x, other, patterns, degree) > lowest).all()


def test_of_degree_two_the_sum_over_gaussian_units_leaves_the_energy_of_1982():
    states = torch.tensor(list(itertools.product([-1.0, 1.0], repeat=4)), dtype=torch.float64)
    patterns = spins(1, 4, seed=1)
    grid = torch.linspace(-60, 60, 4001, dtype=torch.float64)
    points = states[:, None].expand(-1, len(grid), -1)
    units = grid[None, :, None].expand(len(states), -1, -1)
    free = -torch.logsumexp(-harmonium_energy(points, units, patterns, 2), 1)
    assert_close(free - free[0], (e := dense_energy(states, patterns, 2)) - e[0])


@pytest.mark.parametrize("degree", [2, 4])
def test_given_its_units_the_spins_of_a_harmonium_are_independent(degree):
    states = torch.tensor(list(itertools.product([-1.0, 1.0], repeat=4)), dtype=torch.float64)
    patterns, hidden = spins(3, 4, seed=1), normal(3, seed=2)
    value = -harmonium_energy(states, hidden.expand(len(states), -1), patterns, degree)
    joint = torch.softmax(value, 0)
    alone = torch.stack([joint[states[:, i] > 0].sum() for i in range(4)])
    product = torch.where(states > 0, alone, 1 - alone).prod(1)
    assert_close(joint, product)


# Bad input


def refuse(error, match, call, *arguments, **options):
    with pytest.raises(error, match=match):
        call(*arguments, **options)


def test_bad_machines_are_refused():
    refuse(ValueError, "^memories must have shape", GaussianBernoulliRBM, torch.ones(3), 1.0)
    refuse(ValueError, "^beta must be finite", GaussianBernoulliRBM, torch.ones(2, 3), -1.0)
    refuse(ValueError, "^weights must have", GaussianBernoulliRBM, torch.ones(2, 3), 1.0,
           weights=torch.ones(3))  # fmt: skip
    refuse(ValueError, "^x must have the dimension", rbm().energy, normal(5))
    refuse(ValueError, "^steps must be at least 1", rbm().gibbs, normal(5, 2), steps=0,
           generator=None)  # fmt: skip
    many = GaussianBernoulliRBM(normal(17, 2), 1.0)
    refuse(ValueError, "^memories must be at most 16", many.log_likelihood, normal(5, 2))


def test_bad_arguments_of_denoising_are_refused():
    good = {"steps": 1, "learning_rate": 0.1, "batch_size": 2, "generator": None}
    model, x = initialise(groups(), 3, 4.0, generator=seeded()), groups()
    refuse(TypeError, "^machine must be a Hopfield", fit_denoising, rbm(), x, **good)
    free = HopfieldBoltzmannMachine(x[:2], 1.0, learned=("beta",))
    refuse(ValueError, "^machine must not learn beta", fit_denoising, free, x, **good)
    fixed = HopfieldBoltzmannMachine(x[:2], 1.0, learned=())
    refuse(ValueError, "^machine must learn something", fit_denoising, fixed, x, **good)
    refuse(ValueError, "^data must have shape", fit_denoising, model, x[0], **good)
    for name in ("steps", "batch_size"):
        refuse(ValueError, f"^{name} must be at least 1", fit_denoising, model, x,
               **good | {name: 0})  # fmt: skip
    refuse(
        ValueError, "^learning_rate must", fit_denoising, model, x, **good | {"learning_rate": 0}
    )


def test_bad_arguments_of_the_harmonium_are_refused():
    x, patterns, hidden = spins(6, 8), spins(3, 8, seed=1), normal(6, 3)
    refuse(ValueError, "^degree must be even, but is 3", harmonium_energy, x, hidden, patterns, 3)
    refuse(ValueError, "^degree must be at least 2", harmonium_energy, x, hidden, patterns, 0)
    refuse(ValueError, "^hidden must have shape", harmonium_energy, x, hidden[:2], patterns, 4)
    refuse(ValueError, "^x must hold only −1 and 1", harmonium_energy, x / 2, hidden, patterns, 4)
