import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hopfield_cl.energy import attention, curvature, energy, fixed_points
from hopfield_cl.forgetting import (
    cluster_and_outlier,
    expected_rise,
    intrinsic_forgetting,
    rise_under_rotations,
)
from hopfield_cl.memories import cluster_with_outlier, random_rotation


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def normal(*shape, seed=0):
    return torch.randn(shape, dtype=torch.float64, generator=seeded(seed))


def generators(count, dim, seed=0):
    w = normal(count, dim, dim, seed=seed)
    return (w - w.mT) / 2


@pytest.fixture(scope="module")
def canonical():
    memories = cluster_with_outlier()
    return memories, fixed_points(memories, memories, 8.0).points


# ΔE of a change of memories


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.floats(0.1, 20), st.integers(1, 7), st.integers(1, 7))
def test_the_rise_is_the_difference_of_two_energies(seed, beta, old_count, new_count):
    x, old, new = (normal(n, 4, seed=seed + i) for i, n in enumerate((3, old_count, new_count)))
    masses = normal(old_count, seed=seed).exp(), normal(new_count, seed=seed).exp()
    ours = intrinsic_forgetting(
        x, old, new, beta, old_weights=masses[0], new_weights=masses[1], chunk_size=2
    )
    expected = energy(x, new, beta, weights=masses[1]) - energy(x, old, beta, weights=masses[0])
    torch.testing.assert_close(ours, expected, atol=1e-10, rtol=0)


def test_without_a_change_nothing_is_forgotten():
    memories = normal(5, 4)
    assert intrinsic_forgetting(memories, memories, memories, 3.0).abs().max() == 0


def test_a_new_memory_never_raises_the_energy():
    old, x = normal(5, 4), normal(20, 4, seed=1)
    assert (intrinsic_forgetting(x, old, torch.cat([old, normal(1, 4, seed=2)]), 3.0) < 0).all()


def test_a_small_rise_survives_half_precision(canonical):
    memories, points = canonical
    turned = memories @ random_rotation(50, 0.1, generator=seeded()).T
    half = [part.bfloat16() for part in (points, memories, turned)]
    ours = intrinsic_forgetting(*half, 8.0)
    exact = intrinsic_forgetting(*(part.double() for part in half), 8.0)
    assert ours.dtype == torch.bfloat16
    torch.testing.assert_close(ours.double(), exact, atol=1e-5, rtol=2**-8)


# Many rotations


def test_turning_the_memories_is_turning_the_point_back_for_any_linear_map():
    x, memories, maps = normal(2, 3, 4), normal(5, 4, seed=1), normal(6, 4, 4, seed=2)
    masses = normal(5, seed=3).exp()
    ours = rise_under_rotations(x, memories, 2.0, maps, weights=masses, chunk_size=2)
    assert ours.shape == (6, 2, 3)
    for rise, v in zip(ours, maps, strict=True):
        one = intrinsic_forgetting(
            x, memories, memories @ v.T, 2.0, old_weights=masses, new_weights=masses
        )
        torch.testing.assert_close(rise, one, atol=1e-10, rtol=0)


def test_a_thousand_rotations_in_one_call_give_what_they_give_one_by_one(monkeypatch):
    x, memories = normal(3, 5), normal(7, 5, seed=1)
    v = torch.matrix_exp(0.1 * generators(1000, 5))
    together = rise_under_rotations(x, memories, 2.0, v)
    monkeypatch.setattr("hopfield_cl.forgetting._BLOCK_ENTRIES", 100)
    torch.testing.assert_close(rise_under_rotations(x, memories, 2.0, v), together)
    alone = intrinsic_forgetting(x, memories, memories @ v[-1].T, 2.0)
    torch.testing.assert_close(together[-1], alone, atol=1e-12, rtol=0)


# The second-order law


def brute_force_second_order(x, memories, beta, weights):
    """ε²-coefficient of E_Ω[E(x | X exp(εΩ)ᵀ)], from the Hessian in the entries of the matrix Ω."""
    dim = len(x)

    def turned(omega):
        return energy(x, memories @ torch.matrix_exp(omega).T, beta, weights=weights)

    hessian = torch.autograd.functional.hessian(turned, torch.zeros(dim, dim).double())
    # E[Ω_ij Ω_kl] = ½ (δ_ik δ_jl − δ_il δ_jk)
    return 0.25 * (torch.einsum("ijij", hessian) - torch.einsum("ijji", hessian))


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("weighted", ["equal masses", "unequal masses"])
def test_the_second_order_law_is_exact_at_any_point_of_any_memory_set(seed, weighted):
    memories, anywhere = normal(6, 4, seed=seed), normal(1, 4, seed=seed + 10)
    weights = normal(6, seed=seed).exp() if weighted == "unequal masses" else None
    ends = fixed_points(memories[:1], memories, 1.5, weights=weights, tol=1e-12)
    points = torch.cat([anywhere, ends.points])
    ours = expected_rise(points, memories, 1.5, 0.3, weights=weights) / 0.09
    brute = [brute_force_second_order(x, memories, 1.5, weights) for x in points]
    torch.testing.assert_close(ours, torch.stack(brute), atol=1e-10, rtol=0)


def test_at_a_fixed_point_both_forms_of_the_law_agree():
    memories = normal(7, 6)
    at = fixed_points(memories, memories, 1.5, tol=1e-13, max_steps=5000).points
    share, norm2 = attention(at, memories, 1.5), at.square().sum(-1, keepdim=True)
    aside = norm2 * memories.square().sum(-1) - (at @ memories.T).square()
    attended = 5 * norm2[:, 0] - 1.5 * (share * aside).sum(-1)
    torch.testing.assert_close(expected_rise(at, memories, 1.5, 0.2), 0.01 * attended)
    spread = (share[:, :, None] * memories).mT @ memories - at[:, :, None] * at[:, None, :]
    hessian = torch.eye(6).double() - 1.5 * spread
    trace = hessian.diagonal(dim1=1, dim2=2).sum(-1)
    along = torch.einsum("ki,kij,kj->k", at, hessian, at)
    across = norm2[:, 0] * trace - along
    torch.testing.assert_close(expected_rise(at, memories, 1.5, 0.2), 0.01 * across)
    torch.testing.assert_close(trace, curvature(at, memories, 1.5).sum(-1))


def test_blocks_of_points_give_what_one_block_gives(monkeypatch):
    memories = normal(7, 6)
    whole = expected_rise(memories, memories, 1.5, 0.2)
    monkeypatch.setattr("hopfield_cl.forgetting._BLOCK_ENTRIES", 20)
    torch.testing.assert_close(expected_rise(memories, memories, 1.5, 0.2), whole)


def test_the_law_keeps_shape_dtype_and_derivatives():
    memories = normal(4, 3).requires_grad_()
    points = normal(2, 5, 3, seed=1)
    rise = expected_rise(points, memories, 2.0, 0.1)
    assert rise.shape == (2, 5)
    assert torch.autograd.gradcheck(lambda m: expected_rise(points, m, 2.0, 0.1), memories)
    half = expected_rise(points.half(), memories.detach().half(), 2.0, 0.1)
    assert half.dtype == torch.float16
    torch.testing.assert_close(half.double(), rise.detach(), atol=1e-3, rtol=1e-2)


def test_the_reference_numbers_of_the_theory_come_out(canonical):
    memories, points = canonical
    rise = expected_rise(points, memories, 8.0, 0.02)
    assert rise[[0, -1]].tolist() == pytest.approx([0.0042693, 0.0048556], abs=5e-8)
    assert energy(points, memories, 8.0)[[0, -1]].tolist() == pytest.approx(
        [-0.509232, -0.500514], abs=5e-7
    )
    inside = cluster_with_outlier(outlier_overlap=0.8)
    at = fixed_points(inside, inside, 8.0).points
    turned = expected_rise(at, inside, 8.0, 0.05)[[0, -1]]
    assert turned.tolist() == pytest.approx([0.0249, 0.0139], abs=5e-5)


def test_a_mean_over_rotations_lies_within_four_standard_errors_of_the_law(canonical):
    memories, points = canonical
    rises = rise_under_rotations(
        points, memories, 8.0, torch.matrix_exp(0.01 * generators(600, 50))
    )
    error = rises.std(0) / 600**0.5
    law = expected_rise(points, memories, 8.0, 0.01)
    assert ((rises.mean(0) - law).abs() < 4 * error).all()


def test_halving_epsilon_divides_what_the_law_leaves_out_by_sixteen():
    memories = cluster_with_outlier(4, 8)
    points = fixed_points(memories, memories, 8.0, tol=1e-14).points[[0, -1]]
    omega = generators(400, 8)

    def beyond(epsilon):
        """Mean of what is beyond second order, the same Ω and −Ω for each ε."""
        v = torch.matrix_exp(epsilon * omega)
        both = rise_under_rotations(points, memories, 8.0, torch.cat([v, v.mT]))
        moved = (points @ omega).square().sum(-1) / 2  # ½‖Ωξ‖²
        sideways = points @ omega @ memories.T  # −ξᵀΩx_i up to sign
        variance = (attention(points, memories, 8.0) * sideways.square()).sum(-1)
        quadratic = moved - 4.0 * variance
        return (both.reshape(2, 400, 2).mean(0) - epsilon**2 * quadratic).mean(0)

    ratio = beyond(0.04) / beyond(0.02)
    torch.testing.assert_close(ratio, torch.full_like(ratio, 16), rtol=0.02, atol=0)


# Whole grids of the solvable setting


@pytest.mark.parametrize("overlap", [0.0, 0.4, 0.8])
@pytest.mark.parametrize("beta", [4.0, 6.0, 8.0, 12.0])
def test_the_grid_gives_what_the_memory_set_gives(beta, overlap):
    memories = cluster_with_outlier(5, 9, 0.4, overlap)
    at = fixed_points(memories[[0, -1]], memories, beta, tol=1e-13, max_steps=5000).points
    grid = cluster_and_outlier(
        torch.tensor([[1.0], [beta]]), n_cluster=5, dim=9, correlation=0.4, outlier_overlap=overlap
    )
    assert grid.energy.shape == (2, 1, 2)
    assert bool(grid.converged.all())
    close = {"atol": 1e-10, "rtol": 0}
    torch.testing.assert_close(grid.energy[1, 0], energy(at, memories, beta), **close)
    torch.testing.assert_close(grid.norm2[1, 0], at.square().sum(-1), **close)
    torch.testing.assert_close(grid.rise[1, 0], expected_rise(at, memories, beta, 1.0), **close)
    share = attention(at, memories, beta)[:, -1]
    torch.testing.assert_close(grid.outlier_share[1, 0], share, **close)


def test_a_cluster_of_one_is_an_outlier_too():
    pair = cluster_and_outlier(5.0, n_cluster=1, correlation=0.3)
    assert pair.rise[0] == pytest.approx(pair.rise[1].item(), abs=1e-12)


def test_an_outlier_with_the_overlap_of_a_member_is_one():
    member = cluster_and_outlier(8.0, outlier_overlap=math.sqrt(0.35))
    for quantity in (member.energy, member.norm2, member.rise):
        assert quantity[0] == pytest.approx(quantity[1].item(), abs=1e-12)


# Bad input


@pytest.mark.parametrize(
    ("changes", "error", "match"),
    [
        ({"x": normal(3, 5)}, ValueError, "^x must have the dimension of old"),
        ({"new": normal(3, 5)}, ValueError, "^x must have the dimension of new"),
        ({"new": normal(3, 4).float()}, TypeError, "^new must have the dtype of x"),
        ({"old": torch.empty(0, 4).double()}, ValueError, "^old must hold at least one memory"),
        ({"beta": 0.0}, ValueError, "^beta must be finite and above 0"),
        ({"old_weights": torch.ones(2).double()}, ValueError, r"^weights must have shape \(5,\)"),
        ({"new_weights": -torch.ones(6).double()}, ValueError, "^weights must be finite and above"),
        ({"chunk_size": 0}, ValueError, "^chunk_size must be at least 1"),
    ],
)
def test_a_change_that_cannot_be_measured_is_refused(changes, error, match):
    good = {"x": normal(3, 4), "old": normal(5, 4), "new": normal(6, 4), "beta": 2.0}
    with pytest.raises(error, match=match):
        intrinsic_forgetting(**(good | changes))


@pytest.mark.parametrize(
    ("rotations", "error", "match"),
    [
        (normal(4, 4), ValueError, r"^rotations must have shape \(R, 4, 4\)"),
        (normal(2, 5, 5), ValueError, r"^rotations must have shape \(R, 4, 4\)"),
        (normal(2, 4, 4)[:0], ValueError, "^rotations must hold at least one matrix"),
        (normal(2, 4, 4).float(), TypeError, "^rotations must have the dtype of x"),
        (normal(2, 4, 4) / 0, ValueError, "^rotations must be finite"),
        ([[1.0]], TypeError, "^rotations must be a torch.Tensor"),
    ],
)
def test_rotations_that_do_not_fit_are_refused(rotations, error, match):
    with pytest.raises(error, match=match):
        rise_under_rotations(normal(3, 4), normal(5, 4), 2.0, rotations)


@pytest.mark.parametrize("epsilon", [-0.1, math.inf, math.nan])
def test_an_epsilon_out_of_range_is_refused(epsilon):
    with pytest.raises(ValueError, match=r"^epsilon must lie between 0\.0 and inf"):
        expected_rise(normal(3, 4), normal(5, 4), 2.0, epsilon)


@pytest.mark.parametrize(
    ("changes", "error", "match"),
    [
        ({"beta": 0.0}, ValueError, "^beta must be above 0"),
        ({"beta": "8"}, TypeError, "^beta must be a number"),
        ({"beta": torch.tensor([1.0, math.nan])}, ValueError, "^beta must be finite"),
        ({"n_cluster": 0}, ValueError, "^n_cluster must lie between 1.0 and inf"),
        ({"correlation": 1.1}, ValueError, "^correlation must lie between 0.0 and 1.0"),
        ({"outlier_overlap": torch.tensor([-0.1])}, ValueError, "^outlier_overlap must lie betw"),
        ({"dim": 13}, ValueError, "^dim must be at least n_cluster"),
        (
            {"beta": torch.ones(2), "correlation": torch.ones(3)},
            ValueError,
            "^the arguments must broadcast",
        ),
    ],
)
def test_a_setting_out_of_range_is_refused(changes, error, match):
    with pytest.raises(error, match=match):
        cluster_and_outlier(**({"beta": 8.0} | changes))
