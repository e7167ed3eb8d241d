import torch
from hypothesis import given
from hypothesis import strategies as st

from hopfield_cl.energy import attention, curvature, energy, fixed_points, retrieve
from hopfield_cl.memories import random_rotation

FUNCTIONS = st.sampled_from([energy, attention, retrieve, curvature])


@st.composite
def settings(draw):
    """Points, memories of unequal norm, β and masses (or None), of many sizes and scales."""
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    count, dim = draw(st.integers(1, 12)), draw(st.integers(1, 6))
    batch = draw(st.sampled_from([(), (1,), (3,), (2, 3)]))
    scale = draw(st.sampled_from([0.1, 1.0, 10.0]))
    x = scale * torch.randn(*batch, dim, generator=generator, dtype=torch.float64)
    norms = torch.rand(count, 1, generator=generator, dtype=torch.float64) * 3
    memories = norms * torch.randn(count, dim, generator=generator, dtype=torch.float64)
    weights = torch.exp(2 * torch.randn(count, generator=generator, dtype=torch.float64))
    beta = draw(st.floats(-2, 2).map(lambda exponent: 10.0**exponent))
    return x, memories, beta, draw(st.sampled_from([None, weights]))


def close(actual, expected, function, case):
    """Equal up to rounding: scores err in proportion to their size, results to that error."""
    x, memories, beta = case[0].detach(), case[1].detach(), case[2]
    longest, furthest = float(memories.norm(dim=-1).max()), float(x.norm(dim=-1).max())
    slip = 1e-15 * x.shape[-1] * (20 + beta * longest * furthest)
    size = {
        energy: 1 / beta + furthest**2,
        attention: 1,
        retrieve: longest + furthest,
        curvature: 1 + 4 * beta * longest**2,
    }
    torch.testing.assert_close(actual, expected, rtol=0, atol=slip * size[function])


@given(settings())
def test_gradient_of_energy_is_the_point_minus_its_retrieval(case):
    x, memories, beta, weights = case
    x.requires_grad_()
    (gradient,) = torch.autograd.grad(energy(x, memories, beta, weights=weights).sum(), x)
    point = x.detach()
    expected = point - retrieve(point, memories, beta, weights=weights)
    close(gradient, expected, retrieve, case)


@given(settings())
def test_energy_never_rises_along_retrieval(case):
    x, memories, beta, weights = case
    before = energy(x, memories, beta, weights=weights)
    for _ in range(10):
        x = retrieve(x, memories, beta, weights=weights)
        after = energy(x, memories, beta, weights=weights)
        rounding = 1e-14 * (1 + before.abs() + memories.square().sum(-1).max() + 20 / beta)
        assert bool((after <= before + rounding).all())
        before = after


@given(settings())
def test_retrieved_points_lie_within_the_memories(case):
    x, memories, beta, weights = case
    image = retrieve(x, memories, beta, weights=weights)
    slack = 1e-14 * memories.abs().max()
    assert bool((image <= memories.amax(0) + slack).all())
    assert bool((image >= memories.amin(0) - slack).all())


@given(settings(), st.integers(0, 2**32))
def test_the_order_of_the_memories_does_not_matter(case, seed):
    x, memories, beta, weights = case
    order = torch.randperm(len(memories), generator=torch.Generator().manual_seed(seed))
    shuffled = None if weights is None else weights[order]
    for function in (energy, retrieve, curvature):
        expected = function(x, memories, beta, weights=weights)
        actual = function(x, memories[order], beta, weights=shuffled)
        close(actual, expected, function, case)
    expected = attention(x, memories, beta, weights=weights)[..., order]
    close(attention(x, memories[order], beta, weights=shuffled), expected, attention, case)


@given(settings(), st.floats(0.01, 3), st.integers(0, 2**32))
def test_rotating_points_and_memories_together_rotates_retrieval_and_nothing_else(
    case, epsilon, seed
):
    x, memories, beta, weights = case
    generator = torch.Generator().manual_seed(seed)
    rotation = random_rotation(x.shape[-1], epsilon, generator=generator)
    turned = x @ rotation.mT, memories @ rotation.mT
    for function in (energy, attention, curvature):
        expected = function(x, memories, beta, weights=weights)
        close(function(*turned, beta, weights=weights), expected, function, case)
    expected = retrieve(x, memories, beta, weights=weights) @ rotation.mT
    close(retrieve(*turned, beta, weights=weights), expected, retrieve, case)


@given(settings(), st.sampled_from(["1", "small", "N", "more"]), st.data())
def test_the_chunk_size_changes_neither_results_nor_gradients(case, kind, data):
    x, memories, beta, weights = case
    count = len(memories)
    small = st.integers(1, count)
    sizes = {"1": 1, "small": data.draw(small), "N": count, "more": count + 5}
    leaves = [x, memories] + ([] if weights is None else [weights])
    for leaf in leaves:
        leaf.requires_grad_()
    for function in (energy, retrieve):
        whole = function(x, memories, beta, weights=weights)
        parts = function(x, memories, beta, weights=weights, chunk_size=sizes[kind])
        close(parts, whole, function, case)
        pull = torch.linspace(-1, 1, whole.numel(), dtype=torch.float64).reshape(whole.shape)
        expected = torch.autograd.grad(whole, leaves, pull)
        actual = torch.autograd.grad(parts, leaves, pull)
        for one, other in zip(actual, expected, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9 * (1 + beta))


@given(settings(), st.data())
def test_mass_two_is_the_memory_given_twice(case, data):
    x, memories, beta, weights = case
    weights = torch.ones(len(memories), dtype=torch.float64) if weights is None else weights
    chosen = data.draw(st.integers(0, len(memories) - 1))
    doubled = weights.clone()
    doubled[chosen] *= 2
    twice = torch.cat([memories, memories[chosen : chosen + 1]])
    twice_weights = torch.cat([weights, weights[chosen : chosen + 1]])
    for function in (energy, retrieve, curvature):
        expected = function(x, twice, beta, weights=twice_weights)
        close(function(x, memories, beta, weights=doubled), expected, function, case)


@given(settings(), st.floats(1e-3, 1e3))
def test_a_common_factor_of_all_masses_only_shifts_the_energy(case, factor):
    x, memories, beta, weights = case
    weights = torch.ones(len(memories), dtype=torch.float64) if weights is None else weights
    shift = torch.tensor(factor, dtype=torch.float64).log() / beta
    expected = energy(x, memories, beta, weights=weights) - shift
    close(energy(x, memories, beta, weights=factor * weights), expected, energy, case)
    for function in (attention, retrieve, curvature):
        expected = function(x, memories, beta, weights=weights)
        close(function(x, memories, beta, weights=factor * weights), expected, function, case)


@given(settings())
def test_masses_of_one_are_no_masses(case):
    x, memories, beta, _ = case
    ones = torch.ones(len(memories), dtype=torch.float64)
    for function in (energy, attention, retrieve, curvature):
        expected = function(x, memories, beta)
        close(function(x, memories, beta, weights=ones), expected, function, case)


@given(settings())
def test_another_memory_never_raises_the_energy(case):
    x, memories, beta, weights = case
    fewer = None if weights is None else weights[:-1]
    if len(memories) == 1:
        return
    without = energy(x, memories[:-1], beta, weights=fewer)
    rounding = 1e-13 * (1 + without.abs() + x.square().sum(-1))
    assert bool((energy(x, memories, beta, weights=weights) <= without + rounding).all())


@given(settings())
def test_curvature_is_the_derivative_of_the_gradient(case):
    x, memories, beta, weights = case
    point = x.reshape(-1, x.shape[-1])[0]

    def gradient(at):
        return at - retrieve(at, memories, beta, weights=weights)

    jacobian = torch.autograd.functional.jacobian(gradient, point)
    close(jacobian, jacobian.mT, curvature, case)
    expected = torch.linalg.eigvalsh((jacobian + jacobian.mT) / 2)
    close(curvature(point, memories, beta, weights=weights), expected, curvature, case)


@given(settings(), st.integers(1, 30))
def test_fixed_points_always_return_and_tell_the_truth(case, max_steps):
    x, memories, beta, weights = case
    result = fixed_points(x, memories, beta, weights=weights, max_steps=max_steps)
    again = retrieve(result.points, memories, beta, weights=weights)
    residual = (again - result.points).norm(dim=-1)
    close(result.residual, residual, retrieve, case)
    assert torch.equal(result.converged, result.residual <= 1e-10)
    assert bool((result.steps <= max_steps).all())
    assert bool((result.steps[~result.converged] == max_steps).all())


@given(settings(), FUNCTIONS)
def test_results_are_finite_and_repeatable(case, function):
    x, memories, beta, weights = case
    first = function(x, memories, beta, weights=weights)
    assert bool(torch.isfinite(first).all())
    assert torch.equal(first, function(x, memories, beta, weights=weights))
