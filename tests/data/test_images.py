import dataclasses

import pytest
import torch
from sklearn.datasets import load_digits

from hopfield_cl.data import ImageSet, hold_out, load, padded, split_tasks
from hopfield_cl.data.scenes import FACTORS, scenes


@pytest.fixture(scope="module")
def digits():
    return load("digits")


@pytest.fixture(scope="module")
def mnist():
    return load("mnist")


def test_digits_are_the_1797_images_of_scikit_learn(digits):
    source = load_digits()
    assert digits.images.shape == (1797, 1, 8, 8)
    expected = torch.as_tensor(source.images / 8 - 1, dtype=torch.float32)
    assert torch.equal(digits.images[:, 0], expected)
    assert digits.labels.tolist() == source.target.tolist()


def test_mnist_has_500_images_of_each_digit(mnist):
    assert mnist.images.shape == (5000, 1, 28, 28)
    assert torch.bincount(mnist.labels).tolist() == [500] * 10


@pytest.mark.parametrize("name", ["digits", "mnist"])
def test_pixels_reach_from_minus_one_to_one(name):
    dataset = load(name)
    assert dataset.images.min().item() == -1
    assert dataset.images.max().item() == 1
    assert dataset.images[:, 0, 0, 0].max().item() < 1  # the background is dark, the strokes bright


def test_scenes_are_5000_in_colour_labelled_by_shape():
    drawn, known = load("scenes"), scenes(5000, seed=0, size=32)
    assert torch.equal(drawn.images, known.images)
    assert torch.equal(drawn.labels, known.factors[:, list(FACTORS).index("shape")])


@pytest.mark.parametrize("name", ["digits", "mnist", "scenes"])
def test_an_image_set_has_its_documented_types_name_and_length(name):
    dataset = load(name)
    assert dataset.images.dtype == torch.float32
    assert dataset.labels.dtype == torch.int64
    assert dataset.name == name
    assert len(dataset) == len(dataset.images) == len(dataset.labels)


def test_loading_twice_gives_the_same_images_and_no_shared_memory(digits):
    again = load("digits")
    assert torch.equal(again.images, digits.images)
    assert again.images.data_ptr() != digits.images.data_ptr()


def test_an_image_set_cannot_be_changed(digits):
    with pytest.raises(dataclasses.FrozenInstanceError):
        digits.name = "other"


@pytest.mark.parametrize("classes_per_task", [1, 2, 5, 10])
def test_tasks_hold_consecutive_classes_and_every_image_once(digits, classes_per_task):
    tasks = split_tasks(digits, classes_per_task)
    assert len(tasks) == 10 // classes_per_task
    for number, task in enumerate(tasks):
        first = number * classes_per_task
        assert task.labels.unique().tolist() == list(range(first, first + classes_per_task))
    assert sum(len(task) for task in tasks) == len(digits)


def test_a_task_keeps_the_order_of_the_images(digits):
    second = split_tasks(digits, 2)[1]
    chosen = (digits.labels == 2) | (digits.labels == 3)
    assert torch.equal(second.images, digits.images[chosen])
    assert torch.equal(second.labels, digits.labels[chosen])


def test_a_task_names_its_classes(digits):
    assert [task.name for task in split_tasks(digits, 5)] == [
        "digits: 0, 1, 2, 3, 4",
        "digits: 5, 6, 7, 8, 9",
    ]


def test_classes_need_not_be_numbered_from_zero():
    labels = torch.tensor([7, 3, 9, 3, 11])
    dataset = ImageSet(torch.arange(5.0)[:, None, None, None], labels, "odd")
    tasks = split_tasks(dataset, 2)
    assert [task.labels.tolist() for task in tasks] == [[7, 3, 3], [9, 11]]
    assert tasks[1].images.flatten().tolist() == [2, 4]


# A border


@pytest.mark.parametrize(("size", "before", "after"), [(28, 0, 0), (32, 2, 2), (33, 2, 3)])
def test_padding_moves_no_pixel_and_adds_darkness(mnist, size, before, after):
    larger = padded(mnist, size)
    assert larger.images.shape == (5000, 1, size, size)
    inside = slice(before, size - after)
    assert torch.equal(larger.images[:, :, inside, inside], mnist.images)
    border = torch.ones(size, size, dtype=torch.bool)
    border[inside, inside] = False
    assert (larger.images[:, :, border] == -1).all()
    assert torch.equal(larger.labels, mnist.labels)
    assert larger.name == "mnist"


def test_padding_makes_a_wide_image_square():
    wide = ImageSet(torch.ones(2, 3, 2, 4), torch.tensor([0, 1]), "wide")
    square = padded(wide, 4)
    assert square.images[0, 0].sum(1).tolist() == [-4, 4, 4, -4]


@pytest.mark.parametrize(
    ("size", "error", "match"),
    [
        (7, ValueError, "^size must be at least that of the images of 'digits', 8×8, but is 7"),
        (0, ValueError, "^size must be at least 1, but is 0"),
        (9.0, TypeError, "^size must be an integer, but is a float"),
    ],
)
def test_a_size_that_does_not_hold_the_images_is_refused(digits, size, error, match):
    with pytest.raises(error, match=match):
        padded(digits, size)


# Held-out images


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("share", [0.0, 0.2, 0.5, 1.0])
def test_the_same_share_of_each_class_is_held_out(digits, share):
    kept, held_out = hold_out(digits, share, generator=seeded())
    every, apart = torch.bincount(digits.labels), torch.bincount(held_out.labels, minlength=10)
    assert apart.tolist() == [round(share * int(count)) for count in every]
    assert torch.equal(torch.bincount(kept.labels, minlength=10), every - apart)


def test_every_image_is_kept_or_held_out_with_its_label_and_in_its_order():
    numbers = torch.arange(30.0)[:, None, None, None]
    dataset = ImageSet(numbers, torch.arange(30) % 3, "numbers")
    kept, held_out = hold_out(dataset, 0.3, generator=seeded())
    parts = [part.images.flatten().tolist() for part in (kept, held_out)]
    assert sorted(parts[0] + parts[1]) == list(range(30))
    for part, found in zip(parts, (kept, held_out), strict=True):
        assert part == sorted(part)
        assert found.labels.tolist() == [int(number) % 3 for number in part]
    assert (kept.name, held_out.name) == ("numbers", "numbers, held out")


def test_the_generator_alone_decides_what_is_held_out(digits):
    first, again, other = (hold_out(digits, 0.2, generator=seeded(s))[1] for s in (0, 0, 1))
    assert torch.equal(first.images, again.images)
    assert not torch.equal(first.images, other.images)


@pytest.mark.parametrize(
    ("share", "error", "match"),
    [
        (-0.1, ValueError, "^share must lie between 0.0 and 1.0, but is -0.1"),
        (1.5, ValueError, "^share must lie between 0.0 and 1.0, but is 1.5"),
        ("half", TypeError, "^share must be a number, but is a str"),
    ],
)
def test_a_share_that_is_none_is_refused(digits, share, error, match):
    with pytest.raises(error, match=match):
        hold_out(digits, share, generator=seeded())
