"""The command line: make the recorded results again.

``hopfield-cl list`` names them; ``hopfield-cl run NAME [--seeds N ...] [--device D] [--out DIR]``
makes one.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NoReturn

import torch

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
    """

    summary: str
    run: Callable[..., Recording]
    config: ReplayConfig | LearnedForgettingConfig


RUNS = {
    "replay-mnist": Run(
        "five ways to spend a replay budget on 5,000 MNIST images, as task 2 replaces task 1",
        replay_run,
        ReplayConfig(),
    ),
    "learned-forgetting": Run(
        "learned against intrinsic forgetting of the Boltzmann machine, on digits and MNIST",
        learned_forgetting_run,
        LearnedForgettingConfig(),
    ),
}


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
        With status 2, after one sentence, if they ask for what cannot be done.
    """
    parser = _parser()
    asked = parser.parse_args(arguments)
    if asked.command == "list":
        for name, known in RUNS.items():
            print(f"{name:20} {known.summary}")
        return
    if asked.name not in RUNS:
        parser.error(f"no run is called {asked.name!r}; there are {', '.join(RUNS)}.")
    known, table = RUNS[asked.name], asked.out / f"{asked.name.replace('-', '_')}.csv"
    if any(folder.exists() and not folder.is_dir() for folder in (asked.out, *asked.out.parents)):
        parser.error(f"--out must be a folder, but {str(asked.out)!r} leads through a file.")
    try:
        torch.empty(0, device=asked.device)
    except (RuntimeError, AssertionError):
        parser.error(f"--device must be one that PyTorch has here, but is {asked.device!r}.")
    config = known.config
    if asked.seeds is not None:
        try:
            config = replace(config, seeds=tuple(asked.seeds))
        except ValueError as problem:
            parser.error(f"--{problem}")
    began = time.perf_counter()
    recording = known.run(config, device=asked.device)
    recording.save(table, seconds=time.perf_counter() - began)
    print(f"Wrote {table}, and beside it its provenance and its images.")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="hopfield-cl", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="name the runs that can be recorded")
    run = commands.add_parser("run", help="make a recorded result again")
    run.add_argument("name", metavar="NAME", help="the run, as in the list")
    run.add_argument("--seeds", type=int, nargs="+", metavar="N", help="instead of the recorded")
    run.add_argument("--device", default="cpu", help="where to compute: cpu, cuda, ...")
    run.add_argument("--out", type=Path, default=Path("results"), help="folder to write to")
    return parser


if __name__ == "__main__":
    main()
