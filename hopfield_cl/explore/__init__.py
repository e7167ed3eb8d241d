"""Interactive figures that are live in a notebook and still work on a page without a kernel."""

from hopfield_cl.explore.budget import Budget
from hopfield_cl.explore.cooling import Cooling
from hopfield_cl.explore.landscape import Landscape
from hopfield_cl.explore.outlier import Outlier
from hopfield_cl.explore.panel import Panel, Slider
from hopfield_cl.explore.record import Record

__all__ = ["Budget", "Cooling", "Landscape", "Outlier", "Panel", "Record", "Slider"]
