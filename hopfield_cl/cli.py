"""The command line: make the recorded results again.

``hopfield-cl list`` names them; ``hopfield-cl run NAME [--dataset D] [--model M] [--method M]
[--seeds N ...] [--device D] [--out DIR]`` makes one, and goes on where it was killed if it is one
of the long ones;
``hopfield-cl verify`` checks what was recorded, and computes some of it again.
"""

from __future__ import annotations

import argparse
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

import torch

from hopfield_cl.diffusion.continual import SETTINGS
from hopfield_cl.records import repository
from hopfield_cl.records.recording import Recording
from hopfield_cl.runs.ddpm_forgetting import ForgettingConfig, forgetting_run
from hopfield_cl.runs.ddpm_laboratory import RunConfig
from hopfield_cl.runs.ddpm_replay import ReplayRunConfig, ddpm_replay_run
from hopfield_cl.runs.ddpm_stream import StreamConfig, stream_run
from hopfield_cl.runs.learned_forgetting import LearnedForgettingConfig, learned_forgetting_run
from hopfield_cl.runs.replay_in_closed_form import ReplayConfig, replay_run
from hopfield_cl.runs.sd_forgetting import prompt_forgetting_run
from hopfield_cl.runs.sd_laboratory import PromptRunConfig
from hopfield_cl.runs.sd_replay import PromptReplayConfig, prompt_replay_run
from hopfield_cl.runs.sd_small import SmallConfig, small_run
from hopfield_cl.runs.verification import verify_all
from hopfield_cl.stable.pipelines import SMALL_SD, PipelineError
from hopfield_cl.stable.tasks import SOURCES


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
    folders : tuple of str
        Which folders of the command line the callable takes by keyword: "work", for finished parts,
        from which it goes on when it was killed; "models", for the networks it trained.
    """

    summary: str
    run: Callable[..., Recording]
    config: ReplayConfig | LearnedForgettingConfig | RunConfig | PromptRunConfig | SmallConfig
    datasets: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()


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
    "ddpm-forgetting": Run(
        "which samples of task 1 a diffusion model forgets as it learns task 2, sample by sample",
        forgetting_run,
        ForgettingConfig(),
        tuple(SETTINGS),
        ("work", "models"),
    ),
    "ddpm-replay": Run(
        "what replay strategies, budgets, generative replay and EWC save in a diffusion model",
        ddpm_replay_run,
        ReplayRunConfig(),
        tuple(SETTINGS),
        ("work",),
    ),
    "ddpm-stream": Run(
        "a diffusion model that learns five tasks of two classes, one after another",
        stream_run,
        StreamConfig(),
        tuple(SETTINGS),
        ("work",),
    ),
    "small-sd": Run(
        "the book's small Stable Diffusion: trained on scenes, saved, and asked to draw",
        small_run,
        SmallConfig(),
        folders=("work", "models"),
    ),
    "sd-forgetting": Run(
        "which samples and which prompts of task 1 a Stable Diffusion forgets, one by one",
        prompt_forgetting_run,
        PromptRunConfig(),
        tuple(SOURCES),
        ("work",),
    ),
    "sd-replay": Run(
        "what replay by energy, by caption and by true rarity saves in a Stable Diffusion",
        prompt_replay_run,
        PromptReplayConfig(),
        tuple(SOURCES),
        ("work",),
    ),
}


# What is no part of a file's name.
_NO_NAME = re.compile(r"[^A-Za-z0-9]+")


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
        config = _with(parser, config, seeds=tuple(asked.seeds))
    for option in ("model", "method"):
        value = getattr(asked, option)
        if value is None:
            continue
        if not isinstance(config, PromptRunConfig):
            parser.error(f"--{option} of {asked.name} must be left out, but is {value!r}.")
        if _place(value) != _place(getattr(config, option)):
            stem = f"{stem}_{_stem_of(value)}"
        config = _with(parser, config, **{option: value})
    table = asked.out / f"{stem}.csv"
    began = time.perf_counter()
    folders = {name: getattr(asked, name) for name in known.folders}
    try:
        recording = known.run(config, device=asked.device, **folders)
    except (FileNotFoundError, ConnectionError) as problem:  # no images here, and none to be had
        parser.error(str(problem))
    except PipelineError as problem:
        parser.error(f"--model: {problem}")
    recording.save(table, seconds=time.perf_counter() - began)
    print(f"Wrote {table}, and beside it its provenance and its images.")


def _place(value: str) -> str | Path:
    """What an option means: a folder, however it is written, or a word."""
    if value == SMALL_SD and not Path(value).exists() and repository.home() is not None:
        return repository.checkpoints(SMALL_SD)
    return Path(value).resolve() if Path(value).is_dir() else value


def _stem_of(value: str) -> str:
    """Part of a file's name: of a folder its last name, of a name on the hub all of it."""
    return _NO_NAME.sub("_", Path(value).name if Path(value).is_dir() else value)


def _with(parser: argparse.ArgumentParser, config: object, **changes: object) -> Any:
    """Change a configuration, or refuse in its own words."""
    try:
        return replace(config, **changes)
    except ValueError as problem:
        parser.error(f"--{problem}")


def _verify(parser: argparse.ArgumentParser, folder: Path | None, checkpoints: Path | None) -> None:
    try:
        folder = folder or repository.results()
        checkpoints = checkpoints or repository.checkpoints()
    except FileNotFoundError as problem:
        parser.error(str(problem))
    for option, place in (("folder", folder), ("checkpoints", checkpoints)):
        if not place.is_dir() or not any(place.iterdir()):
            parser.error(f"--{option} must hold what was recorded, but {str(place)!r} does not.")
    try:
        for line in verify_all(folder, checkpoints):
            print(line, flush=True)
    except (FileNotFoundError, ValueError) as problem:
        parser.exit(1, f"hopfield-cl: {problem}\n")


def _stem(name: str) -> str:
    return name.replace("-", "_")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="hopfield-cl", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="name the runs that can be recorded")
    run = commands.add_parser("run", help="make a recorded result again")
    run.add_argument("name", metavar="NAME", help="the run, as in the list")
    run.add_argument("--dataset", metavar="D", help="instead of the recorded image set")
    run.add_argument("--model", metavar="M", help="pipeline: a folder, or a name on the hub")
    run.add_argument("--method", metavar="M", help="how it is fine-tuned: full or lora")
    run.add_argument("--seeds", type=int, nargs="+", metavar="N", help="instead of the recorded")
    run.add_argument("--device", default="cpu", help="where to compute: cpu, cuda, ...")
    run.add_argument("--out", type=Path, default=Path("results"), help="folder to write to")
    run.add_argument(
        "--work", type=Path, default=Path("_work/runs"), help="folder for finished parts of a run"
    )
    run.add_argument(
        "--models", type=Path, default=None, help="folder for the networks that a run trained"
    )
    verify = commands.add_parser("verify", help="check what was recorded against its hashes")
    verify.add_argument("--folder", type=Path, help="recorded tables, instead of the book's")
    verify.add_argument("--checkpoints", type=Path, help="models, instead of the book's")
    return parser


if __name__ == "__main__":
    main()
