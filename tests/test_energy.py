import math
from decimal import Decimal, getcontext

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck
from torch.profiler import ProfilerActivity, profile

from hopfield_cl import energy as room
from hopfield_cl.energy import attention, curvature, energy, fixed_points, retrieve
from hopfield_cl.memories import cluster_with_outlier

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]
BETA = 3.0


def setting(count=7, dim=4, batch=(3,), *, dtype=torch.float64, seed=0):
    """Points, memories of unequal norm, and masses."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(*batch, dim, generator=generator, dtype=torch.float64)
    memories = torch.randn(count, dim, generator=generator, dtype=torch.float64)
    memories *= torch.linspace(0.3, 1.5, count, dtype=torch.float64)[:, None]
    weights = 0.2 + 3 * torch.rand(count, generator=generator, dtype=torch.float64)
    return x.to(dtype), memories.to(dtype), weights.to(dtype)


def plain_scores(x, memories, beta, weights):
    return beta * x @ memories.mT + weights.log()


def plain_energy(x, memories, beta, weights):
    scores = plain_scores(x, memories, beta, weights)
    return 0.5 * x.square().sum(-1) - torch.logsumexp(scores, -1) / beta


def plain_attention(x, memories, beta, weights):
    return torch.softmax(plain_scores(x, memories, beta, weights), -1)


def plain_retrieve(x, memories, beta, weights):
    return plain_attention(x, memories, beta, weights) @ memories


def hessian_spectrum(x, memories, beta, weights):
    def scalar_energy(point):
        return energy(point, memories, beta, weights=weights)

    flat = x.reshape(-1, x.shape[-1])
    hessians = [torch.autograd.functional.hessian(scalar_energy, point) for point in flat]
    return torch.linalg.eigvalsh(torch.stack(hessians)).reshape(x.shape)


# What the functions compute


def test_energy_of_one_memory_is_half_the_norm_minus_the_product():
    x = torch.tensor([1.0, 2.0], dtype=torch.float64)
    memory = torch.tensor([[3.0, -0.5]], dtype=torch.float64)
    assert energy(x, memory, 7.0).item() == pytest.approx(2.5 - 2.0, abs=1e-15)


def test_energy_of_two_opposite_memories_is_minus_log_cosh():
    x = torch.tensor([0.3], dtype=torch.float64)
    memories = torch.tensor([[1.0], [-1.0]], dtype=torch.float64)
    expected = 0.5 * 0.09 - math.log(2 * math.cosh(BETA * 0.3)) / BETA
    assert energy(x, memories, BETA).item() == pytest.approx(expected, abs=1e-15)


def test_energy_is_minus_log_of_the_smoothed_density_over_beta():
    x, memories, _ = setting()
    weights = torch.exp(-BETA * memories.square().sum(-1) / 2)
    variance, dim = 1 / BETA, x.shape[-1]
    squares = torch.cdist(x, memories).square()
    log_density = torch.logsumexp(-squares / (2 * variance), -1) - math.log(len(memories))
    constant = variance * math.log(len(memories))
    value = energy(x, memories, BETA, weights=weights)
    torch.testing.assert_close(value, -variance * log_density - constant, rtol=0, atol=1e-13)
    assert dim == 4


def test_retrieving_from_one_memory_returns_it():
    x, memories, _ = setting(count=1)
    torch.testing.assert_close(retrieve(x, memories, BETA), memories.expand(3, 4), rtol=0, atol=0)


def test_retrieval_is_the_mean_of_the_memories_under_attention():
    x, memories, weights = setting()
    share = attention(x, memories, BETA, weights=weights)
    expected = share @ memories
    actual = retrieve(x, memories, BETA, weights=weights)
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-14)


def test_attention_is_positive_and_sums_to_one():
    x, memories, weights = setting()
    share = attention(x, memories, BETA, weights=weights)
    assert bool((share > 0).all())
    torch.testing.assert_close(share.sum(-1), torch.ones(3, dtype=share.dtype))


def test_retrieval_is_scaled_dot_product_attention_with_keys_and_values_the_memories():
    x, memories, _ = setting()
    peer = torch.nn.functional.scaled_dot_product_attention(x, memories, memories, scale=BETA)
    torch.testing.assert_close(retrieve(x, memories, BETA), peer, rtol=0, atol=1e-14)


@pytest.mark.parametrize(("count", "dim"), [(3, 6), (6, 6), (9, 4), (1, 3), (4, 1)])
def test_curvature_is_the_spectrum_of_the_autograd_hessian(count, dim):
    x, memories, weights = setting(count, dim, batch=(2, 2))
    expected = hessian_spectrum(x, memories, BETA, weights)
    actual = curvature(x, memories, BETA, weights=weights)
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("count", "dim"), [(3, 8), (12, 5)])
@pytest.mark.parametrize("beta", [0.1, 3.0, 300.0])
def test_curvature_ascends_and_never_exceeds_one(count, dim, beta, dtype):
    x, memories, weights = setting(count, dim, batch=(20,), dtype=dtype)
    spectrum = curvature(x, memories, beta, weights=weights)
    assert bool((spectrum.diff(dim=-1) >= 0).all())
    assert bool((spectrum <= 1).all())


def test_curvature_is_the_same_when_points_are_taken_in_blocks(monkeypatch):
    x, memories, weights = setting(batch=(11,))
    whole = curvature(x, memories, BETA, weights=weights)
    monkeypatch.setattr(room, "_CURVATURE_ENTRIES", 3 * memories.numel())
    in_blocks = curvature(x, memories, BETA, weights=weights)
    torch.testing.assert_close(in_blocks, whole, rtol=0, atol=1e-14)


# The reference numbers of the solvable setting: n = 12, d = 50, c = 0.35, β = 8


@pytest.fixture(scope="module")
def solvable():
    memories = cluster_with_outlier(n_cluster=12, dim=50, correlation=0.35)
    return memories, fixed_points(memories, memories, 8.0)


def test_basins_of_the_solvable_setting_have_the_reference_energies(solvable):
    memories, result = solvable
    values = energy(result.points, memories, 8.0)
    assert bool(result.converged.all())
    torch.testing.assert_close(values[:12], torch.full_like(values[:12], -0.509232), **six_digits())
    assert values[12].item() == pytest.approx(-0.500514, abs=5e-7)


def test_basins_of_the_solvable_setting_have_the_reference_norms(solvable):
    norms = solvable[1].points.square().sum(-1)
    assert norms[0].item() == pytest.approx(0.88334, abs=5e-6)
    assert norms[12].item() == pytest.approx(0.99162, abs=5e-6)


def test_basins_of_the_solvable_setting_have_the_reference_curvatures(solvable):
    memories, result = solvable
    smallest = curvature(result.points, memories, 8.0)[:, 0]
    assert smallest[0].item() == pytest.approx(0.516, abs=5e-4)
    assert smallest[12].item() == pytest.approx(0.953, abs=5e-4)


def six_digits():
    return {"rtol": 0, "atol": 5e-7}


# Precision: the reference is float64 on the inputs as they were rounded, so that only the
# accumulation (unit u, at least float32's) and the rounding of the result (unit r) may differ.
# Bounds are the usual first-order ones: a sum of k terms errs by at most k·u times the sum of
# their sizes, a score s by (d + 2)·u·β‖x‖·max‖x_i‖, a share p by twice that of its scores.


def rounding(x, memories, weights, beta):
    unit = torch.finfo(torch.promote_types(x.dtype, torch.float32)).eps
    wide, stored = x.double(), memories.double()
    reach = wide.norm(dim=-1) * stored.norm(dim=-1).max()
    log_mass = weights.double().log().abs().max()
    score = unit * ((x.shape[-1] + 4) * beta * reach + 2 * log_mass)
    share = 2 * score + 2 * unit * (len(memories) + 8)
    return unit, torch.finfo(x.dtype).eps, score, share, stored.norm(dim=-1).max()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("beta", [0.05, 3.0, 40.0])
def test_energy_agrees_with_float64_in_every_dtype(dtype, beta):
    x, memories, weights = setting(200, 16, (9,), dtype=dtype)
    unit, last, score, share, _ = rounding(x, memories, weights, beta)
    expected = plain_energy(x.double(), memories.double(), beta, weights.double())
    actual = energy(x, memories, beta, weights=weights)
    half_norm = 0.5 * x.double().square().sum(-1)
    log_z = (half_norm - expected).abs()
    bound = unit * (20 * half_norm + 4 * log_z) + (score + share) / beta + last * expected.abs()
    assert actual.dtype == dtype
    assert bool(((actual.double() - expected).abs() <= bound).all())


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("beta", [0.05, 3.0, 40.0])
def test_retrieval_agrees_with_float64_in_every_dtype(dtype, beta):
    x, memories, weights = setting(200, 16, (9,), dtype=dtype)
    _, last, _, share, longest = rounding(x, memories, weights, beta)
    expected = plain_retrieve(x.double(), memories.double(), beta, weights.double())
    actual = retrieve(x, memories, beta, weights=weights)
    bound = (share * longest)[:, None] + last * expected.abs() + torch.finfo(dtype).tiny
    assert actual.dtype == dtype
    assert bool(((actual.double() - expected).abs() <= bound).all())


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("beta", [0.05, 3.0, 40.0])
def test_attention_agrees_with_float64_in_every_dtype(dtype, beta):
    x, memories, weights = setting(200, 16, (9,), dtype=dtype)
    _, last, _, share, _ = rounding(x, memories, weights, beta)
    expected = plain_attention(x.double(), memories.double(), beta, weights.double())
    actual = attention(x, memories, beta, weights=weights)
    # Below the smallest normal number a dtype has a fixed step, not a fixed number of digits.
    bound = expected * (share[:, None] + last) + torch.finfo(dtype).tiny
    assert actual.dtype == dtype
    assert bool(((actual.double() - expected).abs() <= bound).all())


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("count", "dim"), [(30, 6), (4, 12)])
def test_curvature_agrees_with_float64_in_every_dtype(dtype, count, dim):
    x, memories, weights = setting(count, dim, (9,), dtype=dtype)
    unit, last, _, share, longest = rounding(x, memories, weights, BETA)
    expected = curvature(x.double(), memories.double(), BETA, weights=weights.double())
    actual = curvature(x, memories, BETA, weights=weights)
    # Eigenvalues move by at most the norm of the change of β Cov_p, whose entries are products of
    # two lengths of at most 2 max‖x_i‖ (the factor 4), weighted by shares.
    spread = 4 * BETA * longest**2 * (share + unit * (count + 2 * dim))
    bound = spread[:, None] + last * expected.abs()
    assert actual.dtype == dtype
    assert bool(((actual.double() - expected).abs() <= bound).all())


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_fixed_points_agree_with_float64_in_every_dtype(dtype):
    x, memories, weights = setting(dtype=dtype)
    result = fixed_points(x, memories, BETA, weights=weights)
    wide = fixed_points(x.double(), memories.double(), BETA, weights=weights.double())
    assert result.points.dtype == result.residual.dtype == dtype
    assert bool(result.converged.all())
    assert torch.equal(result.steps, wide.steps)
    # The iteration is the same in float64; the result is rounded once.
    torch.testing.assert_close(result.points, wide.points.to(dtype), rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_of_many_memories_is_added_up_in_float32(dtype):
    memories = torch.zeros(20_000, 2, dtype=dtype)
    x = torch.zeros(2, dtype=dtype)
    # Added in half precision, 20,000 ones stop growing at 256 or 2,048.
    expected = torch.tensor(-math.log(20_000)).to(dtype)
    assert torch.equal(energy(x, memories, 1.0), expected)


# Shapes


@pytest.mark.parametrize("function", [energy, attention, retrieve, curvature])
@pytest.mark.parametrize("batch", [(), (0,), (1,), (2, 3), (2, 0)], ids=str)
def test_batch_dimensions_are_kept(function, batch):
    x, memories, weights = setting(batch=batch)
    tail = {"energy": (), "attention": (7,), "retrieve": (4,), "curvature": (4,)}
    result = function(x, memories, BETA, weights=weights)
    assert result.shape == (*batch, *tail[function.__name__])


@pytest.mark.parametrize("batch", [(), (0,), (1,), (2, 3), (2, 0)], ids=str)
def test_fixed_points_keep_batch_dimensions(batch):
    x, memories, weights = setting(batch=batch)
    result = fixed_points(x, memories, BETA, weights=weights)
    assert result.points.shape == (*batch, 4)
    assert result.steps.shape == result.residual.shape == result.converged.shape == batch
    assert result.steps.dtype == torch.int64


@pytest.mark.parametrize("function", [energy, attention, retrieve, curvature])
def test_a_batch_gives_what_its_points_give_one_by_one(function):
    x, memories, weights = setting(batch=(2, 3))
    whole = function(x, memories, BETA, weights=weights)
    for i in range(2):
        for j in range(3):
            alone = function(x[i, j], memories, BETA, weights=weights)
            torch.testing.assert_close(whole[i, j], alone, rtol=0, atol=1e-13)


@pytest.mark.parametrize("function", [energy, attention, retrieve, curvature])
def test_strided_tensors_give_what_packed_ones_give(function):
    x, memories, weights = setting(batch=(5,))
    strided_x = x.repeat_interleave(2, dim=-1)[:, ::2]
    strided_memories = memories.mT.contiguous().mT
    strided_weights = weights.repeat_interleave(3)[::3]
    assert not strided_x.is_contiguous()
    assert not strided_memories.is_contiguous()
    expected = function(x, memories, BETA, weights=weights)
    actual = function(strided_x, strided_memories, BETA, weights=strided_weights)
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize("function", [energy, attention, retrieve, curvature])
def test_arguments_are_left_as_they_were(function):
    x, memories, weights = setting()
    before = [value.clone() for value in (x, memories, weights)]
    function(x, memories, BETA, weights=weights)
    assert all(torch.equal(a, b) for a, b in zip(before, (x, memories, weights), strict=True))


@pytest.mark.parametrize("function", [energy, attention, retrieve, curvature])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_beta_may_be_a_tensor_and_does_not_change_the_dtype(function, dtype):
    x, memories, _ = setting(dtype=dtype)
    beta = torch.tensor(BETA, dtype=torch.float64)
    actual = function(x, memories, beta)
    assert actual.dtype == dtype
    torch.testing.assert_close(actual, function(x, memories, BETA))


# Derivatives

CHUNKS = [1, 3, 7, 50, None]


def differentiable(count=7, dim=3, batch=(2,)):
    values = *setting(count, dim, batch), torch.tensor(BETA, dtype=torch.float64)
    x, memories, weights, beta = (value.requires_grad_() for value in values)
    return x, memories, weights, beta


@pytest.mark.parametrize("chunk_size", CHUNKS)
@pytest.mark.parametrize("function", [energy, retrieve])
def test_first_and_second_derivatives_are_right_in_every_argument(function, chunk_size):
    def call(x, memories, weights, beta):
        return function(x, memories, beta, weights=weights, chunk_size=chunk_size)

    assert gradcheck(call, differentiable(), fast_mode=True)
    assert gradgradcheck(call, differentiable(), fast_mode=True)


@pytest.mark.parametrize("function", [energy, retrieve])
def test_every_entry_of_the_derivatives_is_right(function):
    def call(x, memories, weights, beta):
        return function(x, memories, beta, weights=weights, chunk_size=2)

    assert gradcheck(call, differentiable(5, 2))
    assert gradgradcheck(call, differentiable(5, 2))


@pytest.mark.parametrize("wanted", [0, 1, 2, 3], ids=["x", "memories", "weights", "beta"])
@pytest.mark.parametrize("function", [energy, retrieve])
def test_the_derivative_in_one_argument_alone_is_right(function, wanted):
    values = [value.detach() for value in differentiable()]
    values[wanted].requires_grad_()

    def call(x, memories, weights, beta):
        return function(x, memories, beta, weights=weights, chunk_size=3)

    assert gradcheck(call, values)


def test_derivatives_of_attention_are_right():
    def call(x, memories, weights, beta):
        return attention(x, memories, beta, weights=weights)

    assert gradcheck(call, differentiable())
    assert gradgradcheck(call, differentiable(), fast_mode=True)


@pytest.mark.parametrize(("count", "dim"), [(3, 5), (7, 3)])
def test_derivatives_of_curvature_are_right(count, dim):
    def call(x, memories, weights, beta):
        return curvature(x, memories, beta, weights=weights)

    assert gradcheck(call, differentiable(count, dim))


@pytest.mark.parametrize(("count", "dim"), [(3, 5), (7, 3)])
def test_the_gradient_of_curvature_is_finite_where_a_share_vanishes(count, dim):
    x, memories, _, _ = differentiable(count, dim)
    share = attention(x, memories, 5e3)
    assert bool((share == 0).any())
    curvature(x, memories, 5e3).sum().backward()
    assert bool(torch.isfinite(x.grad).all())
    assert bool(torch.isfinite(memories.grad).all())


def test_fixed_points_have_the_derivative_of_the_implicit_function_theorem():
    x, memories, weights, beta = differentiable()

    def call(memories, weights, beta):
        return fixed_points(x.detach(), memories, beta, weights=weights, tol=1e-13).points

    assert gradcheck(call, (memories, weights, beta))


def test_asking_for_a_derivative_does_not_move_the_points():
    x, memories, weights, beta = differentiable()
    for max_steps in (1, 1000):
        with_grad = fixed_points(x, memories, beta, weights=weights, max_steps=max_steps)
        with torch.no_grad():
            without = fixed_points(x, memories, beta, weights=weights, max_steps=max_steps)
        assert with_grad.points.requires_grad
        assert torch.equal(with_grad.points, without.points)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("function", [energy, retrieve, attention, curvature])
def test_gradients_have_the_dtype_of_what_they_belong_to(function, dtype):
    values = setting(dtype=dtype)
    for value in values:
        value.requires_grad_()
    function(*values[:2], BETA, weights=values[2]).sum().backward()
    assert all(value.grad.dtype == dtype for value in values)
    assert all(bool(torch.isfinite(value.grad).all()) for value in values)


# Fixed points


def test_fixed_points_are_left_alone_by_retrieval():
    x, memories, weights = setting(batch=(2, 3))
    result = fixed_points(x, memories, BETA, weights=weights)
    again = retrieve(result.points, memories, BETA, weights=weights)
    residual = (again - result.points).norm(dim=-1)
    assert bool(result.converged.all())
    assert bool((residual <= 1e-10).all())
    torch.testing.assert_close(result.residual, residual, rtol=0, atol=1e-14)


def test_steps_count_the_retrievals_that_were_taken():
    x, memories, weights = setting(batch=(4,))
    result = fixed_points(x, memories, BETA, weights=weights)
    for start, end, steps in zip(x, result.points, result.steps, strict=True):
        point = start
        for _ in range(steps):
            point = retrieve(point, memories, BETA, weights=weights)
        torch.testing.assert_close(point, end, rtol=0, atol=1e-13)


def test_a_fixed_point_takes_no_step():
    _, memories, _ = setting(count=1)
    result = fixed_points(memories, memories, BETA)
    assert result.steps.tolist() == [0]
    assert result.residual.tolist() == [0.0]


@pytest.mark.parametrize("max_steps", [1, 3])
def test_fixed_points_say_so_when_they_do_not_converge(max_steps):
    x, memories, weights = setting()
    result = fixed_points(x, memories, 1.0, weights=weights, max_steps=max_steps)
    assert not bool(result.converged.any())
    assert bool((result.residual > 1e-10).all())
    assert result.steps.tolist() == [max_steps] * 3


def test_fixed_points_stop_when_the_tolerance_is_out_of_reach():
    # At β‖x_i‖² = 1 two opposite memories are about to part: steps shrink like a power of their
    # number, so no count of steps in reach brings them to 1e-300.
    memories = torch.tensor([[1.0], [-1.0]], dtype=torch.float64)
    start = torch.tensor([[0.5], [0.0]], dtype=torch.float64)
    result = fixed_points(start, memories, 1.0, tol=1e-300, max_steps=50)
    assert result.converged.tolist() == [False, True]
    assert result.steps.tolist() == [50, 0]
    assert result.residual[0] > 1e-300


# Extremes


def exact_energy(x, memories, beta):
    """The formula in 60 decimal digits."""
    getcontext().prec = 60
    point = [Decimal(value) for value in x.tolist()]
    products = [
        sum(a * Decimal(b) for a, b in zip(point, memory, strict=True))
        for memory in memories.tolist()
    ]
    largest = max(products)
    total = sum((Decimal(beta) * (product - largest)).exp() for product in products)
    return float(sum(a * a for a in point) / 2 - largest - total.ln() / Decimal(beta))


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e3, 1e6], ids=str)
@pytest.mark.parametrize("beta", [1e-6, 1.0, 1e4], ids=str)
@pytest.mark.parametrize("chunk_size", [1, None])
def test_energy_is_exact_at_extreme_scores(scale, beta, chunk_size):
    x, memories, _ = setting(batch=())
    x = x * scale
    expected = exact_energy(x, memories, beta)
    actual = energy(x, memories, beta, chunk_size=chunk_size).item()
    # Two large terms are subtracted: each carries its own rounding.
    size = 0.5 * float(x.square().sum()) + float(x.norm() * memories.norm()) + 2 / beta
    assert abs(actual - expected) <= 8 * torch.finfo(torch.float64).eps * size


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("chunk_size", [1, 3, None])
def test_large_beta_and_far_points_give_numbers_and_numbers_as_derivatives(dtype, chunk_size):
    x, memories, weights = setting(dtype=dtype)
    x = (1e4 * x).requires_grad_()
    memories.requires_grad_()
    value = energy(x, memories, 1e4, weights=weights, chunk_size=chunk_size)
    point = retrieve(x, memories, 1e4, weights=weights, chunk_size=chunk_size)
    (value.sum() + point.sum()).backward()
    for result in (value, point, x.grad, memories.grad):
        assert bool(torch.isfinite(result).all())


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_at_large_beta_retrieval_is_the_memory_of_largest_product(dtype):
    x, memories, _ = setting(dtype=dtype)
    nearest = memories[(x @ memories.mT).argmax(-1)]
    torch.testing.assert_close(retrieve(1e4 * x, memories, 1e4), nearest, rtol=0, atol=0)
    spectrum = curvature(1e4 * x, memories, 1e4)
    torch.testing.assert_close(spectrum, torch.ones_like(spectrum), rtol=0, atol=1e-6)


def test_masses_of_very_different_size_are_added_exactly():
    memories = torch.zeros(2, 1, dtype=torch.float64)
    weights = torch.tensor([1e-300, 1e300], dtype=torch.float64)
    value = energy(torch.zeros(1, dtype=torch.float64), memories, 2.0, weights=weights)
    assert value.item() == pytest.approx(-math.log(1e300) / 2, rel=1e-15)


def test_energy_that_overflows_half_precision_is_refused():
    x = torch.full((8,), 200.0, dtype=torch.float16)
    memories = torch.zeros(2, 8, dtype=torch.float16)
    assert energy(x.float(), memories.float(), 1.0).item() == pytest.approx(160_000, rel=1e-4)
    with pytest.raises(ValueError, match=r"^the energy overflows torch\.float16"):
        energy(x, memories, 1.0)


def test_curvature_that_overflows_half_precision_is_refused():
    memories = torch.tensor([[200.0], [-200.0]], dtype=torch.float16)
    x = torch.zeros(1, dtype=torch.float16)
    assert curvature(x.float(), memories.float(), 2.0).item() == pytest.approx(-79_999, rel=1e-4)
    with pytest.raises(ValueError, match=r"^the curvature overflows torch\.float16"):
        curvature(x, memories, 2.0)


@pytest.mark.parametrize(
    "function", [energy, attention, retrieve, fixed_points, curvature], ids=lambda f: f.__name__
)
def test_scores_that_overflow_are_refused(function):
    x, memories, _ = setting()
    with pytest.raises(ValueError, match=r"overflows torch\.float64"):
        function(1e10 * x, memories, 1e305)


# Memory: N = 40,000 memories, 16 queries, d = 8, read 1,000 at a time

COUNT, QUERIES, DIM, CHUNK = 40_000, 16, 8, 1_000
# Both kinds of temporary, a block of scores and a chunk of memories, in float32.
LARGEST = 4 * CHUNK * max(QUERIES, DIM)


def allocations(call):
    """Sizes in bytes of all that PyTorch's allocator handed out during the call."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        call()
    sizes = []
    pending = record.profiler.kineto_results.experimental_event_tree()
    while pending:
        event = pending.pop()
        pending.extend(event.children)
        sizes.append(getattr(event.extra_fields, "alloc_size", 0))
    return [size for size in sizes if size > 0]


@pytest.fixture(scope="module")
def many():
    generator = torch.Generator().manual_seed(0)
    memories = torch.randn(COUNT, DIM, generator=generator)
    x = torch.randn(QUERIES, DIM, generator=generator)
    return x, memories, 0.5 + torch.rand(COUNT, generator=generator)


def test_the_measurement_sees_a_whole_score_matrix(many):
    x, memories, _ = many
    sizes = allocations(lambda: torch.logsumexp(x @ memories.mT, -1))
    assert max(sizes) >= 4 * COUNT * QUERIES


@pytest.mark.parametrize("weighted", [False, True], ids=["equal masses", "masses"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("function", [energy, retrieve])
def test_no_temporary_is_larger_than_chunk_times_queries(many, function, dtype, weighted):
    x, memories, weights = (value.to(dtype) for value in many)
    x = x.clone().requires_grad_()

    def forward_and_backward():
        chosen = weights if weighted else None
        value = function(x, memories, 1.0, weights=chosen, chunk_size=CHUNK)
        value.sum().backward()

    sizes = allocations(forward_and_backward)
    assert x.grad is not None
    assert len(sizes) > COUNT // CHUNK  # each chunk was seen
    assert max(sizes) <= LARGEST


def test_large_memories_are_not_mistaken_for_infinite_ones():
    # Their sum overflows float16, they do not.
    memories = torch.full((3, 4), 60_000.0, dtype=torch.float16)
    x = torch.zeros(4, dtype=torch.float16)
    assert torch.equal(retrieve(x, memories, 1.0), memories[0])


# CUDA


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("function", [energy, attention, retrieve, curvature])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_cuda_gives_what_the_cpu_gives(function, dtype):
    x, memories, weights = setting(dtype=dtype)
    expected = function(x, memories, BETA, weights=weights)
    actual = function(x.cuda(), memories.cuda(), BETA, weights=weights.cuda())
    assert actual.device.type == "cuda"
    torch.testing.assert_close(actual.cpu(), expected)
