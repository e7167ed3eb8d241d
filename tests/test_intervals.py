import math

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hopfield_cl.intervals import Estimate, mean, rank_correlation


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def correlated(count, rho, seed):
    noise = torch.randn(2, count, dtype=torch.float64, generator=seeded(seed))
    return noise[0], rho * noise[0] + math.sqrt(1 - rho**2) * noise[1]


# Mean


def test_the_mean_its_standard_error_and_its_interval_are_those_of_scipy():
    samples = torch.randn(17, dtype=torch.float64, generator=seeded())
    ours = mean(samples, level=0.9)
    error = scipy.stats.sem(samples.numpy())
    low, high = scipy.stats.t.interval(0.9, 16, loc=samples.mean().item(), scale=error)
    expected = (samples.mean().item(), error, low, high)
    assert (ours.value, ours.standard_error, ours.low, ours.high) == pytest.approx(expected)


def test_each_column_of_samples_has_its_own_mean():
    samples = torch.randn(9, 2, 3, dtype=torch.float64, generator=seeded())
    together = mean(samples)
    assert together.value.shape == together.high.shape == (2, 3)
    alone = mean(samples[:, 1, 2])
    torch.testing.assert_close(together[1, 2].low, alone.low)


def test_the_interval_of_a_mean_covers_it_as_often_as_it_says():
    samples = torch.randn(5, 4000, dtype=torch.float64, generator=seeded())
    covered = (mean(samples).low < 0) & (mean(samples).high > 0)
    share = covered.double().mean().item()
    assert abs(share - 0.95) < 4 * math.sqrt(0.95 * 0.05 / 4000)


def test_results_keep_the_dtype_and_half_precision_is_accumulated_in_a_wider_one():
    samples = torch.full((70_000,), 1.0, dtype=torch.float16)
    samples[0] = 2.0
    estimate = mean(samples)
    assert estimate.value.dtype == torch.float16
    assert estimate.value == 1  # the sum alone, 70,001, is out of reach of float16


# Rank correlation


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=3, max_size=40).filter(
        lambda pairs: len({x for x, _ in pairs}) > 1 and len({y for _, y in pairs}) > 1
    )
)
def test_the_rank_correlation_is_that_of_scipy_with_and_without_ties(pairs):
    x, y = (torch.tensor(column, dtype=torch.float64) for column in zip(*pairs, strict=True))
    ours = rank_correlation(x, y, generator=seeded(), resamples=100).value.item()
    assert ours == pytest.approx(scipy.stats.spearmanr(x, y).statistic, abs=1e-12)


def test_each_resample_is_ranked_as_scipy_ranks_it():
    x = torch.randint(5, (30,), generator=seeded(1)).double()
    y = torch.randn(30, dtype=torch.float64, generator=seeded(2))
    draws = torch.randint(30, (300, 30), generator=seeded(3))  # the draws of the function itself
    by_hand = [scipy.stats.spearmanr(x[draw], y[draw]).statistic for draw in draws]
    ours = rank_correlation(x, y, generator=seeded(3), resamples=300)
    assert ours.standard_error.item() == pytest.approx(np.std(by_hand, ddof=1), abs=1e-12)
    expected = np.quantile(by_hand, [0.025, 0.975])
    assert [ours.low.item(), ours.high.item()] == pytest.approx(expected, abs=1e-12)


def test_a_growing_map_leaves_the_rank_correlation_and_its_interval():
    x, y = correlated(50, 0.6, seed=4)
    plain = rank_correlation(x, y, generator=seeded())
    bent = rank_correlation(x.exp(), y**3, generator=seeded())
    assert (plain.value, plain.low, plain.high) == (bent.value, bent.low, bent.high)


def test_equal_orders_give_one_and_opposite_ones_minus_one():
    x = torch.arange(20.0)
    for sign in (1, -1):
        estimate = rank_correlation(x, sign * x.exp(), generator=seeded())
        assert (estimate.value, estimate.low, estimate.high) == (sign, sign, sign)


def test_rows_of_a_batch_give_what_they_give_alone_and_broadcast():
    x, y = correlated(40, 0.5, seed=5)
    rows = torch.stack([y, -y, x])
    together = rank_correlation(x, rows, generator=seeded())
    assert together.value.shape == (3,)
    alone = rank_correlation(x, y, generator=seeded())
    torch.testing.assert_close(together[0].low, alone.low)
    torch.testing.assert_close(together[1].value, -alone.value)


def test_the_interval_of_a_rank_correlation_covers_it_about_as_often_as_it_says():
    rho = 0.5
    truth = 6 / math.pi * math.asin(rho / 2)  # Spearman's correlation of a normal pair
    x, y = (
        torch.stack(rows)
        for rows in zip(*(correlated(80, rho, s) for s in range(300)), strict=True)
    )
    estimate = rank_correlation(x, y, generator=seeded(), resamples=400)
    covered = (estimate.low < truth) & (estimate.high > truth)
    assert 0.89 < covered.double().mean() < 0.98


def test_the_same_seed_gives_the_same_interval_and_another_one_does_not():
    x, y = correlated(30, 0.3, seed=6)
    first, again, other = (rank_correlation(x, y, generator=seeded(s)) for s in (1, 1, 2))
    assert first.low == again.low
    assert first.low != other.low


def test_the_correlation_keeps_the_dtype():
    x, y = (part.float() for part in correlated(30, 0.3, seed=6))
    assert rank_correlation(x, y, generator=seeded()).high.dtype == torch.float32


# Writing


def test_an_estimate_writes_its_value_and_interval():
    estimate = Estimate(*(torch.tensor(number) for number in (0.421, 0.02, 0.381, 0.462)))
    assert f"{estimate:.2f}" == "0.42 [0.38, 0.46]"


def test_an_estimate_of_many_numbers_is_not_written_as_one():
    with pytest.raises(ValueError, match=r"one number to be written, but has shape \(3,\)"):
        format(mean(torch.randn(5, 3, generator=seeded())), ".2f")


# Bad input

X = torch.arange(5.0)


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        ({"x": [1.0, 2.0, 3.0]}, TypeError, "^x must be a torch.Tensor, but is a list"),
        ({"x": torch.tensor(1.0)}, ValueError, "^x must hold at least 3 samples"),
        ({"y": torch.tensor([1.0, 2.0])}, ValueError, "^y must hold at least 3 samples"),
        ({"y": torch.arange(4.0)}, ValueError, "^y must hold as many samples as x, 5"),
        ({"y": X.double()}, TypeError, "^y must have the dtype of x"),
        ({"y": X.clone().fill_(math.nan)}, ValueError, "^y must be finite"),
        ({"y": torch.ones(5)}, ValueError, "^y must vary within each row"),
        ({"x": X.expand(2, 5), "y": X.expand(3, 5)}, ValueError, "leading axes of y must broad"),
        ({"resamples": 99}, ValueError, "^resamples must be at least 100, but is 99"),
        ({"level": 1.0}, ValueError, "^level must lie strictly between 0 and 1"),
        ({"level": "0.95"}, TypeError, "^level must be a number"),
    ],
)
def test_a_rank_correlation_refuses_what_it_cannot_use(arguments, error, match):
    with pytest.raises(error, match=match):
        rank_correlation(**({"x": X, "y": X} | arguments))


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        ({"samples": [1.0, 2.0]}, TypeError, "^samples must be a torch.Tensor"),
        ({"samples": torch.ones(1, 3)}, ValueError, "^samples must hold at least 2 samples"),
        ({"samples": torch.tensor(1.0)}, ValueError, "^samples must hold at least 2 samples"),
        ({"samples": torch.tensor([1.0, math.inf])}, ValueError, "^samples must be finite"),
        ({"samples": X, "level": 0.0}, ValueError, "^level must lie strictly between 0 and 1"),
    ],
)
def test_a_mean_refuses_what_it_cannot_use(arguments, error, match):
    with pytest.raises(error, match=match):
        mean(**arguments)
