"""Expectation–maximisation of the mixture: read the data, move the parameters, place anew."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from hopfield_cl.networks.boltzmann._fitting import learned_parameters, sample_masses
from hopfield_cl.networks.boltzmann._tensors import squared_distances, wide
from hopfield_cl.networks.boltzmann.fit_record import FitRecord
from hopfield_cl.networks.boltzmann.machine import HopfieldBoltzmannMachine

# A memory that holds less than this share of one average sample is called empty.
_EMPTY = 1e-3
# Bytes of one block of scores, samples × memories: measured in benchmarks/boltzmann.py.
_SCORE_BYTES = 2 * 2**20
# With fewer than one share in so many above rounding, adding rows beats the matrix product.
_SPARSE = 256


@dataclass(frozen=True)
class _Expectation:
    """What one reading of the data tells: mass (M,) and sum (M, d) of the data of each memory."""

    log_likelihood: float
    mass: Tensor
    total: Tensor
    empty: Tensor


class ExpectationMaximisation:
    """The data and the parameters from a common centre, in at least float32."""

    def __init__(self, machine: HopfieldBoltzmannMachine, data: Tensor, weights: Tensor | None):
        self.learned = learned_parameters(machine)
        self.masses = sample_masses(data, weights)
        self.all_mass = self.masses.sum()
        self.centre = wide(data).mean(0)
        self.data = wide(data) - self.centre
        self.square = self.data.square().sum(1)
        self.memories = wide(machine.memories.detach()) - self.centre
        self.log_share = torch.log_softmax(wide(machine.logits.detach()), 0)
        self.beta = wide(machine.beta.detach())

    def run(self, steps: int, tol: float) -> FitRecord:
        """At most ``steps`` steps."""
        now = self.expect()
        values, converged = [now.log_likelihood], False
        may_reseed = "memories" in self.learned and "logits" in self.learned
        reseeded = torch.zeros_like(now.empty, dtype=torch.int64)
        for _ in range(steps):
            before = self.memories, self.log_share, self.beta
            self.maximise(now)
            after = self.memories, self.log_share, self.beta
            tries = (
                may_reseed and bool(now.empty.any()) and {"memories", "logits"} <= {*self.learned}
            )
            if tries:
                self.reseed(now.empty)
            then = self.expect()
            if tries and then.log_likelihood >= values[-1]:
                reseeded += now.empty
            elif tries:
                self.memories, self.log_share, self.beta = after
                may_reseed, then = False, self.expect()
            rise = then.log_likelihood - values[-1]
            if rise < 0:  # by rounding alone: keep the better of the two
                self.memories, self.log_share, self.beta = before
                converged = True
                break
            values.append(then.log_likelihood)
            now = then
            if rise <= tol:
                converged = True
                break
        likelihood = torch.tensor(values, dtype=torch.float64)
        return FitRecord(likelihood, reseeded, now.empty, converged)

    def expect(self) -> _Expectation:
        """Read the data once, a block of samples at a time."""
        keys = self.beta * self.memories
        offset = self.log_share - 0.5 * self.beta * self.memories.square().sum(1)
        mass = torch.zeros_like(self.log_share)
        total = torch.zeros_like(self.memories)
        value, smallest = 0.0, math.log(torch.finfo(total.dtype).eps / len(total))
        for block, square, weight in self.blocks():
            scores = torch.addmm(offset, block, keys.mT)
            top = scores.amax(1, keepdim=True)
            # What is left out adds up to less than rounding in each row.
            kept = scores.sub_(top) > smallest
            share = scores.clamp_(min=smallest).exp_().mul_(kept)
            sums = share.sum(1, keepdim=True)
            log_kernel = (top + sums.log())[:, 0] - 0.5 * self.beta * square
            value += float((weight * log_kernel).sum(dtype=torch.float64))
            share.mul_(weight[:, None] / sums)
            mass += share.sum(0)
            _add_shares(total, share, kept, block)
        value = value / float(self.all_mass)
        value += 0.5 * self.data.shape[1] * math.log(float(self.beta) / (2 * math.pi))
        empty = mass < _EMPTY * self.all_mass / len(self.data)
        return _Expectation(value, mass, total, empty)

    def blocks(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        item = torch.finfo(self.data.dtype).bits // 8
        size = max(64, _SCORE_BYTES // (item * len(self.memories)))
        parts = (whole.split(size) for whole in (self.data, self.square, self.masses))
        return zip(*parts, strict=True)

    def maximise(self, seen: _Expectation) -> None:
        """Best parameters given the shares that were seen; an empty memory stays where it is."""
        if "memories" in self.learned:
            held = seen.mass.clamp(min=torch.finfo(seen.mass.dtype).tiny)[:, None]
            self.memories = torch.where(seen.empty[:, None], self.memories, seen.total / held)
        if "logits" in self.learned:
            tiny = torch.finfo(seen.mass.dtype).tiny
            self.log_share = torch.log_softmax((seen.mass / self.all_mass).clamp(min=tiny).log(), 0)
        if "log_beta" in self.learned:
            spread = (self.masses * self.square).sum()
            apart = spread - 2 * (self.memories * seen.total).sum()
            apart = apart + (seen.mass * self.memories.square().sum(1)).sum()
            # Memories that lie on all samples would make β infinite: stop at what rounding leaves.
            apart = torch.maximum(apart, 8 * torch.finfo(apart.dtype).eps * spread)
            self.beta = self.data.shape[1] * self.all_mass / apart

    def reseed(self, empty: Tensor) -> None:
        """Place the empty memories on the samples farthest from all others, one after another."""
        rows = empty.nonzero()[:, 0].tolist()
        others = self.memories[~empty]
        nearest = torch.cat([torch.cdist(block, others).amin(1) for block, _, _ in self.blocks()])
        nearest = nearest.square()
        memories, share = self.memories.clone(), self.log_share.clone()
        for row in rows:
            farthest = int(nearest.argmax())
            memories[row] = self.data[farthest]
            share[row] = (self.masses[farthest] / self.all_mass).log()
            distances = squared_distances(self.data, self.square, [farthest])
            nearest = torch.minimum(nearest, distances[0])
        self.memories, self.log_share = memories, torch.log_softmax(share, 0)

    def write(self, machine: HopfieldBoltzmannMachine) -> None:
        """Put the parameters into the machine."""
        new = {
            "memories": self.memories + self.centre,
            "logits": self.log_share,
            "log_beta": self.beta.log(),
        }
        for name, parameter in self.learned.items():
            parameter.copy_(new[name])


def _add_shares(total: Tensor, share: Tensor, kept: Tensor, block: Tensor) -> None:
    """Add Σ_n share_nj x_n to each total, row by row where nearly all shares are 0."""
    if _SPARSE * int(kept.count_nonzero()) > share.numel():
        total.addmm_(share.mT, block)
    else:
        sample, memory = kept.nonzero(as_tuple=True)
        total.index_add_(0, memory, share[sample, memory][:, None] * block[sample])
