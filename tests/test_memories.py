import math

import pytest
import torch

from hopfield_cl.memories import cluster_with_outlier, on_sphere, random_drift, random_rotation

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]


def rounding(dtype):
    return 8 * torch.finfo(dtype).eps


# A cluster with an outlier


@pytest.mark.parametrize("overlap", [0.0, 0.3, math.sqrt(0.35), 1.0])
def test_all_memories_have_length_one(overlap):
    memories = cluster_with_outlier(outlier_overlap=overlap)
    norms = memories.norm(dim=1)
    torch.testing.assert_close(norms, torch.ones_like(norms), rtol=0, atol=1e-15)


@pytest.mark.parametrize("correlation", [0.0, 0.35, 1.0])
def test_vectors_of_the_cluster_have_the_product_c(correlation):
    cluster = cluster_with_outlier(5, 9, correlation)[:-1]
    expected = torch.full((5, 5), correlation, dtype=torch.float64).fill_diagonal_(1.0)
    torch.testing.assert_close(cluster @ cluster.mT, expected, rtol=0, atol=1e-15)


@pytest.mark.parametrize("overlap", [0.0, 0.3, 0.8, 1.0])
def test_the_outlier_has_the_product_s_times_root_c_with_the_cluster(overlap):
    memories = cluster_with_outlier(5, 9, 0.35, overlap)
    expected = torch.full((5,), overlap * math.sqrt(0.35), dtype=torch.float64)
    torch.testing.assert_close(memories[:-1] @ memories[-1], expected, rtol=0, atol=1e-15)


def test_at_overlap_root_c_the_outlier_is_one_more_member():
    memories = cluster_with_outlier(5, 9, 0.35, math.sqrt(0.35))
    expected = torch.full((6, 6), 0.35, dtype=torch.float64).fill_diagonal_(1.0)
    torch.testing.assert_close(memories @ memories.mT, expected, rtol=0, atol=1e-15)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_cluster_has_the_shape_and_dtype_asked_for(dtype):
    memories = cluster_with_outlier(5, 9, dtype=dtype)
    assert memories.shape == (6, 9)
    assert memories.dtype == dtype
    expected = cluster_with_outlier(5, 9).to(dtype)
    torch.testing.assert_close(memories, expected, rtol=0, atol=rounding(dtype))


def test_the_smallest_space_that_holds_them_is_enough():
    memories = cluster_with_outlier(1, 3)
    assert torch.linalg.matrix_rank(memories).item() == 2


# Rotations


def rotation(dim, epsilon, seed=0, **options):
    return random_rotation(dim, epsilon, generator=torch.Generator().manual_seed(seed), **options)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("epsilon", [0.02, 0.3, 10.0])
@pytest.mark.parametrize("dim", [1, 2, 3, 50])
def test_rotations_are_orthogonal_with_determinant_one(dim, epsilon, dtype):
    for seed in range(20):
        matrix = rotation(dim, epsilon, seed, dtype=dtype)
        assert matrix.dtype == dtype
        product = matrix.double() @ matrix.double().mT
        identity = torch.eye(dim, dtype=torch.float64)
        # Eigenvectors are orthogonal to a modest multiple of the rounding, which grows with dim.
        atol = (24 + dim) * torch.finfo(dtype).eps
        torch.testing.assert_close(product, identity, rtol=0, atol=atol)
        assert torch.linalg.det(matrix.double()).item() == pytest.approx(1, abs=0.1)  # not −1


def test_a_rotation_is_the_exponential_of_its_generator():
    w = torch.randn(4, 4, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    omega = 0.3 * (w - w.mT) / 2
    series, term = torch.eye(4, dtype=torch.float64), torch.eye(4, dtype=torch.float64)
    for order in range(1, 30):
        term = term @ omega / order
        series = series + term
    torch.testing.assert_close(rotation(4, 0.3, seed=3), series, rtol=0, atol=1e-14)


def test_a_rotation_by_nothing_is_the_identity():
    identity = torch.eye(6, dtype=torch.float64)
    torch.testing.assert_close(rotation(6, 0.0), identity, rtol=0, atol=1e-14)


def test_turning_twice_is_turning_by_twice_the_size():
    twice = rotation(5, 0.1) @ rotation(5, 0.1)
    torch.testing.assert_close(twice, rotation(5, 0.2), rtol=0, atol=1e-14)


def test_the_generator_alone_decides_the_rotation():
    torch.manual_seed(1)
    first = rotation(5, 0.1, seed=7)
    torch.manual_seed(2)
    assert torch.equal(first, rotation(5, 0.1, seed=7))
    assert not torch.equal(first, rotation(5, 0.1, seed=8))


def test_without_a_generator_the_default_one_is_used():
    torch.manual_seed(3)
    first = random_rotation(5, 0.1)
    assert not torch.equal(first, random_rotation(5, 0.1))
    torch.manual_seed(3)
    assert torch.equal(first, random_rotation(5, 0.1))


def test_a_small_rotation_turns_a_unit_vector_by_about_its_documented_angle():
    dim, epsilon, count = 50, 0.02, 200
    turned = torch.stack([rotation(dim, epsilon, seed)[:, 0] for seed in range(count)])
    squares = (turned - torch.eye(dim, dtype=torch.float64)[0]).square().sum(-1)
    # ‖Ωx‖² is half a chi-square of dim − 1 degrees: mean (dim − 1)/2, variance (dim − 1)/2.
    expected = epsilon**2 * (dim - 1) / 2
    error = epsilon**2 * math.sqrt((dim - 1) / 2 / count)
    assert squares.mean().item() == pytest.approx(expected, abs=4 * error)


# Unit vectors from a centre


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30], ids=str)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_vectors_on_the_sphere_have_length_one_at_every_scale(dtype, scale):
    generator = torch.Generator().manual_seed(0)
    vectors = (scale * torch.randn(20, 5, generator=generator)).to(dtype)
    norms = on_sphere(vectors).norm(dim=1)
    torch.testing.assert_close(norms, torch.ones_like(norms), rtol=0, atol=rounding(dtype))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_vectors_on_the_sphere_have_length_one_in_half_precision(dtype):
    vectors = torch.tensor([[3e4, -3e4, 2e4], [1e-4, 2e-4, 0.0]], dtype=dtype)
    points = on_sphere(vectors, center=torch.zeros(3, dtype=dtype))
    assert points.dtype == dtype
    norms = points.double().norm(dim=1)
    torch.testing.assert_close(norms, torch.ones_like(norms), rtol=0, atol=rounding(dtype))


def test_vectors_on_the_sphere_point_away_from_the_center():
    vectors = torch.tensor([[3.0, 4.0], [1.0, 1.0]], dtype=torch.float64)
    center = torch.tensor([0.0, 0.0], dtype=torch.float64)
    half = math.sqrt(0.5)
    expected = torch.tensor([[0.6, 0.8], [half, half]], dtype=torch.float64)
    torch.testing.assert_close(on_sphere(vectors, center=center), expected, rtol=0, atol=1e-15)


def test_the_center_is_the_mean_unless_given():
    vectors = torch.randn(9, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert torch.equal(on_sphere(vectors), on_sphere(vectors, center=vectors.mean(0)))


def test_putting_vectors_on_the_sphere_is_differentiable():
    vectors = torch.randn(4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert torch.autograd.gradcheck(on_sphere, vectors.requires_grad_())


# Drifts


def some_memories(count=20, dim=5, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(count, dim, generator=generator, dtype=torch.float64).to(dtype)


def drift(memories, epsilon, seed=1):
    return random_drift(memories, epsilon, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("epsilon", [0.02, 1.0, 30.0])
@pytest.mark.parametrize("dim", [1, 2, 50])
def test_a_drift_keeps_the_length_of_each_memory(dim, epsilon, dtype):
    memories = some_memories(dim=dim, dtype=dtype)
    drifted = drift(memories, epsilon)
    assert drifted.shape == memories.shape
    assert drifted.dtype == dtype
    before, after = memories.double().norm(dim=1), drifted.double().norm(dim=1)
    # A component across of one rounding is one rounding of the length, whatever the angle.
    torch.testing.assert_close(after, before, rtol=rounding(dtype), atol=0)


@pytest.mark.parametrize("scale", [1e-300, 1e-30, 1e30, 1e300], ids=str)
def test_a_drift_is_the_same_at_every_scale(scale):
    memories = some_memories()
    expected = drift(memories, 0.3)
    torch.testing.assert_close(drift(scale * memories, 0.3) / scale, expected)


def test_a_drift_by_nothing_moves_nothing():
    assert torch.equal(drift(some_memories(), 0.0), some_memories())


def test_a_memory_at_the_origin_stays_there():
    memories = some_memories()
    memories[3] = 0
    drifted = drift(memories, 0.5)
    assert torch.equal(drifted[3], memories[3])
    torch.testing.assert_close(drifted[4], drift(some_memories(), 0.5)[4])


def test_on_a_line_there_is_nowhere_to_drift():
    memories = some_memories(dim=1)
    torch.testing.assert_close(drift(memories, 0.5), memories)


def test_a_small_drift_turns_a_unit_vector_by_the_angle_of_a_rotation_of_the_same_size():
    dim, epsilon, count = 50, 0.02, 2000
    memories = torch.zeros(count, dim, dtype=torch.float64)
    memories[:, 0] = 1
    squares = (drift(memories, epsilon) - memories).square().sum(-1)
    # As for a rotation: half a chi-square of dim − 1 degrees, mean and variance (dim − 1)/2.
    expected = epsilon**2 * (dim - 1) / 2
    error = epsilon**2 * math.sqrt((dim - 1) / 2 / count)
    assert squares.mean().item() == pytest.approx(expected, abs=4 * error)


def test_memories_drift_independently_where_a_rotation_moves_them_as_one():
    twins = torch.eye(50, dtype=torch.float64)[:1].expand(2, 50)
    moves = torch.stack([drift(twins, 0.1, seed) for seed in range(400)])[:, :, 1:]
    cosine = torch.nn.functional.cosine_similarity(moves[:, 0], moves[:, 1], dim=1)
    # Directions in 49 dimensions: independent ones have cosines of mean 0 and variance 1/49.
    assert cosine.mean().item() == pytest.approx(0, abs=4 / math.sqrt(49 * 400))
    assert cosine.square().mean().item() == pytest.approx(1 / 49, rel=0.4)


def test_the_generator_alone_decides_the_drift():
    torch.manual_seed(1)
    first = drift(some_memories(), 0.1, seed=7)
    torch.manual_seed(2)
    assert torch.equal(first, drift(some_memories(), 0.1, seed=7))
    assert not torch.equal(first, drift(some_memories(), 0.1, seed=8))


def test_without_a_generator_a_drift_uses_the_default_one():
    torch.manual_seed(3)
    first = random_drift(some_memories(), 0.1)
    assert not torch.equal(first, random_drift(some_memories(), 0.1))
    torch.manual_seed(3)
    assert torch.equal(first, random_drift(some_memories(), 0.1))


def test_a_drift_is_differentiable_in_the_memories():
    memories = some_memories(4, 3).requires_grad_()
    assert torch.autograd.gradcheck(lambda moved: drift(moved, 0.4), memories)


@pytest.mark.parametrize(
    ("memories", "error", "match"),
    [
        ([[1.0, 2.0]], TypeError, r"^memories must be a torch.Tensor, but is a list"),
        (torch.ones(2, 3, dtype=torch.int64), TypeError, r"^memories must have a floating-point"),
        (torch.ones(3), ValueError, r"^memories must have shape \(N, d\), one memory a row"),
        (torch.ones(0, 3), ValueError, r"^memories must hold at least one memory"),
        (
            torch.full((2, 3), math.nan),
            ValueError,
            r"^memories must be finite, but row 0 holds nan",
        ),
    ],
)
def test_memories_that_cannot_drift_are_refused(memories, error, match):
    with pytest.raises(error, match=match):
        random_drift(memories, 0.1)


@pytest.mark.parametrize("value", [-0.1, math.inf, math.nan], ids=str)
def test_a_size_of_drift_out_of_range_is_refused(value):
    with pytest.raises(ValueError, match=rf"^epsilon must lie between 0.0 and inf, but is {value}"):
        random_drift(torch.ones(2, 3), value)


def test_a_size_of_drift_that_is_no_number_is_refused():
    with pytest.raises(TypeError, match=r"^epsilon must be a number, but is a str"):
        random_drift(torch.ones(2, 3), "0.1")
