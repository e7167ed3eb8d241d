"""Relatives of the Boltzmann machine of the modern Hopfield network.

* The Gaussian–Bernoulli restricted Boltzmann machine has the same Gaussian units, but each memory
  is on or off on its own: log Σ_j exp becomes Σ_j log(1 + exp).
* The denoising autoencoder with softmax units is the machine's ``retrieve``, trained to take noise
  away instead of to make the data likely.
* The energy of dense associative memory, on spins, is what an exponential-family harmonium has left
  when its hidden units rest at their most likely values.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from hopfield_cl import _checks
from hopfield_cl.networks.boltzmann import HopfieldBoltzmannMachine

# The exact likelihood sums over 2^M hidden states.
_MOST_UNITS = 16


class GaussianBernoulliRBM(torch.nn.Module):
    """Restricted Boltzmann machine with Gaussian visible and binary hidden units.

    The joint density of x in R^d and h in {0, 1}^M is

        p(x, h) ∝ exp(β (x·Σ_j h_j ξ_j − ½‖x‖²) + Σ_j h_j c_j),

    so that x given h is Gaussian of mean Σ_j h_j ξ_j and variance 1/β, and the units of h given x
    are independent, each on with probability 1/(1 + exp(−β ξ_j·x − c_j)). With exactly one unit on
    it is the machine of the modern Hopfield network with masses exp(c_j).

    Parameters
    ----------
    memories : Tensor, shape (M, d)
        Weights ξ_j of the hidden units, one a row. They are copied.
    beta : float or scalar Tensor
        Inverse temperature, above 0; it is not learned.
    weights : Tensor, shape (M,), optional
        Masses exp(c_j) of the hidden units, above 0; 1 each if not given.

    Attributes
    ----------
    memories : Parameter, shape (M, d)
        The weights ξ_j.
    bias : Parameter, shape (M,)
        The hidden biases c_j.
    beta : Tensor, scalar
        The inverse temperature.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind, shape or range.

    References
    ----------
    Ota & Karakida (2022), for the tie.
    """

    def __init__(
        self,
        memories: Float[Tensor, "M d"],
        beta: float | Tensor,
        *,
        weights: Float[Tensor, " M"] | None = None,
    ) -> None:
        _checks.memory_set(memories, "memories")
        _checks.beta(beta, memories)
        _checks.weights(weights, memories)
        super().__init__()
        bias = memories.new_zeros(len(memories)) if weights is None else weights.detach().log()
        self.memories = torch.nn.Parameter(memories.detach().clone())
        self.bias = torch.nn.Parameter(bias)
        self.register_buffer("beta", memories.new_tensor(float(beta)))

    def energy(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch"]:
        """Energy E(x) = ½‖x‖² − β⁻¹ Σ_j log(1 + exp(β ξ_j·x + c_j)).

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
            If ``x`` is of the wrong kind or shape, or not finite.
        """
        free = torch.nn.functional.softplus(self._fields(x)).sum(-1)
        return 0.5 * x.square().sum(-1) - free / self.beta

    def posterior(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch M"]:
        """Probability of each hidden unit to be on.

        Parameters
        ----------
        x : Tensor, shape (..., d)
            As for :meth:`energy`.

        Returns
        -------
        Tensor, shape (..., M)
            Probabilities; they do not sum to 1.

        Raises
        ------
        TypeError, ValueError
            As for :meth:`energy`.
        """
        return torch.sigmoid(self._fields(x))

    def as_mixture(self) -> HopfieldBoltzmannMachine:
        """The same density as a Hopfield machine with a memory for each of the 2^M hidden states.

        Returns
        -------
        HopfieldBoltzmannMachine
            Its memories are the sums Σ_j h_j ξ_j, with masses exp(Σ_j h_j c_j).

        Raises
        ------
        ValueError
            If there are more than 16 hidden units.
        """
        states = self._states()
        weights = (states @ self.bias.detach()).exp()
        memories = states @ self.memories.detach()
        return HopfieldBoltzmannMachine(memories, self.beta, weights=weights)

    def log_likelihood(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch"]:
        """Logarithm of the normalised density, by a sum over the 2^M hidden states.

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
            As for :meth:`energy`, or if there are more than 16 hidden units.
        """
        states = self._states()
        square = (states @ self.memories).square().sum(1)
        log_z = torch.logsumexp(states @ self.bias + 0.5 * self.beta * square, 0)
        log_z = log_z + 0.5 * x.shape[-1] * torch.log(2 * math.pi / self.beta)
        return -self.beta * self.energy(x) - log_z

    @torch.no_grad()
    def gibbs(
        self, x: Float[Tensor, "*batch d"], *, steps: int, generator: torch.Generator | None
    ) -> Float[Tensor, "*batch d"]:
        """Move each point along a chain that leaves p unchanged: h given x, then x given h.

        Parameters
        ----------
        x : Tensor, shape (..., d)
            Where the chains start; as for :meth:`energy`.
        steps : int
            Length of each chain, at least 1.
        generator : torch.Generator or None
            Source of the draws, on the device of x; None is PyTorch's default generator.

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
            hidden = torch.bernoulli(self.posterior(points), generator=generator)
            noise = torch.randn(x.shape, generator=generator, dtype=x.dtype, device=x.device)
            points = hidden @ self.memories + noise / self.beta.sqrt()
        return points

    def contrastive_divergence(
        self, x: Float[Tensor, "N d"], *, steps: int = 1, generator: torch.Generator | None
    ) -> dict[str, Tensor]:
        """Gradient of the mean negative log-likelihood as contrastive divergence estimates it.

        Parameters
        ----------
        x : Tensor, shape (N, d)
            Samples.
        steps : int
            Length of each chain, at least 1.
        generator : torch.Generator or None
            As for :meth:`gibbs`.

        Returns
        -------
        dict of str to Tensor
            For "memories" and "bias".

        Raises
        ------
        TypeError, ValueError
            As for :meth:`gibbs`.
        """
        end = self.gibbs(x, steps=steps, generator=generator)
        contrast = self.beta * (self.energy(x).mean() - self.energy(end).mean())
        names, parameters = zip(*self.named_parameters(), strict=True)
        return dict(zip(names, torch.autograd.grad(contrast, parameters), strict=True))

    def _fields(self, x: Tensor) -> Tensor:
        _checks.points_and_memories(x, self.memories)
        return self.beta * x @ self.memories.mT + self.bias

    def _states(self) -> Tensor:
        """All hidden states, shape (2^M, M)."""
        units = len(self.memories)
        if units > _MOST_UNITS:
            raise ValueError(
                f"memories must be at most {_MOST_UNITS} for a sum over all hidden states, but "
                f"are {units}."
            )
        numbers = torch.arange(2**units, device=self.memories.device)
        bits = torch.arange(units, device=self.memories.device)
        return (numbers[:, None] >> bits & 1).to(self.memories.dtype)


def fit_denoising(
    machine: HopfieldBoltzmannMachine,
    data: Float[Tensor, "N d"],
    *,
    steps: int,
    learning_rate: float,
    batch_size: int,
    generator: torch.Generator | None,
) -> Float[Tensor, " steps"]:
    """Train the machine as a denoising autoencoder with softmax units (Adam), in place.

    Gaussian noise of variance 1/β is added to each sample and T(x) has to take it away. As the
    score of the machine is β(T(x) − x), this is denoising score matching. It learns where the
    memories are; the proportions of memories farther apart than the noise hardly change its error.

    Parameters
    ----------
    machine : HopfieldBoltzmannMachine
        Changed in place. Its β sets the noise and must not be learned.
    data : Tensor, shape (N, d)
        Samples, in the dtype and on the device of the machine.
    steps : int
        Number of steps, at least 1.
    learning_rate : float
        Size of a step, above 0.
    batch_size : int
        Samples in a batch, at least 1, drawn with replacement.
    generator : torch.Generator or None
        Source of batches and noise, on the device of the data; None is PyTorch's default generator.

    Returns
    -------
    Tensor of float64, shape (steps,)
        Mean squared error ‖T(x + z/√β) − x‖² of each batch, before its step.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind, shape or range.

    References
    ----------
    Vincent (2011), *A connection between score matching and denoising autoencoders*.
    """
    if not isinstance(machine, HopfieldBoltzmannMachine):
        raise TypeError(
            f"machine must be a HopfieldBoltzmannMachine, but is a {type(machine).__name__}."
        )
    if machine.log_beta.requires_grad:
        raise ValueError("machine must not learn beta here, since it sets the noise.")
    learned = [value for value in machine.parameters() if value.requires_grad]
    if not learned:
        raise ValueError("machine must learn something, but was made with learned=().")
    _checks.memory_set(data, "data")
    _checks.points_and_memories(data, machine.memories)
    _checks.integer_from(steps, "steps", 1)
    _checks.positive_number(learning_rate, "learning_rate")
    _checks.integer_from(batch_size, "batch_size", 1)
    optimiser = torch.optim.Adam(learned, lr=learning_rate)
    losses = []
    for _ in range(steps):
        rows = torch.randint(len(data), (batch_size,), generator=generator, device=data.device)
        clean = data[rows]
        noise = torch.randn(clean.shape, generator=generator, dtype=data.dtype, device=data.device)
        noisy = clean + noise / machine.beta.detach().sqrt()
        loss = (machine.retrieve(noisy) - clean).square().sum(1).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.detach().double())
    optimiser.zero_grad()
    return torch.stack(losses)


def harmonium_energy(
    x: Float[Tensor, "*batch d"],
    hidden: Float[Tensor, "*batch N"],
    patterns: Float[Tensor, "N d"],
    degree: int,
) -> Float[Tensor, "*batch"]:
    """Joint energy of spins and hidden units whose spins alone have that of dense memory.

    With F(u) = d^(1−n) u^n / n and f = F′,

        E(x, h) = −Σ_i [f(h_i) x_i·x + F(h_i) − f(h_i) h_i].

    exp(−βE) is an exponential-family harmonium: given x the units are independent, with sufficient
    statistic f(h_i) and natural parameter β x_i·x; given h the spins are independent, in the field
    Σ_i f(h_i) x_i. For even n the energy is lowest at h_i = x_i·x, where it is −Σ_i F(x_i·x), that
    of dense associative memory (``classical.dense_energy``). For n = 2 the units are Gaussian and
    the sum over all their states leaves the same energy, but for a constant.

    Parameters
    ----------
    x : Tensor, shape (..., d)
        States of the spins, −1 or 1.
    hidden : Tensor, shape (..., N)
        States of the hidden units, one for each pattern.
    patterns : Tensor, shape (N, d)
        Stored patterns, one a row.
    degree : int
        The even number n, at least 2.

    Returns
    -------
    Tensor, shape (...)
        Energies, in the unit of x squared.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind, shape or range, or ``degree`` is odd.

    References
    ----------
    Krotov & Hopfield (2016); Welling, Rosen-Zvi & Hinton (2004); Ota & Karakida (2022).
    """
    _checks.points_and_memories(x, patterns, "patterns")
    _checks.signs(x, "x")
    _checks.float_tensor(hidden, "hidden")
    if hidden.shape != (*x.shape[:-1], len(patterns)):
        raise ValueError(
            f"hidden must have shape {(*x.shape[:-1], len(patterns))}, one unit for each pattern, "
            f"but has {tuple(hidden.shape)}."
        )
    _checks.same_kind(hidden, "hidden", x, "x")
    _checks.integer_from(degree, "degree", 2)
    if degree % 2:
        raise ValueError(f"degree must be even, but is {degree}: else no state is most likely.")
    dim = x.shape[-1]
    slope = (hidden / dim) ** (degree - 1)
    return -(slope * (x @ patterns.mT + hidden / degree - hidden)).sum(-1)
