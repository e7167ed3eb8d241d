"""Forgetting has an energy: modern Hopfield networks, continual learning and replay.

The package is a small house; imports go upwards only.

``energy``
    Energy, retrieval, fixed points and curvature of a modern Hopfield network.
``memories``
    Memory sets whose geometry is known: a cluster with an outlier, rotations.
``phases``
    How many basins a cluster with an outlier has, as a function of beta.
``classical``
    The networks of 1982 and 2016, and how many patterns a network holds.
``denoising``
    The exact denoiser of a data set, and sampling with it.
``forgetting``
    The rise in energy that a change of task brings, and its closed forms.
``replay``
    What replayed memories give back, and how to spend a replay budget.
``boltzmann``
    The Boltzmann machine of learned memories: exact likelihood, training, sampling.
``relatives``
    The Gaussian–Bernoulli RBM, the softmax denoiser and the dense-memory harmonium.
``intervals``
    Means and rank correlations with their uncertainty.
``data``
    Image sets that need no network, and their split into tasks.
``plotting``
    One figure style, and the figures that several chapters share.
``explore``
    Interactive figures and panels that also work on a page without a kernel.
``diffusion``
    Diffusion models that forget: networks, training, energies, reconstruction, replay.
``stable``
    Stable Diffusion, small and full-size: pipelines, latents, prompts, fine-tuning, replay.
``cifar``, ``scenes``
    Readers and makers of image sets that ``data`` loads.
``experiments``, ``learned_forgetting``, ``cli``
    Full-scale runs, and the command ``hopfield-cl`` that records them again.
``verification``
    Recorded files against their hashes, and some rows computed again.
``repository``
    The book's repository: where recorded files and trained models lie, and its commit.
``provenance``
    Recorded tables and images, with the command, commit, seeds and machine that made them.
``versions``
    What a notebook ran with, in one line.
"""

__version__ = "0.1.0"
