import csv
import json
import subprocess

import pytest
import torch

from hopfield_cl.provenance import hardware, record

ROWS = [{"strategy": "greedy", "gain": 0.5}, {"strategy": "random", "gain": 0.25}]


def written(folder, **options):
    table = folder / "runs" / "table.csv"
    record(table, ROWS, **({"seeds": [3, 4], "seconds": 12.34} | options))
    return table, json.loads(table.with_suffix(".json").read_text(encoding="utf-8"))


def test_a_recorded_table_reads_back_as_it_was(tmp_path):
    table, _ = written(tmp_path)
    with table.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["strategy"] for row in rows] == ["greedy", "random"]
    assert [float(row["gain"]) for row in rows] == [0.5, 0.25]


def test_provenance_names_seeds_duration_versions_hardware_and_notes(tmp_path):
    _, made = written(tmp_path, notes="float32")
    assert made["table"] == "table.csv"
    assert made["seeds"] == [3, 4]
    assert made["seconds"] == 12.3
    assert made["notes"] == "float32"
    assert made["versions"]["torch"] == torch.__version__
    assert made["hardware"] == hardware()
    assert f"{torch.get_num_threads()} threads" in made["hardware"]


def test_provenance_names_the_commit_and_what_changed_since(tmp_path):
    _, made = written(tmp_path)
    head = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    assert made["commit"] == head.stdout.strip()
    assert isinstance(made["changed_since_commit"], list)


def test_provenance_holds_no_path_of_the_machine(tmp_path):
    _, made = written(tmp_path)
    assert not made["command"].split()[1].startswith("/")
    assert str(tmp_path) not in json.dumps(made)


@pytest.mark.parametrize(
    ("table", "rows", "match"),
    [
        ("table.txt", ROWS, r"^table must be named \*\.csv, but is 'table.txt'"),
        ("table.csv", [], "^rows must hold at least one row"),
        ("table.csv", [{"a": 1}, {"b": 2}], r"^rows must all have the columns \['a'\], but row 1"),
    ],
    ids=["ending", "empty", "ragged"],
)
def test_a_table_that_cannot_be_recorded_is_refused(tmp_path, table, rows, match):
    with pytest.raises(ValueError, match=match):
        record(tmp_path / table, rows, seeds=[0], seconds=1.0)
    assert list(tmp_path.iterdir()) == []
