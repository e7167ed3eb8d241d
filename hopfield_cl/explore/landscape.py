"""Landscape: memories in the plane, their energy and basins, and a query that is retrieved."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import traitlets
from torch import Tensor

from hopfield_cl.energy import curvature, energy, retrieve
from hopfield_cl.explore import _plane
from hopfield_cl.explore.base import InteractiveFigure, Number, module

_PATH_TOL, _PATH_STEPS = 1e-4, 200


class Landscape(InteractiveFigure):
    """Energy and basins of memories in the plane, with a query that is retrieved.

    Memories can be dragged, added and removed, and the query dropped anywhere.

    Parameters
    ----------
    **traits
        Any of the attributes below, as they are at first, and ``caption``.

    Attributes
    ----------
    beta : float
        Inverse temperature β, from 1 to 64.
    masses : {"equal", "smoothed"}
        Equal masses, as in a Hopfield network, or masses exp(−β‖x_i‖²/2), with which the energy is
        −σ² log p_σ of the memories smoothed by Gaussian noise of variance σ² = 1/β.
    memories : list of [x, y]
        From 1 to 7 memories, with coordinates from −1.4 to 1.4.
    query : [x, y]
        Where retrieval starts.

    Raises
    ------
    TypeError
        If a keyword is not a trait of the figure.
    traitlets.TraitError
        If a value does not fit its trait.
    """

    _esm = module("kit.js", "plane.js", "landscape.js")
    default_caption: ClassVar[str] = (
        "Drag a memory, or move it with the arrow keys; tap the plane to drop the query there. "
        "Colours are basins, crosses their bottoms, lines join points of equal energy. Lower β "
        "until two basins become one."
    )

    beta = Number(8.0, low=1.0, high=64.0).tag(sync=True, state=True)
    masses = traitlets.Enum(["equal", "smoothed"], "equal").tag(sync=True, state=True)
    memories = _plane.Points(
        default_value=[[-0.9, 0.45], [-1.0, 0.0], [-0.85, -0.5], [0.95, 0.4], [0.45, -0.9]]
    ).tag(sync=True, state=True)
    query = _plane.Point(default_value=[0.1, 0.3]).tag(sync=True, state=True)

    def compute(self, *, grid: int = 24) -> dict[str, Any]:
        """All numbers of the figure in its present state.

        Parameters
        ----------
        grid : int
            Grid points along a side of the picture.

        Returns
        -------
        dict
            Energies, basins, fixed points with their smallest curvature, the query's path.
        """
        memories = torch.tensor(self.memories, dtype=torch.float64)
        weights = _plane.smoothed_masses(memories, self.beta) if self.masses != "equal" else None
        points, basin = _plane.attractors(memories, self.beta, weights)
        on_grid, grid_basin = _plane.grid_basins(grid, points, memories, self.beta, weights)
        path = self._path(memories, weights)

        def at(place: Tensor) -> list[float]:
            return energy(place, memories, self.beta, weights=weights).tolist()

        return {
            "memory_energy": at(memories),
            "memory_basin": basin,
            "fixed_points": points.tolist(),
            "fixed_point_energy": at(points),
            "fixed_point_curvature": curvature(points, memories, self.beta, weights=weights)[
                :, 0
            ].tolist(),
            "path": path.tolist(),
            "path_energy": at(path),
            "grid_energy": at(on_grid),
            "grid_basin": grid_basin,
        }

    def _path(self, memories: Tensor, weights: Tensor | None) -> Tensor:
        path = [torch.tensor(self.query, dtype=torch.float64)]
        while len(path) <= _PATH_STEPS:
            image = retrieve(path[-1], memories, self.beta, weights=weights)
            if float((image - path[-1]).norm()) <= _PATH_TOL:
                break
            path.append(image)
        return torch.stack(path)
