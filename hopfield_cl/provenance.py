"""How a recorded number came about: one way to write a run down, for every script of the book."""

from __future__ import annotations

import csv
import datetime
import json
import os
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path

import torch

_ROOT = Path(__file__).resolve().parent.parent
_PACKAGES = ("hopfield_cl", "torch", "numpy", "scipy", "scikit-learn")


def record(
    table: str | Path,
    rows: Sequence[Mapping[str, object]],
    *,
    seeds: Sequence[int],
    seconds: float,
    notes: str = "",
) -> None:
    """Write a table as CSV, and beside it a JSON file that says how it was made.

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

    Raises
    ------
    ValueError
        If the table's name does not end in .csv, or there are no rows, or their keys differ.
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
    table.parent.mkdir(parents=True, exist_ok=True)
    with table.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    provenance = {
        "table": table.name,
        "command": _command(),
        "commit": _git("rev-parse", "HEAD"),
        "changed_since_commit": sorted(_git("diff", "--name-only", "HEAD").splitlines()),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "seconds": round(seconds, 1),
        "seeds": list(seeds),
        "versions": {name: metadata.version(name) for name in _PACKAGES}
        | {"python": platform.python_version()},
        "hardware": hardware(),
        "notes": notes,
    }
    text = json.dumps(provenance, indent=2, ensure_ascii=False)
    table.with_suffix(".json").write_text(text + "\n", encoding="utf-8")


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


def _processor() -> str:
    listing = Path("/proc/cpuinfo")  # Linux; elsewhere the standard library's word must do
    if listing.exists():
        for line in listing.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _command() -> str:
    """The command line as one types it in the repository."""
    script = Path(sys.argv[0]).resolve()
    name = str(script.relative_to(_ROOT)) if script.is_relative_to(_ROOT) else script.name
    return " ".join(["python", name, *sys.argv[1:]])


def _git(*arguments: str) -> str:
    """Output of git, or an empty string where the package does not lie in a repository."""
    run = subprocess.run(
        ["git", *arguments], cwd=_ROOT, capture_output=True, text=True, check=False
    )
    return run.stdout.strip()
