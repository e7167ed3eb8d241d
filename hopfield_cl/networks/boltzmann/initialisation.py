"""Where the memories begin: on samples that lie far apart."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from hopfield_cl import _checks
from hopfield_cl.networks.boltzmann._tensors import draw, normal, squared_distances, uniform, wide
from hopfield_cl.networks.boltzmann.machine import HopfieldBoltzmannMachine

# Samples whose distances are computed together when seeding.
_CANDIDATES = 32


@torch.no_grad()
def initialise(
    data: Float[Tensor, "N d"],
    count: int,
    beta: float | Tensor,
    *,
    generator: torch.Generator | None,
    learned: Sequence[str] = ("memories", "weights"),
) -> HopfieldBoltzmannMachine:
    """Machine whose memories are samples that lie far apart, in equal proportions.

    The first sample is drawn at random, each further one with a probability that grows with the
    squared distance to the nearest already chosen. When no sample is left that differs from all
    memories, the others are random samples moved by a random step of length about 1/√β, since two
    equal memories would stay equal under training.

    Parameters
    ----------
    data : Tensor, shape (N, d)
        Samples, one a row.
    count : int
        Number M of memories, at least 1; may exceed N.
    beta : float or scalar Tensor
        Inverse temperature, above 0.
    generator : torch.Generator or None
        Source of the choice; None is PyTorch's default generator.
    learned : sequence of str
        As for :class:`HopfieldBoltzmannMachine`.

    Returns
    -------
    HopfieldBoltzmannMachine
        The machine, in the dtype and on the device of ``data``.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind, shape or range.

    References
    ----------
    Arthur & Vassilvitskii (2007), *k-means++: the advantages of careful seeding*.
    """
    _checks.memory_set(data, "data")
    _checks.integer_from(count, "count", 1)
    _checks.beta(beta, data)
    points = wide(data) - wide(data).mean(0)
    square = points.square().sum(1)
    rows = _far_apart(points, square, count, generator)
    memories = wide(data)[rows]
    if len(rows) < count:
        even = torch.ones_like(square)[None]
        more = wide(data)[draw(even, count - len(rows), generator)[0]]
        step = normal(more, generator) / math.sqrt(float(beta) * data.shape[1])
        memories = torch.cat([memories, more + step])
    machine = HopfieldBoltzmannMachine(memories.to(data.dtype), beta, learned=learned)
    machine.logits.fill_(-math.log(count))
    return machine


def _far_apart(
    points: Tensor, square: Tensor, count: int, generator: torch.Generator | None
) -> list[int]:
    """Rows drawn one after another by squared distance to the nearest; fewer if none differs.

    Candidates are drawn, and their distances computed, many at a time. One is then taken with the
    ratio of its distance now to that at its drawing, which makes each draw exact.
    """
    rows = [int(draw(torch.ones_like(square)[None], 1, generator))]
    nearest = squared_distances(points, square, rows)[0]
    while len(rows) < count and bool((nearest > 0).any()):
        drawn_at = nearest
        candidates = draw(nearest[None], _CANDIDATES, generator)[0]
        distances = squared_distances(points, square, candidates)
        chance = uniform(nearest[candidates], generator) * drawn_at[candidates]
        for row, bar, distance in zip(candidates.tolist(), chance, distances, strict=True):
            if bar < nearest[row] and len(rows) < count:
                rows.append(row)
                nearest = torch.minimum(nearest, distance)
    return rows
