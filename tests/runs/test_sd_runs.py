from dataclasses import replace

import pytest
import torch
from tiny_pipeline import TINY

from hopfield_cl import cli
from hopfield_cl.data.scenes import scenes, train_judge
from hopfield_cl.diffusion.energies import dataset_energy
from hopfield_cl.diffusion.steps import TrainingConfig
from hopfield_cl.records import provenance
from hopfield_cl.runs import sd_laboratory, sd_small
from hopfield_cl.runs.sd_forgetting import prompt_forgetting_run
from hopfield_cl.runs.sd_laboratory import PromptRunConfig, laboratories, learning_of
from hopfield_cl.runs.sd_replay import (
    PromptReplayConfig,
    chosen,
    prompt_replay_run,
    strategies_of,
)
from hopfield_cl.runs.sd_small import SmallConfig, obeyed, small_run
from hopfield_cl.runs.verification import verify_all
from hopfield_cl.stable import tasks
from hopfield_cl.stable.pipelines import (
    load_pipeline,
    new_pipeline,
    save_pipeline,
    verify_pipeline,
)

FEW = {"seeds": (0, 1), "seen": 12, "held_out": 10, "prompts": 4, "examples": 2}
SHORT = TrainingConfig(steps=3, batch_size=4, warmup=0, learning_rate=1e-2, ema_decay=0.0)


@pytest.fixture(scope="module")
def quick():
    """Trainings of a few steps, and a judge that has seen little."""
    with pytest.MonkeyPatch.context() as patch:
        for method, how in sd_laboratory.SMALL.items():
            patch.setitem(sd_laboratory.SMALL, method, replace(how, training=SHORT, batch_size=8))
        for module in (tasks, sd_small):
            patch.setattr(module, "train_judge", lambda *, seed: train_judge(seed=seed, steps=2))
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pipeline") / "tiny"
    save_pipeline(folder, new_pipeline(TINY, seed=0), training={})
    return folder


@pytest.fixture(scope="module")
def config(folder):
    return PromptReplayConfig(model=str(folder), budgets=(2, 5), **FEW)


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    return tmp_path_factory.mktemp("work")


@pytest.fixture(scope="module")
def replayed(quick, config, work):
    return prompt_replay_run(config, work=work)


@pytest.fixture(scope="module")
def forgotten(quick, config, work, replayed):
    return prompt_forgetting_run(config, work=work)


@pytest.fixture
def lab(quick, config, tmp_path):
    return next(laboratories(config, device="cpu", work=tmp_path))


def test_each_held_out_sample_is_one_row_with_its_density_energies_and_errors(forgotten, lab):
    rows = [row for row in forgotten.rows if row["seed"] == 0]
    assert len(forgotten.rows) == 20
    assert [row["caption"] for row in rows] == list(lab.tasks[0].held_out.captions)
    density = [row["log_density"] for row in rows]
    assert density == pytest.approx(lab.tasks[0].held_out.log_density.tolist(), rel=1e-5)
    for space in ("latent", "caption"):
        points, stored = (lab.points(space, 0, name) for name in ("held out", "seen"))
        energies = dataset_energy(points, stored, lab.sigma[space])
        assert [row[f"energy_{space}"] for row in rows] == pytest.approx(
            energies.tolist(), rel=1e-4
        )
    assert all(row["latent_before"] != row["latent_after"] for row in rows)


def test_prompts_are_judged_factor_by_factor_and_no_more_than_were_drawn(forgotten):
    for row in forgotten.rows:
        judged = {row[f"{factor}_{when}"] for factor in ("shape", "colour") for when in ("before",)}
        assert judged <= ({0, 1} if row["index"] < 4 else {""})


def test_the_replay_run_shares_its_arms_with_the_forgetting_run(replayed, forgotten):
    none = {row["seed"]: row for row in replayed.per_seed if row["strategy"] == "none"}
    for seed in (0, 1):
        errors = [row["latent_after"] for row in forgotten.rows if row["seed"] == seed]
        assert none[seed]["latent"] == pytest.approx(sum(errors) / len(errors), abs=1e-5)


def test_each_strategy_and_budget_is_a_row_and_budget_nothing_avoids_nothing(replayed, config):
    cells = {(row["strategy"], row["budget"]) for row in replayed.rows}
    assert cells == {(name, b) for name in strategies_of(config) for b in (0, 2, 5)}
    for row in replayed.rows:
        if row["budget"] == 0:
            assert row["mitigated"] == row["mitigated_error"] == 0


def test_the_means_follow_from_the_table_of_seeds(replayed):
    def share(seed, strategy, budget):
        rows = {(r["strategy"], r["budget"]): r for r in replayed.per_seed if r["seed"] == seed}
        was, lost = rows["before", 0]["latent"], rows["none", 0]["latent"]
        return (lost - rows[strategy, budget]["latent"]) / (lost - was)

    for row in replayed.rows:
        if row["budget"]:
            shares = [share(seed, row["strategy"], row["budget"]) for seed in (0, 1)]
            assert row["mitigated"] == pytest.approx(sum(shares) / 2, rel=2e-2, abs=2e-2)


@pytest.mark.parametrize(
    ("measure", "column"),
    [
        ("rise", "latent"),
        ("rise_top", "latent_fifth5"),
        ("rise_bottom", "latent_fifth1"),
        ("rise_pixel", "pixel"),
    ],
)
def test_a_rise_is_what_an_arm_has_beyond_what_was_before(replayed, measure, column):
    of = {(r["seed"], r["strategy"], r["budget"]): r[column] for r in replayed.per_seed}
    for row in replayed.rows:
        arm = (row["strategy"], row["budget"]) if row["budget"] else ("none", 0)
        rises = [of[seed, *arm] - of[seed, "before", 0] for seed in (0, 1)]
        assert row[measure] == pytest.approx(sum(rises) / 2, abs=3e-6)


def test_a_run_that_is_started_again_computes_nothing_and_gives_the_same(
    quick, config, work, replayed, monkeypatch
):
    monkeypatch.setattr(sd_laboratory, "fine_tune", None)
    assert prompt_replay_run(config, work=work).rows == replayed.rows


def test_a_seed_does_not_depend_on_the_seeds_before_it(quick, config, forgotten, tmp_path):
    options = FEW | {"seeds": (1, 2)}
    found = prompt_forgetting_run(PromptRunConfig(model=config.model, **options), work=tmp_path)
    of_seed_1 = [[row for row in one.rows if row["seed"] == 1] for one in (found, forgotten)]
    assert of_seed_1[0] == of_seed_1[1]


def test_the_state_of_a_finished_training_is_not_kept(replayed, work):
    assert len(list(work.glob("*/seed*/first.safetensors"))) == 2
    assert not list(work.glob("*/seed*/first_training*"))


def test_another_autoencoder_reads_no_part_of_before(quick, config, lab, tmp_path):
    other = new_pipeline(TINY, seed=0)
    other.vae.register_to_config(scaling_factor=0.5)
    save_pipeline(tmp_path / "other", other, training={})
    changed = replace(config, model=str(tmp_path / "other"))
    there = next(laboratories(changed, device="cpu", work=tmp_path))
    assert there.workspace.folder != lab.workspace.folder


def test_strategies_choose_by_their_own_measure(lab):
    energies = lab.energies("latent", "seen")
    assert chosen(lab, "highest", 1).item() == energies.argmax().item()
    assert chosen(lab, "lowest", 1).item() == energies.argmin().item()
    words = lab.energies("caption", "seen")
    assert words[chosen(lab, "caption", 1)].item() == words.max().item()
    density = lab.tasks[0].seen.log_density
    assert density[chosen(lab, "rarest", 1)].item() == density.min().item()
    assert sorted(chosen(lab, "joint", 12).tolist()) == list(range(12))
    assert len(set(chosen(lab, "greedy", 5).tolist())) == 5


def test_a_seen_sample_is_left_out_of_its_own_density(lab):
    stored = lab.latents(0, "seen")
    others = dataset_energy(stored[:1], stored[1:], lab.sigma["latent"])
    assert lab.energies("latent", "seen")[0].item() == pytest.approx(others.item(), rel=1e-5)


def test_an_adapter_learns_and_is_merged(quick, config, tmp_path):
    found = prompt_forgetting_run(
        PromptRunConfig(model=config.model, method="lora", **FEW), work=tmp_path
    )
    assert found.details["method"] == "lora"
    assert all(row["latent_before"] != row["latent_after"] for row in found.rows)


def test_a_large_network_is_trained_with_memory_spared(folder):
    pipeline = load_pipeline(folder)
    assert learning_of(pipeline, "full").recomputed == "nothing"
    pipeline.unet.num_parameters = lambda: 859_520_964
    for method in ("full", "lora"):
        how = learning_of(pipeline, method)
        assert (how.recomputed, how.training.precision) == ("activations", "bf16")
    with pytest.raises(ValueError, match="method must be one of full, lora, but is 'half'"):
        learning_of(pipeline, "half")


def test_the_small_run_trains_saves_and_asks_what_the_drawing_shows(quick, tmp_path):
    config = SmallConfig(
        pipeline=TINY,
        autoencoder=SHORT,
        text_to_image=SHORT,
        judged=6,
        guidances=(1.0, 2.0),
        examples=2,
    )
    found = small_run(config, work=tmp_path / "work", models=tmp_path / "models")
    kinds = [row["images_are"] for row in found.rows]
    assert kinds == ["scenes", "after the autoencoder", "drawn, guidance 1", "drawn, guidance 2"]
    assert found.details["autoencoder_error"] > 0
    training = verify_pipeline(tmp_path / "models" / "small_sd")
    assert training["autoencoder"]["steps"] == 3
    again = small_run(config, work=tmp_path / "work")
    assert again.rows == found.rows
    times = [how["autoencoder"]["seconds"] for how in (again.details["training"], training)]
    assert times[0] == times[1] > 0
    lines = list(verify_all(tmp_path, tmp_path / "models"))
    assert lines == [f"{tmp_path / 'models' / 'small_sd'}: as it was saved"]


def test_what_was_left_open_is_obeyed_by_all_and_the_rest_by_what_is_shown():
    drawn, judge = scenes(40, seed=3), train_judge(seed=0, steps=60)
    asked = drawn.factors.clone()
    asked[:, 1:] = -1
    right = obeyed(judge, drawn.images, asked)
    assert right[:, 1:].all()
    wrong = (asked[:, :1] + 1) % 6
    both = right[:, 0] & obeyed(judge, drawn.images, torch.cat([wrong, asked[:, 1:]], 1))[:, 0]
    assert not both.any()
    with pytest.raises(ValueError, match="factors must be as many as images, 40, but are 3"):
        obeyed(judge, drawn.images, asked[:3])


@pytest.mark.parametrize(
    ("kind", "change", "said"),
    [
        (PromptRunConfig, {"dataset": "faces"}, "dataset must be one of scenes, cifar10"),
        (PromptRunConfig, {"method": "half"}, "method must be one of full, lora"),
        (PromptRunConfig, {"seeds": (1,)}, "seeds must hold at least 2"),
        (PromptRunConfig, {"seeds": (1, 1)}, "seeds must be a tuple of different values"),
        (PromptRunConfig, {"prompts": 300}, "prompts must be at most held_out, 150, but is 300"),
        (PromptRunConfig, {"guidance": 0.5}, "guidance must lie between 1.0 and 100.0"),
        (PromptRunConfig, {"examples": 200}, "examples must be at most prompts, 64, but is 200"),
        (PromptReplayConfig, {"budgets": ()}, "budgets must be a tuple of at least one"),
        (PromptReplayConfig, {"budgets": (2000,)}, "budgets must be at most seen, 1000"),
        (SmallConfig, {"seeds": (0, 1)}, "seeds must hold one seed"),
        (SmallConfig, {"guidances": ()}, "guidances must hold at least one"),
        (SmallConfig, {"examples": 600}, "examples must be at most judged, 512, but is 600"),
    ],
)
def test_settings_that_cannot_be_are_refused(kind, change, said):
    with pytest.raises(ValueError, match=said):
        kind(**change)


def test_the_command_line_runs_any_pipeline_by_either_method(
    quick, config, folder, tmp_path, monkeypatch
):
    known = cli.RUNS["sd-forgetting"]
    recorded = PromptRunConfig(**FEW)
    monkeypatch.setitem(cli.RUNS, "sd-forgetting", replace(known, config=recorded))
    folders = ["--out", str(tmp_path / "out"), "--work", str(tmp_path / "work")]
    cli.main(["run", "sd-forgetting", "--model", str(folder), "--method", "lora", *folders])
    found = provenance.read(tmp_path / "out" / "sd_forgetting_tiny_lora.csv")
    assert found.made["details"]["model"] == "tiny"
    assert len(found.rows) == 20


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["sd-forgetting", "--model", "no where"],
            "--model: name_or_path must be a folder or",
        ),
        (["sd-replay", "--model", "no where"], "--model: name_or_path must be a folder or"),
        (["sd-replay", "--method", "half"], "--method must be one of full, lora, but is 'half'"),
        (["replay-mnist", "--model", "x"], "--model of replay-mnist must be left out, but is 'x'"),
        (["small-sd", "--method", "lora"], "--method of small-sd must be left out, but is 'lora'"),
    ],
)
def test_the_command_line_refuses_what_it_cannot_fine_tune(capsys, arguments, said):
    with pytest.raises(SystemExit) as stopped:
        cli.main(["run", *arguments])
    assert stopped.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()  # no progress bar has begun
    assert said in line
