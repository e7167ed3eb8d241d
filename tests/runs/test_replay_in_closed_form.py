import functools
import math
from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest
import torch

from hopfield_cl import data, replay
from hopfield_cl.energy import energy, fixed_points
from hopfield_cl.memories import on_sphere
from hopfield_cl.records import provenance
from hopfield_cl.records.recording import Gallery
from hopfield_cl.runs.replay_in_closed_form import STRATEGIES, ReplayConfig, replay_run

TINY = ReplayConfig(
    dataset="digits", steps=(0.5, 1.0), budgets=(0, 20, 200), seeds=(0, 1), probes=40, examples=3
)
MEASURES = [
    "taken_back",
    "taken_back_top",
    "rise_left",
    "rise_left_top",
    "retrieved",
    "distance2",
]


@pytest.fixture(scope="module")
def recording():
    return replay_run(TINY)


@pytest.fixture(scope="module")
def cells(recording):
    return {(row["step"], row["strategy"], row["budget"]): row for row in recording.rows}


def tasks():
    first, second = data.split_tasks(data.load("digits"), 5)
    pixels = [task.images.flatten(1).double() for task in (first, second)]
    center = torch.cat(pixels).mean(0)
    return [on_sphere(part, center=center) for part in pixels]


@functools.cache
def at_end(strategy):
    """The run's two tasks, old fixed points, energies, and who is replayed at budget 200."""
    old, new = tasks()
    points = fixed_points(old, old, 32.0, tol=1e-3, max_steps=200).points
    energies = energy(points, old, 32.0)
    gains = replay.replay_log_odds(points, new, old, 32.0).exp()
    chosen = replay.select_replay(energies.round(decimals=9), 200, strategy, gains=gains)
    return old, new, points, energies, old[chosen]


def test_there_is_one_row_for_each_step_strategy_and_budget(recording, cells):
    assert len(recording.rows) == len(cells) == 2 * len(STRATEGIES) * 3
    assert set(STRATEGIES) == {"greedy", "highest", "stratified", "random", "lowest"}
    for row in recording.rows:
        named = [name for pair in MEASURES for name in (pair, f"{pair}_error")]
        assert list(row) == ["step", "strategy", "budget", *named, "images"]
        assert all(math.isfinite(row[name]) for name in named)


@pytest.mark.parametrize("strategy", ["highest", "greedy"])
def test_the_energies_of_a_row_are_those_computed_by_hand(cells, strategy):
    old, new, points, energies, replayed = at_end(strategy)
    after = torch.cat([new, replayed])
    left = energy(points, after, 32.0) - energies
    rise = energy(points, new, 32.0) - energies
    # Net of mass: less what the same images take back where no task has changed.
    mass_only = energies - energy(points, torch.cat([old, replayed]), 32.0)
    net = rise - left - mass_only
    top = energies.round(decimals=9).sort(descending=True, stable=True).indices
    top = top[: math.ceil(len(old) / 10)]
    row = cells[1.0, strategy, 200]
    assert row["rise_left"] == pytest.approx(left.mean().item(), abs=1e-6)
    assert row["rise_left_top"] == pytest.approx(left[top].mean().item(), abs=1e-6)
    assert row["taken_back"] == pytest.approx((net.sum() / rise.sum()).item(), abs=1e-6)
    expected = (net[top].sum() / rise[top].sum()).item()
    assert row["taken_back_top"] == pytest.approx(expected, abs=1e-6)


def test_retrieval_of_a_row_is_that_computed_by_hand(cells):
    old, new, *_, replayed = at_end("highest")
    memories = torch.cat([new, replayed])
    ranked = at_end("highest")[3].round(decimals=9).sort(descending=True, stable=True).indices
    examples = ranked[torch.linspace(0, len(old) - 1, 3).round().long()]
    share, distance2 = [], []
    for seed in TINY.seeds:
        generator = torch.Generator().manual_seed(seed)
        for count in (len(old), len(new)):
            torch.randperm(count, generator=generator)
        drawn = torch.randperm(len(old), generator=generator)
        probes = torch.tensor([k for k in drawn.tolist() if k not in examples.tolist()][:40])
        seen = torch.rand(43, 64, generator=generator)[3:] >= 0.5
        ends = fixed_points(seen * old[probes], memories, 32.0, tol=1e-3, max_steps=200).points
        home = fixed_points(old[probes], old, 32.0, tol=1e-3, max_steps=200).points
        share.append(((ends - home).norm(dim=1) <= 0.25).double().mean().item())
        distance2.append((ends - old[probes]).square().sum(1).mean().item())
    row = cells[1.0, "highest", 200]
    assert row["retrieved"] == pytest.approx(np.mean(share), abs=1e-6)
    assert row["retrieved_error"] == pytest.approx(abs(share[0] - share[1]) / 2, abs=1e-6)
    assert row["distance2"] == pytest.approx(np.mean(distance2), abs=1e-6)


def test_without_replay_all_strategies_are_the_same_and_take_nothing_back(cells):
    for step in TINY.steps:
        first, *others = (cells[step, strategy, 0] for strategy in STRATEGIES)
        for other in others:
            assert other | {"strategy": ""} == first | {"strategy": ""}
        assert first["taken_back"] == first["taken_back_top"] == 0


def test_forgetting_grows_with_the_step_and_falls_with_the_budget(cells):
    assert cells[1.0, "greedy", 0]["rise_left"] > cells[0.5, "greedy", 0]["rise_left"] > 0
    for strategy in STRATEGIES:
        left = [cells[1.0, strategy, budget]["rise_left"] for budget in TINY.budgets]
        assert left == sorted(left, reverse=True)


def test_greedy_leaves_the_smallest_rise_at_each_step(cells):
    for step in TINY.steps:
        left = {strategy: cells[step, strategy, 20]["rise_left"] for strategy in STRATEGIES}
        assert min(left, key=left.get) == "greedy"


def test_where_nothing_is_drawn_by_chance_seeds_agree(cells):
    assert cells[1.0, "highest", 20]["rise_left_error"] == 0
    assert cells[1.0, "random", 20]["rise_left_error"] > 0


def test_each_row_shows_its_examples_and_no_image_is_kept_twice(recording):
    images, count = recording.images, len(recording.images)
    assert images.shape == (count, 8, 8)
    assert images.dtype == np.uint8
    assert len({image.tobytes() for image in images}) == count
    numbers = {int(word) for row in recording.rows for word in row["images"].split()}
    numbers |= {number for row in recording.details["rows"].values() for number in row}
    assert numbers == set(range(count))
    assert all(len(row["images"].split()) == 3 for row in recording.rows)


def test_the_first_images_are_the_data_s_own(recording):
    first = data.split_tasks(data.load("digits"), 5)[0]
    own = ((first.images[:, 0] + 1) / 2 * 255).numpy()
    for number in recording.details["rows"]["the image"]:
        apart = np.abs(own - recording.images[number]).max(axis=(1, 2))
        assert apart.min() <= 255 / 15 / 2 + 1e-3  # half a grey


def test_a_saved_recording_reads_back(recording, tmp_path):
    recording.save(tmp_path / "run.csv", seconds=1.0)
    found = provenance.read(tmp_path / "run.csv")
    assert found.rows[5]["rise_left"] == recording.rows[5]["rise_left"]
    assert found.made["seeds"] == [0, 1]
    assert found.made["details"]["examples"] == recording.details["examples"]
    assert found.made["images"]["count"] == len(recording.images)


def test_the_same_seeds_give_the_same_recording():
    short = replace(TINY, steps=(1.0,), budgets=(0, 5), probes=5)
    first, again = replay_run(short), replay_run(short)
    assert again.rows == first.rows
    assert np.array_equal(again.images, first.images)


@pytest.mark.parametrize(
    ("changes", "error", "match"),
    [
        ({"beta": 0.0}, ValueError, "^beta must be finite and above 0"),
        ({"seeds": (1,)}, ValueError, "^seeds must hold at least 2, but holds 1"),
        ({"seeds": (1, 1)}, ValueError, r"^seeds must be a tuple of different values, but is \(1"),
        ({"seeds": (-1, 1)}, ValueError, "^seeds must be at least 0, but is -1"),
        ({"budgets": [1, 2]}, ValueError, r"^budgets must be a tuple of different values"),
        ({"budgets": (1.5,)}, TypeError, "^budgets must be an integer"),
        ({"steps": (0.0,)}, ValueError, "^steps must be above 0"),
        ({"steps": (1.5,)}, ValueError, "^steps must lie between 0.0 and 1.0"),
        ({"probes": 0}, ValueError, "^probes must be at least 1"),
        ({"tolerance": -1.0}, ValueError, "^tolerance must be finite and above 0"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_a_configuration_that_makes_no_sense_is_refused(changes, error, match):
    with pytest.raises(error, match=match):
        replace(TINY, **changes)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"budgets": (5000,)}, "^budgets must ask for at most the 901 images of task 1"),
        ({"probes": 900}, "^probes and examples must ask for at most the 901 images"),
        ({"dataset": "letters"}, "^name must be one of"),
    ],
)
def test_what_the_images_cannot_give_is_refused(changes, match):
    with pytest.raises(ValueError, match=match):
        replay_run(replace(TINY, **changes))


def test_a_configuration_does_not_change():
    with pytest.raises(FrozenInstanceError):
        TINY.beta = 1.0


def test_pictures_are_kept_once_and_in_few_shades():
    gallery = Gallery()
    image = torch.linspace(-1, 1, 64).reshape(1, 1, 8, 8)
    assert gallery.add(torch.cat([image, -image, image])) == [0, 1, 0]
    assert gallery.images().shape == (2, 8, 8)
    assert len(set(gallery.images()[0].flatten().tolist())) == 16
    colour = Gallery()
    colour.add(image.expand(1, 3, 8, 8))
    assert colour.images().shape == (1, 8, 8, 3)
