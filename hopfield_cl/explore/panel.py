"""A panel of sliders over a matplotlib figure: live with a kernel, swept frames without one.

With a kernel the sliders call Python. For pages that have none every position of the sliders is
drawn once, when the cell runs, and the page shows the one that is asked for.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

import traitlets
from matplotlib.figure import Figure

from hopfield_cl.explore.base import InteractiveFigure, module
from hopfield_cl.plotting import data_url, png, small_png

# Each frame is some 10 kB on the page; a chapter's whole budget is 1.5 MB.
_MOST_FRAMES = 64
_DPI = 110


@dataclass(frozen=True)
class Slider:
    """The positions of one control.

    Attributes
    ----------
    label : str
        What it moves, as the reader sees it.
    values : sequence of float or str
        Its positions, in order.
    start : float or str
        The position at first; one of ``values``.
    text : str
        How a position that is a number is written, as a format specification.

    Raises
    ------
    TypeError
        If a value is neither a number nor a text.
    ValueError
        If ``start`` is not one of the values.
    """

    label: str
    values: Sequence[float | str]
    start: float | str
    text: str = "g"

    def __post_init__(self) -> None:
        object.__setattr__(self, "values", tuple(map(_plain, self.values)))
        if self.start not in self.values:
            raise ValueError(f"start must be one of the values {self.values}, but is {self.start}.")
        object.__setattr__(self, "start", self.listed(self.start))

    def listed(self, value: float | str) -> float | str:
        """A position as it stands among the values: of the same type, too."""
        return self.values[self.values.index(value)]

    def written(self, value: float | str) -> str:
        """A position as the reader sees it."""
        return value if isinstance(value, str) else format(value, self.text)

    def texts(self) -> list[str]:
        """All positions as the reader sees them."""
        return [self.written(value) for value in self.values]


def _plain(value: object) -> float | str:
    """A number or a text of Python's own, which a browser can be told."""
    if isinstance(value, str):
        return str(value)
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        return float(value)
    raise TypeError(f"values must be numbers or texts, but hold {value!r}.")


class _Position(traitlets.TraitType):
    """A trait: one of the positions of a slider."""

    def __init__(self, slider: Slider) -> None:
        super().__init__(slider.start)
        self.slider = slider

    def validate(self, obj: object, value: object) -> float | str:
        """Return the position as the slider lists it, or raise ``TraitError``."""
        if value in self.slider.values:
            return self.slider.listed(value)
        raise traitlets.TraitError(
            f"{self.name} of this Panel must be one of {', '.join(self.slider.texts())}, but is "
            f"{value!r}."
        )


class Panel(InteractiveFigure):
    """A figure with sliders.

    Parameters
    ----------
    draw : callable
        Takes one keyword for each slider; returns the figure and one sentence that says in words
        and numbers what it shows. The sentence is displayed, and read out to those who cannot see.
    sliders : mapping of str to Slider
        Controls that also work on a page, which carries a picture of each of their positions.
    live : mapping of str to Slider, optional
        Further controls that only a kernel can move. On a page they stand at their start, and a
        line says so. Together with ``sliders`` they are the keywords of ``draw``.
    caption : str
        What the reader should try, and see: plain text.

    Attributes
    ----------
    picture : bytes
        The figure in its present state, as PNG.
    sentence : str
        What it shows.

    Besides, each slider is an attribute of its name: set it, and the picture follows.

    Raises
    ------
    ValueError
        If there are no sliders, or more positions than a page can carry, or no caption, or one
        name is used twice, or is that of another attribute.
    """

    _esm = module("kit.js", "panel.js")

    picture = traitlets.Bytes(read_only=True).tag(sync=True)
    sentence = traitlets.Unicode(read_only=True).tag(sync=True)

    def __init__(
        self,
        draw: Callable[..., tuple[Figure, str]],
        sliders: Mapping[str, Slider],
        *,
        live: Mapping[str, Slider] | None = None,
        caption: str,
    ) -> None:
        frames = math.prod(len(slider.values) for slider in sliders.values())
        if not sliders or frames > _MOST_FRAMES:
            raise ValueError(
                f"sliders must have from 1 to {_MOST_FRAMES} positions together, since the page "
                f"carries a picture of each, but have {frames if sliders else 0}."
            )
        if not caption.strip():
            raise ValueError("caption must say what the panel shows, but is empty.")
        held = dict(live or {})
        twice = set(sliders) & set(held)
        if twice:
            raise ValueError(f"live must not name what sliders names, but both name {twice}.")
        taken = sorted(name for name in (*sliders, *held) if hasattr(Panel, name))
        if taken:
            raise ValueError(
                f"sliders must not have the name of another attribute of Panel, but have {taken}."
            )
        self._draw, self._held, self._sliders = draw, held, dict(sliders)
        self._drawn: dict[tuple[float | str, ...], tuple[bytes, str]] = {}
        controls = self._sliders | held
        self.add_traits(
            **{name: _Position(each).tag(sync=True, state=True) for name, each in controls.items()}
        )
        self.set_trait("data", {"sliders": [_told(*each) for each in controls.items()]})
        super().__init__(caption=caption)
        self.observe(self._redraw, names=list(controls))
        self._redraw()

    def compute(self) -> dict[str, Any]:
        """Picture and sentence of the panel in its present state.

        Returns
        -------
        dict
            ``picture``, as PNG, and ``sentence``.
        """
        values = {name: getattr(self, name) for name in self._sliders | self._held}
        # To show a panel its page was drawn: those pictures answer at once.
        known = self._drawn.get(tuple(values.values()))
        if known is None:
            figure, sentence = self._draw(**values)
            known = png(figure, dpi=_DPI), sentence
        return dict(zip(("picture", "sentence"), known, strict=True))

    def _redraw(self, _change: object = None) -> None:
        with self.hold_sync():  # a picture and its sentence arrive together
            for name, value in self.compute().items():
                self.set_trait(name, value)

    def page_data(self) -> dict[str, Any]:
        """All frames of the sliders that a page can move, the last slider fastest."""
        frames = []
        held = {name: slider.start for name, slider in self._held.items()}
        for position in itertools.product(*(slider.values for slider in self._sliders.values())):
            figure, sentence = self._draw(**dict(zip(self._sliders, position, strict=True)), **held)
            picture = small_png(figure, dpi=_DPI)
            self._drawn[*position, *held.values()] = picture, sentence
            frames.append({"picture": data_url(picture), "sentence": sentence})
        return {
            "sliders": [_told(*each) for each in self._sliders.items()],
            "frames": frames,
            "held": [f"{s.label} = {s.written(s.start)}" for s in self._held.values()],
        }


def _told(name: str, slider: Slider) -> dict[str, Any]:
    """What the module must know of a slider."""
    told = {"name": name, "label": slider.label}
    return told | {"values": list(slider.values), "texts": slider.texts()}
