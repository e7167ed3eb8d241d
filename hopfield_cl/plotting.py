"""One figure style, and the figures that several chapters share."""

from __future__ import annotations

import base64
import html
import io
import math
import re
from collections.abc import Sequence
from contextlib import AbstractContextManager

import matplotlib.pyplot as plt
import torch
from cycler import cycler
from IPython.display import HTML, display
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

# Okabe & Ito's palette: told apart by readers with any common colour vision deficiency.
COLORS = {
    "blue": "#0072B2",
    "orange": "#D55E00",
    "green": "#009E73",
    "purple": "#CC79A7",
    "sky": "#56B4E9",
    "amber": "#E69F00",
    "black": "#222222",
}
# The two characters of the book have one colour each, in every chapter.
CLUSTER, OUTLIER = COLORS["blue"], COLORS["orange"]

_STYLE = {
    "figure.figsize": (7.0, 3.4),
    "figure.dpi": 100,
    "figure.constrained_layout.use": True,
    "font.size": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.prop_cycle": cycler(color=list(COLORS.values())),
    "grid.color": "#E4E4E4",
    "legend.frameon": False,
    "lines.linewidth": 2.0,
    "image.cmap": "viridis",
}
_PIXELS_PER_INCH_OF_PAGE = 100
_MATH = re.compile(r"\$([^$]+)\$")


def style() -> AbstractContextManager[None]:
    """Return a context in which figures take the style of the book.

    Returns
    -------
    context manager
        To use in a ``with`` statement; the style before it comes back after it.
    """
    return plt.rc_context(_STYLE)


def subplots(rows: int = 1, columns: int = 1, **options: object) -> tuple[Figure, object]:
    """Make a figure with axes in the style of the book.

    Parameters
    ----------
    rows, columns : int
        Number of axes below and beside each other.
    **options
        As for ``matplotlib.pyplot.subplots``.

    Returns
    -------
    matplotlib Figure
    matplotlib Axes, or an array of them
    """
    with style():
        return plt.subplots(rows, columns, **options)


def show(figure: Figure, *, caption: str, alt: str) -> None:
    """Display a figure with its caption and its alternative text, then close it.

    The caption may hold mathematics between dollar signs. The output is plain HTML, so it reads the
    same in JupyterLab, in a converted notebook and on the page.

    Parameters
    ----------
    figure : matplotlib Figure
        What to display.
    caption : str
        What the figure shows and what to see in it.
    alt : str
        The same for a reader who cannot see it, without mathematics.

    Raises
    ------
    ValueError
        If the caption or the alternative text is empty.
    """
    for name, text in (("caption", caption), ("alt", alt)):
        if not text.strip():
            raise ValueError(f"{name} must say what the figure shows, but is empty.")
    width = round(figure.get_size_inches()[0] * _PIXELS_PER_INCH_OF_PAGE)
    source = data_url(small_png(figure, dpi=180))
    image = (
        f'<img src="{source}" alt="{html.escape(alt)}" width="{width}" '
        'style="max-width:100%;height:auto">'
    )
    display(HTML(f'<figure class="hcl-figure">{image}{figcaption(caption)}</figure>'))


def show_table(head: Sequence[str], rows: Sequence[Sequence[str]], *, caption: str) -> None:
    """Display a table of text with its caption; mathematics may stand between dollar signs.

    On narrow pages each row becomes a block, in which the column's name stands before each entry.

    Parameters
    ----------
    head : sequence of str
        Names of the columns.
    rows : sequence of sequences of str
        Entries, row by row.
    caption : str
        What the table shows.

    Raises
    ------
    ValueError
        If the caption is empty, or a row has not as many entries as there are columns.
    """
    if not caption.strip():
        raise ValueError("caption must say what the table shows, but is empty.")
    odd = next((k for k, row in enumerate(rows) if len(row) != len(head)), None)
    if odd is not None:
        raise ValueError(
            f"rows must have {len(head)} entries each, but row {odd} has {len(rows[odd])}."
        )
    names = "".join(f'<th scope="col">{_typeset(name)}</th>' for name in head)
    lines = [
        "".join(
            f'<td data-column="{html.escape(name)}">{_typeset(entry)}</td>'
            for name, entry in zip(head, row, strict=True)
        )
        for row in rows
    ]
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    table = f"<thead><tr>{names}</tr></thead><tbody>{body}</tbody>"
    classes = "hcl-table tex2jax_process mathjax_process"
    title = f'<caption class="hcl-table-caption">{_typeset(caption)}</caption>'
    display(HTML(f'<table class="{classes}">{title}{table}</table>'))


def figcaption(caption: str) -> str:
    """Write a caption as HTML in which the page sets the mathematics between dollar signs.

    Parameters
    ----------
    caption : str
        The caption, as plain text.

    Returns
    -------
    str
        A ``figcaption`` element.
    """
    return f'<figcaption class="tex2jax_process mathjax_process">{_typeset(caption)}</figcaption>'


def _typeset(text: str) -> str:
    """Text as HTML, its mathematics in the marks that both the page and JupyterLab read."""
    return _MATH.sub(r"\\(\1\\)", html.escape(text))


def data_url(picture: bytes) -> str:
    """Write a PNG as a URL that holds it.

    Parameters
    ----------
    picture : bytes
        The content of the PNG file.

    Returns
    -------
    str
        A data URL.
    """
    return "data:image/png;base64," + base64.b64encode(picture).decode()


def small_png(figure: Figure, *, dpi: int) -> bytes:
    """Draw a figure as a PNG of few bytes, and close it.

    Parameters
    ----------
    figure : matplotlib Figure
        What to draw.
    dpi : int
        Pixels per inch.

    Returns
    -------
    bytes
        The content of the PNG file.
    """
    image = Image.open(io.BytesIO(png(figure, dpi=dpi))).convert("RGB")
    small = io.BytesIO()
    # A palette is a third of the bytes; refined, it keeps the colours of small things.
    image.quantize(256, kmeans=1).save(small, format="png", optimize=True)
    return small.getvalue()


def png(figure: Figure, *, dpi: int) -> bytes:
    """Draw a figure as PNG, and close it.

    Parameters
    ----------
    figure : matplotlib Figure
        What to draw.
    dpi : int
        Pixels per inch.

    Returns
    -------
    bytes
        The content of the PNG file.
    """
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, pil_kwargs={"compress_level": 1})
    plt.close(figure)
    return buffer.getvalue()


def image_grid(
    images: Tensor, *, columns: int = 10, titles: Sequence[str] | None = None, size: float = 0.7
) -> Figure:
    """Draw images side by side, in rows.

    Parameters
    ----------
    images : Tensor, shape (N, C, H, W) or (N, H, W)
        Pixel values in [−1, 1]; C is 1 (grey) or 3 (red, green, blue).
    columns : int
        Images in a row.
    titles : sequence of str, optional
        A line above each image.
    size : float
        Side of an image, in inches.

    Returns
    -------
    matplotlib Figure

    Raises
    ------
    ValueError
        If there are no images, or not as many titles as images.
    """
    count = images.shape[0]
    if count == 0:
        raise ValueError("images must hold at least one image, but is empty.")
    if titles and len(titles) != count:
        raise ValueError(f"titles must be as many as the images, {count}, but are {len(titles)}.")
    columns = min(columns, count)
    rows = math.ceil(count / columns)
    height = rows * size * (1.4 if titles else 1.05)
    figure, grid = subplots(rows, columns, figsize=(columns * size * 1.05, height), squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for index in range(count):
        draw_image(grid.flat[index], images[index])
        if titles:
            grid.flat[index].set_title(titles[index], fontsize=9, pad=2)
    return figure


def draw_image(axes: Axes, image: Tensor) -> None:
    """Draw one image on the given axes.

    Parameters
    ----------
    axes : matplotlib Axes
        Where to draw.
    image : Tensor, shape (C, H, W) or (H, W)
        Pixel values in [−1, 1]; C is 1 (grey) or 3 (red, green, blue).
    """
    pixels = image.detach().to("cpu", torch.float32)
    if pixels.ndim == 3:
        pixels = pixels[0] if pixels.shape[0] == 1 else pixels.permute(1, 2, 0)
    # imshow wants colours in [0, 1] and cuts off what lies outside; grey ones may keep their range.
    if pixels.ndim == 3:
        pixels = (pixels.clamp(-1, 1) + 1) / 2
    axes.imshow(pixels.numpy(), cmap="gray", vmin=-1, vmax=1, interpolation="nearest")
    axes.set_axis_off()
