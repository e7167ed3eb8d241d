import math

import pytest
import torch
from torch import nn

from hopfield_cl.data import ImageSet, hold_out, load
from hopfield_cl.diffusion import quality
from hopfield_cl.diffusion.quality import (
    Classifier,
    accuracy,
    class_shares,
    features,
    kernel_distance,
    precision_recall,
    predict,
    train_classifier,
)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def normal(*shape, seed=0):
    return torch.randn(shape, generator=seeded(seed), dtype=torch.float64)


@pytest.fixture(scope="module")
def digits():
    """Digits that a classifier learns, and digits that it does not."""
    return hold_out(load("digits"), 0.2, generator=seeded())


@pytest.fixture(scope="module")
def trained(digits):
    return train_classifier(digits[0], seed=0)


# The classifier


def test_it_tells_held_out_digits_apart(trained, digits):
    assert accuracy(trained, digits[1]) >= 0.95


@pytest.mark.parametrize(
    "shape", [(1, 32, 32), (3, 32, 32), (3, 12, 9), (1, 1, 1)], ids=lambda s: "×".join(map(str, s))
)
def test_it_takes_images_of_any_size_and_has_64_features(shape):
    model = Classifier(shape, [2, 5, 7])
    images = torch.rand(3, *shape) * 2 - 1
    assert features(model, images).shape == (3, 64)
    assert model(images).shape == (3, 3)


def test_a_step_lowers_the_loss_of_what_it_learns(digits):
    def loss(steps):
        model = train_classifier(digits[0], seed=3, steps=steps)
        with torch.no_grad():
            return nn.functional.cross_entropy(model(digits[0].images), digits[0].labels).item()

    assert loss(20) < 0.5 * loss(1)


def test_the_seed_decides_the_classifier_and_leaves_pytorchs_generator_alone(digits):
    state = torch.get_rng_state()
    first, again, other = (train_classifier(digits[0], seed=s, steps=3) for s in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    for name, value in first.state_dict().items():
        assert torch.equal(value, again.state_dict()[name])
    assert not torch.equal(first.last.weight, other.last.weight)


def test_predictions_are_labels_as_they_were_given(digits):
    some = digits[0].labels < 2
    odd = ImageSet(digits[0].images[some], torch.tensor([40, 7])[digits[0].labels[some]], "odd")
    model = train_classifier(odd, seed=0, steps=60)
    assert model.classes.tolist() == [7, 40]
    assert set(predict(model, odd.images).tolist()) == {7, 40}
    assert accuracy(model, odd) > 0.95


def test_features_are_those_of_evaluation_mode_without_gradient_whatever_the_batch(trained, digits):
    images = digits[1].images[:50]
    expected = trained.features(images).detach()
    trained.train()
    found = features(trained, images, batch_size=7)
    assert trained.training
    trained.eval()
    assert not found.requires_grad
    assert found.min() >= 0
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert features(trained, images).shape == (50, quality.FEATURES)


def test_shares_count_predictions_class_by_class(trained, digits):
    images = digits[1].images
    shares = class_shares(trained, images, range(10))
    assert math.isclose(shares.sum().item(), 1, rel_tol=1e-6)
    found = predict(trained, images).tolist()
    for label in (0, 9):
        expected = sum(one == label for one in found) / len(found)
        assert math.isclose(shares[label].item(), expected, rel_tol=1e-6)
    assert torch.equal(class_shares(trained, images, [9, 3]), shares[[9, 3]])


def test_a_class_that_is_not_drawn_has_no_share(trained, digits):
    ones = digits[1].images[digits[1].labels == 1]
    shares = class_shares(trained, ones, range(10))
    assert shares[1] > 0.9
    assert shares[0] == 0


# Precision and recall


def covered(points, reference, neighbours):
    """Share of points in a ball of the reference, by the definition: loops over pairs."""
    count = 0
    for point in points:
        inside = False
        for i, centre in enumerate(reference):
            others = [(centre - x).norm().item() for j, x in enumerate(reference) if j != i]
            inside |= (point - centre).norm().item() <= sorted(others)[neighbours - 1]
        count += inside
    return count / len(points)


@pytest.mark.parametrize("neighbours", [1, 3, 5])
@pytest.mark.parametrize("shift", [0.0, 1.0])
def test_precision_and_recall_are_those_of_the_definition(neighbours, shift):
    real, generated = normal(30, 4), 0.7 * normal(20, 4, seed=1) + shift
    precision, recall = precision_recall(real, generated, neighbours=neighbours)
    assert precision.item() == pytest.approx(covered(generated, real, neighbours), abs=1e-12)
    assert recall.item() == pytest.approx(covered(real, generated, neighbours), abs=1e-12)
    assert 0 < precision < 1


def test_blocks_of_any_size_give_the_same(monkeypatch):
    real, generated = normal(30, 4), normal(20, 4, seed=1)
    expected = precision_recall(real, generated), kernel_distance(real, generated).value
    monkeypatch.setattr(quality, "_BLOCK_ENTRIES", 50)
    assert precision_recall(real, generated) == expected[0]
    torch.testing.assert_close(kernel_distance(real, generated).value, expected[1])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_set_covers_itself_though_a_point_occurs_many_times(dtype):
    points = normal(40, 6).to(dtype)
    points = torch.cat([points, points[:1].expand(9, -1)])
    precision, recall = precision_recall(points, points)
    assert precision == 1
    assert recall == 1
    assert precision.dtype == dtype


def test_a_shift_of_all_features_changes_nothing():
    real, generated = normal(60, 4), normal(60, 4, seed=1)
    assert precision_recall(real + 1e7, generated + 1e7) == precision_recall(real, generated)


def test_sets_far_apart_cover_nothing_of_each_other():
    assert precision_recall(normal(40, 6), 100 + normal(30, 6, seed=1)) == (0, 0)


def test_a_model_that_draws_one_mode_well_is_precise_and_recalls_half():
    real = torch.cat([normal(100, 3), normal(100, 3, seed=1) + 50])
    precision, recall = precision_recall(real, normal(100, 3, seed=2))
    assert precision > 0.8
    assert 0.35 < recall <= 0.5


# Kernel distance


def mmd(x, y):
    """Unbiased squared MMD by the definition: loops over pairs."""

    def k(a, b):
        return ((a @ b).item() / len(a) + 1) ** 3

    def within(z):
        pairs = [k(z[i], z[j]) for i in range(len(z)) for j in range(len(z)) if i != j]
        return sum(pairs) / len(pairs)

    return within(x) + within(y) - 2 * sum(k(a, b) for a in x for b in y) / (len(x) * len(y))


def without(points, index):
    return torch.cat([points[:index], points[index + 1 :]])


def test_the_kernel_distance_and_its_jackknife_are_those_of_the_definition():
    x, y = normal(9, 5), 0.5 + normal(7, 5, seed=1)
    found = kernel_distance(x, y)
    assert found.value.item() == pytest.approx(mmd(x, y), rel=1e-10)
    left_out = [
        torch.tensor([mmd(without(x, i), y) for i in range(9)]),
        torch.tensor([mmd(x, without(y, i)) for i in range(7)]),
    ]
    variance = sum((len(v) - 1) / len(v) * (v - v.mean()).square().sum() for v in left_out)
    assert found.standard_error.item() == pytest.approx(variance.sqrt().item(), rel=1e-5)
    assert found.low < found.value < found.high


def test_the_kernel_distance_of_equal_distributions_is_zero_on_average():
    values = torch.stack(
        [
            kernel_distance(normal(20, 8, seed=s), normal(15, 8, seed=s + 999)).value
            for s in range(400)
        ]
    )
    error = values.std() / 20
    assert abs(values.mean()) < 3 * error
    assert values.min() < 0 < values.max()


def test_its_standard_error_is_the_spread_over_samples_of_different_distributions():
    found = [
        kernel_distance(normal(60, 4, seed=s), 1 + normal(50, 4, seed=s + 999)) for s in range(200)
    ]
    spread = torch.stack([one.value for one in found]).std()
    typical = torch.stack([one.standard_error for one in found]).square().mean().sqrt()
    assert 0.8 < typical / spread < 1.3


def test_the_kernel_distance_grows_with_the_shift():
    x = normal(200, 8)
    values = [kernel_distance(x, normal(200, 8, seed=1) + s).value for s in (0.0, 0.3, 0.6, 1.2)]
    assert values == sorted(values)


def test_what_is_computed_has_the_dtype_of_its_features():
    found = kernel_distance(normal(9, 5).float(), normal(9, 5, seed=1).float())
    assert found.value.dtype == found.low.dtype == torch.float32


# Bad input

LABELLED = ImageSet(torch.zeros(8, 1, 8, 8), torch.arange(8) % 2, "black")


@pytest.mark.parametrize(
    ("changes", "error", "match"),
    [
        ({"images": LABELLED.images}, TypeError, "^images must be an ImageSet, but is a Tensor"),
        ({"steps": 0}, ValueError, "^steps must be at least 1, but is 0"),
        ({"seed": -1}, ValueError, "^seed must be at least 0, but is -1"),
        ({"seed": 0.5}, TypeError, "^seed must be an integer"),
        ({"batch_size": 1}, ValueError, "^batch_size must be at least 2, but is 1"),
        ({"batch_size": 9}, ValueError, "^images must hold at least batch_size = 9 images, but"),
        (
            {"images": ImageSet(LABELLED.images, torch.zeros(8).long(), "one")},
            ValueError,
            "^images must hold at least 2 classes, but holds 1",
        ),
        (
            {"images": ImageSet(LABELLED.images, torch.zeros(7).long(), "short")},
            ValueError,
            "^images must have one label each, 8, but has labels of shape",
        ),
    ],
)
def test_what_cannot_be_learned_is_refused(changes, error, match):
    arguments = {"images": LABELLED, "seed": 0, "steps": 1, "batch_size": 4} | changes
    with pytest.raises(error, match=match):
        train_classifier(arguments.pop("images"), **arguments)


@pytest.mark.parametrize("classes", [[], [1], [1, 1], [2, 1]])
def test_classes_that_are_not_rising_are_refused(classes):
    with pytest.raises(ValueError, match=r"^classes must hold at least 2 labels, each once"):
        Classifier((1, 8, 8), classes)


@pytest.mark.parametrize("shape", [(8, 8), (1, 8, 8, 8)])
def test_a_shape_that_is_not_of_three_numbers_is_refused(shape):
    with pytest.raises(ValueError, match=r"^image_shape must be channels, height and width, but"):
        Classifier(shape, [0, 1])


@pytest.mark.parametrize(
    ("images", "error", "match"),
    [
        (torch.zeros(2, 8, 8), ValueError, r"^images must have shape \(N, 1, 8, 8\) with N"),
        (torch.zeros(0, 1, 8, 8), ValueError, r"^images must have shape \(N, 1, 8, 8\) with N"),
        (torch.zeros(2, 3, 8, 8), ValueError, r"but has shape \(2, 3, 8, 8\)"),
        (torch.zeros(2, 1, 8, 8).double(), TypeError, "^images must have the dtype of the class"),
        (torch.full((2, 1, 8, 8), math.nan), ValueError, "^images must be finite"),
        ([[1.0]], TypeError, r"^images must be a torch.Tensor, but is a list"),
    ],
)
@pytest.mark.parametrize("function", [features, predict], ids=lambda f: f.__name__)
def test_images_that_do_not_fit_the_classifier_are_refused(trained, function, images, error, match):
    with pytest.raises(error, match=match):
        function(trained, images)


@pytest.mark.parametrize("classes", [[], [10], [0, 11]])
def test_shares_of_classes_that_it_does_not_know_are_refused(trained, classes):
    with pytest.raises(ValueError, match=r"^classes must hold at least one of the labels"):
        class_shares(trained, torch.zeros(2, 1, 8, 8), classes)


@pytest.mark.parametrize(
    ("real", "generated", "error", "match"),
    [
        (torch.zeros(9), torch.zeros(9, 2), ValueError, r"^real must have shape \(N, F\)"),
        (torch.zeros(9, 2), torch.zeros(2, 2), ValueError, r"^generated must have shape \(N, F\)"),
        (torch.zeros(9, 0), torch.zeros(9, 0), ValueError, r"^real must have shape \(N, F\)"),
        (torch.zeros(9, 2), torch.zeros(9, 3), ValueError, "^generated must have as many features"),
        (torch.zeros(9, 2), torch.zeros(9, 2).double(), TypeError, "^generated must have the dtyp"),
        (torch.full((9, 2), math.inf), torch.zeros(9, 2), ValueError, "^real must be finite"),
        ([[0.0]], torch.zeros(9, 2), TypeError, "^real must be a torch.Tensor"),
    ],
)
@pytest.mark.parametrize("compare", [precision_recall, kernel_distance], ids=lambda f: f.__name__)
def test_features_that_do_not_fit_are_refused(compare, real, generated, error, match):
    with pytest.raises(error, match=match):
        compare(real, generated)


def test_a_neighbour_that_does_not_exist_is_refused():
    points = torch.zeros(4, 2)
    with pytest.raises(ValueError, match=r"^neighbours must be at least 1, but is 0"):
        precision_recall(points, points, neighbours=0)
    with pytest.raises(ValueError, match=r"^real must have shape .* with N at least 5"):
        precision_recall(points, points, neighbours=4)
