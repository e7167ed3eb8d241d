"""What an executed notebook depends on, found from its source and from what it declares.

A notebook is stale when one of these has changed since it ran: itself, a module of the package
that it imports or that such a module imports, a script or style that such a module ships, a
recorded file or model that it declares to read, the pinned requirements, the Python version.
"""

from __future__ import annotations

import ast
import hashlib
import platform
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "hopfield_cl"
SHIPPED = (".js", ".css")


def parts(notebook: Path, root: Path = ROOT) -> dict[str, str]:
    """All that an executed notebook depends on, each with the hash of its content.

    Parameters
    ----------
    notebook : path
        The notebook, relative to the repository.
    root : path
        The repository.

    Returns
    -------
    dict of str
        Hashes by path in the repository, and the Python version.
    """
    content = nbformat.read(root / notebook, as_version=4)
    files = {root / notebook, root / "requirements.txt", *modules(source(content), root)}
    for name in declared(content):
        place = root / name
        found = sorted(place.parent.glob(f"{place.name}.*")) or [
            path for path in sorted(place.rglob("*")) if path.is_file()
        ]
        if not found:
            raise FileNotFoundError(
                f"{notebook} declares that it reads {name}, but it is not there."
            )
        files.update(found)
    found = {path.relative_to(root).as_posix(): _hash(path) for path in sorted(files)}
    return found | {"Python": platform.python_version()}


def key(depends: dict[str, str]) -> str:
    """One hash for all of them."""
    text = "\n".join(f"{name} {value}" for name, value in depends.items())
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def reasons(before: dict[str, str], now: dict[str, str]) -> str:
    """Say what has changed, a few names at most."""
    changed = [name for name in now if before.get(name) != now[name]]
    changed += [f"{name} (no longer used)" for name in before if name not in now]
    shown = ", ".join(changed[:3])
    return shown + (f" and {len(changed) - 3} more" if len(changed) > 3 else "")


def source(content: nbformat.NotebookNode) -> str:
    """The code of a notebook, cell after cell."""
    return "\n".join(cell.source for cell in content.cells if cell.cell_type == "code")


def declared(content: nbformat.NotebookNode) -> list[str]:
    """Recorded tables and models that a notebook declares to read, without an ending.

    They stand in its metadata: ``"hopfield_cl": {"reads": ["results/NAME", "checkpoints/NAME"]}``.
    """
    return list(content.metadata.get("hopfield_cl", {}).get("reads", []))


def modules(code: str, root: Path = ROOT) -> set[Path]:
    """Files of the package that code imports, at first or second hand, and what these ship."""
    found: set[Path] = set()
    waiting = set(_imported(code, root))
    while waiting:
        path = waiting.pop()
        if path in found:
            continue
        found.add(path)
        text = path.read_text(encoding="utf-8")
        waiting |= _imported(text, root) - found
        found |= _shipped(text, path.parent)
    return found


@cache
def _imported(code: str, root: Path) -> frozenset[Path]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    ours = (name.split(".") for name in names if name.split(".")[0] == PACKAGE)
    return frozenset(path for name in ours for path in _files(name, root))


def _files(name: list[str], root: Path) -> Iterable[Path]:
    """The module of a dotted name, with the packages above it; a name in a module is none."""
    place = root
    for part in name:
        place = place / part
        if (place / "__init__.py").is_file():
            yield place / "__init__.py"
        elif place.with_suffix(".py").is_file():
            yield place.with_suffix(".py")


def _shipped(code: str, folder: Path) -> set[Path]:
    """Scripts and styles that a module names, beside it."""
    named = {node.value for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Constant)}
    names = [name for name in named if isinstance(name, str) and name.endswith(SHIPPED)]
    return {folder / name for name in names if (folder / name).is_file()}


def _hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
