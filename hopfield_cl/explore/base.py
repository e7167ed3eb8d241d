"""The base of the interactive figures that live without a kernel.

A figure is one Python class and one JavaScript module. In JupyterLab the module is the view of a
widget whose traits go both ways. On a page without a kernel the same text runs over a plain object
that holds the traits' values; it is part of the cell's HTML output, so the page asks for nothing.

A cell that shows a figure has two outputs, since JupyterLab shows the widget of an output and
nothing else of it, even if there is no widget any more. The first is the widget. The second is the
figure of the page, asleep: a rule of style hides it while a view of the widget is on the screen.
After a restart of the kernel, and in a notebook that was saved and opened without one, it wakes,
and hides what is left of the first.

To add one, write a subclass with

* ``_esm = module("kit.js", …, "name.js")``, the texts that make up its module;
* a trait for each part of its state, tagged ``sync=True, state=True`` (numbers: ``Number``);
* ``default_caption``, and ``compute``, which gives the numbers that the module draws;

and ``name.js``, which exports ``compute(parameters)``, the same numbers, and ``{ render }`` as its
default::

    function render({ model, el }) {
      const figure = mount(model, el, { kind, label, basis });     // kind: the class in lower case
      figure.slider({ name, label, min, max, steps, log, text });  // moves the number trait `name`
      figure.slider({ name, label, stops, text });                 // over listed numbers or words
      figure.choice({ name, label, options });                     // { value: "what it says" }
      figure.button(text, action);
      return figure.start(draw, mend);                             // returns what ends the figure
    }

``draw(values, width)`` fills ``figure.stage``, at most once a frame, and returns the sentence that
says in words and numbers what it shows. What it draws from and never changes is in the trait
``data``, and ``mount`` takes ``given``, the arguments with which "Copy as Python" must begin.
``mend(values)`` makes traits that have no control fit,
since they may come from a link. ``figure.set({ trait: value })`` changes traits,
``figure.redraw()`` asks for a frame, and ``figure.animate(seconds, step)`` calls ``step`` with 0 to
1, or once with 1 where the reader wants no motion. Colours are the variables of ``kit.css``, which
follow the theme. "Reset", "Copy link", focus, print and the sentence for screen readers come from
``kit.js``. Besides it there are ``axes.js`` (axes as SVG), ``random.js`` (normal numbers that
Python's ``_random.normals`` draws too), ``plane.js`` (basins in the plane) and ``cluster.js`` (the
cluster with an outlier, and its rotations).
"""

from __future__ import annotations

import json
import re
import uuid
from numbers import Real
from pathlib import Path
from typing import Any, ClassVar

import anywidget
import traitlets
from IPython.display import HTML, display

from hopfield_cl.plotting import COLORS, figcaption

_HERE = Path(__file__).parent
# Lines of JavaScript that are for those who read its source, not for every page.
_COMMENT = re.compile(r"^ *(//[^\n]*|/\*\*.*?\*/)\n", re.MULTILINE | re.DOTALL)


def module(*names: str) -> str:
    """Text of a JavaScript module made of files of this folder, behind the book's palette.

    Parameters
    ----------
    *names : str
        Files, in the order in which they must stand; the figure's own is last.

    Returns
    -------
    str
        One module that imports nothing.
    """
    texts = [_COMMENT.sub("", (_HERE / name).read_text(encoding="utf-8")) for name in names]
    return "\n".join([f"const COLORS = {json.dumps(COLORS)};", *texts])


def stylesheet() -> str:
    """Style of all figures: the book's palette as CSS variables, then ``kit.css``.

    Returns
    -------
    str
        CSS.
    """
    palette = "".join(f"--{name}:{color};" for name, color in COLORS.items())
    return f".hk{{{palette}}}\n" + (_HERE / "kit.css").read_text(encoding="utf-8")


class Number(traitlets.Float):
    """A trait: a number between two limits, neither of which it can leave.

    Parameters
    ----------
    default_value : float
        Its value at first.
    low, high : float
        The limits, which belong to the range.
    """

    def __init__(self, default_value: float, *, low: float, high: float) -> None:
        super().__init__(default_value)
        self.low, self.high = low, high

    def validate(self, obj: object, value: object) -> float:
        """Return the number as a float, or raise ``TraitError``."""
        is_number = isinstance(value, Real) and not isinstance(value, bool)
        if not is_number or not self.low <= value <= self.high:  # NaN fails too
            raise traitlets.TraitError(
                f"{self.name} of {type(obj).__name__} must be a number from {self.low} to "
                f"{self.high}, but is {value!r}."
            )
        return float(value)


class InteractiveFigure(anywidget.AnyWidget):
    """Base of the figures: one module for the live widget and for the page without a kernel.

    Parameters
    ----------
    **traits
        The state at first, and ``caption``.

    Attributes
    ----------
    caption : str
        What the reader should try, and see: plain text.
    mark : str
        What the views of this figure and its copy that sleeps know each other by.
    start : dict
        The state to which "Reset" returns: that with which the figure was made.
    data : dict
        What the module draws from besides the state and never changes; empty for most figures.

    Raises
    ------
    TypeError
        If a keyword is not a trait of the figure.
    traitlets.TraitError
        If a value does not fit its trait.
    """

    _css = stylesheet()
    default_caption: ClassVar[str] = ""

    caption = traitlets.Unicode().tag(sync=True)
    start = traitlets.Dict(read_only=True).tag(sync=True)
    data = traitlets.Dict(read_only=True).tag(sync=True)
    mark = traitlets.Unicode(read_only=True).tag(sync=True)

    def __init__(self, **traits: object) -> None:
        known = ["caption", *self.state_names()]
        for name in traits:
            if name not in known:
                raise TypeError(
                    f"{name} is no keyword of {type(self).__name__}; it takes {', '.join(known)}."
                )
        super().__init__(**({"caption": self.default_caption} | traits))
        self.set_trait("start", self.state())
        self.set_trait("mark", uuid.uuid4().hex)

    @classmethod
    def state_names(cls) -> list[str]:
        """Names of the traits that make up the state, in alphabetical order."""
        return list(cls.class_traits(state=True))

    def state(self) -> dict[str, Any]:
        """Values of the traits that make up the state."""
        return {name: getattr(self, name) for name in self.state_names()}

    def compute(self) -> dict[str, Any]:
        """All numbers of the figure in its present state, as the module's ``compute`` gives them.

        Returns
        -------
        dict
            Numbers and nested lists of numbers by name, from the package in float64.
        """
        raise NotImplementedError(f"{type(self).__name__} does not say what it computes.")

    def page_data(self) -> dict[str, Any]:
        """What the module draws from on a page: ``data``, and what only a page needs."""
        return self.data

    def html(self) -> str:
        """The figure for a page without a kernel, in its present state.

        Returns
        -------
        str
            A ``figure`` element with its style and its script.
        """
        values = self.state() | {"start": self.start, "data": self.page_data()}
        # Inside a script element "</script" ends it early, and "<!--" may keep it from ending.
        data = json.dumps(values).replace("<", "\\u003c")
        name = f"hcl-explore-{uuid.uuid4().hex}"
        start = f'render({{ model: staticModel({data}), el: document.getElementById("{name}") }});'
        return (
            f'<figure class="hcl-figure hcl-explore" data-hcl="{self.kind()}" '
            f'data-hcl-asleep="{self.mark}"><style>{self._css}{_sleep(self.mark)}</style>'
            f'<div id="{name}"><p>{_NO_SCRIPT}</p></div>{figcaption(self.caption)}</figure>'
            f'<script type="module">{self._esm}\n{start}</script>'
        )

    @classmethod
    def kind(cls) -> str:
        """Name of the figure in a link to one of its states."""
        return cls.__name__.lower()

    def _repr_mimebundle_(self, **options: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        data, metadata = super()._repr_mimebundle_(**options)
        return data | {"text/plain": f"{type(self).__name__}. {_NO_SCRIPT}"}, metadata

    def _ipython_display_(self) -> None:
        data, metadata = self._repr_mimebundle_()
        display(data, metadata=metadata, raw=True)
        display(HTML(self.html()))


# What stands in place of a figure where its script is not allowed to run.
_NO_SCRIPT = (
    "This figure moves once its cell has run. In a notebook that was run elsewhere, run the cell, "
    "or trust the notebook."
)


def _sleep(mark: str) -> str:
    """Style that shows of a cell's two outputs the one that is awake."""
    view, asleep = f'[data-hcl-live="{mark}"]', f'[data-hcl-asleep="{mark}"]'
    output = ".jp-OutputArea-child"  # in JupyterLab, Notebook 7 and Voila
    return (
        f"body:has({view}) :is({asleep},{output}:has({asleep})),"
        f"body:not(:has({view})) {output}:has(+ {output} {asleep}){{display:none}}"
    )
