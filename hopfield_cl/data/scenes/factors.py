"""What a scene shows and how: one coloured shape on a textured background.

Six factors say what it shows and seven numbers between 0 and 1, its jitter, say how.
"""

from __future__ import annotations

from types import MappingProxyType

FACTORS = MappingProxyType(
    {
        "shape": ("circle", "square", "triangle", "star", "cross", "ring"),
        "colour": ("red", "orange", "yellow", "green", "cyan", "blue", "purple", "pink"),
        "size": ("small", "large"),
        "place": (
            *("top left", "top", "top right"),
            *("left", "centre", "right"),
            *("bottom left", "bottom", "bottom right"),
        ),
        "background": ("white", "grey", "black", "brown"),
        "texture": ("plain", "striped", "checked", "dotted"),
    }
)
"""Each factor's name and its values' names, in the order of the columns of ``factors``."""

JITTER = ("across", "down", "radius", "angle", "phase across", "phase down", "tone")
"""What the columns of ``jitter`` move: the shape, the texture, the background's brightness."""
