"""The book's repository, as seen from the package: where its files lie, and at which commit it is.

The package runs from a clone of the repository or is installed without it. What was recorded and
trained for the book is found in either case: beside the package, or in the folder that the
environment variable ``HOPFIELD_CL_HOME`` names.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tomllib
from dataclasses import dataclass
from pathlib import Path

PLACE = Path(__file__).resolve().parents[2]
"""The folder in which the package lies: the repository, if it is a clone."""

SETTING = "HOPFIELD_CL_HOME"
"""The environment variable that names the folder of a clone."""

_NAME = "hopfield_cl"


@dataclass(frozen=True)
class State:
    """The code that ran, as git knows it.

    Attributes
    ----------
    commit : str
        The commit, or an empty string where the package does not run from its own repository.
    changed : tuple of str
        Files that differ from it.
    """

    commit: str = ""
    changed: tuple[str, ...] = ()


def home() -> Path | None:
    """Find the book's repository.

    Returns
    -------
    Path or None
        The folder that the setting names, else that of the package; None if this is no clone.

    Raises
    ------
    FileNotFoundError
        If the setting names another folder.
    """
    chosen = os.environ.get(SETTING)
    if not chosen:
        return PLACE if _is_clone(PLACE) else None
    folder = Path(chosen).expanduser().resolve()
    if not _is_clone(folder):
        raise FileNotFoundError(
            f"{SETTING} must name the folder of a clone of the book's repository, but is "
            f"{chosen!r}."
        )
    return folder


def file(name: str) -> Path:
    """Find a file or a folder of the book's repository.

    Parameters
    ----------
    name : str
        Its path in the repository, such as ``"results/replay_mnist.csv"``.

    Returns
    -------
    Path
        Where it lies, whether or not there is such a file.

    Raises
    ------
    FileNotFoundError
        If the repository is not here, or the setting does not name it: it says what to do.
    """
    here = home()
    if here is None:
        raise FileNotFoundError(
            f"{name} lies in the book's repository and is no part of the installed package: clone "
            f"the repository, and name its folder in the environment variable {SETTING}."
        )
    return here / name


def results(name: str = "") -> Path:
    """Find a recorded table.

    Parameters
    ----------
    name : str
        Its file's name, such as ``"replay_mnist.csv"``; the folder of all of them if not given.

    Returns
    -------
    Path
        Where it lies, whether or not there is such a file.

    Raises
    ------
    FileNotFoundError
        If the repository is not here, or the setting does not name it.
    """
    return file(f"results/{name}")


def checkpoints(name: str = "") -> Path:
    """Find a trained model.

    Parameters
    ----------
    name : str
        Its folder's name, such as ``"small_sd"``; the folder of all of them if not given.

    Returns
    -------
    Path
        Where it lies, whether or not there is such a folder.

    Raises
    ------
    FileNotFoundError
        If the repository is not here, or the setting does not name it.
    """
    return file(f"checkpoints/{name}")


def state() -> State:
    """Ask git which code runs, if there is git, and if the package runs from its own repository.

    A package that was installed may lie within a repository of something else, whose commit would
    say nothing of it.

    Returns
    -------
    State
        An empty one where there is nothing to ask.
    """
    if shutil.which("git") is None or not _is_clone(PLACE):
        return State()
    top = _git("rev-parse", "--show-toplevel")
    if not top or Path(top).resolve() != PLACE or not _git("ls-files", "hopfield_cl/__init__.py"):
        return State()
    changed = _git("diff", "--name-only", "HEAD").splitlines()
    return State(_git("rev-parse", "HEAD"), tuple(sorted(changed)))


def _is_clone(folder: Path) -> bool:
    """Whether a folder is the book's repository: by the name in its project file."""
    try:
        project = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))
    except (OSError, ValueError):  # none, or another kind of file
        return False
    return project.get("project", {}).get("name") == _NAME


def _git(*arguments: str) -> str:
    """Output of git, or an empty string where it refuses."""
    run = subprocess.run(
        ["git", *arguments], cwd=PLACE, capture_output=True, text=True, check=False
    )
    return run.stdout.strip() if run.returncode == 0 else ""
