"""The Boltzmann machine of the modern Hopfield network: learned memories, with exact likelihood.

With memories ξ_1..ξ_M in R^d, inverse temperature β and masses w_j, the density

    p(x) ∝ exp(−β E(x)),   E(x) = ½‖x‖² − β⁻¹ log Σ_j w_j exp(β ξ_j·x),

is a mixture of Gaussians of means ξ_j, one covariance I/β, and proportions
π_j ∝ w_j exp(β‖ξ_j‖²/2). Likelihood, gradient, sampling and the posterior over memories are exact.

The masses span thousands of orders of magnitude when β or the memories are large. They are
therefore never formed: the machine holds the logarithms of the proportions, and

    log w_j = log π_j − β‖ξ_j‖²/2

follows from them. Since only ratios of masses change the density, their scale is fixed by
Σ_j w_j exp(β‖ξ_j‖²/2) = 1. With it E(x) = −β⁻¹ log p(x) − (d/2β) log(2π/β), so that the energies of
two machines with one β compare. All distances are taken from a common centre, which changes no
result and costs float32 fewer digits.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from hopfield_cl import _checks
from hopfield_cl._streaming import log_partition, softmax_mean

# A memory that holds less than this share of one average sample is called empty.
_EMPTY = 1e-3
# Bytes of one block of scores, samples × memories: measured in benchmarks/boltzmann.py.
_SCORE_BYTES = 2 * 2**20
# Samples whose distances are computed together when seeding.
_CANDIDATES = 32
# With fewer than one share in so many above rounding, adding rows beats the matrix product.
_SPARSE = 256
_PARAMETERS = {"memories": "memories", "weights": "logits", "beta": "log_beta"}


class HopfieldBoltzmannMachine(torch.nn.Module):
    """The density exp(−βE) of a modern Hopfield network whose memories can be learned.

    The optimiser moves ``memories``, ``logits`` (whose softmax are the proportions π_j) and
    ``log_beta``. In these the gradient stays of moderate size at any β: a memory that moves keeps
    its proportion, while at a fixed mass w_j its proportion would change by exp(β‖ξ_j‖²/2).

    Parameters
    ----------
    memories : Tensor, shape (M, d)
        Memories ξ_j to start from, one a row. They are copied.
    beta : float or scalar Tensor
        Inverse temperature, above 0, in 1 / (unit of x)².
    weights : Tensor, shape (M,), optional
        Masses w_j of the energy, above 0; equal if not given. Only their ratios matter: they are
        scaled so that Σ_j w_j exp(β‖ξ_j‖²/2) = 1.
    learned : sequence of str
        What training changes: any of "memories", "weights" and "beta".

    Attributes
    ----------
    memories : Parameter, shape (M, d)
        The memories.
    logits : Parameter, shape (M,)
        Logarithms of the proportions, up to a common constant.
    log_beta : Parameter, scalar
        Logarithm of the inverse temperature.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind, shape or range.

    References
    ----------
    Ota & Karakida (2022), the attentional Boltzmann machine.
    """

    def __init__(
        self,
        memories: Float[Tensor, "M d"],
        beta: float | Tensor,
        *,
        weights: Float[Tensor, " M"] | None = None,
        learned: Sequence[str] = ("memories", "weights"),
    ) -> None:
        _checks.memory_set(memories, "memories")
        _checks.beta(beta, memories)
        _checks.weights(weights, memories)
        _check_learned(learned)
        super().__init__()
        with torch.no_grad():
            centred = _wide(memories) - _wide(memories).mean(0)
            # ‖ξ_j‖² up to a constant, with the digits that the memories have apart from their mean.
            square = centred.square().sum(1) + 2 * centred @ _wide(memories).mean(0)
            logits = 0.5 * float(beta) * square
            if weights is not None:
                logits = logits + _wide(weights).log()
            logits = torch.log_softmax(logits, 0).to(memories.dtype)
        log_beta = memories.new_tensor(math.log(beta))
        values = {"memories": memories.detach().clone(), "weights": logits, "beta": log_beta}
        for name, value in values.items():
            parameter = torch.nn.Parameter(value, requires_grad=name in learned)
            self.register_parameter(_PARAMETERS[name], parameter)

    @property
    def beta(self) -> Float[Tensor, ""]:
        """Inverse temperature β, in 1 / (unit of x)²."""
        return self.log_beta.exp()

    @property
    def log_weights(self) -> Float[Tensor, " M"]:
        """Logarithms of the masses, log w_j = log π_j − β‖ξ_j‖²/2."""
        square = _wide(self.memories).square().sum(1)
        return (torch.log_softmax(_wide(self.logits), 0) - 0.5 * self.beta * square).to(
            self.memories.dtype
        )

    @property
    def weights(self) -> Float[Tensor, " M"]:
        """Masses w_j of the energy. Below the smallest number of the dtype they come out as 0."""
        return self.log_weights.exp()

    def proportions(self) -> Float[Tensor, " M"]:
        """Share π_j of each memory in the density, π_j ∝ w_j exp(β‖ξ_j‖²/2).

        Returns
        -------
        Tensor, shape (M,)
            Shares; they sum to 1.
        """
        return torch.softmax(self.logits, 0)

    def energy(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch"]:
        """Energy E(x) = −β⁻¹ log p(x) − (d/2β) log(2π/β).

        Parameters
        ----------
        x : Tensor, shape (..., d)
            Points, in the dtype and on the device of the memories.

        Returns
        -------
        Tensor, shape (...)
            Energies, in the unit of x squared.

        Raises
        ------
        TypeError, ValueError
            If ``x`` is of the wrong kind or shape, or not finite, or the result overflows.
        """
        value = (-self._log_kernel(x) / self.beta).to(x.dtype)
        _checks.no_overflow(value, "the energy")
        return value

    def log_likelihood(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch"]:
        """Logarithm of the normalised density at each point.

        Parameters
        ----------
        x : Tensor, shape (..., d)
            As for :meth:`energy`.

        Returns
        -------
        Tensor, shape (...)
            log p(x), in nats; differentiable in x and in the parameters.

        Raises
        ------
        TypeError, ValueError
            As for :meth:`energy`.
        """
        value = self._log_kernel(x) + 0.5 * x.shape[-1] * (self.log_beta - math.log(2 * math.pi))
        value = value.to(x.dtype)
        _checks.no_overflow(value, "the log-likelihood")
        return value

    def posterior(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch M"]:
        """Probability that each memory made each point: the attention p_j(x).

        Parameters
        ----------
        x : Tensor, shape (..., d)
            As for :meth:`energy`.

        Returns
        -------
        Tensor, shape (..., M)
            Probabilities; they sum to 1 over the last axis.

        Raises
        ------
        TypeError, ValueError
            As for :meth:`energy`.
        """
        queries, keys = self._augmented(x)
        share = torch.softmax(queries @ keys.mT, -1).to(x.dtype)
        _checks.no_overflow(share, "the posterior")
        return share.reshape(*x.shape[:-1], -1)

    def retrieve(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch d"]:
        """Mean of the memories given a point, T(x) = Σ_j p_j(x) ξ_j.

        It is the denoising autoencoder with softmax units whose decoder is the memories: the score
        of the density is ∇log p(x) = β(T(x) − x).

        Parameters
        ----------
        x : Tensor, shape (..., d)
            As for :meth:`energy`.

        Returns
        -------
        Tensor, shape (..., d)
            Points in the convex hull of the memories.

        Raises
        ------
        TypeError, ValueError
            As for :meth:`energy`.
        """
        queries, keys = self._augmented(x)
        mean, _ = softmax_mean(queries, keys, None, None)
        mean = (mean[:, :-1] + self._centre()).to(x.dtype).reshape(x.shape)
        _checks.no_overflow(mean, "the retrieved point")
        return mean

    @torch.no_grad()
    def sample(self, count: int, *, generator: torch.Generator | None) -> Float[Tensor, "count d"]:
        """Draw independent points: a memory by its proportion, then noise of variance 1/β.

        Parameters
        ----------
        count : int
            How many, at least 1.
        generator : torch.Generator or None
            Source of the draws; None is PyTorch's default generator.

        Returns
        -------
        Tensor, shape (count, d)
            Points, in the dtype and on the device of the memories.

        Raises
        ------
        TypeError, ValueError
            If ``count`` is no integer above 0.
        """
        _checks.integer_from(count, "count", 1)
        share = torch.softmax(_wide(self.logits), 0)
        chosen = _draw(share.expand(1, -1), count, generator)[0]
        return self._around(chosen, generator)

    @torch.no_grad()
    def gibbs(
        self, x: Float[Tensor, "*batch d"], *, steps: int, generator: torch.Generator | None
    ) -> Float[Tensor, "*batch d"]:
        """Move each point along a chain that leaves p unchanged: j given x, then x given j.

        Parameters
        ----------
        x : Tensor, shape (..., d)
            Where the chains start; as for :meth:`energy`.
        steps : int
            Length of each chain, at least 1.
        generator : torch.Generator or None
            Source of the draws; None is PyTorch's default generator.

        Returns
        -------
        Tensor, shape (..., d)
            Where the chains end.

        Raises
        ------
        TypeError, ValueError
            As for :meth:`energy`, or if ``steps`` is no integer above 0.
        """
        _checks.integer_from(steps, "steps", 1)
        points = x
        for _ in range(steps):
            share = _wide(self.posterior(points)).reshape(-1, self.logits.shape[0])
            chosen = _draw(share, 1, generator)[:, 0]
            points = self._around(chosen, generator).reshape(x.shape)
        return points

    def _around(self, chosen: Tensor, generator: torch.Generator | None) -> Tensor:
        """A point near each of the chosen memories."""
        means = _wide(self.memories)[chosen]
        noise = _normal(means, generator)
        return (means + noise / self.beta.sqrt()).to(self.memories.dtype)

    def _centre(self) -> Tensor:
        return _wide(self.memories.detach()).mean(0)

    def _augmented(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Queries (Q, d+1) and keys (M, d+1) whose products are log π_j + β(x·ξ_j − ½‖ξ_j‖²).

        x and ξ_j are here taken from the centre; each memory carries its share as one coordinate.
        """
        _checks.points_and_memories(x, self.memories)
        centre, beta = self._centre(), self.beta
        keys = _wide(self.memories) - centre
        share = torch.log_softmax(_wide(self.logits), 0) / beta - 0.5 * keys.square().sum(1)
        points = _wide(x).reshape(-1, x.shape[-1]) - centre
        queries = beta * torch.cat([points, torch.ones_like(points[:, :1])], 1)
        return queries, torch.cat([keys, share[:, None]], 1)

    def _log_kernel(self, x: Tensor) -> Tensor:
        """Logarithm of Σ_j π_j exp(−β‖x − ξ_j‖²/2), shape (...)."""
        queries, keys = self._augmented(x)
        points = _wide(x).reshape(-1, x.shape[-1]) - self._centre()
        log_z = log_partition(queries, keys, None, None)
        return (log_z - 0.5 * self.beta * points.square().sum(1)).reshape(x.shape[:-1])


@dataclass(frozen=True)
class FitRecord:
    """How a fit went.

    Attributes
    ----------
    log_likelihood : Tensor, shape (steps,) or (steps + 1,)
        Mean log-likelihood of a sample, in nats, before each step. EM adds that after its last
        step; minibatch gradient gives that of each batch.
    reseeded : Tensor of int64, shape (M,)
        How often each memory was empty and placed anew on a sample.
    empty : Tensor of bool, shape (M,)
        Which memories hold no data at the end: less than a thousandth of one average sample.
    converged : bool
        Whether the last step raised the mean log-likelihood by at most ``tol``. Gradient, which has
        no ``tol``, says False.
    """

    log_likelihood: Float[Tensor, " steps"]
    reseeded: Int[Tensor, " M"]
    empty: Bool[Tensor, " M"]
    converged: bool


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
    points = _wide(data) - _wide(data).mean(0)
    square = points.square().sum(1)
    rows = _far_apart(points, square, count, generator)
    memories = _wide(data)[rows]
    if len(rows) < count:
        even = torch.ones_like(square)[None]
        more = _wide(data)[_draw(even, count - len(rows), generator)[0]]
        step = _normal(more, generator) / math.sqrt(float(beta) * data.shape[1])
        memories = torch.cat([memories, more + step])
    machine = HopfieldBoltzmannMachine(memories.to(data.dtype), beta, learned=learned)
    machine.logits.fill_(-math.log(count))
    return machine


@torch.no_grad()
def fit_em(
    machine: HopfieldBoltzmannMachine,
    data: Float[Tensor, "N d"],
    *,
    steps: int,
    tol: float = 1e-6,
    weights: Float[Tensor, " N"] | None = None,
) -> FitRecord:
    """Raise the likelihood of the data by expectation–maximisation, in place.

    A step reads the data once: p_j(x) of each sample, then the mean of each memory's samples, its
    share of them, and the mean squared distance d/β. What the machine does not learn stays.
    Memories that hold no data are placed anew on the samples farthest from all others, each with
    the share of one sample, unless the likelihood falls by it; so it never falls.

    Parameters
    ----------
    machine : HopfieldBoltzmannMachine
        Changed in place.
    data : Tensor, shape (N, d)
        Samples, in the dtype and on the device of the machine.
    steps : int
        Most steps to take, at least 1.
    tol : float
        Rise of the mean log-likelihood, in nats, at which to stop; at least 0.
    weights : Tensor, shape (N,), optional
        Mass of each sample, above 0; 1 each if not given. A replayed sample of mass 2 counts twice.

    Returns
    -------
    FitRecord
        Likelihood along the way, and what became of empty memories.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind, shape or range, or the machine learns nothing.

    References
    ----------
    Dempster, Laird & Rubin (1977), *Maximum likelihood from incomplete data via the EM algorithm*.
    """
    _check_fit(machine, data, steps, weights)
    _checks.number_between(tol, "tol", 0.0, math.inf)
    em = _ExpectationMaximisation(machine, data, weights)
    record = em.run(steps, tol)
    em.write(machine)
    return record


def fit_gradient(
    machine: HopfieldBoltzmannMachine,
    data: Float[Tensor, "N d"],
    *,
    steps: int,
    learning_rate: float,
    batch_size: int,
    generator: torch.Generator | None,
    weights: Float[Tensor, " N"] | None = None,
    after_step: Callable[[int], None] | None = None,
) -> FitRecord:
    """Raise the likelihood of the data by the gradient of minibatches (Adam), in place.

    Each batch is drawn with replacement, a sample as often as its mass. A batch as large as the
    data is the data, each sample with its mass, and then nothing is random.

    Parameters
    ----------
    machine : HopfieldBoltzmannMachine
        Changed in place.
    data : Tensor, shape (N, d)
        Samples, in the dtype and on the device of the machine.
    steps : int
        Number of steps, at least 1.
    learning_rate : float
        Size of a step, above 0: about what an entry of a memory moves at most, in the unit of x.
    batch_size : int
        Samples in a batch, at least 1.
    generator : torch.Generator or None
        Source of the batches; None is PyTorch's default generator.
    weights : Tensor, shape (N,), optional
        Mass of each sample, above 0; 1 each if not given.
    after_step : callable, optional
        Called after each step with the number of steps taken, for instance to keep the memories.

    Returns
    -------
    FitRecord
        Likelihood of each batch, and which memories hold no data at the end.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind, shape or range, or the machine learns nothing, or is in
        half precision, where such small steps vanish.

    References
    ----------
    Kingma & Ba (2015), *Adam: a method for stochastic optimization*.
    """
    _check_fit(machine, data, steps, weights)
    if machine.memories.dtype not in (torch.float32, torch.float64):
        raise TypeError(
            f"machine must be in float32 or float64 to follow gradients, but is in "
            f"{machine.memories.dtype}; convert it, for instance with machine.float()."
        )
    _checks.positive_number(learning_rate, "learning_rate")
    _checks.integer_from(batch_size, "batch_size", 1)
    masses = _masses(data, weights)
    optimiser = torch.optim.Adam(_learned(machine).values(), lr=learning_rate)
    values = []
    for step in range(1, steps + 1):
        if batch_size < len(data):
            rows = _draw(masses[None], batch_size, generator)[0]
            value = machine.log_likelihood(data[rows]).mean()
        else:
            value = (masses * machine.log_likelihood(data)).sum() / masses.sum()
        optimiser.zero_grad()
        (-value).backward()
        optimiser.step()
        values.append(value.detach().double())
        if after_step is not None:
            after_step(step)
    optimiser.zero_grad()
    none = torch.zeros_like(machine.logits, dtype=torch.int64)
    with torch.no_grad():
        empty = _ExpectationMaximisation(machine, data, weights).expect().empty
    return FitRecord(torch.stack(values), none, empty, converged=False)


def likelihood_gradient(
    machine: HopfieldBoltzmannMachine,
    x: Float[Tensor, "N d"],
    *,
    weights: Float[Tensor, " N"] | None = None,
) -> dict[str, Tensor]:
    """Exact gradient of the mean negative log-likelihood.

    Parameters
    ----------
    machine : HopfieldBoltzmannMachine
        Where to take it.
    x : Tensor, shape (N, d)
        Samples, in the dtype and on the device of the machine.
    weights : Tensor, shape (N,), optional
        Mass of each sample, above 0; 1 each if not given.

    Returns
    -------
    dict of str to Tensor
        By the name of each learned parameter: "memories", "logits", "log_beta".

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or shape, or the machine learns nothing.
    """
    _check_fit(machine, x, 1, weights)
    masses = _masses(x, weights)
    return _gradients(machine, -(masses * machine.log_likelihood(x)).sum() / masses.sum())


def contrastive_divergence(
    machine: HopfieldBoltzmannMachine,
    x: Float[Tensor, "N d"],
    *,
    steps: int = 1,
    generator: torch.Generator | None,
) -> dict[str, Tensor]:
    """Gradient of the mean negative log-likelihood as contrastive divergence estimates it.

    The gradient of the normalising constant is an average over the model's own samples; here they
    come from short chains started at the data. In a machine with separate basins a chain stays in
    its own, and the estimate leaves out how much of the model lies in the others.

    Parameters
    ----------
    machine : HopfieldBoltzmannMachine
        Where to take it.
    x : Tensor, shape (N, d)
        Samples, in the dtype and on the device of the machine.
    steps : int
        Length of each chain, at least 1.
    generator : torch.Generator or None
        Source of the draws; None is PyTorch's default generator.

    Returns
    -------
    dict of str to Tensor
        As for :func:`likelihood_gradient`.

    Raises
    ------
    TypeError, ValueError
        As for :func:`likelihood_gradient`, or if ``steps`` is no integer above 0.

    References
    ----------
    Hinton (2002), *Training products of experts by minimizing contrastive divergence*.
    """
    _check_fit(machine, x, steps, None)
    end = machine.gibbs(x, steps=steps, generator=generator)
    # The normalising constant is in both terms and cancels, as does its gradient.
    contrast = machine.log_likelihood(end).mean() - machine.log_likelihood(x).mean()
    return _gradients(machine, contrast)


@dataclass(frozen=True)
class _Expectation:
    """What one reading of the data tells: mass (M,) and sum (M, d) of the data of each memory."""

    log_likelihood: float
    mass: Tensor
    total: Tensor
    empty: Tensor


class _ExpectationMaximisation:
    """The data and the parameters from a common centre, in at least float32."""

    def __init__(self, machine: HopfieldBoltzmannMachine, data: Tensor, weights: Tensor | None):
        self.learned = _learned(machine)
        self.masses = _masses(data, weights)
        self.all_mass = self.masses.sum()
        self.centre = _wide(data).mean(0)
        self.data = _wide(data) - self.centre
        self.square = self.data.square().sum(1)
        self.memories = _wide(machine.memories.detach()) - self.centre
        self.log_share = torch.log_softmax(_wide(machine.logits.detach()), 0)
        self.beta = _wide(machine.beta.detach())

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
            distances = _squared_distances(self.data, self.square, [farthest])
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


def _far_apart(
    points: Tensor, square: Tensor, count: int, generator: torch.Generator | None
) -> list[int]:
    """Rows drawn one after another by squared distance to the nearest; fewer if none differs.

    Candidates are drawn, and their distances computed, many at a time. One is then taken with the
    ratio of its distance now to that at its drawing, which makes each draw exact.
    """
    rows = [int(_draw(torch.ones_like(square)[None], 1, generator))]
    nearest = _squared_distances(points, square, rows)[0]
    while len(rows) < count and bool((nearest > 0).any()):
        drawn_at = nearest
        candidates = _draw(nearest[None], _CANDIDATES, generator)[0]
        distances = _squared_distances(points, square, candidates)
        chance = _uniform(nearest[candidates], generator) * drawn_at[candidates]
        for row, bar, distance in zip(candidates.tolist(), chance, distances, strict=True):
            if bar < nearest[row] and len(rows) < count:
                rows.append(row)
                nearest = torch.minimum(nearest, distance)
    return rows


def _squared_distances(points: Tensor, square: Tensor, rows: list[int] | Tensor) -> Tensor:
    """Squared distances of some points (R,) from all (N,), exactly 0 between equals: (R, N)."""
    scale = square[rows][:, None] + square
    distances = scale - 2 * points[rows] @ points.mT
    # Rounding leaves noise where the distance is 0; there, and only there, take differences.
    first, second = (distances <= 64 * torch.finfo(scale.dtype).eps * scale).nonzero(as_tuple=True)
    apart = (points[rows][first] - points[second]).square().sum(1)
    return distances.index_put((first, second), apart)


def _gradients(machine: HopfieldBoltzmannMachine, loss: Tensor) -> dict[str, Tensor]:
    learned = _learned(machine)
    return dict(zip(learned, torch.autograd.grad(loss, list(learned.values())), strict=True))


def _learned(machine: HopfieldBoltzmannMachine) -> dict[str, torch.nn.Parameter]:
    return {name: value for name, value in machine.named_parameters() if value.requires_grad}


def _masses(data: Tensor, weights: Tensor | None) -> Tensor:
    return _wide(data).new_ones(len(data)) if weights is None else _wide(weights)


def _draw(shares: Tensor, count: int, generator: torch.Generator | None) -> Tensor:
    """``count`` draws with replacement from each row, on the device of the shares."""
    home = shares.device if generator is None else generator.device
    drawn = torch.multinomial(shares.to(home), count, replacement=True, generator=generator)
    return drawn.to(shares.device)


def _uniform(like: Tensor, generator: torch.Generator | None) -> Tensor:
    home = like.device if generator is None else generator.device
    return torch.rand(like.shape, generator=generator, dtype=like.dtype, device=home).to(
        like.device
    )


def _normal(like: Tensor, generator: torch.Generator | None) -> Tensor:
    home = like.device if generator is None else generator.device
    noise = torch.randn(like.shape, generator=generator, dtype=like.dtype, device=home)
    return noise.to(like.device)


def _wide(value: Tensor) -> Tensor:
    """At least float32: half precision keeps too few digits to add up many terms."""
    return value.to(torch.promote_types(value.dtype, torch.float32))


def _check_learned(learned: Any) -> None:
    names = list(_PARAMETERS)
    if isinstance(learned, str) or not isinstance(learned, Sequence):
        raise TypeError(f"learned must be a sequence of names out of {names}, but is {learned!r}.")
    unknown = [name for name in learned if name not in names]
    if unknown:
        raise ValueError(f"learned must hold names out of {names}, but holds {unknown[0]!r}.")


def _check_fit(machine: Any, data: Tensor, steps: int, weights: Tensor | None) -> None:
    if not isinstance(machine, HopfieldBoltzmannMachine):
        raise TypeError(
            f"machine must be a HopfieldBoltzmannMachine, but is a {type(machine).__name__}."
        )
    if not _learned(machine):
        raise ValueError("machine must learn something, but was made with learned=().")
    _checks.memory_set(data, "data")
    _checks.points_and_memories(data, machine.memories)
    _checks.integer_from(steps, "steps", 1)
    _checks.weights(weights, data, memories_name="data")
