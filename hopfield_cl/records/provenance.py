"""How a recorded number came about: one way to write a run down, for every script of the book."""

from __future__ import annotations

import csv
import datetime
import hashlib
import io
import json
import os
import platform
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from hopfield_cl.records import repository

_PACKAGES = ("hopfield_cl", "torch", "numpy", "scipy", "scikit-learn", "diffusers", "accelerate")
_SHEET_COLUMNS = 32
_WHITE = 255


@dataclass(frozen=True)
class Recorded:
    """A recorded table as it was read.

    Attributes
    ----------
    rows : list of dict
        One a row, by column name; what reads as a number is a float, what is empty is None.
    made : dict
        How it was made, and its details: the content of the JSON file.
    sheet : bytes or None
        The PNG file with its small images, if it has any.
    """

    rows: list[dict[str, float | str | None]]
    made: dict[str, object]
    sheet: bytes | None

    def pictures(self) -> Float[Tensor, "T C h w"]:
        """Take the small images off their sheet.

        Returns
        -------
        Tensor of float32, shape (T, C, h, w)
            Pixel values in [−1, 1], in the order of their numbers; C is 1 for grey, 3 for colour.

        Raises
        ------
        ValueError
            If the table was recorded without images.
        """
        if self.sheet is None:
            raise ValueError(f"the table {self.made['table']} must have images, but has none.")
        layout = self.made["images"]
        height, width, columns = (layout[name] for name in ("height", "width", "columns"))
        sheet = torch.tensor(np.array(Image.open(io.BytesIO(self.sheet))))
        tiles = sheet.reshape(-1, height, columns, width, sheet[0, 0].numel()).swapaxes(1, 2)
        pixels = tiles.flatten(0, 1)[: layout["count"]].movedim(-1, 1)
        return pixels.float() / _WHITE * 2 - 1


def record(
    table: str | Path,
    rows: Sequence[Mapping[str, object]],
    *,
    seeds: Sequence[int],
    seconds: float,
    notes: str = "",
    details: Mapping[str, object] | None = None,
    images: UInt8[np.ndarray, "T h w ..."] | None = None,
) -> None:
    """Write a table as CSV, and beside it a JSON file that says how it was made, with its hash.

    Small images go on one sheet beside them, a PNG file: row by row from the top left, 32 a row.
    The table refers to them by number.

    Parameters
    ----------
    table : path
        Where the table goes, with the ending ``.csv``; its provenance goes beside it as ``.json``.
    rows : sequence of mappings
        One a row; all have the same keys, which become the column names.
    seeds : sequence of int
        Seeds of all random numbers in it.
    seconds : float
        How long the run took.
    notes : str
        What a reader of the table must know besides, in words.
    details : mapping, optional
        What a program that reads the table must know besides: labels, settings.
    images : array of uint8, shape (T, h, w) or (T, h, w, 3), optional
        Images of one size, grey or red, green, blue.

    Raises
    ------
    ValueError
        If the table's name does not end in .csv, or there are no rows, or their keys differ, or
        the images are no such array.
    """
    table = Path(table)
    if table.suffix != ".csv":
        raise ValueError(f"table must be named *.csv, but is {table.name!r}.")
    if not rows:
        raise ValueError("rows must hold at least one row, but is empty.")
    columns = list(rows[0])
    odd = next((number for number, row in enumerate(rows) if list(row) != columns), None)
    if odd is not None:
        raise ValueError(
            f"rows must all have the columns {columns}, but row {odd} has {list(rows[odd])}."
        )
    if images is not None:
        images = np.asarray(images)
        grey_or_colour = images.ndim == 3 or (images.ndim == 4 and images.shape[3] == 3)
        if images.dtype != np.uint8 or images.size == 0 or not grey_or_colour:
            raise ValueError(
                "images must be a non-empty array (T, h, w) or (T, h, w, 3) of uint8, but has "
                f"shape {images.shape} and dtype {images.dtype}."
            )
    # Asked before anything is written: what may fail here must not leave half a record.
    code = repository.state()
    table.parent.mkdir(parents=True, exist_ok=True)
    with table.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    provenance = {
        "table": table.name,
        "command": _command(),
        "commit": code.commit,
        "changed_since_commit": list(code.changed),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "seconds": round(seconds, 1),
        "seeds": list(seeds),
        "versions": {name: metadata.version(name) for name in _PACKAGES}
        | {"python": platform.python_version()},
        "hardware": hardware(),
        "notes": notes,
    }
    if details is not None:
        provenance["details"] = dict(details)
    if images is not None:
        _write_sheet(table.with_suffix(".png"), images)
        height, width = images.shape[1:3]
        layout = {"width": width, "height": height, "columns": _SHEET_COLUMNS}
        provenance["images"] = {"sheet": f"{table.stem}.png", **layout, "count": len(images)}
    provenance["sha256"] = {path.name: _sha256(path) for path in _files(table, provenance)}
    text = json.dumps(provenance, indent=2, ensure_ascii=False)
    table.with_suffix(".json").write_text(text + "\n", encoding="utf-8")


def read(table: str | Path) -> Recorded:
    """Read a table that :func:`record` has written, with its provenance and its images.

    Parameters
    ----------
    table : path
        The CSV file.

    Returns
    -------
    Recorded

    Raises
    ------
    FileNotFoundError
        If the table, its provenance, or the sheet that this names is not there.
    ValueError
        If the table holds no rows.
    """
    table = Path(table)
    made_at = table.with_suffix(".json")
    for file, what in ((table, "table"), (made_at, "provenance of the table")):
        if not file.is_file():
            raise FileNotFoundError(f"the {what} must lie in {file}, but there is no such file.")
    made = json.loads(made_at.read_text(encoding="utf-8"))
    with table.open(newline="", encoding="utf-8") as file:
        rows = [{k: _value(v) for k, v in row.items()} for row in csv.DictReader(file)]
    if not rows:
        raise ValueError(f"the table {table} must hold at least one row, but is empty.")
    sheet = table.with_name(made["images"]["sheet"]).read_bytes() if "images" in made else None
    return Recorded(rows, made, sheet)


def verify(table: str | Path) -> None:
    """Check that a table and its images are, byte for byte, those that were recorded.

    Parameters
    ----------
    table : path
        The CSV file.

    Raises
    ------
    FileNotFoundError
        If the table, its provenance, or the sheet that this names is not there.
    ValueError
        If the provenance is no JSON or holds no hash of a file, or a file differs from its hash.
    """
    table = Path(table)
    made_at = table.with_suffix(".json")
    if not made_at.is_file():
        raise FileNotFoundError(
            f"the provenance of {table} must lie in {made_at}, but there is no such file."
        )
    try:
        made = json.loads(made_at.read_text(encoding="utf-8"))
    except ValueError as problem:  # what is no JSON, and what is no UTF-8
        raise ValueError(f"{made_at} must be JSON in UTF-8, but is not: {problem}.") from problem
    if not isinstance(made, dict) or not isinstance(made.get("sha256"), dict):
        raise ValueError(f'{made_at} must hold hashes under "sha256", but does not.')
    for path in _files(table, made):
        if path.name not in made["sha256"]:
            raise ValueError(f"{made_at} must hold the SHA-256 of {path.name}, but does not.")
        if not path.is_file():
            raise FileNotFoundError(f"{made_at} tells of {path}, but there is no such file.")
        recorded, found = made["sha256"][path.name], _sha256(path)
        if found != recorded:
            raise ValueError(
                f"{path} must be the file that was recorded, with SHA-256 {recorded}, but is "
                f"altered: its SHA-256 is {found}."
            )


def hardware() -> str:
    """Say what this process computes on.

    Returns
    -------
    str
        Processor, number of its cores that this process may use, threads of PyTorch, and GPU.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    line = f"{_processor()}, {cores} cores, {torch.get_num_threads()} threads"
    return f"{line}, {torch.cuda.get_device_name()}" if torch.cuda.is_available() else line


def _files(table: Path, made: Mapping[str, object]) -> list[Path]:
    """The table and, if it has images, their sheet; always beside it and under its name."""
    return [table, table.with_suffix(".png")] if "images" in made else [table]


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _processor() -> str:
    listing = Path("/proc/cpuinfo")  # Linux; elsewhere the standard library's word must do
    if listing.exists():
        for line in listing.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _command() -> str:
    """The command line as one types it in the repository, without a path of this machine."""
    script, arguments = Path(sys.argv[0]), sys.argv[1:]
    module = getattr(sys.modules["__main__"], "__spec__", None)
    if script.parent == Path(sys.executable).parent:  # installed with the package: a console script
        words = [script.stem]
    elif module is not None:
        words = ["python", "-m", module.name.removesuffix(".__main__")]
    else:
        words = ["python", _in_repository(str(script.resolve()))]
    return shlex.join([*words, *(_in_repository(word) for word in arguments)])


def _in_repository(word: str) -> str:
    """An absolute path as seen from the repository, or its last part if it leads elsewhere."""
    path = Path(word)
    if not path.is_absolute():
        return word
    place = repository.PLACE
    return str(path.relative_to(place)) if path.is_relative_to(place) else path.name


def _value(text: str) -> float | str | None:
    try:
        return float(text)
    except ValueError:
        return text or None


def _write_sheet(path: Path, images: np.ndarray) -> None:
    count, height, width, *channels = images.shape
    rows = -(-count // _SHEET_COLUMNS)
    sheet = np.zeros((rows * _SHEET_COLUMNS, height, width, *channels), np.uint8)
    sheet[:count] = images
    sheet = sheet.reshape(rows, _SHEET_COLUMNS, height, width, *channels).swapaxes(1, 2)
    picture = sheet.reshape(rows * height, _SHEET_COLUMNS * width, *channels)
    Image.fromarray(picture).save(path, optimize=True)
