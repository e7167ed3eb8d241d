"""Training on data, in place: by expectation–maximisation, or by the gradient of minibatches."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from hopfield_cl import _checks
from hopfield_cl.networks.boltzmann._expectation_maximisation import ExpectationMaximisation
from hopfield_cl.networks.boltzmann._fitting import check_fit, learned_parameters, sample_masses
from hopfield_cl.networks.boltzmann._tensors import draw
from hopfield_cl.networks.boltzmann.fit_record import FitRecord
from hopfield_cl.networks.boltzmann.machine import HopfieldBoltzmannMachine


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
    check_fit(machine, data, steps, weights)
    _checks.number_between(tol, "tol", 0.0, math.inf)
    em = ExpectationMaximisation(machine, data, weights)
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
    check_fit(machine, data, steps, weights)
    if machine.memories.dtype not in (torch.float32, torch.float64):
        raise TypeError(
            f"machine must be in float32 or float64 to follow gradients, but is in "
            f"{machine.memories.dtype}; convert it, for instance with machine.float()."
        )
    _checks.positive_number(learning_rate, "learning_rate")
    _checks.integer_from(batch_size, "batch_size", 1)
    masses = sample_masses(data, weights)
    optimiser = torch.optim.Adam(learned_parameters(machine).values(), lr=learning_rate)
    values = []
    for step in range(1, steps + 1):
        if batch_size < len(data):
            rows = draw(masses[None], batch_size, generator)[0]
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
        empty = ExpectationMaximisation(machine, data, weights).expect().empty
    return FitRecord(torch.stack(values), none, empty, converged=False)
