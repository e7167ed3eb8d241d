import pytest
import torch

from hopfield_cl import data
from hopfield_cl.data import ImageSet
from hopfield_cl.data.scenes import FACTORS, log_probability, parse, scenes
from hopfield_cl.diffusion import quality
from hopfield_cl.stable.tasks import SOURCES, load_captioned_tasks

COUNTS = {"seen": 12, "held_out": 5}


@pytest.fixture(scope="module")
def tasks():
    return load_captioned_tasks("scenes", 16, seed=0, **COUNTS)


@pytest.fixture
def photographs(monkeypatch):
    """CIFAR-10 in small: as many classes, few images."""
    labels = torch.arange(200) % 10
    images = (labels / 5 - 1)[:, None, None, None].expand(-1, 3, 32, 32).clone()
    monkeypatch.setattr(data, "load", lambda name: ImageSet(images, labels, name))


def test_the_first_half_of_the_shapes_is_task_one(tasks):
    for task, shapes in zip(tasks, ({0, 1, 2}, {3, 4, 5}), strict=True):
        for part, count in ((task.seen, 12), (task.held_out, 5)):
            assert part.images.shape == (count, 3, 16, 16)
            assert set(part.labels[:, 0].tolist()) <= shapes


def test_captions_and_density_belong_to_the_images(tasks):
    for part in (tasks[0].seen, tasks[1].held_out):
        assert torch.equal(parse(part.captions), part.labels)
        assert torch.equal(part.log_density, log_probability(part.labels))


def test_scenes_of_any_size_are_those_that_the_generator_draws():
    large = load_captioned_tasks("scenes", 32, seed=0, **COUNTS)[1].held_out
    drawn = scenes(200, seed=0, size=32)
    apart = (large.images[:, None] - drawn.images).flatten(2).abs().amax(2)
    assert apart.min(1).values.max() < 1e-6


def test_the_seed_determines_the_scenes_and_no_scene_is_both_seen_and_held_out(tasks):
    again = load_captioned_tasks("scenes", 16, seed=0, **COUNTS)
    assert torch.equal(again[1].seen.images, tasks[1].seen.images)
    other = load_captioned_tasks("scenes", 16, seed=1, **COUNTS)
    assert not torch.equal(other[1].seen.images, tasks[1].seen.images)
    seen, held_out = (part.images.flatten(1) for part in (tasks[0].seen, tasks[0].held_out))
    assert torch.cdist(seen, held_out).min() > 0


def test_a_part_of_the_examples_keeps_what_belongs_together(tasks):
    part = tasks[0].seen[torch.tensor([3, 1])]
    assert len(part) == 2
    assert part.captions == (tasks[0].seen.captions[3], tasks[0].seen.captions[1])
    assert torch.equal(part.images[1], tasks[0].seen.images[1])
    assert torch.equal(part.log_density[0], tasks[0].seen.log_density[3])


def test_photographs_are_split_by_class_brought_to_size_and_captioned(photographs):
    first, second = load_captioned_tasks("cifar10", 48, seed=0, **COUNTS)
    assert set(first.seen.labels.flatten().tolist()) <= set(range(5))
    assert set(second.seen.labels.flatten().tolist()) <= set(range(5, 10))
    assert first.seen.images.shape == (12, 3, 48, 48)
    assert first.seen.log_density is None
    assert first.seen[:2].log_density is None
    names = {0: "an airplane", 1: "an automobile", 2: "a bird", 3: "a cat", 4: "a deer"}
    for caption, label in zip(first.seen.captions, first.seen.labels[:, 0].tolist(), strict=True):
        assert caption == f"a photo of {names[label]}"
        assert first.seen.images.abs().max() <= 1


def test_the_judge_of_photographs_tells_their_classes(photographs, monkeypatch):
    short = quality.train_classifier
    monkeypatch.setattr(
        quality, "train_classifier", lambda images, seed, steps: short(images, seed=seed, steps=150)
    )
    judge = SOURCES["cifar10"].judge(0, torch.device("cpu"))
    first, _ = load_captioned_tasks("cifar10", 64, seed=0, **COUNTS)
    assert (judge(first.seen.images) == first.seen.labels).double().mean() > 0.9


def test_each_source_names_what_its_judge_tells():
    assert SOURCES["scenes"].factors == tuple(FACTORS)
    assert SOURCES["cifar10"].factors == ("class",)


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        ({"source": "faces"}, ValueError, "source must be one of scenes, cifar10, but is 'faces'"),
        ({"seen": 0}, ValueError, "seen must be"),
        ({"held_out": 1.5}, TypeError, "held_out must be an integer"),
        ({"seed": -1}, ValueError, "seed must be"),
        ({"size": 0}, ValueError, "size must be"),
    ],
)
def test_tasks_that_do_not_exist_are_refused(change, error, said):
    given = {"source": "scenes", "size": 16, "seed": 0, **COUNTS} | change
    with pytest.raises(error, match=said):
        load_captioned_tasks(given.pop("source"), given.pop("size"), **given)


def test_more_photographs_than_there_are_are_refused(photographs):
    with pytest.raises(ValueError, match=r"at most 100 together, the images of a task, but are 90"):
        load_captioned_tasks("cifar10", 32, seen=90, held_out=20, seed=0)
