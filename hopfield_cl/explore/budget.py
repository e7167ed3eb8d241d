"""Budget: what a replay budget protects and what is lost, by strategy, over all budgets."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
import traitlets
from scipy.linalg import expm
from torch import Tensor

from hopfield_cl.energy import energy, fixed_points
from hopfield_cl.explore._random import normals
from hopfield_cl.explore.base import InteractiveFigure, Number, module
from hopfield_cl.forgetting import intrinsic_forgetting
from hopfield_cl.memories import cluster_with_outlier
from hopfield_cl.replay import budget_curve, replay_gain_set, replay_log_odds, select_replay

_CLUSTER, _DIM, _CORRELATION, _TWINS = 12, 50, 0.35, 0.98
_POOL = _CLUSTER + 3
_DRAWS = 20
_TOL, _MAX_STEPS = 1e-13, 20_000
_SAME_POINT = 1e-3
# Samples that symmetry makes equal are not so in their last digits, which must not decide.
_DECIMALS = 9


class Budget(InteractiveFigure):
    """A cluster, an outlier and two near-duplicates, of which a budget may be replayed.

    One bar a memory for its rise and for what replay leaves of it, grouped by basin; and the total
    gain over all budgets for four ways to choose.

    Parameters
    ----------
    **traits
        Any of the attributes below, as they are at first, and ``caption``.

    Attributes
    ----------
    budget : int
        Number of memories to replay, from 0 to 15.
    strategy : {"highest", "greedy", "random", "lowest"}
        How they are chosen.
    outlier_overlap : float
        Product s of the outlier with the cluster's common direction, from 0 (far out) to 1.
    beta : float
        Inverse temperature β, from 2 to 32.
    epsilon : float
        Size ε of the rotation that changes the task, in radians, from 0.01 to 0.2.
    rotation : int
        Number of the rotation, from 1 to 20: its seed, and that of the random choices.
    mass : {"apart", "counted"}
        Whether the gain is shown net of what the added mass alone gives, or with it.

    Raises
    ------
    TypeError
        If a keyword is not a trait of the figure.
    traitlets.TraitError
        If a value does not fit its trait.
    """

    _esm = module("kit.js", "axes.js", "random.js", "cluster.js", "budget.js")
    default_caption: ClassVar[str] = (
        "Twelve cluster vectors, an outlier and two near-duplicates (product 0.98) in 50 "
        "dimensions; a rotation changes the task. Left: each memory’s rise, and what replay leaves "
        "of it; brackets join memories in one basin; numbers tell the order of replay. Right: the "
        "gain over all budgets; the ring is the present choice, the band the range of 20 random "
        "ones. With two replays, what does “greedy” take that “highest energy” does not?"
    )

    budget = traitlets.Int(2, min=0, max=_POOL).tag(sync=True, state=True)
    strategy = traitlets.Enum(["highest", "greedy", "random", "lowest"], "highest").tag(
        sync=True, state=True
    )
    outlier_overlap = Number(0.0, low=0.0, high=1.0).tag(sync=True, state=True)
    beta = Number(8.0, low=2.0, high=32.0).tag(sync=True, state=True)
    epsilon = Number(0.1, low=0.01, high=0.2).tag(sync=True, state=True)
    rotation = traitlets.Int(1, min=1, max=20).tag(sync=True, state=True)
    mass = traitlets.Enum(["apart", "counted"], "apart").tag(sync=True, state=True)

    def compute(self) -> dict[str, Any]:
        """All numbers of the figure in its present state.

        Returns
        -------
        dict
            For each memory, the cluster first and the twins last: energy, rise, the first memory of
            its basin, and its gain net of mass and by mass alone. The memories chosen, in order.
            For each strategy, total gain net of mass and with it for budgets 0 to 15: one row, for
            "random" one for each of 20 draws, of which the first is the one chosen.
        """
        old = _pool(self.outlier_overlap)
        new = old @ _rotation(self.rotation, self.epsilon).mT
        points = fixed_points(old, old, self.beta, tol=_TOL, max_steps=_MAX_STEPS).points
        level = energy(points, old, self.beta)
        after = replay_log_odds(points, new, old, self.beta)
        before = replay_log_odds(points, old, old, self.beta)
        orders = {
            name: select_replay(
                level.round(decimals=_DECIMALS),
                _POOL,
                name,
                gains=after.exp().round(decimals=_DECIMALS),
            )[None]
            for name in ("highest", "greedy", "lowest")
        } | {"random": _random_orders(self.rotation)}
        curves = {name: budget_curve(order, after, self.beta) for name, order in orders.items()}
        by_mass = {name: budget_curve(order, before, self.beta) for name, order in orders.items()}
        chosen = orders[self.strategy][0, : self.budget]
        gain = mass = torch.zeros_like(level)
        if self.budget:
            gain = replay_gain_set(points, new, old[chosen], self.beta)
            mass = replay_gain_set(points, old, old[chosen], self.beta)
        return {
            "energy": level.tolist(),
            "rise": intrinsic_forgetting(points, old, new, self.beta).tolist(),
            "basin": (torch.cdist(points, points) < _SAME_POINT).int().argmax(1).tolist(),
            "net": (gain - mass).tolist(),
            "mass": mass.tolist(),
            "chosen": chosen.tolist(),
            "with_mass": {name: curve.tolist() for name, curve in curves.items()},
            "net_of_mass": {name: (curves[name] - by_mass[name]).tolist() for name in curves},
        }


def _pool(outlier_overlap: float) -> Tensor:
    """The cluster, the outlier and, along two axes of their own, the twins; shape (15, 50)."""
    twins = torch.zeros(2, _DIM, dtype=torch.float64)
    twins[:, _CLUSTER + 2] = torch.tensor([1.0, _TWINS], dtype=torch.float64)
    twins[1, _CLUSTER + 3] = math.sqrt(1 - _TWINS**2)
    return torch.cat([cluster_with_outlier(_CLUSTER, _DIM, _CORRELATION, outlier_overlap), twins])


def _rotation(seed: int, epsilon: float) -> Tensor:
    """V = exp(εΩ), Ω = (W − Wᵀ)/2, with W from the generator that the browser has too."""
    w = normals(seed, _DIM**2).reshape(_DIM, _DIM)
    return torch.from_numpy(expm(epsilon * (w - w.mT).numpy() / 2))


def _random_orders(rotation: int) -> Tensor:
    """Permutations of the pool, shape (20, 15), from seeds that no rotation has."""
    seeds = range(100 * rotation + 1, 100 * rotation + 1 + _DRAWS)
    return torch.stack([normals(seed, _POOL).argsort() for seed in seeds])
