"""Outlier: energy, curvature and rise of a cluster and its outlier, and what the law predicts."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from scipy.linalg import expm
from torch import Tensor

from hopfield_cl.energy import curvature, energy, fixed_points
from hopfield_cl.explore._random import normals
from hopfield_cl.explore.base import InteractiveFigure, Number, module
from hopfield_cl.forgetting import expected_rise, rise_under_rotations
from hopfield_cl.memories import cluster_with_outlier

_CLUSTER, _DIM, _ROTATIONS = 12, 50, 32
_TOL, _MAX_STEPS = 1e-13, 20_000


class Outlier(InteractiveFigure):
    """A cluster of twelve memories and an outlier in 50 dimensions: who forgets more.

    One bar a memory for its energy, its smallest curvature and its mean rise under 32 rotations,
    with the standard error over these, beside the second-order law.

    Parameters
    ----------
    **traits
        Any of the attributes below, as they are at first, and ``caption``.

    Attributes
    ----------
    outlier_overlap : float
        Product s of the outlier with the cluster's common direction, from 0 (far out) to 1.
    correlation : float
        Product c of two cluster vectors, from 0.05 to 0.95: how tight the cluster is.
    beta : float
        Inverse temperature β, from 2 to 32.
    epsilon : float
        Size ε of the rotation that changes the task, in radians, from 0.01 to 0.2.

    Raises
    ------
    TypeError
        If a keyword is not a trait of the figure.
    traitlets.TraitError
        If a value does not fit its trait.
    """

    _esm = module("kit.js", "axes.js", "random.js", "cluster.js", "outlier.js")
    default_caption: ClassVar[str] = (
        "Twelve cluster vectors and one outlier in 50 dimensions; the task change is a small "
        "rotation. Bars are the memories, the thin lines standard errors over 32 rotations. Bring "
        "the outlier into the cluster: at which s does it begin to forget less?"
    )

    outlier_overlap = Number(0.0, low=0.0, high=1.0).tag(sync=True, state=True)
    correlation = Number(0.35, low=0.05, high=0.95).tag(sync=True, state=True)
    beta = Number(8.0, low=2.0, high=32.0).tag(sync=True, state=True)
    epsilon = Number(0.05, low=0.01, high=0.2).tag(sync=True, state=True)

    def compute(self) -> dict[str, Any]:
        """All numbers of the figure in its present state.

        Returns
        -------
        dict
            Energy, smallest curvature, squared norm of the fixed point, law and measured rise of
            each memory, the outlier last.
        """
        memories = cluster_with_outlier(_CLUSTER, _DIM, self.correlation, self.outlier_overlap)
        points = fixed_points(memories, memories, self.beta, tol=_TOL, max_steps=_MAX_STEPS).points
        rises = rise_under_rotations(points, memories, self.beta, rotations(self.epsilon))
        return {
            "energy": energy(points, memories, self.beta).tolist(),
            "curvature": curvature(points, memories, self.beta)[:, 0].tolist(),
            "norm2": points.square().sum(-1).tolist(),
            "law": expected_rise(points, memories, self.beta, self.epsilon).tolist(),
            "rise": rises.mean(0).tolist(),
            "rise_error": (rises.std(0) / _ROTATIONS**0.5).tolist(),
            "cluster_rise": float(rises[:, :-1].mean()),
            "between_cluster": float((points[0] - points[1]).norm()),
            "to_outlier": float((points[0] - points[-1]).norm()),
        }


def rotations(epsilon: float) -> Tensor:
    """The 32 rotations of the figure, from seeds 1 to 32.

    Parameters
    ----------
    epsilon : float
        Their size ε, in radians.

    Returns
    -------
    Tensor, shape (32, 50, 50)
        V = exp(εΩ), Ω = (W − Wᵀ)/2, with W from the generator that the browser has too.
    """
    seeds = range(1, _ROTATIONS + 1)
    w = torch.stack([normals(seed, _DIM**2).reshape(_DIM, _DIM) for seed in seeds])
    return torch.from_numpy(expm(epsilon * (w - w.mT).numpy() / 2))
