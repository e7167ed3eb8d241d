"""When a notebook counts as stale, and what happens when it reads what it has not declared."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import build
import nbformat
import pytest
import site_files
import staleness
from site_files import ROOT

FIRST = "book/part1/memories_as_basins.ipynb"
LAST = "book/part3/stable_diffusion_forgets.ipynb"


@pytest.fixture
def tree(tmp_path):
    """A copy of what notebooks depend on, to change."""
    for folder in ("book", "hopfield_cl", "results"):
        ignore = shutil.ignore_patterns("__pycache__", "*.png", "_static")
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=ignore)
    shutil.copytree(ROOT / "checkpoints" / "small_sd", tmp_path / "checkpoints" / "small_sd")
    shutil.copy(ROOT / "requirements.txt", tmp_path)
    return tmp_path


def keys(tree):
    return {
        path: staleness.key(staleness.parts(path.relative_to(ROOT), tree))
        for path in site_files.notebooks()
    }


def stale(tree, before):
    """Names of the notebooks whose key has changed."""
    return {path.stem for path, key in keys(tree).items() if before[path] != key}


def touch(path):
    path.write_bytes(path.read_bytes() + b"\n")


ALL = {path.stem for path in site_files.notebooks()}


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        ("hopfield_cl/stable/latents.py", {"stable_diffusion_forgets"}),
        ("hopfield_cl/stable/pipelines/building.py", {"stable_diffusion_forgets"}),
        ("hopfield_cl/energy.py", ALL),
        ("hopfield_cl/__init__.py", ALL),
        ("requirements.txt", ALL),
        ("book/part1/memories_as_basins.ipynb", {"memories_as_basins"}),
        ("results/sd_replay.csv", {"stable_diffusion_forgets"}),
        ("checkpoints/small_sd/vae/config.json", {"stable_diffusion_forgets"}),
        ("hopfield_cl/cli.py", set()),
        ("book/intro.md", set()),
    ],
)
def test_a_change_makes_stale_what_depends_on_it_and_nothing_else(tree, file, expected):
    before = keys(tree)
    if file.endswith(".ipynb"):
        (tree / file).write_text((tree / file).read_text().replace("\n", "\n\n", 1))
    else:
        touch(tree / file)
    assert stale(tree, before) == expected


def test_a_script_that_a_figure_ships_counts_too(tree):
    before = keys(tree)
    touch(tree / "hopfield_cl" / "explore" / "kit.js")
    assert "memories_as_basins" in stale(tree, before)


def test_the_reasons_name_what_changed():
    before = {"a.py": "1", "b.py": "1", "gone.py": "1"}
    assert staleness.reasons(before, {"a.py": "2", "b.py": "1"}) == "a.py, gone.py (no longer used)"
    many = {f"{k}.py": "0" for k in range(5)}
    assert staleness.reasons({}, many) == "0.py, 1.py, 2.py and 2 more"


def test_a_declared_file_that_is_not_there_is_refused(tree):
    (tree / "results" / "sd_replay.csv").unlink()
    (tree / "results" / "sd_replay.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"declares that it reads results/sd_replay, but"):
        staleness.parts((ROOT / LAST).relative_to(ROOT), tree)


@pytest.mark.parametrize(
    ("declared", "read", "fails"),
    [
        ("results/a", "results/a.csv", False),
        ("results/a,checkpoints/m", "checkpoints/m/unet/config.json", False),
        ("results/a", "results/ab.csv", True),
        ("", "checkpoints/m/unet/config.json", True),
        ("", "elsewhere/a.csv", False),
    ],
)
def test_a_kernel_of_the_build_reads_only_what_is_declared(tmp_path, declared, read, fails):
    (tmp_path / read).parent.mkdir(parents=True)
    (tmp_path / read).write_text("")
    code = f"exec(open({str(ROOT / 'book' / 'reads.py')!r}).read()); open({read!r}).close()"
    environment = os.environ | {"HOPFIELD_CL_BUILD": str(tmp_path), "HOPFIELD_CL_READS": declared}
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert (run.returncode != 0) == fails
    if fails:
        assert f"PermissionError: {read} must be declared in the notebook's metadata" in run.stderr


def test_a_notebook_that_reads_the_undeclared_fails_the_build(tmp_path, monkeypatch):
    content = nbformat.v4.new_notebook(
        cells=[
            nbformat.v4.new_code_cell(
                "from hopfield_cl.records import provenance, repository\n"
                'provenance.read(repository.results("replay_mnist.csv"))'
            )
        ]
    )
    content.metadata.kernelspec = {"name": "python3", "display_name": "Python 3"}
    monkeypatch.setattr(build, "WORK", tmp_path / "work")
    monkeypatch.setattr(build, "EXECUTED", tmp_path / "work" / "executed")
    path = tmp_path / "reader.ipynb"
    nbformat.write(content, path)
    each = build.Execution(path, {"a": "1"})
    with pytest.raises(subprocess.CalledProcessError):
        build.execute(each)
    assert not each.kept.exists()
    content.metadata.hopfield_cl = {"reads": ["results/replay_mnist"]}
    nbformat.write(content, path)
    build.execute(each)
    assert each.kept.exists()
    kept = json.loads(each.last.read_text())
    assert kept["depends"] == {"a": "1"}
    assert 0 < kept["processor"] < 60


def test_live_widgets_are_left_out_of_what_pages_are_built_from(tmp_path):
    output = nbformat.v4.new_output("display_data", {build.WIDGET: {"model_id": "x"}})
    text = nbformat.v4.new_output("display_data", {"text/html": "<p>a page</p>"})
    cell = nbformat.v4.new_code_cell("f", outputs=[output, text])
    content = nbformat.v4.new_notebook(cells=[cell], metadata={"widgets": {"state": 1}})
    nbformat.write(content, tmp_path / "a.ipynb")
    build.drop_live_half(tmp_path / "a.ipynb")
    found = nbformat.read(tmp_path / "a.ipynb", as_version=4)
    assert [list(each.data) for each in found.cells[0].outputs] == [["text/html"]]
    assert "widgets" not in found.metadata


def test_a_file_that_holds_what_it_should_is_left_alone(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"same")
    os.utime(path, (1, 1))
    build.replace_if_other(path, b"same")
    assert path.stat().st_mtime == 1
    build.replace_if_other(path, b"other")
    assert path.read_bytes() == b"other"
    assert path.stat().st_mtime > 1
