from pathlib import Path

import pytest

from hopfield_cl import cli
from hopfield_cl.diffusion.checkpoints import save_model
from hopfield_cl.diffusion.models import ModelConfig, new_model
from hopfield_cl.records import provenance, repository
from hopfield_cl.runs import verification
from hopfield_cl.runs.replay_in_closed_form import ReplayConfig, replay_run

CHECKPOINTS = Path(__file__).parents[2] / "checkpoints"
TINY = ReplayConfig(
    dataset="digits", steps=(1.0,), budgets=(0, 5), seeds=(0, 1), probes=5, examples=2
)


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
    rows = replay_run(TINY).rows
    changed = [
        {key: change(key, value) if key != "strategy" else value for key, value in row.items()}
        for row in rows
    ]
    table = recorded / "results" / "replay_mnist.csv"
    provenance.record(table, changed, seeds=[0, 1], seconds=1.0)


@pytest.fixture
def of_digits(monkeypatch):
    """Recompute the run of digits in place of that of MNIST."""
    monkeypatch.setattr(verification, "replay_run", lambda config: replay_run(TINY))


def test_recorded_rows_are_computed_again(recorded, of_digits, capsys):
    replay_table(recorded, lambda key, value: value)
    verify(recorded)
    line = capsys.readouterr().out.splitlines()[-1]
    assert line.startswith(
        "replay_mnist.csv: 6 rows computed again, taken_back, taken_back_top, rise"
    )
    assert line.endswith("at most 0.0e+00 off")


def test_a_number_that_does_not_come_out_again_ends_the_check(recorded, of_digits, capsys):
    replay_table(recorded, lambda key, value: value + 0.001 if key == "rise_left" else value)
    sentence = caught(capsys, recorded)[1]
    assert "replay_mnist.csv must hold rise_left = " in sentence
    assert "as was computed again, but holds" in sentence


def test_a_table_that_lacks_the_row_ends_the_check(recorded, of_digits, capsys):
    replay_table(recorded, lambda key, value: 3 if key == "budget" else value)
    assert "must hold a row for (1.0, 'greedy', 0), but does not" in caught(capsys, recorded)[1]


@pytest.mark.parametrize("table", list(verification.RECOMPUTE))
def test_the_recorded_runs_come_out_again(table):
    line = verification.RECOMPUTE[table](repository.results(table), CHECKPOINTS)
    assert "rows computed again" in line
    assert float(line.split()[-2]) <= 1e-3


def test_what_can_be_computed_again_is_a_run():
    names = {f"{name.replace('-', '_')}.csv" for name in cli.RUNS}
    assert set(verification.RECOMPUTE) <= names
