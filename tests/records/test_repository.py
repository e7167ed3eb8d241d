"""Where recorded files and models are found: beside a clone, by the setting, or not at all."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from hopfield_cl.records import provenance, repository

ROOT = Path(__file__).parents[2]
PROJECT = '[project]\nname = "hopfield_cl"\n'


def git(folder, *arguments):
    identity = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    command = ["git", *identity, *arguments]
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout


@pytest.fixture
def other(tmp_path):
    """A repository of something else, with one commit."""
    git(tmp_path, "init", "--quiet")
    (tmp_path / "file").write_text("")
    git(tmp_path, "add", "file")
    git(tmp_path, "commit", "--quiet", "--message", "else")
    return tmp_path


def place(monkeypatch, folder):
    """Have the package lie in a folder."""
    monkeypatch.setattr(repository, "PLACE", folder.resolve())


# Files


def test_in_a_clone_files_lie_beside_the_package():
    assert repository.home() == ROOT
    assert repository.results("replay_mnist.csv").is_file()
    assert repository.checkpoints("small_sd").is_dir()
    assert repository.results() == ROOT / "results"


def test_the_setting_names_another_clone(monkeypatch, tmp_path):
    (tmp_path / "pyproject.toml").write_text(PROJECT)
    monkeypatch.setenv(repository.SETTING, str(tmp_path))
    assert repository.results("a.csv") == tmp_path / "results" / "a.csv"


@pytest.mark.parametrize("project", [None, "[project]\nname = 'other'\n", "[", "\x00"])
def test_a_setting_that_names_no_clone_is_refused(monkeypatch, tmp_path, project):
    if project is not None:
        (tmp_path / "pyproject.toml").write_text(project)
    monkeypatch.setenv(repository.SETTING, str(tmp_path))
    with pytest.raises(FileNotFoundError) as refused:
        repository.results()
    assert str(refused.value) == (
        "HOPFIELD_CL_HOME must name the folder of a clone of the book's repository, but is "
        f"{str(tmp_path)!r}."
    )


def test_without_a_clone_one_sentence_says_where_to_get_what_is_missing(monkeypatch, tmp_path):
    place(monkeypatch, tmp_path)
    assert repository.home() is None
    with pytest.raises(FileNotFoundError) as refused:
        repository.results("replay_mnist.csv")
    assert str(refused.value) == (
        "results/replay_mnist.csv lies in the book's repository and is no part of the installed "
        "package: clone the repository, and name its folder in the environment variable "
        "HOPFIELD_CL_HOME."
    )


# The commit


def test_in_a_clone_git_names_the_commit():
    found = repository.state()
    assert found.commit == git(ROOT, "rev-parse", "HEAD").strip()
    assert list(found.changed) == sorted(git(ROOT, "diff", "--name-only", "HEAD").split("\n")[:-1])


def test_without_git_there_is_no_commit(monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert repository.state() == repository.State()


def test_the_commit_of_a_repository_round_an_installed_package_is_not_taken(monkeypatch, other):
    place(monkeypatch, other)
    assert repository.state() == repository.State()


def test_the_commit_of_a_repository_round_an_unpacked_source_is_not_taken(monkeypatch, other):
    source = other / "hopfield_cl-1.0"
    (source / "hopfield_cl").mkdir(parents=True)
    (source / "pyproject.toml").write_text(PROJECT)
    (source / "hopfield_cl" / "__init__.py").write_text("")
    place(monkeypatch, source)
    assert repository.state() == repository.State()
    place(monkeypatch, other)  # nor where the package lies there without being a part of it
    (other / "pyproject.toml").write_text(PROJECT)
    assert repository.state() == repository.State()


def test_a_clone_of_its_own_is_asked(monkeypatch, other):
    (other / "hopfield_cl").mkdir()
    (other / "hopfield_cl" / "__init__.py").write_text("")
    (other / "pyproject.toml").write_text(PROJECT)
    git(other, "add", ".")
    git(other, "commit", "--quiet", "--message", "ours")
    place(monkeypatch, other)
    (other / "file").write_text("changed")
    assert repository.state() == repository.State(
        git(other, "rev-parse", "HEAD").strip(), ("file",)
    )


def test_a_record_is_whole_on_a_machine_without_git(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", "")
    provenance.record(tmp_path / "run.csv", [{"x": 1}], seeds=[0], seconds=1.0)
    made = provenance.read(tmp_path / "run.csv").made
    assert made["commit"] == ""
    assert made["changed_since_commit"] == []
    assert made["versions"]["hopfield_cl"]


# The wheel


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The package, built into a wheel and installed from it into a folder of its own."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--quiet"]
    source = folder / "source"  # setuptools builds beside its source
    git(folder, "clone", "--quiet", str(ROOT), str(source))
    changed = git(ROOT, "ls-files", "--modified", "--others", "--exclude-standard", "hopfield_cl")
    for name in filter(lambda name: (ROOT / name).exists(), changed.split()):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes((ROOT / name).read_bytes())
    options = ["--no-deps", "--no-build-isolation", "--wheel-dir", str(folder)]
    subprocess.run([*pip, "wheel", *options, str(source)], check=True)
    (built,) = folder.glob("*.whl")
    subprocess.run(
        [*pip, "install", "--no-deps", "--target", str(folder / "site"), built], check=True
    )
    return folder / "site"


def run(site, cwd, *arguments, **variables):
    """Run Python with the wheel's package before all others, without git."""
    environment = os.environ | {"PYTHONPATH": str(site), "PATH": ""} | variables
    command = [sys.executable, *arguments]
    return subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )


USED = """
import json
import hopfield_cl
from hopfield_cl.records import provenance
from hopfield_cl.explore import Landscape, Record

provenance.record("run.csv", [{"x": 1}], seeds=[0], seconds=1.0)
try:
    said = str(Record().data["steps"])
except FileNotFoundError as problem:
    said = str(problem)
made = provenance.read("run.csv").made
print(json.dumps([hopfield_cl.__file__, len(Landscape().html()), made["commit"], said]))
"""


def test_from_a_wheel_figures_work_and_records_are_found_by_the_setting(wheel, other):
    for setting, expected in (("", "is no part of the installed package"), (str(ROOT), "[")):
        done = run(wheel, other, "-c", USED, HOPFIELD_CL_HOME=setting)
        assert done.returncode == 0, done.stderr
        file, length, commit, said = json.loads(done.stdout.splitlines()[-1])
        assert Path(file).is_relative_to(wheel)
        assert length > 10_000
        assert commit == ""
        assert expected in said


@pytest.mark.parametrize("words", [["verify"], ["run", "sd-forgetting"]], ids=" ".join)
def test_from_a_wheel_a_command_says_in_one_sentence_what_it_lacks(wheel, tmp_path, words):
    done = run(wheel, tmp_path, "-m", "hopfield_cl.cli", *words)
    assert done.returncode == 2
    assert done.stdout == ""
    line = done.stderr.splitlines()[-1]
    assert line.startswith("hopfield-cl: ")
    assert "name its folder in the environment variable HOPFIELD_CL_HOME" in line
    assert list(tmp_path.iterdir()) == []
