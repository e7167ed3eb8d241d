import dataclasses

import pytest
import torch
from sklearn.datasets import load_digits

from hopfield_cl.data import ImageSet, load, split_tasks


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


@pytest.mark.parametrize("name", ["digits", "mnist"])
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
