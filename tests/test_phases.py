import dataclasses
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hopfield_cl.energy import attention, curvature, fixed_points
from hopfield_cl.memories import cluster_with_outlier
from hopfield_cl.phases import Boundaries, basins, boundaries

# A step in β to each side of a boundary at which iteration must agree with root finding.
STEP = 1e-3
LONG = 200_000
GEOMETRIES = [(12, 0.35, 0.0), (12, 0.35, 0.4), (6, 0.2, 0.0), (30, 0.5, 0.3), (3, 0.1, 0.0)]
geometry = pytest.mark.parametrize(("n", "c", "s"), GEOMETRIES)


def start_and_memories(n, c, s, start):
    """The memories, and a starting point with the given shares of them."""
    memories = cluster_with_outlier(n, n + 2, c, s)
    return {"member": memories[0], "outlier": memories[-1], "mean": memories[:-1].mean(0)}[
        start
    ], memories


def shares_reached(n, c, s, beta, start):
    """Attention at the fixed point where iteration ends, and the smallest curvature there."""
    x, memories = start_and_memories(n, c, s, start)
    end = fixed_points(x, memories, beta, max_steps=LONG)
    assert end.converged
    sharpness = curvature(end.points, memories, beta)[0].item()
    return attention(end.points, memories, beta).tolist(), sharpness


def test_the_reference_boundaries_are_those_of_the_theory_sheet():
    found = boundaries()
    assert found.outlier == pytest.approx(5.34, abs=0.01)
    assert found.member == pytest.approx(7.41, abs=0.01)


def test_without_an_outlier_in_reach_the_members_part_as_potts_spins_do():
    # Potts at n states jumps at the minimum of τ (e^τ + n − 1) / (e^τ − 1); here for n = 3.
    smallest = min(
        t * (math.exp(t) + 2) / (math.exp(t) - 1) for t in torch.linspace(0.5, 2, 20001).tolist()
    )
    # With c → 1 the members are close and the outlier is out of their reach.
    found = boundaries(3, 0.99, 0.0).member
    assert found == pytest.approx(smallest / 0.01, rel=1e-6)


@geometry
def test_iteration_from_the_outlier_keeps_to_it_just_above_the_boundary_and_not_below(n, c, s):
    beta = boundaries(n, c, s).outlier
    above, sharpness = shares_reached(n, c, s, beta + STEP, "outlier")
    assert above[-1] > 0.5
    assert sharpness > 0
    assert shares_reached(n, c, s, beta - STEP, "outlier")[0][-1] < 0.5


@geometry
def test_iteration_from_a_member_keeps_to_it_just_above_the_boundary_and_not_below(n, c, s):
    beta = boundaries(n, c, s).member
    above, sharpness = shares_reached(n, c, s, beta + STEP, "member")
    assert above[0] > 1.5 * above[1]
    assert sharpness > 0
    below = shares_reached(n, c, s, beta - STEP, "member")[0]
    assert below[0] == pytest.approx(below[1], rel=1e-3)


@geometry
def test_the_shared_basin_is_stable_just_below_its_end_and_not_above(n, c, s):
    beta = boundaries(n, c, s).merged
    x, memories = start_and_memories(n, c, s, "mean")
    for side, sign in ((-STEP, 1), (STEP, -1)):
        point = fixed_points(x, memories, beta + side, max_steps=LONG).points
        shares = attention(point, memories, beta + side).tolist()
        assert shares[0] == pytest.approx(shares[1], rel=1e-6)
        assert sign * curvature(point, memories, beta + side)[0] > 0


def test_the_shared_basin_outlives_the_birth_of_the_members_basins():
    found = boundaries()
    assert found.merged > 2 * found.member


@pytest.mark.parametrize("n", [2, 5, 12])
def test_at_overlap_root_c_the_outlier_is_one_more_member(n):
    found = boundaries(n, 0.35, math.sqrt(0.35))
    assert found.outlier == pytest.approx(found.member, rel=1e-9)
    assert found.merged == pytest.approx((n + 1) / 0.65, rel=1e-6)


@pytest.mark.parametrize("s", [0.62, 0.7, 0.75])
def test_an_outlier_inside_the_cluster_gets_its_basin_after_the_members(s):
    found = boundaries(outlier_overlap=s)
    assert found.outlier > found.member
    above = shares_reached(12, 0.35, s, found.outlier + STEP, "outlier")[0]
    below = shares_reached(12, 0.35, s, found.outlier - STEP, "outlier")[0]
    assert below[-1] < 0.5 < above[-1]


def test_deep_inside_the_cluster_the_global_basin_turns_into_the_outliers_without_a_jump():
    found = boundaries(outlier_overlap=0.85)
    assert found.outlier is None
    assert found.merged is None
    betas = torch.linspace(6, 12, 61).tolist()
    shares = [shares_reached(12, 0.35, 0.85, beta, "outlier")[0][-1] for beta in betas]
    steps = torch.tensor(shares).diff()
    assert steps.min() > 0
    assert steps.max() < 0.06
    assert shares[0] < 0.2
    assert shares[-1] > 0.9


@pytest.mark.parametrize("s", [0.62, 0.7, 0.75])
def test_for_an_outlier_inside_the_cluster_the_shared_basin_ends_in_a_jump_to_it(s):
    beta = boundaries(outlier_overlap=s).merged
    below, sharpness = shares_reached(12, 0.35, s, beta - STEP, "mean")
    assert sharpness > 0
    assert below[-1] < 0.5
    assert shares_reached(12, 0.35, s, beta + STEP, "mean")[0][-1] > 0.5


def test_two_memories_part_where_beta_times_their_squared_distance_is_four():
    found = boundaries(1, 0.35, 0.5)
    assert found.outlier == pytest.approx(4 / (2 - 2 * 0.5 * math.sqrt(0.35)), rel=1e-9)
    assert found.member is None
    assert found.merged is None


def test_a_cluster_of_two_parts_in_a_pitchfork():
    beta = boundaries(2, 0.35, 0.0).member
    above = shares_reached(2, 0.35, 0.0, beta + 0.03, "member")[0]
    below = shares_reached(2, 0.35, 0.0, beta - 0.03, "member")[0]
    assert above[0] > 1.1 * above[1]
    assert below[0] == pytest.approx(below[1], rel=1e-4)


def test_a_cluster_of_one_point_never_parts_but_the_outlier_still_leaves_it():
    found = boundaries(12, 1.0, 0.2)
    assert found.member is None
    assert found.merged is None
    assert shares_reached(12, 1.0, 0.2, found.outlier + STEP, "outlier")[0][-1] > 0.5


def test_memories_that_are_all_one_point_have_no_boundary():
    assert boundaries(12, 1.0, 1.0) == Boundaries(None, None, None)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 10**6), st.floats(0, 1, exclude_max=True), st.floats(0, 1, exclude_max=True))
def test_each_boundary_is_none_or_a_finite_number_above_zero(n, c, s):
    for value in dataclasses.asdict(boundaries(n, c, s)).values():
        assert value is None or (math.isfinite(value) and value > 0)


@settings(max_examples=60, deadline=None)
@given(st.integers(3, 1000), st.floats(0, 0.98), st.floats(0, 1))
def test_members_get_their_own_basins_before_the_shared_one_ends(n, c, s):
    found = boundaries(n, c, s)
    assert found.merged is None or found.member < found.merged


@settings(max_examples=100, deadline=None)
@given(st.integers(2, 1000), st.floats(0.01, 0.98), st.floats(0, 1))
def test_a_shared_basin_that_folds_was_stable_against_the_parting_of_members(n, c, s):
    mean = c + (1 - c) / n
    product = s * math.sqrt(c)
    distance2 = 1 + mean - 2 * product
    end = boundaries(n, c, s).merged
    if end is not None and (mean - product) * (n + 1) < distance2:
        q = 0.5 - math.sqrt(max(0.0, 0.25 - 1 / (end * distance2)))
        assert end * (1 - c) * (1 - q) / n < 1 + 1e-9


def test_basins_are_numbered_in_the_order_in_which_they_appear():
    points = torch.tensor([[5.0, 0.0], [1.0, 0.0], [5.0, 1e-8], [2.0, 0.0], [1.0, 0.0]])
    assert basins(points).tolist() == [0, 1, 0, 2, 1]


def test_points_joined_by_a_chain_of_short_steps_are_one_basin():
    points = torch.tensor([[0.0], [1.6], [0.8], [10.0], [2.4]])
    assert basins(points, tol=0.9).tolist() == [0, 0, 0, 1, 0]


def test_the_number_of_basins_reached_from_the_memories_is_1_then_2_then_one_each():
    memories = cluster_with_outlier()
    found = boundaries()
    counts = []
    for beta in (found.outlier - 0.02, found.outlier + 0.02, found.member - 0.02):
        end = fixed_points(memories, memories, beta, max_steps=LONG).points
        counts.append(int(basins(end).max()) + 1)
    end = fixed_points(memories, memories, found.member + 0.02, max_steps=LONG).points
    assert [*counts, int(basins(end).max()) + 1] == [1, 2, 2, 13]


def test_many_points_are_grouped_block_by_block_as_all_at_once(monkeypatch):
    generator = torch.Generator().manual_seed(1)
    centres = torch.randn(7, 5, generator=generator, dtype=torch.float64)
    which = torch.randint(7, (100,), generator=generator)
    whole = basins(centres[which])
    monkeypatch.setattr("hopfield_cl.phases._DISTANCE_ENTRIES", 130)
    assert torch.equal(basins(centres[which]), whole)
    assert torch.equal(whole[:, None] == whole, which[:, None] == which)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_basins_takes_each_floating_point_dtype(dtype):
    labels = basins(torch.tensor([[0.0, 1.0], [1.0, 0.0], [0.0, 1.0]], dtype=dtype))
    assert labels.tolist() == [0, 1, 0]
    assert labels.dtype == torch.int64


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        ({"n_cluster": 0}, ValueError, "n_cluster must be at least 1, but is 0"),
        ({"n_cluster": 2.0}, TypeError, "n_cluster must be an integer"),
        ({"correlation": -0.1}, ValueError, "correlation must lie between"),
        ({"correlation": math.nan}, ValueError, "correlation must lie between"),
        ({"outlier_overlap": 1.1}, ValueError, "outlier_overlap must lie between"),
        ({"outlier_overlap": "0"}, TypeError, "outlier_overlap must be a number"),
    ],
)
def test_boundaries_says_which_argument_is_bad(arguments, error, match):
    with pytest.raises(error, match=match):
        boundaries(**arguments)


@pytest.mark.parametrize(
    ("points", "tol", "error", "match"),
    [
        (torch.ones(3), 1e-6, ValueError, "points must have shape"),
        (torch.ones(0, 3), 1e-6, ValueError, "points must hold at least one"),
        (torch.ones(2, 3, dtype=torch.int64), 1e-6, TypeError, "points must have a floating"),
        ([[1.0]], 1e-6, TypeError, "points must be a torch.Tensor"),
        (torch.full((2, 3), math.nan), 1e-6, ValueError, "points must be finite"),
        (torch.ones(2, 3), 0, ValueError, "tol must be finite and above 0"),
        (torch.ones(2, 3), "a", TypeError, "tol must be a number"),
    ],
)
def test_basins_says_which_argument_is_bad(points, tol, error, match):
    with pytest.raises(error, match=match):
        basins(points, tol=tol)
