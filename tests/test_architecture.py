import ast
import importlib
import inspect
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import hopfield_cl

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "hopfield_cl"
# The rooms, from the ground floor up, and whom each may import besides itself.
GROUND = {"__init__", "_checks", "_streaming", "intervals", "plotting"}
IDEA = {"energy", "memories", "phases", "denoising", "forgetting", "replay"}
MAY_IMPORT = {
    **{room: {"__init__", "_checks"} for room in GROUND},
    **{room: {"_checks", "_streaming", *IDEA} for room in IDEA},
    "data": {"_checks"},
    "networks": {"_checks", "_streaming", "intervals", *IDEA},
    "records": {"__init__", "_checks"},
    "diffusion": {"_checks", "intervals", "data", "records", *IDEA},
    "stable": {"_checks", "data", "diffusion", "records", *IDEA},
    "explore": {"plotting", "records", *IDEA},
    "runs": {"_checks", "intervals", "data", "networks", "records", "diffusion", "stable", *IDEA},
    "cli": {"runs", "records", "diffusion", "stable"},
}


def rooms():
    """Each room with its files: a module has one, a subpackage several."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        found.setdefault(path.relative_to(PACKAGE).parts[0].removesuffix(".py"), []).append(path)
    return found


def imported_rooms(source):
    """Rooms of the package that a module's source imports, wherever in it the import stands."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    ours = [name.split(".") for name in names if name.split(".")[0] == PACKAGE.name]
    known = rooms()
    return {parts[1] if len(parts) > 1 and parts[1] in known else "__init__" for parts in ours}


def imported_modules(path):
    """Files of the package that a module imports: the package above a named module is none."""
    names = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names += [[alias.name] for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names += [[f"{node.module}.{alias.name}", node.module] for alias in node.names]
    found = (next(filter(None, map(file_of, candidates)), None) for candidates in names)
    return {file for file in found if file is not None and file != path}


def file_of(name):
    """File of a module or package of ours, by its dotted name."""
    place = ROOT.joinpath(*name.split("."))
    for file in (place / "__init__.py", place.with_suffix(".py")):
        if file.is_file() and file.is_relative_to(PACKAGE):
            return file
    return None


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import torch", set()),
        ("import hopfield_cl", {"__init__"}),
        ("from hopfield_cl import __version__", {"__init__"}),
        ("from hopfield_cl import _checks, energy", {"_checks", "energy"}),
        ("import hopfield_cl.energy as e", {"energy"}),
        ("def f():\n    from hopfield_cl.explore.panel import Panel", {"explore"}),
    ],
)
def test_the_reader_of_imports_sees_them(source, expected):
    assert imported_rooms(source) == expected


def test_every_room_stands_in_the_table():
    assert set(rooms()) == set(MAY_IMPORT)


def test_no_modules_import_each_other_in_a_circle():
    modules = {path: imported_modules(path) for path in sorted(PACKAGE.rglob("*.py"))}
    placed: set[Path] = set()
    while len(placed) < len(modules):
        ready = {path for path, below in modules.items() if below <= placed} - placed
        stuck = [str(path.relative_to(PACKAGE)) for path in modules if path not in placed]
        assert ready, f"modules that import each other: {stuck}"
        placed |= ready


@pytest.mark.parametrize("room", list(rooms()))
def test_a_room_imports_only_from_below(room):
    for path in rooms()[room]:
        found = imported_rooms(path.read_text(encoding="utf-8")) - {room}
        assert found <= MAY_IMPORT.get(room, set()), f"{path.name} imports {found}"


# Documentation


def public_objects():
    """Public functions and classes of public modules, where they are defined."""
    for info in pkgutil.walk_packages(hopfield_cl.__path__, "hopfield_cl."):
        if info.name.split(".")[-1].startswith("_"):
            continue
        module = importlib.import_module(info.name)
        for name, value in vars(module).items():
            is_ours = getattr(value, "__module__", None) == info.name
            if is_ours and not name.startswith("_") and callable(value):
                yield pytest.param(value, id=f"{info.name.removeprefix('hopfield_cl.')}.{name}")


@pytest.mark.parametrize("public", list(public_objects()))
def test_every_public_function_and_class_is_documented(public):
    document = inspect.getdoc(public) or ""
    assert document, "it has no docstring"
    if inspect.isclass(public):
        assert "\nAttributes\n---" in document or "\nParameters\n---" in document
        return
    signature = inspect.signature(public)
    if signature.parameters:
        assert "\nParameters\n---" in document
    if signature.return_annotation not in (None, "None"):
        assert "\nReturns\n---" in document


@pytest.mark.parametrize("public", list(public_objects()))
def test_every_parameter_is_named_in_the_documentation(public):
    document = inspect.getdoc(public)
    missing = [name for name in inspect.signature(public).parameters if name not in document]
    assert not missing


@pytest.mark.parametrize("public", list(public_objects()))
def test_every_parameter_of_a_public_function_is_annotated(public):
    if inspect.isfunction(public):
        signature = inspect.signature(public)
        bare = [p.name for p in signature.parameters.values() if p.annotation is p.empty]
        assert not bare
        assert signature.return_annotation is not signature.empty


@pytest.mark.parametrize("public", list(public_objects()))
def test_a_public_function_takes_at_most_four_positional_arguments_and_no_flag(public):
    if inspect.isfunction(public):
        parameters = inspect.signature(public).parameters.values()
        positional = [p for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
        assert len(positional) <= 4
        assert not [p.name for p in parameters if isinstance(p.default, bool)]


# Style


@pytest.mark.parametrize("command", [["check"], ["format", "--check"]], ids=" ".join)
def test_ruff_finds_nothing_in_the_tree_and_its_notebooks(command):
    run = subprocess.run(
        [sys.executable, "-m", "ruff", *command, "."],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
