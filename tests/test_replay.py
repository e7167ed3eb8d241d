import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from hopfield_cl import replay
from hopfield_cl.energy import attention, energy
from hopfield_cl.forgetting import intrinsic_forgetting

STRATEGIES = ["highest", "lowest", "random", "greedy", "stratified"]
EXACT = {"rtol": 0, "atol": 1e-10}


def unit(generator, *shape):
    vectors = torch.randn(*shape, generator=generator, dtype=torch.float64)
    return vectors / vectors.norm(dim=-1, keepdim=True)


def setting(seed=0, targets=6, new=7, replayed=5, dim=9):
    generator = torch.Generator().manual_seed(seed)
    return tuple(unit(generator, count, dim) for count in (targets, new, replayed))


def random_log_odds(seed, pool=8, targets=8, spread=3.0):
    generator = torch.Generator().manual_seed(seed)
    return spread * torch.randn(pool, targets, generator=generator, dtype=torch.float64)


def value(log_odds, chosen):
    """Total gain times beta, written as in the theory."""
    return sum(
        math.log1p(sum(math.exp(log_odds[r, k]) for r in chosen)) for k in range(log_odds.shape[1])
    )


def plain_greedy(log_odds, budget):
    chosen = []
    for _ in range(budget):
        left = [r for r in range(log_odds.shape[0]) if r not in chosen]
        chosen.append(max(left, key=lambda r: value(log_odds, [*chosen, r])))
    return chosen


# Closed forms


@pytest.mark.parametrize("mass", [0.25, 1.0, 8.0])
@pytest.mark.parametrize("beta", [0.5, 8.0, 60.0])
def test_the_gain_of_each_memory_is_the_fall_in_energy_when_it_is_added(beta, mass):
    x, new, replayed = setting()
    weights = torch.linspace(0.5, 2.0, 7, dtype=torch.float64)
    gains = replay.replay_gain(x, new, replayed, beta, mass=mass, new_weights=weights)
    masses = torch.cat([weights, torch.tensor([mass], dtype=torch.float64)])
    before = energy(x, new, beta, weights=weights)
    for r in range(len(replayed)):
        after = energy(x, torch.cat([new, replayed[r : r + 1]]), beta, weights=masses)
        assert_close(gains[:, r], before - after, **EXACT)


@pytest.mark.parametrize("mass", [0.25, 1.0, 8.0])
def test_the_gain_of_a_set_is_the_fall_in_energy_when_all_of_it_is_added(mass):
    x, new, replayed = setting(seed=1)
    gains = replay.replay_gain_set(x, new, replayed, 8.0, mass=mass)
    masses = torch.cat([torch.ones(7), torch.full((5,), mass)]).double()
    after = energy(x, torch.cat([new, replayed]), 8.0, weights=masses)
    assert_close(gains, energy(x, new, 8.0) - after, **EXACT)


def test_the_gain_is_that_of_attention_times_the_exponential_of_the_rise():
    generator = torch.Generator().manual_seed(2)
    old, new, x = unit(generator, 7, 9), unit(generator, 7, 9), unit(generator, 4, 9)
    p, rise = attention(x, old, 8.0), intrinsic_forgetting(x, old, new, 8.0)
    expected = torch.log1p(0.5 * p * torch.exp(8.0 * rise)[:, None]) / 8.0
    assert_close(replay.replay_gain(x, new, old, 8.0, mass=0.5), expected, **EXACT)


def test_without_a_task_change_only_the_mass_is_gained():
    x, old, _ = setting(seed=3)
    gains = replay.replay_gain(x, old, old, 8.0, mass=2.0)
    assert_close(gains, torch.log1p(2.0 * attention(x, old, 8.0)) / 8.0, **EXACT)


def test_the_gain_is_exact_where_log_of_one_plus_exp_turns_into_its_argument():
    new = torch.tensor([[0.0, 0.0]], dtype=torch.float64)
    for score in (19.9, 20.1, 25.0, 39.9, 40.1, 800.0):
        x = torch.tensor([[score, 0.0]], dtype=torch.float64)
        gain = replay.replay_gain(x, new, torch.tensor([[1.0, 0.0]], dtype=torch.float64), 1.0)
        assert abs(gain.item() - (score + math.log1p(math.exp(-score)))) < 1e-13 * score


def test_the_susceptibility_is_the_derivative_of_the_net_gain_by_the_rise():
    x, old, replayed = setting(seed=4)
    rho = replay.susceptibility(x, old, replayed, 8.0, mass=0.7)
    p = torch.exp(8.0 * x @ replayed.mT - torch.logsumexp(8.0 * x @ old.mT, 1)[:, None])
    step = 1e-5
    up, down = (torch.log1p(0.7 * p * math.exp(8.0 * h)) / 8.0 for h in (step, -step))
    assert_close(rho, (up - down) / (2 * step), rtol=0, atol=1e-9)


def test_the_log_odds_are_those_of_the_gains():
    x, new, replayed = setting(seed=5)
    odds = replay.replay_log_odds(x, new, replayed, 8.0, mass=3.0)
    assert odds.shape == (5, 6)
    gains = replay.replay_gain(x, new, replayed, 8.0, mass=3.0)
    assert_close(torch.log1p(odds.exp()).mT / 8.0, gains, **EXACT)


@pytest.mark.parametrize("beta", [8.0, 3000.0])
def test_a_budget_curve_is_the_summed_gain_of_each_prefix_also_where_the_odds_overflow(beta):
    x, new, replayed = setting(seed=6)
    log_odds = replay.replay_log_odds(x, new, replayed, beta)
    assert bool((log_odds > 710).any()) == (beta == 3000.0)
    orders = torch.stack([torch.randperm(5), torch.randperm(5)])
    curves = replay.budget_curve(orders, log_odds, beta)
    assert curves.shape == (2, 6)
    for order, curve in zip(orders, curves, strict=True):
        prefixes = [replay.replay_gain_set(x, new, replayed[order[:k]], beta) for k in range(1, 6)]
        assert_close(curve[1:], torch.stack(prefixes).sum(1), rtol=1e-12, atol=1e-10)
    assert bool((curves[:, 0] == 0).all())


def test_the_gain_has_the_gradient_of_finite_differences():
    x, new, replayed = setting(seed=7, targets=2, new=3, replayed=2, dim=3)
    inputs = tuple(t.requires_grad_() for t in (x, new, replayed))
    assert torch.autograd.gradcheck(lambda *a: replay.replay_gain(*a, 2.0, mass=0.5), inputs)
    assert torch.autograd.gradcheck(lambda *a: replay.replay_gain_set(*a, 2.0), inputs)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_narrow_dtypes_come_back_and_agree_with_float64(dtype):
    narrow = [t.to(dtype) for t in setting(seed=8)]
    wide = [t.double() for t in narrow]
    for function in (replay.replay_gain, replay.replay_gain_set, replay.susceptibility):
        result = function(*narrow, 4.0)
        assert result.dtype == dtype
        close = 2 * torch.finfo(dtype).eps
        assert_close(result.double(), function(*wide, 4.0), rtol=close, atol=close)


def test_leading_axes_are_kept():
    x, new, replayed = setting(seed=9)
    stacked = x.reshape(2, 3, 9)
    assert replay.replay_gain(stacked, new, replayed, 2.0).shape == (2, 3, 5)
    assert replay.replay_gain_set(stacked, new, replayed, 2.0).shape == (2, 3)
    assert replay.replay_gain(x[0], new, replayed, 2.0).shape == (5,)
    assert replay.replay_gain(x[:0], new, replayed, 2.0).shape == (0, 5)


# The two theorems


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10_000), mass=st.floats(0.01, 100.0), beta=st.floats(0.1, 50.0))
def test_the_total_gain_is_monotone_and_submodular(seed, mass, beta):
    x, new, replayed = setting(seed)

    def total(chosen):
        if not chosen:
            return 0.0
        return replay.replay_gain_set(x, new, replayed[list(chosen)], beta, mass=mass).sum().item()

    small_gain = total((0, 4)) - total((0,))
    large_gain = total((0, 1, 2, 4)) - total((0, 1, 2))
    assert large_gain >= -1e-12
    assert small_gain >= large_gain - 1e-12


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10_000), beta=st.floats(0.1, 50.0))
def test_net_of_mass_the_gain_is_submodular_where_every_target_has_risen(seed, beta):
    generator = torch.Generator().manual_seed(seed)
    old, new = unit(generator, 5, 9), unit(generator, 7, 9)
    rise = intrinsic_forgetting(old, old, new, beta)
    x = old[rise >= 0]

    def net(chosen):
        if not chosen:
            return 0.0
        gains = (replay.replay_gain_set(x, m, old[list(chosen)], beta) for m in (new, old))
        return (next(gains) - next(gains)).sum().item()

    small_gain = net((0, 4)) - net((0,))
    large_gain = net((0, 1, 2, 4)) - net((0, 1, 2))
    assert -1e-12 <= large_gain <= small_gain + 1e-12
    assert net((0, 1, 2, 3, 4)) <= rise.clamp(min=0).sum().item() + 1e-12


# Choice


@pytest.mark.parametrize("seed", range(50))
def test_greedy_is_within_the_guarantee_of_the_exhaustive_best(seed):
    log_odds = random_log_odds(seed)
    for budget in range(1, 9):
        greedy = value(log_odds, replay.greedy_order(log_odds, budget).tolist())
        best = value(log_odds, replay.best_subset(log_odds, budget).tolist())
        assert greedy <= best * (1 + 1e-12)
        assert greedy >= (1 - 1 / math.e) * best
    assert greedy == pytest.approx(best, rel=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_the_exhaustive_best_is_no_worse_than_any_set(seed):
    log_odds = random_log_odds(seed, pool=6)
    best = value(log_odds, replay.best_subset(log_odds, 3).tolist())
    everything = [value(log_odds, subset) for subset in itertools.combinations(range(6), 3)]
    assert best == pytest.approx(max(everything), rel=1e-12)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), spread=st.floats(0.1, 12.0))
def test_lazy_greedy_chooses_what_plain_greedy_chooses(seed, spread):
    log_odds = random_log_odds(seed, pool=40, targets=10, spread=spread)
    assert replay.greedy_order(log_odds, 12).tolist() == plain_greedy(log_odds, 12)


def test_greedy_chooses_from_odds_that_overflow():
    log_odds = torch.tensor([[900.0, -900.0], [899.0, 899.0], [-900.0, 900.0]]).double()
    assert replay.greedy_order(log_odds, 2).tolist() == [1, 0]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_same_generator_gives_the_same_choice(strategy):
    log_odds = random_log_odds(0, pool=20)

    def choose(seed):
        generator = torch.Generator().manual_seed(seed)
        return replay.select_replay(
            log_odds[:, 0], 7, strategy, gains=log_odds.exp(), generator=generator
        ).tolist()

    assert choose(0) == choose(0)
    assert (choose(0) != choose(1)) == (strategy in ("random", "stratified"))


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("budget", [0, 1, 7, 20])
def test_a_choice_has_the_budget_s_size_and_names_no_memory_twice(strategy, budget):
    log_odds = random_log_odds(1, pool=20)
    chosen = replay.select_replay(log_odds[:, 0], budget, strategy, gains=log_odds.exp())
    assert chosen.dtype == torch.int64
    assert chosen.shape == (budget,)
    assert len(set(chosen.tolist())) == budget
    assert set(chosen.tolist()) <= set(range(20))


def test_highest_and_lowest_go_by_energy_and_ties_to_the_lower_index():
    energies = torch.tensor([0.0, 2.0, 1.0, 2.0, 0.0])
    assert replay.select_replay(energies, 5, "highest").tolist() == [1, 3, 2, 0, 4]
    assert replay.select_replay(energies, 5, "lowest").tolist() == [0, 4, 2, 1, 3]


def test_greedy_gives_ties_to_the_lower_index_although_sums_are_rounded():
    rows = torch.rand(1, 500, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    shuffled = torch.stack([rows[0, torch.randperm(500)] for _ in range(40)])
    assert replay.greedy_order(shuffled, 1).tolist() == [0]
    assert replay.greedy_order(rows.expand(40, -1).contiguous(), 40).tolist() == list(range(40))
    assert replay.best_subset(rows.expand(6, -1), 3).tolist() == [0, 1, 2]


def test_stratified_draws_one_from_each_part_of_the_sorted_pool():
    energies = torch.arange(10.0).flip(0)
    for seed in range(20):
        generator = torch.Generator().manual_seed(seed)
        chosen = replay.select_replay(energies, 3, "stratified", generator=generator).tolist()
        assert [sum(c >= edge for edge in (0, 3, 6)) for c in chosen] == [1, 2, 3]


def test_of_two_near_duplicates_greedy_takes_one_and_highest_both():
    old = torch.eye(4, dtype=torch.float64)
    old[1] = old[0]
    new = torch.zeros(1, 4, dtype=torch.float64)
    log_odds = replay.replay_log_odds(old, new, old, 4.0)
    energies = torch.tensor([1.0, 1.0, 0.0, 0.0])
    assert replay.select_replay(energies, 2, "highest").tolist() == [0, 1]
    assert replay.select_replay(energies, 2, "greedy", gains=log_odds.exp()).tolist() == [0, 2]
    curves = replay.budget_curve(torch.tensor([[0, 1], [0, 2]]), log_odds, 4.0)
    assert curves[1, 2] > curves[0, 2]


def test_a_pool_of_one_candidate_and_one_target_works():
    log_odds = torch.zeros(1, 1)
    assert replay.greedy_order(log_odds, 1).tolist() == [0]
    assert replay.best_subset(log_odds, 0).tolist() == []
    curve = replay.budget_curve(torch.tensor([0]), log_odds, 1.0)
    assert_close(curve, torch.tensor([0.0, math.log(2)]))


def test_candidates_that_add_nothing_are_chosen_last_and_by_index():
    log_odds = torch.full((5, 3), -math.inf)
    log_odds[3] = 0.0
    assert replay.greedy_order(log_odds, 5).tolist() == [3, 0, 1, 2, 4]


# Bad input


def gain_arguments(**changes):
    x, new, replayed = setting()
    return {"x": x, "new": new, "replayed": replayed, "beta": 2.0, "mass": 1.0} | changes


@pytest.mark.parametrize(
    ("changes", "error", "match"),
    [
        ({"x": [1.0]}, TypeError, "^x must be a torch.Tensor"),
        ({"new": torch.ones(3, 4).double()}, ValueError, "^x must have the dimension of new"),
        ({"replayed": torch.ones(3, 4).double()}, ValueError, "^x must .* dimension of replayed"),
        ({"replayed": torch.ones(3, 9)}, TypeError, "^replayed must have the dtype of x"),
        ({"replayed": torch.ones(0, 9).double()}, ValueError, "^replayed must hold at least one"),
        ({"new": torch.full((1, 9), math.nan).double()}, ValueError, "^new must be finite"),
        ({"mass": 0.0}, ValueError, "^mass must be finite and above 0, but is 0.0"),
        ({"mass": -1.0}, ValueError, "^mass must be finite and above 0, but is -1.0"),
        ({"mass": math.inf}, ValueError, "^mass must be finite"),
        ({"mass": "1"}, TypeError, "^mass must be a number"),
        ({"beta": 0.0}, ValueError, "^beta must be finite and above 0"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_bad_arguments_of_the_gains_are_refused_by_name(changes, error, match):
    for function in (replay.replay_gain, replay.replay_gain_set, replay.replay_log_odds):
        with pytest.raises(error, match=match):
            function(**gain_arguments(**changes))
    renamed = gain_arguments(**changes)
    renamed["old"] = renamed.pop("new")
    with pytest.raises(error, match=match.replace("new", "old")):
        replay.susceptibility(**renamed)


@pytest.mark.parametrize("weights", [torch.zeros(7).double(), -torch.ones(7).double()])
def test_masses_of_new_memories_must_be_above_zero(weights):
    with pytest.raises(ValueError, match=r"^new_weights must be finite"):
        replay.replay_gain(**gain_arguments(new_weights=weights))


def test_masses_of_new_memories_must_be_as_many():
    with pytest.raises(ValueError, match=r"^new_weights must have shape \(7,\)"):
        replay.replay_gain(**gain_arguments(new_weights=torch.ones(5).double()))


def test_log_odds_need_a_matrix_of_targets():
    with pytest.raises(ValueError, match=r"^x must have shape \(K, d\)"):
        replay.replay_log_odds(**gain_arguments(x=setting()[0][0]))


@pytest.mark.parametrize(
    ("changes", "error", "match"),
    [
        ({"budget": -1}, ValueError, "^budget must be at least 0, but is -1"),
        ({"budget": 6}, ValueError, "^budget must be at most the size of the pool, 5, but is 6"),
        ({"budget": 2.0}, TypeError, "^budget must be an integer"),
        ({"strategy": "best"}, ValueError, "^strategy must be one of 'highest', .* but is 'best'"),
        ({"strategy": ["greedy"]}, ValueError, "^strategy must be one of"),
        ({"energies": torch.ones(5, 1)}, ValueError, r"^energies must have shape \(N,\)"),
        ({"energies": torch.full((5,), math.nan)}, ValueError, "^energies must be finite"),
        ({"energies": [1.0] * 5}, TypeError, "^energies must be a torch.Tensor"),
        ({"gains": None}, ValueError, "^gains must be given for strategy 'greedy'"),
        ({"gains": torch.ones(4, 3)}, ValueError, "^gains must have one row for each of the 5"),
        ({"gains": torch.ones(5)}, ValueError, "^gains must have shape"),
        ({"gains": -torch.ones(5, 3)}, ValueError, "^gains must be at least 0"),
        ({"gains": torch.full((5, 3), math.inf)}, ValueError, "^gains must be finite"),
    ],
    ids=str,
)
def test_bad_arguments_of_the_choice_are_refused_by_name(changes, error, match):
    arguments = {"energies": torch.arange(5.0), "budget": 2, "strategy": "greedy"}
    arguments |= {"gains": torch.ones(5, 3)} | changes
    energies, budget, strategy = (
        arguments.pop(name) for name in ("energies", "budget", "strategy")
    )
    with pytest.raises(error, match=match):
        replay.select_replay(energies, budget, strategy, **arguments)


@pytest.mark.parametrize("function", [replay.greedy_order, replay.best_subset])
@pytest.mark.parametrize(
    ("log_odds", "budget", "error", "match"),
    [
        (torch.ones(3), 1, ValueError, r"^log_odds must have shape \(R, K\)"),
        (torch.ones(0, 3), 0, ValueError, r"^log_odds must have shape \(R, K\)"),
        (torch.full((3, 3), math.inf), 1, ValueError, "^log_odds must be numbers below infinity"),
        (torch.full((3, 3), math.nan), 1, ValueError, "^log_odds must be numbers below infinity"),
        ([[1.0]], 1, TypeError, "^log_odds must be a torch.Tensor"),
        (torch.ones(3, 3), 4, ValueError, "^budget must be at most the size of the pool, 3"),
        (torch.ones(3, 3), -1, ValueError, "^budget must be at least 0"),
        (torch.ones(3, 3), True, TypeError, "^budget must be an integer"),
    ],
)
def test_bad_arguments_of_the_searches_are_refused_by_name(
    function, log_odds, budget, error, match
):
    with pytest.raises(error, match=match):
        function(log_odds, budget)


def test_too_many_sets_to_try_are_refused():
    with pytest.raises(ValueError, match=r"^budget must leave at most 1000000 sets"):
        replay.best_subset(torch.zeros(40, 2), 20)


@pytest.mark.parametrize(
    ("order", "error", "match"),
    [
        ([0, 1], TypeError, "^order must be an int64 tensor"),
        (torch.tensor([0.0]), TypeError, "^order must be an int64 tensor"),
        (
            torch.tensor([0, 3]),
            ValueError,
            "^order must hold indices from 0 to 2, but holds 0 to 3",
        ),
        (torch.tensor([-1]), ValueError, "^order must hold indices from 0 to 2"),
        (torch.tensor([1, 1]), ValueError, "^order must name no candidate twice"),
    ],
)
def test_an_order_that_does_not_fit_is_refused(order, error, match):
    with pytest.raises(error, match=match):
        replay.budget_curve(order, torch.zeros(3, 3), 1.0)
