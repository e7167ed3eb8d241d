"""The command line: make the recorded results again.

``hopfield-cl list`` names them; ``hopfield-cl run NAME [--dataset D] [--seeds N ...] [--device D]
[--out DIR]`` makes one; ``hopfield-cl verify`` checks what was recorded, and computes some of it
again.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NoReturn

import torch

from hopfield_cl import provenance
from hopfield_cl.diffusion.checkpoints import verify_model
from hopfield_cl.experiments import Recording, ReplayConfig, replay_run
from hopfield_cl.learned_forgetting import LearnedForgettingConfig, learned_forgetting_run


@dataclass(frozen=True)
class Run:
    """A full-scale run that the command line knows.

    Attributes
    ----------
    summary : str
        What it measures, in one line.
    run : callable
        Takes a configuration and ``device``; returns a ``Recording``.
    config : object
        The configuration of the recorded results: a frozen dataclass with a field ``seeds``.
    datasets : tuple of str
        Image sets that it can take: values of the configuration's field ``dataset``. Empty if there
        is no choice.
    """

    summary: str
    run: Callable[..., Recording]
    config: ReplayConfig | LearnedForgettingConfig
    datasets: tuple[str, ...] = ()


RUNS = {
    "replay-mnist": Run(
        "five ways to spend a replay budget on 5,000 MNIST images, as task 2 replaces task 1",
        replay_run,
        ReplayConfig(),
        ("mnist", "digits"),
    ),
    "learned-forgetting": Run(
        "learned against intrinsic forgetting of the Boltzmann machine, on digits and MNIST",
        learned_forgetting_run,
        LearnedForgettingConfig(),
    ),
}


_WITHOUT_CHANCE = ("greedy", "highest", "lowest")
# Of numbers computed again, relative and absolute: more than another machine makes of them.
_TOLERANCE = 1e-4


class _Parser(argparse.ArgumentParser):
    """A parser that refuses in one sentence."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"hopfield-cl: {message}\n")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line.

    Parameters
    ----------
    arguments : sequence of str, optional
        Words after the program's name; those it was called with if not given.

    Raises
    ------
    SystemExit
        With status 2, after one sentence, if they ask for what cannot be done; with status 1, after
        one sentence, if something is not as it was recorded.
    """
    parser = _parser()
    asked = parser.parse_args(arguments)
    if asked.command == "list":
        for name, known in RUNS.items():
            print(f"{name:20} {known.summary}")
    elif asked.command == "verify":
        _verify(parser, asked.folder, asked.checkpoints)
    else:
        _run(parser, asked)


def _run(parser: argparse.ArgumentParser, asked: argparse.Namespace) -> None:
    if asked.name not in RUNS:
        parser.error(f"no run is called {asked.name!r}; there are {', '.join(RUNS)}.")
    known = RUNS[asked.name]
    config, stem = known.config, _stem(asked.name)
    if any(folder.exists() and not folder.is_dir() for folder in (asked.out, *asked.out.parents)):
        parser.error(f"--out must be a folder, but {str(asked.out)!r} leads through a file.")
    try:
        torch.empty(0, device=asked.device)
    except (RuntimeError, AssertionError):
        parser.error(f"--device must be one that PyTorch has here, but is {asked.device!r}.")
    if asked.dataset is not None:
        if asked.dataset not in known.datasets:
            choice = f"one of {', '.join(known.datasets)}" if known.datasets else "left out"
            parser.error(f"--dataset of {asked.name} must be {choice}, but is {asked.dataset!r}.")
        if asked.dataset != config.dataset:  # what is recorded of another image set stays
            config, stem = replace(config, dataset=asked.dataset), f"{stem}_{asked.dataset}"
    if asked.seeds is not None:
        try:
            config = replace(config, seeds=tuple(asked.seeds))
        except ValueError as problem:
            parser.error(f"--{problem}")
    table = asked.out / f"{stem}.csv"
    began = time.perf_counter()
    recording = known.run(config, device=asked.device)
    recording.save(table, seconds=time.perf_counter() - began)
    print(f"Wrote {table}, and beside it its provenance and its images.")


def _verify(parser: argparse.ArgumentParser, folder: Path, checkpoints: Path) -> None:
    """Check every table and every model against its hashes, and compute some rows again."""
    # A provenance whose table is gone counts too.
    files = [*folder.glob("*.csv"), *folder.glob("*.json")]
    tables = sorted({path.with_suffix(".csv") for path in files})
    models = sorted(path for path in checkpoints.glob("*") if path.is_dir())
    for option, place, found in (("folder", folder, tables), ("checkpoints", checkpoints, models)):
        if not found:
            parser.error(f"--{option} must hold what was recorded, but {str(place)!r} does not.")
    try:
        for table in tables:
            provenance.verify(table)
            print(f"{table}: as it was recorded", flush=True)
        for model in models:
            verify_model(model)
            print(f"{model}: as it was saved", flush=True)
        for name, recompute in RECOMPUTE.items():
            if folder / f"{_stem(name)}.csv" in tables:
                print(f"{name}: {recompute(folder, checkpoints)}", flush=True)
    except (FileNotFoundError, ValueError) as problem:
        parser.exit(1, f"hopfield-cl: {problem}\n")


def _recompute_replay(folder: Path, checkpoints: Path) -> str:
    """Rows in which nothing is drawn: all of task 1 replaced, replay chosen by rank or by gain."""
    table = folder / f"{_stem('replay-mnist')}.csv"
    recorded = {_cell(row): row for row in provenance.read(table).rows}
    config = ReplayConfig(steps=(1.0,), budgets=(0, 125), seeds=(0, 1), probes=1, examples=1)
    rows = [row for row in replay_run(config).rows if row["strategy"] in _WITHOUT_CHANCE]
    measures = ("taken_back", "taken_back_top", "rise_left", "rise_left_top")
    return _compared(table, rows, recorded, measures)


def _compared(
    table: Path,
    rows: Sequence[dict[str, object]],
    recorded: dict[object, dict[str, object]],
    measures: Sequence[str],
) -> str:
    """Say how far rows computed again are off, or refuse the table."""
    furthest = 0.0
    for row in rows:
        cell = _cell(row)
        if cell not in recorded:
            raise ValueError(f"{table} must hold a row for {cell}, but does not.")
        for measure in measures:
            there = recorded[cell][measure]
            if not math.isclose(row[measure], there, rel_tol=_TOLERANCE, abs_tol=_TOLERANCE):
                raise ValueError(
                    f"{table} must hold {measure} = {row[measure]:g} at {cell}, as was computed "
                    f"again, but holds {there:g}."
                )
            furthest = max(furthest, abs(row[measure] - there))
    return f"{len(rows)} rows computed again, {', '.join(measures)} at most {furthest:.1e} off"


def _cell(row: dict[str, object]) -> tuple[float, str, int]:
    return float(row["step"]), row["strategy"], int(row["budget"])


def _stem(name: str) -> str:
    return name.replace("-", "_")


# By run: computes recorded rows again at small scale, from the folders of the tables and of the
# models; returns what it computed and how far it is off, or raises ValueError.
RECOMPUTE: dict[str, Callable[[Path, Path], str]] = {"replay-mnist": _recompute_replay}


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="hopfield-cl", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="name the runs that can be recorded")
    run = commands.add_parser("run", help="make a recorded result again")
    run.add_argument("name", metavar="NAME", help="the run, as in the list")
    run.add_argument("--dataset", metavar="D", help="instead of the recorded image set")
    run.add_argument("--seeds", type=int, nargs="+", metavar="N", help="instead of the recorded")
    run.add_argument("--device", default="cpu", help="where to compute: cpu, cuda, ...")
    run.add_argument("--out", type=Path, default=Path("results"), help="folder to write to")
    verify = commands.add_parser("verify", help="check what was recorded against its hashes")
    verify.add_argument("--folder", type=Path, default=Path("results"), help="recorded tables")
    verify.add_argument("--checkpoints", type=Path, default=Path("checkpoints"), help="models")
    return parser


if __name__ == "__main__":
    main()
