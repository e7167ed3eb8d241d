import subprocess
import sys
from dataclasses import replace

import pytest

from hopfield_cl import cli, provenance
from hopfield_cl.diffusion.checkpoints import save_model
from hopfield_cl.diffusion.models import ModelConfig, new_model
from hopfield_cl.experiments import ReplayConfig

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


# What was recorded, checked


@pytest.fixture
def recorded(tmp_path):
    """A folder with two tables and one with a model."""
    for name in ("a", "b"):
        rows = [{"x": 1}, {"x": 2}]
        provenance.record(tmp_path / "results" / f"{name}.csv", rows, seeds=[0], seconds=1.0)
    model = new_model(ModelConfig(image_size=8, patch=2, widths=(8, 16), groups=4), seed=0)
    save_model(tmp_path / "checkpoints" / "tiny", model, training={"steps": 0})
    return tmp_path


def verify(folder):
    places = ["--folder", str(folder / "results"), "--checkpoints", str(folder / "checkpoints")]
    cli.main(["verify", *places])


def caught(capsys, folder):
    """What is printed, and the one sentence, when something is not as it was recorded."""
    with pytest.raises(SystemExit) as stopped:
        verify(folder)
    assert stopped.value.code == 1
    said = capsys.readouterr()
    *progress, sentence = said.err.splitlines()
    assert all("cell" in bar or not bar for bar in progress)
    return said.out, sentence


def test_tables_and_models_that_are_as_they_were_get_a_line_each(recorded, capsys):
    verify(recorded)
    assert capsys.readouterr().out.splitlines() == [
        f"{recorded / 'results' / 'a.csv'}: as it was recorded",
        f"{recorded / 'results' / 'b.csv'}: as it was recorded",
        f"{recorded / 'checkpoints' / 'tiny'}: as it was saved",
    ]


def test_an_altered_table_ends_the_check_in_one_sentence(recorded, capsys):
    with (recorded / "results" / "b.csv").open("a") as file:
        file.write("3\n")
    out, sentence = caught(capsys, recorded)
    assert out == f"{recorded / 'results' / 'a.csv'}: as it was recorded\n"
    assert sentence.startswith(f"hopfield-cl: {recorded / 'results' / 'b.csv'} must be the file")


@pytest.mark.parametrize("ending", [".csv", ".json"])
def test_a_table_without_provenance_or_the_other_way_round_ends_the_check(recorded, capsys, ending):
    (recorded / "results" / f"b{ending}").unlink()
    assert f"b{ending}, but there is no such file." in caught(capsys, recorded)[1]


def test_an_altered_model_ends_the_check(recorded, capsys):
    weights = next((recorded / "checkpoints").rglob("*.safetensors"))
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    out, sentence = caught(capsys, recorded)
    assert len(out.splitlines()) == 2
    assert str(weights) in sentence


@pytest.mark.parametrize(("option", "gone"), [("folder", "results"), ("checkpoints",) * 2])
def test_a_folder_that_holds_nothing_recorded_is_refused(recorded, capsys, option, gone):
    (recorded / gone).rename(recorded / "elsewhere")
    with pytest.raises(SystemExit) as stopped:
        verify(recorded)
    assert stopped.value.code == 2
    assert f"--{option} must hold what was recorded, but" in capsys.readouterr().err


def replay_table(recorded, change):
    """Record a replay run of digits, each number of it passed through ``change``."""
    rows = cli.replay_run(TINY).rows
    changed = [
        {key: change(key, value) if key != "strategy" else value for key, value in row.items()}
        for row in rows
    ]
    table = recorded / "results" / "replay_mnist.csv"
    provenance.record(table, changed, seeds=[0, 1], seconds=1.0)


@pytest.fixture
def of_digits(monkeypatch):
    """Recompute the run of digits in place of that of MNIST."""
    run = cli.replay_run
    monkeypatch.setattr(cli, "replay_run", lambda config: run(TINY))


def test_recorded_rows_are_computed_again(recorded, of_digits, capsys):
    replay_table(recorded, lambda key, value: value)
    verify(recorded)
    line = capsys.readouterr().out.splitlines()[-1]
    assert line.startswith("replay-mnist: 6 rows computed again, taken_back, taken_back_top, rise")
    assert line.endswith("at most 0.0e+00 off")


def test_a_number_that_does_not_come_out_again_ends_the_check(recorded, of_digits, capsys):
    replay_table(recorded, lambda key, value: value + 0.001 if key == "rise_left" else value)
    sentence = caught(capsys, recorded)[1]
    assert "replay_mnist.csv must hold rise_left = " in sentence
    assert "as was computed again, but holds" in sentence


def test_a_table_that_lacks_the_row_ends_the_check(recorded, of_digits, capsys):
    replay_table(recorded, lambda key, value: 3 if key == "budget" else value)
    assert "must hold a row for (1.0, 'greedy', 0), but does not" in caught(capsys, recorded)[1]


def test_the_recorded_replay_run_comes_out_again():
    line = cli.RECOMPUTE["replay-mnist"](provenance.RESULTS, provenance.RESULTS)
    assert line.startswith("6 rows computed again")
    assert float(line.split()[-2]) <= 1e-5


def test_what_can_be_computed_again_is_a_run():
    assert set(cli.RECOMPUTE) <= set(cli.RUNS)
