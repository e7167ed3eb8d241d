"""Execute the notebooks and build the pages, each only where something has changed.

    python book/build.py              execute what is stale, then build the book
    python book/build.py --only NAME  the same for one chapter, to look at while writing it

The repository's notebooks hold no outputs. They are copied to ``_work`` and executed there through
nbmake, which takes nothing under ``_build``; the pages are built from those copies. What an
executed notebook depends on is found by ``staleness.py``; it is kept under ``_work/executed`` by
the hash of all of it, so that a second run is quick and never shows stale numbers.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import nbformat
import staleness
import yaml
from staleness import ROOT
from tqdm import tqdm

WORK = ROOT / "_work"
EXECUTED = WORK / "executed"
TIMES = "execution_times.csv"
SECONDS_A_CELL = 300
# Of a notebook that was never executed here.
FIRST_GUESS = 60.0
WIDGET = "application/vnd.jupyter.widget-view+json"
# Notebooks run side by side with one thread each: quicker than one after another with all threads,
# and sums are added up in the same order on every machine.
AT_ONCE = 2
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
# What all pages show: when it changes, all are built again.
EVERYWHERE = ("_config.yml", "_toc.yml", "requirements.txt", "book/_ext", "book/_static")


@dataclass
class Execution:
    """A notebook and what became of it.

    Attributes
    ----------
    notebook : Path
        Relative to the repository.
    depends : dict of str
        What its outputs depend on, with hashes.
    took : dict of float
        Seconds by the clock, and of the processor.
    """

    notebook: Path
    depends: dict[str, str]
    took: dict[str, float] = field(default_factory=dict)

    @property
    def kept(self) -> Path:
        """Where it lies once it is executed."""
        return EXECUTED / f"{staleness.key(self.depends)}.ipynb"

    @property
    def last(self) -> Path:
        """Where it is written down what it depended on when it last ran, and how long it took."""
        return EXECUTED / f"{self.notebook.stem}.json"

    def before(self) -> dict:
        """What is written there, if it ever ran here."""
        return json.loads(self.last.read_text()) if self.last.exists() else {}


def notebooks() -> list[Path]:
    """Notebooks of the book, relative to the repository."""
    return sorted(path.relative_to(ROOT) for path in (ROOT / "book").rglob("*.ipynb"))


def execute_all(found: list[Path], source: Path) -> list[Execution]:
    """Put each executed notebook in the source; execute those that are stale."""
    every = [Execution(notebook, staleness.parts(notebook)) for notebook in found]
    stale = [each for each in every if not each.kept.exists()]
    guesses = {each.notebook: each.before().get("seconds", FIRST_GUESS) for each in stale}
    for each in every:
        before = each.before().get("depends")
        if each not in stale:
            why = "as it was executed"
        else:
            why = staleness.reasons(before, each.depends) if before else "never executed here"
            why = f"to execute: {why}"
        print(f"{each.notebook.stem}: {why}", flush=True)
    # The longest first, so that none is left alone at the end; the bar counts expected seconds.
    stale.sort(key=lambda each: -guesses[each.notebook])
    shape = "{l_bar}{bar}| about {remaining} left, {elapsed} gone"
    total = round(sum(guesses.values()))
    with tqdm(total=total, bar_format=shape, disable=not stale) as bar:

        def one(each: Execution) -> None:
            execute(each)
            bar.update(round(guesses[each.notebook]))

        with ThreadPoolExecutor(AT_ONCE) as workers:
            list(workers.map(one, stale))
    for each in every:
        each.took = {name: each.before()[name] for name in ("seconds", "processor")}
        replace_if_other(source / each.notebook, each.kept.read_bytes())
    return every


def execute(each: Execution) -> None:
    """Run a notebook through nbmake, and keep it with what it depends on."""
    scratch = WORK / "running" / each.notebook.stem
    shutil.rmtree(scratch, ignore_errors=True)
    startup = scratch / "ipython" / "profile_default" / "startup"
    startup.mkdir(parents=True)
    shutil.copy(ROOT / "book" / "reads.py", startup / "reads.py")
    target = scratch / each.notebook.name
    shutil.copy(ROOT / each.notebook, target)
    command = [sys.executable, "-m", "pytest", "--nbmake", "--overwrite", "-q", "-p"]
    command += ["no:cacheprovider", f"--nbmake-timeout={SECONDS_A_CELL}", str(target)]
    reads = ",".join(staleness.declared(nbformat.read(target, as_version=4)))
    own = {"IPYTHONDIR": str(scratch / "ipython"), "HOPFIELD_CL_READS": reads}
    environment = os.environ | ONE_THREAD | own | {"HOPFIELD_CL_BUILD": str(ROOT)}
    began = time.perf_counter()
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)  # the kernel is a child of it, and waited for
    seconds = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        tqdm.write(f"{each.notebook}\n{output}", file=sys.stdout)
        raise subprocess.CalledProcessError(process.returncode, command)
    drop_live_half(target)
    EXECUTED.mkdir(parents=True, exist_ok=True)
    shutil.copy(target, each.kept)
    processor = usage.ru_utime + usage.ru_stime
    took = {"seconds": round(seconds, 1), "processor": round(processor, 1)}
    each.last.write_text(json.dumps({"depends": each.depends, **took}))
    shutil.rmtree(scratch)
    tqdm.write(f"{each.notebook.stem}: {took['seconds']} s", file=sys.stdout)


def drop_live_half(notebook: Path) -> None:
    """Leave out the live widgets and their state: no page without a kernel can use them."""
    content = nbformat.read(notebook, as_version=4)
    content.metadata.pop("widgets", None)
    for cell in content.cells:
        if cell.cell_type == "code":
            cell.outputs = [each for each in cell.outputs if WIDGET not in each.get("data", {})]
    nbformat.write(content, notebook)


def lay_out_source(source: Path, toc: dict) -> None:
    """Bring the book, but for its notebooks, to where it is built; leave alone what is the same."""
    wanted = {"_config.yml": (ROOT / "_config.yml").read_bytes()}
    wanted["_toc.yml"] = yaml.safe_dump(toc, sort_keys=False).encode()
    for path in sorted((ROOT / "book").rglob("*")):
        if path.is_file() and path.suffix != ".ipynb" and not _is_cache(path):
            wanted[path.relative_to(ROOT).as_posix()] = path.read_bytes()
    for name, content in wanted.items():
        replace_if_other(source / name, content)
    keep = {*wanted, f"book/appendix/{TIMES}", *(path.as_posix() for path in notebooks())}
    for path in sorted(source.rglob("*")):
        if path.is_file() and path.relative_to(source).as_posix() not in keep:
            path.unlink()


def replace_if_other(path: Path, content: bytes) -> None:
    """Write a file unless it holds that already: Sphinx reads again what is newer."""
    if not path.exists() or path.read_bytes() != content:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def _is_cache(path: Path) -> bool:
    return any(part in ("__pycache__", ".ipynb_checkpoints") for part in path.parts)


def record_times(every: list[Execution], source: Path) -> None:
    """Write how long each notebook took, for the reproducibility page."""
    path = source / "book" / "appendix" / TIMES
    rows = [("Notebook", "Seconds", "Of the processor")]
    rows += [(each.notebook.relative_to("book"), *each.took.values()) for each in every]
    lines = "".join(",".join(map(str, row)) + "\n" for row in rows)
    replace_if_other(path, lines.encode())


def build(source: Path, output: Path, strict: list[str]) -> None:
    """Build the pages: none if nothing changed, all if something did that all of them show."""
    html, built = output / "_build" / "html", output / "_build" / "built.json"
    now = {"all": digest(contents(source)), "everywhere": digest(everywhere(source))}
    before = json.loads(built.read_text()) if built.exists() else {}
    if before.get("all") == now["all"] and (html / "index.html").exists():
        print("The pages are as they were built.", flush=True)
        return
    built.unlink(missing_ok=True)  # a build that fails must not be taken for one that went well
    jupyter_book = Path(sys.executable).with_name("jupyter-book")
    command = [str(jupyter_book), "build", str(source), "--path-output", str(output)]
    if before.get("everywhere") != now["everywhere"]:
        for place in (html, output / "_build" / ".doctrees"):
            shutil.rmtree(place, ignore_errors=True)
        command.append("--all")
    subprocess.run([*command, *strict], check=True, cwd=ROOT)
    built.write_text(json.dumps(now))


def contents(source: Path) -> Iterator[tuple[str, bytes]]:
    """All that the pages are made of, by name."""
    yield from everywhere(source)
    for path in sorted(source.rglob("*")):
        if path.is_file():
            yield path.relative_to(source).as_posix(), path.read_bytes()
    for path in sorted((ROOT / staleness.PACKAGE).rglob("*.py")):  # the reference shows it
        yield path.relative_to(ROOT).as_posix(), path.read_bytes()


def everywhere(source: Path) -> Iterator[tuple[str, bytes]]:
    """What all pages show: settings, styles, and the titles in the table of contents."""
    for name in EVERYWHERE:
        place = ROOT / name
        for path in [place] if place.is_file() else sorted(place.rglob("*")):
            if path.is_file() and not _is_cache(path):
                yield path.relative_to(ROOT).as_posix(), path.read_bytes()
    for path in sorted((source / "book").rglob("*.ipynb")):
        first = nbformat.read(path, as_version=4).cells[0].source
        yield f"title of {path.name}", first.splitlines()[0].encode()
    for path in sorted((source / "book").rglob("*.md")):
        yield f"title of {path.name}", path.read_bytes().split(b"\n", 1)[0]


def digest(named: Iterator[tuple[str, bytes]]) -> str:
    """One hash for many files."""
    total = hashlib.sha256()
    for name, content in named:
        total.update(f"{name}\0{len(content)}\0".encode() + content)
    return total.hexdigest()


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
        every = execute_all(found, source)
        record_times(every, source)
        build(source, output, strict)
    except subprocess.CalledProcessError as error:
        return error.returncode
    return 0


if __name__ == "__main__":
    sys.exit(main())
