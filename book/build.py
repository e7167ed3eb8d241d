"""Execute the notebooks and build the pages.

    python book/build.py              execute what is stale, then build the book
    python book/build.py --only NAME  the same for one chapter, to look at while writing it

The repository's notebooks hold no outputs. They are copied to ``_work`` and executed there once
through nbmake, which takes nothing under ``_build``; the pages are built from those copies. An
executed notebook is kept under ``_work/executed`` by the hash of everything its outputs depend on,
so that a second run is quick and never shows stale numbers.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nbformat
import yaml

ROOT = Path(__file__).resolve().parent.parent
WORK = ROOT / "_work"
EXECUTED = WORK / "executed"
TIMES = "execution_times.csv"
SECONDS_A_CELL = 300
WIDGET = "application/vnd.jupyter.widget-view+json"
# Notebooks run side by side with one thread each: quicker than one after another with all threads,
# and sums are added up in the same order on every machine.
AT_ONCE = 2
ONE_THREAD = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
CAPTURED = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "check": False}


def notebooks() -> list[Path]:
    """Notebooks of the book, relative to the repository."""
    return sorted(path.relative_to(ROOT) for path in (ROOT / "book").rglob("*.ipynb"))


def key(notebook: Path) -> str:
    """Hash of all that an executed notebook depends on: itself, package, records, versions."""
    digest = hashlib.sha256(platform.python_version().encode())
    package = ROOT / "hopfield_cl"
    sources = [path for ending in ("py", "js", "css") for path in package.rglob(f"*.{ending}")]
    folders = (ROOT / "results", ROOT / "checkpoints")
    recorded = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    for path in [ROOT / notebook, *sorted(sources), *sorted(recorded), ROOT / "requirements.txt"]:
        digest.update(path.relative_to(ROOT).as_posix().encode() + b"\0")
        digest.update(path.read_bytes() + b"\0")
    return digest.hexdigest()[:32]


def lay_out_source(source: Path, toc: dict) -> None:
    """Copy the book, but for its notebooks, to where it is built."""
    shutil.rmtree(source, ignore_errors=True)
    shutil.copytree(
        ROOT / "book",
        source / "book",
        ignore=shutil.ignore_patterns("*.ipynb", "__pycache__", ".ipynb_checkpoints"),
    )
    shutil.copy(ROOT / "_config.yml", source)
    (source / "_toc.yml").write_text(yaml.safe_dump(toc, sort_keys=False), encoding="utf-8")


def execute(notebook: Path, source: Path) -> str:
    """Put the executed notebook in the source, and return how many seconds it took.

    It runs through nbmake, unless it is kept from a time when all that it depends on was the same.
    """
    target = source / notebook
    kept = EXECUTED / f"{key(notebook)}.ipynb"
    duration = kept.with_suffix(".seconds")
    if kept.exists():
        print(f"{notebook}: unchanged since it was executed", flush=True)
        shutil.copy(kept, target)
        return duration.read_text()
    shutil.copy(ROOT / notebook, target)
    print(f"{notebook}: executing", flush=True)
    began = time.perf_counter()
    command = [sys.executable, "-m", "pytest", "--nbmake", "--overwrite", "-q", "-p"]
    command += ["no:cacheprovider", f"--nbmake-timeout={SECONDS_A_CELL}", str(target)]
    run = subprocess.run(command, cwd=ROOT, env=ONE_THREAD, text=True, **CAPTURED)
    print(f"{notebook}\n{run.stdout}", flush=True)
    run.check_returncode()
    seconds = f"{time.perf_counter() - began:.1f}"
    drop_live_half(target)
    EXECUTED.mkdir(parents=True, exist_ok=True)
    duration.write_text(seconds)
    shutil.copy(target, kept)
    return seconds


def drop_live_half(notebook: Path) -> None:
    """Leave out the live widgets and their state: no page without a kernel can use them."""
    content = nbformat.read(notebook, as_version=4)
    content.metadata.pop("widgets", None)
    for cell in content.cells:
        if cell.cell_type == "code":
            cell.outputs = [each for each in cell.outputs if WIDGET not in each.get("data", {})]
    nbformat.write(content, notebook)


def record_times(seconds: dict[Path, str], source: Path) -> None:
    """Write how long each notebook took, for the reproducibility page."""
    rows = ["Notebook,Seconds"]
    rows += [f"{notebook.relative_to('book')},{took}" for notebook, took in seconds.items()]
    (source / "book" / "appendix" / TIMES).write_text("\n".join(rows) + "\n")


def build(source: Path, output: Path, strict: list[str]) -> None:
    """Build the pages."""
    shutil.rmtree(output / "_build" / "html", ignore_errors=True)
    jupyter_book = Path(sys.executable).with_name("jupyter-book")
    command = [str(jupyter_book), "build", str(source), "--path-output", str(output), "--all"]
    subprocess.run([*command, *strict], check=True, cwd=ROOT)


def main() -> int:
    """Run the command line; return its exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", metavar="NAME", help="a chapter, as its file is called")
    only = parser.parse_args().only
    found = [path for path in notebooks() if only in (None, path.stem)]
    if not found:
        known = ", ".join(path.stem for path in notebooks())
        parser.error(f"--only must name one of the chapters {known}, but is {only!r}.")
    if only:
        output, source = ROOT / "_build" / "only" / only, WORK / "only" / only
        chapters = [{"file": "book/appendix/bibliography"}]
        toc = {"format": "jb-book", "root": str(found[0].with_suffix("")), "chapters": chapters}
        strict = []  # what it refers to in other chapters is missing here
    else:
        output, source = ROOT, WORK / "source"
        toc = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
        strict = ["-W", "--keep-going", "-n"]
    try:
        lay_out_source(source, toc)
        with ThreadPoolExecutor(AT_ONCE) as workers:
            seconds = workers.map(lambda notebook: execute(notebook, source), found)
            record_times(dict(zip(found, seconds, strict=True)), source)
        build(source, output, strict)
    except subprocess.CalledProcessError as error:
        return error.returncode
    return 0


if __name__ == "__main__":
    sys.exit(main())
