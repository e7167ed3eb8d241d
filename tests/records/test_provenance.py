import csv
import hashlib
import io
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from hopfield_cl.records import repository
from hopfield_cl.records.provenance import hardware, read, record, verify

ROOT = repository.PLACE
BESIDE_PYTHON = Path(sys.executable).parent
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
    ("arguments", "module", "expected"),
    [
        ([BESIDE_PYTHON / "hopfield-cl", "run", "x"], None, "hopfield-cl run x"),
        ([ROOT / "benchmarks/energy.py"], None, "python benchmarks/energy.py"),
        (["/elsewhere/script.py", "--n", "2"], None, "python script.py --n 2"),
        (
            [ROOT / "hopfield_cl/cli.py", "list"],
            "hopfield_cl.cli",
            "python -m hopfield_cl.cli list",
        ),
        (["/lib/pytest/__main__.py"], "pytest.__main__", "python -m pytest"),
        (
            [BESIDE_PYTHON / "hopfield-cl", ROOT / "results", "/home/me/a b", "c d"],
            None,
            "hopfield-cl results 'a b' 'c d'",
        ),
    ],
    ids=["console script", "script", "elsewhere", "module", "package", "paths"],
)
def test_the_command_reads_as_one_types_it(tmp_path, monkeypatch, arguments, module, expected):
    main = SimpleNamespace(__spec__=module and SimpleNamespace(name=module))
    monkeypatch.setitem(sys.modules, "__main__", main)
    monkeypatch.setattr(sys, "argv", [str(word) for word in arguments])
    assert written(tmp_path)[1]["command"] == expected


# Images and details


def test_what_was_written_is_read(tmp_path):
    table, made = written(tmp_path, details={"labels": {"gain": "the gain"}})
    found = read(table)
    assert found.rows == ROWS
    assert found.made == made
    assert found.made["details"] == {"labels": {"gain": "the gain"}}
    assert found.sheet is None


def test_an_empty_cell_of_a_table_is_read_as_none(tmp_path):
    record(tmp_path / "a.csv", [{"x": 1, "y": ""}], seeds=[0], seconds=1.0)
    assert read(tmp_path / "a.csv").rows == [{"x": 1.0, "y": None}]


@pytest.mark.parametrize("channels", [(), (3,)], ids=["grey", "colour"])
def test_images_lie_on_the_sheet_where_the_layout_says(tmp_path, channels):
    images = np.random.default_rng(0).integers(0, 256, (70, 5, 4, *channels), dtype=np.uint8)
    table, made = written(tmp_path, images=images)
    layout = made["images"]
    sheet = np.asarray(Image.open(io.BytesIO(read(table).sheet)))
    for number, image in enumerate(images):
        top = number // layout["columns"] * layout["height"]
        left = number % layout["columns"] * layout["width"]
        tile = sheet[top : top + layout["height"], left : left + layout["width"]]
        assert np.array_equal(tile, image)
    assert (layout["sheet"], layout["count"]) == ("table.png", 70)
    taken = read(table).pictures()
    assert taken.shape == (70, channels[0] if channels else 1, 5, 4)
    expected = torch.tensor(images).reshape(70, 5, 4, -1).movedim(-1, 1).float() / 127.5 - 1
    torch.testing.assert_close(taken, expected)


def test_pictures_of_a_table_without_any_are_refused(tmp_path):
    table, _ = written(tmp_path)
    with pytest.raises(ValueError, match=r"^the table table.csv must have images, but has none"):
        read(table).pictures()


@pytest.mark.parametrize(
    "images",
    [np.zeros((2, 3), np.uint8), np.zeros((2, 3, 3)), np.zeros((0, 3, 3), np.uint8)],
    ids=["flat", "float", "none"],
)
def test_what_is_no_set_of_images_is_refused(tmp_path, images):
    with pytest.raises(ValueError, match=r"^images must be a non-empty array \(T, h, w\)"):
        written(tmp_path, images=images)
    assert list(tmp_path.iterdir()) == []


def test_a_table_that_is_not_there_or_lacks_its_provenance_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"the table must lie in .*a\.csv"):
        read(tmp_path / "a.csv")
    (tmp_path / "a.csv").write_text("x\n1\n")
    with pytest.raises(FileNotFoundError, match=r"the provenance of the table must lie in .*json"):
        read(tmp_path / "a.csv")
    (tmp_path / "a.csv").write_text("x\n")
    (tmp_path / "a.json").write_text("{}")
    with pytest.raises(ValueError, match="must hold at least one row, but is empty"):
        read(tmp_path / "a.csv")


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


# Hashes

SMALL = np.zeros((3, 4, 4), np.uint8)


def test_provenance_holds_the_hash_of_the_table_and_of_its_images(tmp_path):
    table, made = written(tmp_path, images=SMALL)
    assert made["sha256"] == {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in (table, table.with_suffix(".png"))
    }
    assert list(written(tmp_path / "bare")[1]["sha256"]) == ["table.csv"]


def test_what_was_recorded_passes(tmp_path):
    verify(written(tmp_path, images=SMALL)[0])
    verify(str(written(tmp_path / "bare")[0]))


def altered(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    return bytes(data)


@pytest.mark.parametrize("ending", [".csv", ".png"])
@pytest.mark.parametrize(
    "change",
    [altered, lambda path: path.read_bytes()[:-1], lambda path: path.read_bytes() + b"\n"],
    ids=["altered", "truncated", "longer"],
)
def test_a_file_that_is_not_the_recorded_one_is_refused(tmp_path, ending, change):
    table, _ = written(tmp_path, images=SMALL)
    path = table.with_suffix(ending)
    path.write_bytes(change(path))
    match = rf"table\{ending} must be the file that was recorded, with SHA-256 \w{{64}}, but is alt"
    with pytest.raises(ValueError, match=match):
        verify(table)


@pytest.mark.parametrize("ending", [".csv", ".png", ".json"])
def test_a_file_that_is_gone_is_named(tmp_path, ending):
    table, _ = written(tmp_path, images=SMALL)
    table.with_suffix(ending).unlink()
    with pytest.raises(FileNotFoundError, match=rf"table\{ending}, but there is no such file\.$"):
        verify(table)


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("{}", 'must hold hashes under "sha256", but does not'),
        ("[]", 'must hold hashes under "sha256", but does not'),
        ('{"sha256": {}}', r"must hold the SHA-256 of table\.csv, but does not"),
        ('{"table": ', "must be JSON in UTF-8, but is not"),
    ],
)
def test_a_provenance_that_lacks_the_hash_is_refused(tmp_path, text, match):
    table, _ = written(tmp_path)
    table.with_suffix(".json").write_text(text)
    with pytest.raises(ValueError, match=match):
        verify(table)


def test_images_that_the_hashes_leave_out_are_refused(tmp_path):
    table, made = written(tmp_path, images=SMALL)
    del made["sha256"]["table.png"]
    table.with_suffix(".json").write_text(json.dumps(made))
    with pytest.raises(ValueError, match=r"must hold the SHA-256 of table\.png"):
        verify(table)


@pytest.mark.parametrize(
    "table", sorted(repository.results().glob("*.csv")), ids=lambda path: path.stem
)
def test_every_result_of_the_book_is_as_it_was_recorded(table):
    verify(table)
