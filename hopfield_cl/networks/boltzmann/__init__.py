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

``machine``
    The machine itself: energy, likelihood, posterior, retrieval and samples.
``initialisation``
    Where the memories begin: on samples that lie far apart.
``fit_record``
    How a fit went, whichever way it went.
``fitting``
    Training on data, in place: by expectation–maximisation, or by the gradient of minibatches.
``gradients``
    The gradient of the likelihood: exact, and as contrastive divergence estimates it.
"""

from hopfield_cl.networks.boltzmann.fit_record import FitRecord
from hopfield_cl.networks.boltzmann.fitting import fit_em, fit_gradient
from hopfield_cl.networks.boltzmann.gradients import contrastive_divergence, likelihood_gradient
from hopfield_cl.networks.boltzmann.initialisation import initialise
from hopfield_cl.networks.boltzmann.machine import HopfieldBoltzmannMachine

__all__ = [
    "FitRecord",
    "HopfieldBoltzmannMachine",
    "contrastive_divergence",
    "fit_em",
    "fit_gradient",
    "initialise",
    "likelihood_gradient",
]
