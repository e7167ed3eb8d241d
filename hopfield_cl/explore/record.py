"""Record: a browser of recorded experiments, over step, strategy and budget."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any, ClassVar

import traitlets

from hopfield_cl.explore.base import InteractiveFigure, module
from hopfield_cl.records import provenance, repository

_DEFAULT = "replay_mnist.csv"
_AXES = ("step", "strategy", "budget")


class Record(InteractiveFigure):
    """A recorded experiment: a measure over budgets under all strategies, and small images.

    It reads any table that ``hopfield_cl.records.provenance.record`` has written whose rows have
    the columns step, strategy and budget, and measures with their standard errors, ``name`` and
    ``name_error``. The smallest budget stands for no replay. Used if the details of its provenance
    hold them are ``labels`` of axes and measures, ``rows`` of images that do not vary, and the
    names of the ``examples``; a column ``images`` holds numbers of images on the sheet.

    Parameters
    ----------
    table : path, optional
        The table; the replay run on MNIST of Part II if not given.
    labels : dict of str, optional
        What to call axes, measures and strategies, by column name or strategy. These come before
        the labels that are recorded with the table.
    **traits
        Any of the attributes below, as they are at first, and ``caption``.

    Attributes
    ----------
    step : float
        One of the table's steps: how far the task has changed. The last at first.
    strategy : str
        One of the table's strategies. The first at first.
    budget : float
        One of the table's budgets. The middle one at first.
    measure : str
        One of the table's measures. The first at first.

    Raises
    ------
    FileNotFoundError
        If the table, or what belongs to it, is not there.
    TypeError
        If a keyword is not a trait of the figure.
    ValueError
        If the table lacks a column, has no measure, or two rows for one cell.
    traitlets.TraitError
        If a value does not occur in the table.
    """

    _esm = module("kit.js", "axes.js", "record.js")
    default_caption: ClassVar[str] = (
        "A recorded run. Marks are means over seeds, bars their standard errors; the ring is the "
        "chosen cell, whose images are shown. Which strategy helps the images of high energy most, "
        "and is it also the one that helps all of them most?"
    )

    step = traitlets.Float().tag(sync=True, state=True)
    strategy = traitlets.Unicode().tag(sync=True, state=True)
    budget = traitlets.Float().tag(sync=True, state=True)
    measure = traitlets.Unicode().tag(sync=True, state=True)

    def __init__(
        self,
        table: str | Path | None = None,
        *,
        labels: dict[str, str] | None = None,
        **traits: object,
    ) -> None:
        data = _data(provenance.read(table or repository.results(_DEFAULT)), labels or {})
        if table is not None:
            # On a page the path of the machine that built it would mislead.
            path, home = Path(table), repository.home()
            recorded = home is not None and path.resolve().parent == home / "results"
            shown = f'"{path.name if recorded else path.as_posix()}"'
            data["given"] = [f"repository.results({shown})" if recorded else shown]
        self.set_trait("data", data)
        first = {
            "step": data["steps"][-1],
            "strategy": data["strategies"][0],
            "budget": data["budgets"][len(data["budgets"]) // 2],
            "measure": next(iter(data["measures"])),
        }
        super().__init__(**(first | traits))

    @traitlets.validate("step", "strategy", "budget", "measure")
    def _occurs(self, proposal: dict[str, Any]) -> object:
        name, value = proposal["trait"].name, proposal["value"]
        known = self.data[_LIST_OF[name]]
        if value not in known:
            raise traitlets.TraitError(
                f"{name} of {type(self).__name__} must be one of "
                f"{', '.join(str(each) for each in known)}, but is {value!r}."
            )
        return value

    def compute(self) -> dict[str, Any]:
        """All numbers of the figure in its present state.

        Returns
        -------
        dict
            The chosen cell's value and error, those without replay, the curves of all strategies
            over the budgets as [value, error], and the numbers of the images of both cells. What
            was not recorded is an empty list.
        """
        data = self.data
        step, strategy = data["steps"].index(self.step), data["strategies"].index(self.strategy)
        curves = data["values"][self.measure][step]
        budget = data["budgets"].index(self.budget)
        return {
            "chosen": curves[strategy][budget],
            "without": curves[strategy][0],
            "curves": dict(zip(data["strategies"], curves, strict=True)),
            "images": data["images"][step][strategy][budget],
            "images_without": data["images"][step][strategy][0],
        }


_LIST_OF = {
    "step": "steps",
    "strategy": "strategies",
    "budget": "budgets",
    "measure": "measures",
}


def _data(recorded: provenance.Recorded, labels: dict[str, str]) -> dict[str, Any]:
    """What the module draws from: the table as nested lists, the sheet, labels and provenance."""
    rows, made = recorded.rows, recorded.made
    details = made.get("details", {})
    for axis in _AXES:
        if axis not in rows[0]:
            raise ValueError(f"the table must have a column {axis}, but has {list(rows[0])}.")
    found = [name for name in rows[0] if f"{name}_error" in rows[0]]
    measures = details.get("measures", found)
    if not measures or not set(measures) <= set(found):
        raise ValueError(
            "the table must have measures, each with a column name and a column name_error, but "
            f"has {list(rows[0])}."
        )
    cells = {tuple(row[axis] for axis in _AXES): row for row in rows}
    if len(cells) < len(rows):
        raise ValueError("the table must have one row for each cell, but has several for some.")
    steps, strategies, budgets = (list(dict.fromkeys(row[axis] for row in rows)) for axis in _AXES)
    steps, budgets = sorted(steps), sorted(budgets)
    strategies = [str(strategy) for strategy in strategies]

    def grid(entry: Any) -> list[list[list[list[float]]]]:
        """Entries as [step][strategy][budget], each a list; empty where there is no row."""
        return [
            [
                [entry(cells[cell]) if (cell := (s, name, b)) in cells else [] for b in budgets]
                for name in strategies
            ]
            for s in steps
        ]

    labels = details.get("labels", {}) | labels
    data: dict[str, Any] = {
        "steps": steps,
        "strategies": strategies,
        "budgets": budgets,
        "measures": {name: labels.get(name, name) for name in measures},
        "labels": {name: labels.get(name, name) for name in (*_AXES, *strategies)},
        "values": {name: grid(lambda row, name=name: _measured(row, name)) for name in measures},
        "images": grid(lambda row: _numbers(row.get("images"))),
        "rows": details.get("rows", {}),
        "examples": details.get("examples", []),
        "examples_label": labels.get("examples", ""),
        "made": _made(made),
    }
    if recorded.sheet is not None:
        url = "data:image/png;base64," + base64.b64encode(recorded.sheet).decode()
        data["sheet"] = made["images"] | {"url": url}
    return data


def _measured(row: dict[str, Any], name: str) -> list[float]:
    pair = [row[name], row[f"{name}_error"]]
    return [] if None in pair else pair


def _numbers(text: object) -> list[int]:
    """Numbers of images; one alone has been read as a float."""
    return [] if text is None else [int(float(word)) for word in str(text).split()]


def _made(made: dict[str, Any]) -> str:
    """How the table came about, in one line."""
    commit = made["commit"][:7] or "unknown"
    changed = " with changes" if made["changed_since_commit"] else ""
    seeds = len(made["seeds"])
    return (
        f"Recorded by {made['command']}; commit {commit}{changed}; {made['date']}; "
        f"{made['seconds']:g} s; {seeds} seed{'' if seeds == 1 else 's'}."
    )
