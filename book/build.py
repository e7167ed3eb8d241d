"""Execute the notebooks and build the pages.

    python book/build.py            execute what is stale, then build
    python book/build.py --execute  only execute

The repository's notebooks hold no outputs. They are copied to ``_build/source`` and executed there
once through nbmake; the pages are built from those copies. An executed notebook is kept under
``_build/executed`` by the hash of everything its outputs depend on, so that a second run is quick
and never shows stale numbers.
"""

from __future__ import annotations

import argparse
import hashlib
import platform
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "_build" / "source"
EXECUTED = ROOT / "_build" / "executed"
TIMES = "execution_times.csv"
SECONDS_A_CELL = 300


def notebooks() -> list[Path]:
    """Notebooks of the book, relative to the repository."""
    return sorted(path.relative_to(ROOT) for path in (ROOT / "book").rglob("*.ipynb"))


def key(notebook: Path) -> str:
    """Hash of all that an executed notebook depends on: itself, the package, the versions."""
    digest = hashlib.sha256(platform.python_version().encode())
    sources = sorted((ROOT / "hopfield_cl").rglob("*.py")) + sorted(
        (ROOT / "hopfield_cl").rglob("*.js")
    )
    for path in [ROOT / notebook, *sources, ROOT / "requirements.txt"]:
        digest.update(path.relative_to(ROOT).as_posix().encode() + b"\0")
        digest.update(path.read_bytes() + b"\0")
    return digest.hexdigest()[:32]


def lay_out_source() -> None:
    """Copy the book, but for its notebooks, to where it is built."""
    shutil.rmtree(SOURCE, ignore_errors=True)
    shutil.copytree(
        ROOT / "book",
        SOURCE / "book",
        ignore=shutil.ignore_patterns("*.ipynb", "__pycache__", ".ipynb_checkpoints"),
    )
    for name in ("_config.yml", "_toc.yml"):
        shutil.copy(ROOT / name, SOURCE / name)


def execute(notebook: Path) -> None:
    """Put the executed notebook in the source, running it through nbmake if it is stale."""
    target = SOURCE / notebook
    kept = EXECUTED / f"{key(notebook)}.ipynb"
    if kept.exists():
        print(f"{notebook}: unchanged since it was executed", flush=True)
        shutil.copy(kept, target)
        return
    shutil.copy(ROOT / notebook, target)
    began = time.perf_counter()
    command = [sys.executable, "-m", "pytest", "--nbmake", "--overwrite", "-q", "-p"]
    command += ["no:cacheprovider", f"--nbmake-timeout={SECONDS_A_CELL}", str(target)]
    subprocess.run(command, check=True, cwd=ROOT)
    seconds = time.perf_counter() - began
    EXECUTED.mkdir(parents=True, exist_ok=True)
    shutil.copy(target, kept)
    kept.with_suffix(".seconds").write_text(f"{seconds:.1f}")


def record_times() -> None:
    """Write how long each notebook took, for the reproducibility page."""
    rows = ["Notebook,Seconds"]
    for notebook in notebooks():
        seconds = (EXECUTED / f"{key(notebook)}.seconds").read_text()
        rows.append(f"{notebook.relative_to('book')},{seconds}")
    (SOURCE / "book" / "appendix" / TIMES).write_text("\n".join(rows) + "\n")


def build() -> None:
    """Build the pages; any warning of Sphinx is an error."""
    shutil.rmtree(ROOT / "_build" / "html", ignore_errors=True)
    command = [sys.executable, "-m", "jupyter_book", "build", str(SOURCE), "--path-output"]
    command += [str(ROOT), "--all", "-W", "--keep-going", "-n"]
    subprocess.run(command, check=True, cwd=ROOT)


def main() -> int:
    """Run the command line; return its exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--execute", action="store_true", help="execute, but do not build")
    only_execute = parser.parse_args().execute
    lay_out_source()
    try:
        for notebook in notebooks():
            execute(notebook)
        record_times()
        if not only_execute:
            build()
    except subprocess.CalledProcessError as error:
        return error.returncode
    return 0


if __name__ == "__main__":
    sys.exit(main())
