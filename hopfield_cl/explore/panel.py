"""A panel of sliders over a matplotlib figure: live with a kernel, swept frames without one.

In JupyterLab the sliders call Python. The same output carries an HTML part for pages that have no
kernel: every position of the sliders is drawn once, when the cell runs, and the page's own small
script (`panel.js`) shows the one that is asked for.
"""

from __future__ import annotations

import html
import itertools
import json
import math
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ipywidgets
from matplotlib.figure import Figure

from hopfield_cl.plotting import data_url, figcaption, png, small_png

_SCRIPT = (Path(__file__).parent / "panel.js").read_text(encoding="utf-8")
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
    ValueError
        If ``start`` is not one of the values.
    """

    label: str
    values: Sequence[float | str]
    start: float | str
    text: str = "g"

    def __post_init__(self) -> None:
        if self.start not in self.values:
            raise ValueError(f"start must be one of the values {self.values}, but is {self.start}.")

    def options(self) -> list[tuple[str, float | str]]:
        """Positions with their text, for ipywidgets."""
        return [(self.written(value), value) for value in self.values]

    def written(self, value: float | str) -> str:
        """A position as the reader sees it."""
        return value if isinstance(value, str) else format(value, self.text)


class Panel:
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
        What the reader should try, and see.

    Raises
    ------
    ValueError
        If there are no sliders, or more positions than a page can carry, or no caption, or one
        name is used twice.
    """

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
        twice = set(sliders) & set(live or {})
        if twice:
            raise ValueError(f"live must not name what sliders names, but both name {twice}.")
        self.draw, self.sliders, self.caption = draw, dict(sliders), caption
        self.live = dict(live or {})
        self.controls = {
            name: ipywidgets.SelectionSlider(
                options=slider.options(),
                value=slider.start,
                description=slider.label,
                style={"description_width": "initial"},
                layout={"width": "100%", "max_width": "640px"},
            )
            for name, slider in (self.sliders | self.live).items()
        }
        self.image = ipywidgets.Image(format="png", layout={"max_width": "100%"})
        self.sentence = ipywidgets.HTML()
        self._drawn: dict[tuple[float | str, ...], tuple[bytes, str]] = {}
        for control in self.controls.values():
            control.observe(self._redraw, names="value")
        self._redraw()
        caption_line = ipywidgets.HTMLMath(html.escape(caption))
        self.view = ipywidgets.VBox(
            [*self.controls.values(), self.image, self.sentence, caption_line]
        )

    def _redraw(self, _change: object = None) -> None:
        values = {name: control.value for name, control in self.controls.items()}
        # To show a panel its page was drawn: those pictures answer at once.
        known = self._drawn.get(tuple(values.values()))
        if known is None:
            figure, sentence = self.draw(**values)
            self.image.value = png(figure, dpi=_DPI)
        else:
            self.image.value, sentence = known
        self.image.tooltip = sentence  # the title of the picture: ipywidgets knows no alt
        self.sentence.value = html.escape(sentence)

    def _repr_mimebundle_(self, **options: Any) -> dict[str, Any]:
        widget = self.view._repr_mimebundle_(**options) or {}
        return {**widget, "text/html": self.html()}

    def html(self) -> str:
        """The panel for a page without a kernel: all its frames and the script that shows them."""
        frames = []
        held = {name: slider.start for name, slider in self.live.items()}
        for position in itertools.product(*(slider.values for slider in self.sliders.values())):
            figure, sentence = self.draw(**dict(zip(self.sliders, position, strict=True)), **held)
            picture = small_png(figure, dpi=_DPI)
            self._drawn[*position, *held.values()] = picture, sentence
            frames.append({"image": data_url(picture), "sentence": sentence})
        state = {
            "sliders": [
                {
                    "label": slider.label,
                    "texts": [text for text, _ in slider.options()],
                    "start": list(slider.values).index(slider.start),
                }
                for slider in self.sliders.values()
            ],
            "frames": frames,
            "held": [f"{s.label} = {s.written(s.start)}" for s in self.live.values()],
        }
        # Inside a script element "</script" ends it early, and "<!--" may keep it from ending.
        data = json.dumps(state).replace("<", "\\u003c")
        name = f"hcl-panel-{uuid.uuid4().hex}"
        return (
            f'<figure class="hcl-figure hcl-panel" id="{name}">'
            f"{figcaption(self.caption)}</figure>"
            f'<script type="module">{_SCRIPT}\n'
            f'render(document.getElementById("{name}"), {data});</script>'
        )
