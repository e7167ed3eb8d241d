"""Cooling: data under noise σ, its posterior mean, basins born as σ falls, a sample path."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import traitlets
from torch import Tensor

from hopfield_cl.energy import curvature, energy, retrieve
from hopfield_cl.explore import _plane
from hopfield_cl.explore._random import normals
from hopfield_cl.explore.base import InteractiveFigure, Number, module

_HOT, _COLD, _FIELD, _LEVELS, _PATH = 1.5, 0.1, 13, 48, 64


class Cooling(InteractiveFigure):
    """Points of the plane under Gaussian noise: a noise schedule is a cooling schedule.

    Shown are the posterior mean (the optimal denoiser, one retrieval step), the basins that are
    born as the noise falls, and the path of a sample under the probability flow.

    Parameters
    ----------
    **traits
        Any of the attributes below, as they are at first, and ``caption``.

    Attributes
    ----------
    sigma : float
        Noise level σ = 1/√β, from 0.1 to 1.5.
    sample : int
        Number of the sample, from 1 to 20: the seed of its start.
    memories : list of [x, y]
        From 1 to 7 data points, with coordinates from −1.4 to 1.4.

    Raises
    ------
    TypeError
        If a keyword is not a trait of the figure.
    traitlets.TraitError
        If a value does not fit its trait.
    """

    _esm = module("kit.js", "axes.js", "random.js", "plane.js", "cooling.js")
    default_caption: ClassVar[str] = (
        "Lower the noise, or press Cool. Left: arrows point to the posterior mean, crosses are the "
        "basins’ bottoms, the line is a sample. Right: where basins are born. Does the sample "
        "choose its basin before or after that basin is born?"
    )

    sigma = Number(0.5, low=_COLD, high=_HOT).tag(sync=True, state=True)
    sample = traitlets.Int(1, min=1, max=20).tag(sync=True, state=True)
    memories = _plane.Points(
        default_value=[
            [-0.95, 0.3],
            [-1.05, 0.0],
            [-0.85, -0.25],
            [0.3, 1.0],
            [0.95, -0.1],
            [0.75, -0.75],
        ]
    ).tag(sync=True, state=True)

    def compute(self) -> dict[str, Any]:
        """All numbers of the figure in its present state.

        Returns
        -------
        dict
            Modes with energy and smallest curvature, the field of posterior means, modes at each
            noise level, and the sample's path as (σ, x, y).
        """
        memories = torch.tensor(self.memories, dtype=torch.float64)
        beta = self.sigma**-2
        masses = _plane.smoothed_masses(memories, beta)
        modes, of = _plane.attractors(memories, beta, masses)
        cell = _plane.HALF * (2 * (torch.arange(_FIELD, dtype=torch.float64) + 0.5) / _FIELD - 1)
        grid = torch.stack([cell.repeat(_FIELD), -cell.repeat_interleave(_FIELD)], dim=-1)
        return {
            "modes": modes.tolist(),
            "memory_mode": of,
            "mode_energy": energy(modes, memories, beta, weights=masses).tolist(),
            "mode_curvature": curvature(modes, memories, beta, weights=masses)[:, 0].tolist(),
            "field": retrieve(grid, memories, beta, weights=masses).tolist(),
            "births": [self._modes(memories, _level(k, _LEVELS)) for k in range(_LEVELS + 1)],
            "path": self._path(memories),
        }

    def _modes(self, memories: Tensor, sigma: float) -> dict[str, Any]:
        masses = _plane.smoothed_masses(memories, sigma**-2)
        points, of = _plane.attractors(memories, sigma**-2, masses)
        return {"sigma": sigma, "modes": points.tolist(), "of": of}

    def _path(self, memories: Tensor) -> list[list[float]]:
        """The probability flow dx/dσ = (x − D_σ(x))/σ from a normal sample down to σ."""
        x, now = memories.mean(0) + _HOT * normals(self.sample, 2), _HOT
        path = [[now, *x.tolist()]]
        while now > self.sigma:
            following = max(self.sigma, _level(len(path), _PATH))
            masses = _plane.smoothed_masses(memories, now**-2)
            mean = retrieve(x, memories, now**-2, weights=masses)
            x, now = mean + following / now * (x - mean), following
            path.append([now, *x.tolist()])
        return path


def _level(k: int, count: int) -> float:
    """Noise level number k of ``count``, evenly spaced on a logarithmic scale from hot to cold."""
    return _HOT * (_COLD / _HOT) ** (k / count)
