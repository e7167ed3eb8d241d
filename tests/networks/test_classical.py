import itertools
import math
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hopfield_cl.energy import retrieve
from hopfield_cl.networks import classical
from hopfield_cl.networks.classical import Criterion


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def patterns_and_states(count, dim, queries, seed=0, dtype=torch.float64):
    generator = seeded(seed)
    patterns = classical.random_patterns(count, dim, generator=generator, dtype=dtype)
    states = classical.random_patterns(queries, dim, generator=generator, dtype=dtype)
    return patterns, states


# Energy and updates


@pytest.mark.parametrize("degree", [2, 3, 4, 7])
def test_the_energy_is_the_sum_written_out(degree):
    patterns, states = patterns_and_states(5, 7, 3)
    expected = [-(7 / degree) * sum((float(x @ p) / 7) ** degree for p in patterns) for x in states]
    energy = classical.dense_energy(states, patterns, degree)
    torch.testing.assert_close(energy, torch.tensor(expected, dtype=torch.float64))


def test_the_energy_of_degree_two_is_hopfields_up_to_half_the_number_of_patterns():
    patterns, states = patterns_and_states(6, 15, 9)
    weights = classical.hebb_weights(patterns)
    hopfield = -0.5 * torch.einsum("qi,ij,qj->q", states, weights, states)
    torch.testing.assert_close(classical.dense_energy(states, patterns, 2), hopfield - 3.0)


def test_hebb_weights_are_the_mean_outer_product_without_diagonal():
    patterns, _ = patterns_and_states(4, 6, 1)
    weights = classical.hebb_weights(patterns)
    for i, j in itertools.product(range(6), repeat=2):
        expected = 0.0 if i == j else float((patterns[:, i] * patterns[:, j]).sum()) / 6
        assert weights[i, j].item() == pytest.approx(expected)


@settings(max_examples=25, deadline=None)
@given(
    degree=st.integers(2, 6),
    count=st.integers(1, 9),
    dim=st.integers(1, 12),
    seed=st.integers(0, 10**6),
)
def test_the_cost_of_a_flip_is_the_difference_of_energies(degree, count, dim, seed):
    patterns, states = patterns_and_states(count, dim, 3, seed)
    here = classical.dense_energy(states, patterns, degree)
    cost = classical.flip_cost(states, patterns, degree)
    for neuron in range(dim):
        flipped = states.clone()
        flipped[:, neuron] *= -1
        change = classical.dense_energy(flipped, patterns, degree) - here
        torch.testing.assert_close(cost[:, neuron], change, rtol=1e-10, atol=1e-10 * count * dim)


def test_an_update_of_degree_two_is_the_sign_of_the_hebbian_field():
    patterns, states = patterns_and_states(7, 30, 20)
    field = states @ classical.hebb_weights(patterns)
    expected = torch.where(field.abs() < 1e-12, states, field.sign())
    assert torch.equal(classical.update(states, patterns, 2), expected)


@settings(max_examples=20, deadline=None)
@given(degree=st.integers(2, 5), count=st.integers(1, 30), seed=st.integers(0, 10**6))
def test_a_sweep_never_raises_the_energy(degree, count, seed):
    patterns, states = patterns_and_states(count, 20, 8, seed)
    before = classical.dense_energy(states, patterns, degree)
    swept = classical.sweep(states, patterns, degree, generator=seeded(seed))
    after = classical.dense_energy(swept, patterns, degree)
    assert (after <= before + 1e-10).all()


def test_a_sweep_visits_the_neurons_in_the_order_of_its_generator():
    patterns, states = patterns_and_states(9, 12, 4)
    swept = classical.sweep(states, patterns, 3, generator=seeded(5))
    expected = states.clone()
    for neuron in torch.randperm(12, generator=seeded(5)).tolist():
        turn = classical.flip_cost(expected, patterns, 3)[:, neuron] < -1e-12
        expected[turn, neuron] *= -1
    assert torch.equal(swept, expected)


def test_repeated_sweeps_end_in_a_minimum():
    patterns, states = patterns_and_states(10, 25, 16)
    for seed in range(30):
        states = classical.sweep(states, patterns, 3, generator=seeded(seed))
    assert (classical.flip_cost(states, patterns, 3) >= -1e-12).all()


def test_a_synchronous_update_can_run_in_a_circle():
    patterns = torch.tensor([[1.0, 1.0]])
    state = torch.tensor([[1.0, -1.0]])
    there = classical.update(state, patterns, 2)
    assert torch.equal(there, -state)
    assert torch.equal(classical.update(there, patterns, 2), state)


def test_results_do_not_depend_on_the_size_of_blocks(monkeypatch):
    patterns, states = patterns_and_states(17, 11, 5)
    run = [classical.dense_energy, classical.flip_cost, classical.update]
    whole = [function(states, patterns, 3) for function in run]
    swept = classical.sweep(states, patterns, 3, generator=seeded())
    monkeypatch.setattr(classical, "_BLOCK_ENTRIES", 10)
    for function, expected in zip(run, whole, strict=True):
        torch.testing.assert_close(function(states, patterns, 3), expected)
    assert torch.equal(classical.sweep(states, patterns, 3, generator=seeded()), swept)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_half_precision_gives_the_updates_of_double(dtype):
    patterns, states = patterns_and_states(31, 101, 6)
    narrow = classical.update(states.to(dtype), patterns.to(dtype), 3)
    assert narrow.dtype == dtype
    assert torch.equal(narrow.double(), classical.update(states, patterns, 3))
    assert classical.dense_energy(states.to(dtype), patterns.to(dtype), 3).dtype == dtype


def test_any_leading_shape_is_kept():
    patterns, states = patterns_and_states(3, 8, 6)
    shaped = states.reshape(2, 3, 8)
    assert classical.dense_energy(shaped, patterns, 2).shape == (2, 3)
    assert classical.dense_energy(states[0], patterns, 2).shape == ()
    assert classical.sweep(shaped, patterns, 2, generator=seeded()).shape == (2, 3, 8)
    assert torch.equal(
        classical.update(shaped, patterns, 2).reshape(6, 8), classical.update(states, patterns, 2)
    )


# Corruption and retrieval


@given(flipped=st.floats(0, 1), dim=st.integers(1, 40), seed=st.integers(0, 10**6))
def test_corruption_turns_over_the_same_number_of_entries_of_each_pattern(flipped, dim, seed):
    patterns, _ = patterns_and_states(5, dim, 1, seed)
    corrupted = classical.corrupt(patterns, flipped, generator=seeded(seed))
    assert ((corrupted != patterns).sum(1) == round(flipped * dim)).all()


def test_corruption_chooses_each_entry_equally_often():
    patterns = torch.ones(20_000, 10)
    share = (classical.corrupt(patterns, 0.3, generator=seeded()) < 0).double().mean(0)
    assert (share - 0.3).abs().max() < 5 * math.sqrt(0.21 / 20_000)


def test_random_patterns_are_balanced_and_repeatable():
    first = classical.random_patterns(2000, 20, generator=seeded(3))
    assert torch.equal(first, classical.random_patterns(2000, 20, generator=seeded(3)))
    assert torch.equal(first.abs(), torch.ones_like(first))
    assert first.mean().abs() < 5 / math.sqrt(40_000)


def test_a_retrieved_state_may_differ_in_the_allowed_share_and_no_more():
    target = torch.ones(2, 20)
    state = target.clone()
    state[0, 0] = -1
    state[1, :2] = -1
    assert classical.is_retrieved(state, target, 0.05).tolist() == [True, False]


def test_an_entry_of_zero_counts_as_wrong():
    assert not classical.is_retrieved(torch.tensor([1.0, 0.0]), torch.ones(2), 0.0)


def test_settling_stops_each_state_where_it_stands_still_and_at_the_last_step():
    def towards_zero(x, patterns):
        return (x - 1).clamp(min=0)

    x = torch.tensor([[1.0], [4.0], [100.0]])
    settled = classical.settle(towards_zero, x, torch.ones(1, 1), max_steps=10)
    assert settled.flatten().tolist() == [0.0, 0.0, 90.0]


def test_the_rate_counts_every_pattern_before_any_twice():
    seen = []

    def record(x, patterns):
        seen.append(x.clone())
        return x

    patterns = classical.random_patterns(4, 40, generator=seeded())
    criterion = Criterion(flipped=0.0)
    rate = classical.retrieval_rate(record, patterns, criterion, trials=8, generator=seeded())
    assert rate == 1.0
    counts = torch.unique(seen[0], dim=0, return_counts=True)[1]
    assert counts.tolist() == [2, 2, 2, 2]


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 20, 1000])
def test_the_capacity_of_a_network_with_a_hard_limit_is_that_limit(limit):
    def hard(x, patterns):
        # Returns the nearest pattern below the limit, nothing above it.
        return patterns[(x @ patterns.mT).argmax(1)] if len(patterns) <= limit else 0 * x

    measured = classical.capacity(hard, 100, Criterion(flipped=0.0), trials=5, generator=seeded())
    assert limit / 1.03 <= measured <= 1.03 * (limit + 1)


def test_the_capacity_comes_back_the_same_from_the_same_generator():
    update, criterion = partial(classical.update, degree=2), Criterion()
    first, again, other = (
        classical.capacity(update, 60, criterion, trials=20, generator=seeded(seed))
        for seed in (1, 1, 2)
    )
    assert first == again != other


def test_a_higher_interaction_stores_more():
    criterion, measured = Criterion(), []
    updates = [partial(classical.update, degree=n) for n in (2, 3)] + [partial(retrieve, beta=1.0)]
    for update in updates:
        measured.append(classical.capacity(update, 40, criterion, trials=20, generator=seeded()))
    assert measured[0] * 4 < measured[1]
    assert measured[1] * 20 < measured[2]


def test_the_network_of_1982_stores_about_a_seventh_of_its_dimension():
    update = partial(classical.update, degree=2)
    sample = [
        classical.capacity(update, 400, Criterion(), trials=50, generator=seeded(seed)) / 400
        for seed in range(3)
    ]
    # The law of Amit et al. (1985), 0.138, is reached from above as d grows.
    assert 0.13 < sum(sample) / 3 < 0.17


def test_a_network_that_stores_nothing_or_everything_is_reported():
    with pytest.raises(RuntimeError, match="does not even store one pattern"):
        classical.capacity(lambda x, _: 0 * x, 10, Criterion(flipped=0.0), generator=seeded())
    with pytest.raises(RuntimeError, match="still stores 8 patterns; most is 9"):
        classical.capacity(lambda x, _: x, 10, Criterion(flipped=0.0), most=9, generator=seeded())


# Bad input

X, P = torch.ones(2, 4), torch.ones(3, 4)
DENSE = [classical.dense_energy, classical.flip_cost, classical.update, classical.sweep]
each = pytest.mark.parametrize("function", DENSE, ids=lambda f: f.__name__)


@each
def test_states_or_patterns_that_are_not_signs_are_refused(function):
    with pytest.raises(ValueError, match=r"^x must hold only −1 and 1, but holds 0.5"):
        function(0.5 * X, P, 2)
    with pytest.raises(ValueError, match=r"^patterns must hold only −1 and 1, but holds 0.0"):
        function(X, 0 * P, 2)
    with pytest.raises(ValueError, match=r"^patterns must be finite"):
        function(X, math.nan * P, 2)


@each
def test_shapes_and_kinds_that_do_not_fit_are_refused(function):
    with pytest.raises(ValueError, match=r"^x must have the dimension of .*patterns"):
        function(X[:, :3], P, 2)
    with pytest.raises(ValueError, match=r"^patterns must have shape \(N, d\)"):
        function(X, P[0], 2)
    with pytest.raises(TypeError, match=r"^patterns must have the dtype of x"):
        function(X, P.double(), 2)
    with pytest.raises(TypeError, match=r"^x must be a torch.Tensor"):
        function([1, 1, 1, 1], P, 2)


@each
def test_a_degree_below_two_or_broken_is_refused(function):
    with pytest.raises(ValueError, match=r"^degree must be at least 2, but is 1"):
        function(X, P, 1)
    with pytest.raises(TypeError, match=r"^degree must be an integer"):
        function(X, P, 2.5)


def test_an_energy_that_leaves_its_dtype_is_reported():
    patterns = torch.ones(300, 1000, dtype=torch.float16)
    with pytest.raises(ValueError, match=r"the energy overflows torch\.float16"):
        classical.dense_energy(patterns[:1], patterns, 2)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"flipped": 0.6}, "flipped must lie between 0.0 and 0.5"),
        ({"wrong": -0.1}, "wrong must lie between"),
        ({"success": 1.5}, "success must lie between"),
        ({"max_steps": 0}, "max_steps must be at least 1"),
    ],
    ids=lambda value: str(value),
)
def test_a_criterion_out_of_range_is_refused(options, match):
    with pytest.raises(ValueError, match=match):
        Criterion(**options)


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda: classical.random_patterns(0, 4), ValueError, "count must be at least 1"),
        (lambda: classical.random_patterns(4, 0), ValueError, "dim must be at least 1"),
        (lambda: classical.random_patterns(1, 4, dtype=torch.int64), TypeError, "dtype must be"),
        (lambda: classical.corrupt(0 * X, 0.1), ValueError, "patterns must hold only"),
        (lambda: classical.corrupt(torch.tensor(1.0), 0.1), ValueError, "patterns must have shape"),
        (lambda: classical.corrupt(X, 1.1), ValueError, "flipped must lie between"),
        (lambda: classical.hebb_weights(X[:0]), ValueError, "patterns must hold at least one"),
        (lambda: classical.is_retrieved(X, P, 0.1), ValueError, "x must have the shape of targets"),
        (lambda: classical.is_retrieved(X, X, 2), ValueError, "wrong must lie between"),
        (lambda: classical.settle("x", X, P), TypeError, "update must be a function"),
        (lambda: classical.settle(max, X[0], P), ValueError, r"x must have shape \(Q, d\)"),
        (lambda: classical.settle(max, X, P, max_steps=0), ValueError, "max_steps must be at"),
        (
            lambda: classical.retrieval_rate(max, P, Criterion(), trials=0),
            ValueError,
            "trials must be at least 1",
        ),
        (
            lambda: classical.retrieval_rate(max, P, None, trials=1),
            TypeError,
            "criterion must be a Criterion",
        ),
        (lambda: classical.capacity(max, 0, Criterion()), ValueError, "dim must be at least 1"),
        (lambda: classical.capacity(None, 4, Criterion()), TypeError, "update must be a function"),
        (
            lambda: classical.capacity(max, 4, Criterion(), most=0),
            ValueError,
            "most must be at least 1",
        ),
    ],
)
def test_bad_arguments_are_refused_by_name(call, error, match):
    with pytest.raises(error, match=f"^{match}"):
        call()
