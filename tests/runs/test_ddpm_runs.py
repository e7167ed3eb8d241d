"""The three full-scale runs, at a size that takes seconds."""

from dataclasses import replace

import pytest
import torch

from hopfield_cl.diffusion.continual import STRATEGIES, Setting
from hopfield_cl.diffusion.models import ModelConfig
from hopfield_cl.diffusion.steps import TrainingConfig
from hopfield_cl.runs import ddpm_laboratory, ddpm_replay, ddpm_stream
from hopfield_cl.runs.ddpm_forgetting import ForgettingConfig, forgetting_run
from hopfield_cl.runs.ddpm_replay import ReplayRunConfig, ddpm_replay_run
from hopfield_cl.runs.ddpm_stream import StreamConfig, stream_run

TINY = Setting(
    dataset="digits",
    model=ModelConfig(image_size=8, patch=4, widths=(16,), groups=4),
    first=TrainingConfig(steps=20, batch_size=32),
    later=TrainingConfig(steps=4, batch_size=16),
)
SMALL = {"dataset": "digits", "seeds": (0, 1), "probes": 20, "generated": 20, "examples": 2}


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    return tmp_path_factory.mktemp("work")


@pytest.fixture(autouse=True)
def _tiny(monkeypatch):
    monkeypatch.setitem(ddpm_laboratory.SETTINGS, "digits", TINY)
    train = ddpm_laboratory.quality.train_classifier
    monkeypatch.setattr(
        ddpm_laboratory.quality,
        "train_classifier",
        lambda images, seed: train(images, seed=seed, steps=5),
    )


@pytest.fixture(scope="module")
def runs():
    return {}


def forgetting(work, runs):
    if "forgetting" not in runs:
        runs["forgetting"] = forgetting_run(ForgettingConfig(**SMALL, times=(599,)), work=work)
    return runs["forgetting"]


def replay(work, runs):
    config = ReplayRunConfig(
        **SMALL, times=(599,), budgets=(0.01, 0.1), stages=(0.5, 1.0), penalties=(1.0,),
        fisher_images=8,
    )  # fmt: skip
    if "replay" not in runs:
        runs["replay"] = ddpm_replay_run(config, work=work)
    return runs["replay"]


def stream(work, runs):
    config = StreamConfig(**SMALL, classes_per_task=2, kept=0.05)
    if "stream" not in runs:
        runs["stream"] = stream_run(config, work=work)
    return runs["stream"]


def test_forgetting_has_one_row_a_sample_before_and_after(work, runs):
    found = forgetting(work, runs)
    assert len(found.rows) == 2 * 20
    row = found.rows[0]
    assert {"error_599_before", "error_599_after", "flow_before", "denoising_after"} <= set(row)
    assert all(len({type(row[name]) for row in found.rows}) == 1 for name in row)
    assert len(found.details["rows"]["the image"]) == 2
    assert 0 < found.details["judge_accuracy"][0] < 1


def test_the_energy_of_a_seen_sample_leaves_it_out(work, runs):
    rows = forgetting(work, runs).rows
    seen, held_out = (
        torch.tensor([row["energy_0.5"] for row in rows if row["set"] == name])
        for name in ("seen", "held out")
    )
    assert abs(seen.median() - held_out.median()) < held_out.std()


def test_a_run_goes_on_from_its_finished_parts(work, runs, monkeypatch):
    before = forgetting(work, runs)

    def fail(*_, **__):
        raise AssertionError("nothing is left to train")

    monkeypatch.setattr(ddpm_laboratory, "learn_first", fail)
    again = forgetting_run(ForgettingConfig(**SMALL, times=(599,)), work=work)
    assert again.rows == before.rows
    assert again.details == before.details


def test_replay_has_a_cell_for_each_step_strategy_and_budget(work, runs):
    found = replay(work, runs)
    cells = {(row["step"], row["strategy"], row["budget"]) for row in found.rows}
    budgets = sorted({row["budget"] for row in found.rows})
    assert cells == {(s, name, b) for s in (2, 4) for name in STRATEGIES for b in budgets}
    assert len(budgets) == 3


def test_without_replay_nothing_is_avoided(work, runs):
    rows = [row for row in replay(work, runs).rows if row["budget"] == 0]
    assert all(row["mitigated"] == 0 for row in rows)
    assert all(row["mitigated_error"] == 0 for row in rows)


def test_each_seed_has_every_arm_and_what_it_compares_with(work, runs):
    rows = replay(work, runs).per_seed
    arms = {(row["strategy"], row["budget"]) for row in rows if row["seed"] == 0}
    assert {"before", "none", "joint", "generative", "elastic", *STRATEGIES} == {
        strategy for strategy, _ in arms
    }
    for row in rows:
        fifths = [row[f"held_out_fifth{number}"] for number in range(1, 6)]
        assert sum(fifths) / 5 == pytest.approx(row["held_out_599"], rel=1e-3)
    last = [row for row in rows if row["strategy"] in STRATEGIES and row["step"] == 4]
    assert all(isinstance(row["replayed"], float) for row in last)


def test_means_over_seeds_follow_from_the_table_of_seeds(work, runs):
    found = replay(work, runs)
    cell = next(row for row in found.rows if row["step"] == 4 and row["budget"] > 0)
    per_seed = []
    for seed in (0, 1):
        rows = {
            (row["strategy"], row["budget"], row["step"]): row["held_out_599"]
            for row in found.per_seed
            if row["seed"] == seed
        }
        before, none = rows["before", 0, 0], rows["none", 0, 4]
        arm = rows[cell["strategy"], cell["budget"], 4]
        per_seed.append((none - arm) / (none - before))
    assert cell["mitigated"] == pytest.approx(sum(per_seed) / 2, rel=0.1, abs=0.02)


def test_the_stream_measures_every_task_after_every_task(work, runs):
    found = stream(work, runs)
    assert len(found.rows) == 2 * 4 * 5 * 5
    for strategy in ddpm_stream._STRATEGIES:
        first = [
            row["error"]
            for row in found.rows
            if row["strategy"] == strategy and row["learned"] == 1 and row["seed"] == 0
        ]
        none = [
            row["error"]
            for row in found.rows
            if row["strategy"] == "none" and row["learned"] == 1 and row["seed"] == 0
        ]
        assert first == none
    shares = [row["share"] for row in found.rows[:5]]
    assert sum(shares) == pytest.approx(1, abs=1e-4)


def test_streams_part_after_the_first_task(work, runs):
    rows = stream(work, runs).rows
    last = {
        row["strategy"]: row["error"] for row in rows if row["learned"] == 5 and row["task"] == 1
    }
    assert len(set(last.values())) == len(last)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"dataset": "letters"}, "dataset must be one of"),
        ({"seeds": (0,)}, "seeds must hold at least 2"),
        ({"times": ()}, "times must hold at least 1"),
        ({"seeds": (0, 0)}, "seeds must be a tuple of different values"),
        ({"budgets": (0.0,)}, "budgets must lie between"),
        ({"stages": (1.0, 0.5)}, "stages must rise to 1"),
        ({"penalties": (0.0,)}, "penalties must be finite and above 0"),
    ],
)
def test_bad_settings_are_refused_in_a_sentence(change, words):
    with pytest.raises(ValueError, match=words):
        replace(ReplayRunConfig(), **change)


def test_a_time_that_sampling_does_not_visit_is_refused(work):
    with pytest.raises(ValueError, match="time must be one of"):
        forgetting_run(ForgettingConfig(**SMALL, times=(600,)), work=work)


def test_run_replay_lists_its_measures_in_the_order_of_its_gains():
    assert ddpm_replay._MEASURES[0] == "mitigated"
    assert len(ddpm_replay._MEASURES) == 6
