"""The gradient of the likelihood: exact, and as contrastive divergence estimates it."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from hopfield_cl.networks.boltzmann._fitting import check_fit, learned_parameters, sample_masses
from hopfield_cl.networks.boltzmann.machine import HopfieldBoltzmannMachine


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
    check_fit(machine, x, 1, weights)
    masses = sample_masses(x, weights)
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
    check_fit(machine, x, steps, None)
    end = machine.gibbs(x, steps=steps, generator=generator)
    # The normalising constant is in both terms and cancels, as does its gradient.
    contrast = machine.log_likelihood(end).mean() - machine.log_likelihood(x).mean()
    return _gradients(machine, contrast)


def _gradients(machine: HopfieldBoltzmannMachine, loss: Tensor) -> dict[str, Tensor]:
    learned = learned_parameters(machine)
    return dict(zip(learned, torch.autograd.grad(loss, list(learned.values())), strict=True))
