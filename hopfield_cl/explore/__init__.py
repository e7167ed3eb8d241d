"""Interactive figures that are live in a notebook and still work on a page without a kernel."""

from hopfield_cl.explore.panel import Panel, Slider

__all__ = ["Panel", "Slider"]
