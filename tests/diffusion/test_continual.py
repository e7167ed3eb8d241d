import math
from dataclasses import replace

import pytest
import torch

from hopfield_cl import data
from hopfield_cl.diffusion.continual import (
    SETTINGS,
    STRATEGIES,
    Probe,
    Setting,
    choose,
    learn_first,
    learn_next,
    likeliest_sigma,
    load_tasks,
    replay_pool,
)
from hopfield_cl.diffusion.energies import dataset_energy
from hopfield_cl.diffusion.models import ModelConfig, new_model
from hopfield_cl.diffusion.steps import TrainingConfig

TINY = Setting(
    dataset="digits",
    model=ModelConfig(image_size=8, patch=2, widths=(8, 16), groups=4),
    first=TrainingConfig(steps=6, batch_size=16),
    later=TrainingConfig(steps=4, batch_size=16),
)


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_tasks_hold_their_classes_and_no_image_is_seen_and_held_out():
    tasks = load_tasks(TINY, seed=0)
    assert [task.seen.labels.unique().tolist() for task in tasks] == [
        [0, 1, 2, 3, 4],
        [5, 6, 7, 8, 9],
    ]
    whole = data.load("digits")
    assert sum(len(task.seen) + len(task.held_out) for task in tasks) == len(whole)
    assert len(tasks[0].held_out) == pytest.approx(0.2 * (whole.labels < 5).sum(), abs=3)
    seen = {image.numpy().tobytes() for image in tasks[0].seen.images}
    same = [image.numpy().tobytes() in seen for image in tasks[0].held_out.images]
    assert not any(same)


def test_another_seed_splits_otherwise_and_the_same_seed_the_same():
    first, again, other = (load_tasks(TINY, seed=seed)[0].seen.images for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_small_images_are_padded_to_the_size_of_the_network():
    images = load_tasks(replace(TINY, model=ModelConfig(image_size=16)), seed=0)[0].seen.images
    assert images.shape[1:] == (1, 16, 16)
    assert torch.all(images[:, :, :4] == -1)


def test_every_setting_fits_its_network():
    for setting in SETTINGS.values():
        new_model(replace(setting.model, widths=(32,), groups=4, attention=()), seed=0)
        assert setting.model.image_size in (8, 32)


def test_the_likeliest_level_is_where_the_left_out_samples_are_foretold_best():
    images = drawn(30, 1, 1, 2)
    sigmas = (0.05, 0.2, 0.5, 1.0, 3.0)
    best, means = likeliest_sigma(images, sigmas)
    flat = images.flatten(1).double()
    for sigma, mean in zip(sigmas, means, strict=True):
        total = 0.0
        for i in range(30):
            others = torch.cat([flat[:i], flat[i + 1 :]])
            exponents = -(others - flat[i]).square().sum(1) / (2 * sigma**2)
            density = exponents.exp().mean() / (2 * math.pi * sigma**2)
            total += density.clamp(min=1e-300).log().item()
        if mean > -600:
            assert mean.item() == pytest.approx(total / 30, rel=1e-6)
    assert best == sigmas[int(means.argmax())]
    assert best not in (sigmas[0], sigmas[-1])


def test_the_likeliest_level_grows_with_the_data():
    images = drawn(50, 1, 1, 2)
    small, large = (likeliest_sigma(scale * images)[0] for scale in (1.0, 4.0))
    assert large == pytest.approx(4 * small, rel=1e-9)


def test_the_pool_knows_the_odds_of_gaussians():
    old, new, sigma = drawn(7, 1, 2, 2), drawn(5, 1, 2, 2, seed=1), 0.7
    pool = replay_pool(old, new, sigma)
    flat, later = old.flatten(1), new.flatten(1)
    to_new = (-torch.cdist(flat, later).square() / (2 * sigma**2)).exp().sum(1)
    to_old = (-torch.cdist(flat, flat).square() / (2 * sigma**2)).exp()  # candidate, target
    assert torch.allclose(pool.log_odds.exp(), to_old / to_new, rtol=1e-3)
    alone = dataset_energy(flat[2:3], torch.cat([flat[:2], flat[3:]]), sigma)
    assert pool.energies[2].item() == pytest.approx(alone.item(), rel=1e-5)


def test_each_strategy_chooses_its_budget_and_greedy_gains_most():
    tasks = load_tasks(TINY, seed=0)
    pool = replay_pool(tasks[0].seen.images[:80], tasks[1].seen.images[:80], 0.5)
    gains = {}
    for strategy in STRATEGIES:
        chosen = choose(pool, 8, strategy, generator=torch.Generator().manual_seed(0))
        assert len(chosen.unique()) == 8
        gains[strategy] = pool.log_odds[chosen].logsumexp(0).exp().log1p().sum().item()
    assert max(gains, key=gains.get) == "greedy"
    highest = choose(pool, 8, "highest", generator=torch.Generator())
    assert torch.equal(pool.energies[highest], pool.energies.sort(descending=True).values[:8])


def test_learning_on_leaves_the_first_network_as_it_was_and_repeats_itself():
    images = load_tasks(TINY, seed=0)[1].seen.images
    model = new_model(TINY.model, seed=0)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    first, again = (learn_next(model, images, TINY, seed=3).state_dict() for _ in range(2))
    replayed = learn_next(model, images, TINY, seed=3, replay=-images[:5]).state_dict()
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])
        assert torch.equal(first[name], again[name])
    assert any(not torch.equal(first[name], replayed[name]) for name in first)


def test_the_first_task_depends_on_its_seed_alone():
    images = load_tasks(TINY, seed=0)[0].seen.images
    torch.manual_seed(5)
    first = learn_first(TINY, images, seed=1).state_dict()
    torch.manual_seed(6)
    again = learn_first(TINY, images, seed=1).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_the_model_is_shown_after_each_step_that_is_asked_for():
    images = load_tasks(TINY, seed=0)[1].seen.images
    seen = []
    model = new_model(TINY.model, seed=0)
    observe = {2: lambda averaged: seen.append((2, averaged.training)), 4: lambda _: seen.append(4)}
    learn_next(model, images, TINY, seed=0, observe=observe)
    assert seen == [(2, False), 4]


def test_a_part_of_a_probe_is_measured_as_it_is_in_the_whole():
    images = load_tasks(TINY, seed=0)[0].held_out.images[:10]
    probe = Probe.of(images, (199, 599), seed=4)
    model = new_model(TINY.model, seed=0)
    chosen = torch.tensor([7, 2])
    assert len(probe[chosen]) == 2
    assert torch.allclose(probe[chosen].errors(model), probe.errors(model)[:, chosen], atol=1e-6)


@pytest.mark.parametrize(
    ("call", "problem", "words"),
    [
        (lambda: Setting(classes_per_task=0), ValueError, "classes_per_task must be at least 1"),
        (lambda: Setting(held_out=1.5), ValueError, "held_out must lie between"),
        (lambda: likeliest_sigma(drawn(1, 1, 2, 2)), ValueError, "images must be at least 2"),
        (lambda: likeliest_sigma(drawn(3, 1, 2, 2), ()), ValueError, "sigmas must hold"),
        (lambda: likeliest_sigma(drawn(3, 1, 2, 2), (0.0,)), ValueError, "sigmas must be finite"),
        (lambda: likeliest_sigma(drawn(3, 4) / 0), ValueError, "images must be finite"),
    ],
)
def test_bad_input_is_refused_in_a_sentence(call, problem, words):
    with pytest.raises(problem, match=words):
        call()
