"""The machine itself: energy, likelihood, posterior, retrieval and samples."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from hopfield_cl import _checks
from hopfield_cl._streaming import log_partition, softmax_mean
from hopfield_cl.networks.boltzmann._tensors import draw, normal, wide

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
            centred = wide(memories) - wide(memories).mean(0)
            # ‖ξ_j‖² up to a constant, with the digits that the memories have apart from their mean.
            square = centred.square().sum(1) + 2 * centred @ wide(memories).mean(0)
            logits = 0.5 * float(beta) * square
            if weights is not None:
                logits = logits + wide(weights).log()
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
        square = wide(self.memories).square().sum(1)
        return (torch.log_softmax(wide(self.logits), 0) - 0.5 * self.beta * square).to(
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
        share = torch.softmax(wide(self.logits), 0)
        chosen = draw(share.expand(1, -1), count, generator)[0]
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
            share = wide(self.posterior(points)).reshape(-1, self.logits.shape[0])
            chosen = draw(share, 1, generator)[:, 0]
            points = self._around(chosen, generator).reshape(x.shape)
        return points

    def _around(self, chosen: Tensor, generator: torch.Generator | None) -> Tensor:
        """A point near each of the chosen memories."""
        means = wide(self.memories)[chosen]
        noise = normal(means, generator)
        return (means + noise / self.beta.sqrt()).to(self.memories.dtype)

    def _centre(self) -> Tensor:
        return wide(self.memories.detach()).mean(0)

    def _augmented(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Queries (Q, d+1) and keys (M, d+1) whose products are log π_j + β(x·ξ_j − ½‖ξ_j‖²).

        x and ξ_j are here taken from the centre; each memory carries its share as one coordinate.
        """
        _checks.points_and_memories(x, self.memories)
        centre, beta = self._centre(), self.beta
        keys = wide(self.memories) - centre
        share = torch.log_softmax(wide(self.logits), 0) / beta - 0.5 * keys.square().sum(1)
        points = wide(x).reshape(-1, x.shape[-1]) - centre
        queries = beta * torch.cat([points, torch.ones_like(points[:, :1])], 1)
        return queries, torch.cat([keys, share[:, None]], 1)

    def _log_kernel(self, x: Tensor) -> Tensor:
        """Logarithm of Σ_j π_j exp(−β‖x − ξ_j‖²/2), shape (...)."""
        queries, keys = self._augmented(x)
        points = wide(x).reshape(-1, x.shape[-1]) - self._centre()
        log_z = log_partition(queries, keys, None, None)
        return (log_z - 0.5 * self.beta * points.square().sum(1)).reshape(x.shape[:-1])


def _check_learned(learned: Any) -> None:
    names = list(_PARAMETERS)
    if isinstance(learned, str) or not isinstance(learned, Sequence):
        raise TypeError(f"learned must be a sequence of names out of {names}, but is {learned!r}.")
    unknown = [name for name in learned if name not in names]
    if unknown:
        raise ValueError(f"learned must hold names out of {names}, but holds {unknown[0]!r}.")
