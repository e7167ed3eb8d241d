import subprocess
import sys
from dataclasses import replace

import pytest

from hopfield_cl import cli
from hopfield_cl.records import provenance
from hopfield_cl.runs.replay_in_closed_form import ReplayConfig

TINY = ReplayConfig(
    dataset="digits", steps=(1.0,), budgets=(0, 5), seeds=(0, 1), probes=5, examples=2
)


@pytest.fixture
def quick(monkeypatch):
    """A command line whose only run takes a second."""
    known = cli.RUNS["replay-mnist"]
    monkeypatch.setattr(cli, "RUNS", {"replay-mnist": replace(known, config=TINY)})


def refusal(capsys, *arguments):
    with pytest.raises(SystemExit) as stopped:
        cli.main(arguments)
    assert stopped.value.code == 2
    said = capsys.readouterr()
    assert said.out == ""
    return said.err


def test_the_list_names_each_run_with_what_it_measures(capsys):
    cli.main(["list"])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(cli.RUNS)
    assert "replay budget" in lines[0]


def test_a_run_writes_table_provenance_and_images(quick, tmp_path, capsys):
    cli.main(["run", "replay-mnist", "--out", str(tmp_path / "new")])
    assert "replay_mnist.csv" in capsys.readouterr().out
    names = sorted(path.name for path in (tmp_path / "new").iterdir())
    assert names == ["replay_mnist.csv", "replay_mnist.json", "replay_mnist.png"]
    found = provenance.read(tmp_path / "new" / "replay_mnist.csv")
    assert found.made["seconds"] > 0
    assert found.made["seeds"] == [0, 1]
    assert {row["strategy"] for row in found.rows} >= {"greedy", "highest", "random", "lowest"}


def test_a_run_takes_the_seeds_it_is_given(quick, tmp_path):
    cli.main(["run", "replay-mnist", "--seeds", "7", "8", "--out", str(tmp_path)])
    assert provenance.read(tmp_path / "replay_mnist.csv").made["seeds"] == [7, 8]


def test_a_run_takes_another_image_set_and_leaves_the_recorded_table_alone(monkeypatch, tmp_path):
    known = replace(cli.RUNS["replay-mnist"], config=replace(TINY, dataset="mnist"))
    monkeypatch.setattr(cli, "RUNS", {"replay-mnist": known})
    cli.main(["run", "replay-mnist", "--dataset", "digits", "--out", str(tmp_path)])
    found = provenance.read(tmp_path / "replay_mnist_digits.csv")
    assert found.made["notes"].startswith("digits, ")
    assert not (tmp_path / "replay_mnist.csv").exists()


def test_the_image_set_of_the_recorded_run_may_be_named(monkeypatch, tmp_path):
    known = replace(cli.RUNS["replay-mnist"], config=TINY)
    monkeypatch.setattr(cli, "RUNS", {"replay-mnist": known})
    cli.main(["run", "replay-mnist", "--dataset", "digits", "--out", str(tmp_path)])
    assert (tmp_path / "replay_mnist.csv").exists()


def test_every_run_can_take_the_image_set_of_its_configuration():
    for known in cli.RUNS.values():
        assert not known.datasets or known.config.dataset in known.datasets


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "the following arguments are required: command"),
        (["run"], "the following arguments are required: NAME"),
        (["run", "other"], f"no run is called 'other'; there are {', '.join(cli.RUNS)}."),
        (
            ["run", "replay-mnist", "--dataset", "cifar10"],
            "--dataset of replay-mnist must be one of mnist, digits, but is 'cifar10'.",
        ),
        (
            ["run", "learned-forgetting", "--dataset", "mnist"],
            "--dataset of learned-forgetting must be left out, but is 'mnist'.",
        ),
        (["run", "replay-mnist", "--seeds", "1"], "--seeds must hold at least 2, but holds 1."),
        (["run", "replay-mnist", "--seeds", "-3", "1"], "--seeds must be at least 0, but is -3."),
        (["run", "replay-mnist", "--seeds", "x"], "argument --seeds: invalid int value: 'x'"),
        (
            ["run", "replay-mnist", "--device", "abacus"],
            "--device must be one that PyTorch has here, but is 'abacus'.",
        ),
    ],
)
def test_what_cannot_be_done_is_refused_in_one_sentence(capsys, arguments, sentence):
    assert refusal(capsys, *arguments) == f"hopfield-cl: {sentence}\n"


def test_an_output_folder_that_is_a_file_is_refused(capsys, tmp_path):
    file = tmp_path / "file"
    file.write_text("")
    for out in (file, file / "below"):
        said = refusal(capsys, "run", "replay-mnist", "--out", str(out))
        assert (
            said == f"hopfield-cl: --out must be a folder, but {str(out)!r} leads through a file.\n"
        )


def test_the_module_is_the_command_too():
    command = [sys.executable, "-m", "hopfield_cl.cli", "run", "other"]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 2
    assert run.stderr.startswith("hopfield-cl: no run is called 'other'")


def test_a_diffusion_model_forgets_end_to_end(tmp_path):
    command = [sys.executable, "-m", "hopfield_cl.cli", "run", "ddpm-forgetting"]
    places = [f"--{name}={tmp_path / name}" for name in ("out", "work", "models")]
    subprocess.run([*command, "--dataset", "digits", "--seeds", "0", "1", *places], check=True)
    found = provenance.read(tmp_path / "out" / "ddpm_forgetting_digits.csv")
    errors = {
        when: sum(row[f"error_799_{when}"] for row in found.rows) for when in ("before", "after")
    }
    assert errors["after"] > errors["before"]
    saved = sorted(path.name for path in (tmp_path / "models").iterdir())
    assert saved == ["ddpm_digits_task1", "ddpm_digits_task2"]
