"""Write the tables that follow from other files: the rooms in the README, the map in the appendix.

    python book/tables.py

Rooms come from the docstrings of the package, the map from ``map.yml`` and the table of contents. A
test fails when a table is not what this script would write.
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import nbformat
import yaml

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "hopfield_cl"
HEAD = ("Question", "Chapter", "Notebook", "Module", "Test", "Equation")


def rooms() -> str:
    """Table of the package's rooms, the idea first, each with the first line of its docstring."""
    lines = ["| Room | What it holds |", "|---|---|"]
    for name in _order():
        place = PACKAGE / name
        file = place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
        text = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))).splitlines()[0]
        shown = f"{name}/" if place.is_dir() else f"{name}.py"
        lines.append(f"| `{shown}` | {text.rstrip('.')} |")
    return "\n".join(lines)


def _order() -> list[str]:
    """Rooms in the order in which the package's own docstring lists them."""
    text = ast.get_docstring(ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8")))
    return [line.strip("`") for line in text.splitlines() if line.startswith("``")]


def the_map() -> str:
    """Table that leads from a question to its chapter, code, test and equation."""
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    chapters = [
        c["file"] for part in toc["parts"] if part.get("numbered") for c in part["chapters"]
    ]
    lines = [f"| {' | '.join(HEAD)} |", "|" + "---|" * len(HEAD)]
    for row in yaml.safe_load((ROOT / "book" / "map.yml").read_text(encoding="utf-8")):
        notebook = row["notebook"]
        number = chapters.index(notebook.removesuffix(".ipynb")) + 1
        title = nbformat.read(ROOT / notebook, as_version=4).cells[0].source.splitlines()[0]
        cells = [row["question"], f"{number} {title.lstrip('# ')}"]
        cells += [f"`{row[name]}`" for name in ("notebook", "module", "test")]
        lines.append(f"| {' | '.join([*cells, row['equation']])} |")
    return "\n".join(lines)


def written(text: str, name: str, table: str) -> str:
    """A text with a table between its marks ``<!-- name -->`` and ``<!-- /name -->``."""
    start, end = f"<!-- {name} -->\n\n", f"\n\n<!-- /{name} -->"
    before, rest = text.split(start)
    _, after = rest.split(end)
    return before + start + table + end + after


TABLES = {
    "README.md": ("rooms", rooms),
    "book/appendix/map.md": ("map", the_map),
}


def main() -> int:
    """Write all tables; return 0."""
    for file, (name, make) in TABLES.items():
        path = ROOT / file
        path.write_text(written(path.read_text(encoding="utf-8"), name, make()), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
