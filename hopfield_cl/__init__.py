"""Forgetting has an energy: modern Hopfield networks, continual learning and replay.

The package is a small house; imports go upwards only. At its root stands the idea; each folder is a
room named for what it holds.

``energy``
    Energy, retrieval, fixed points and curvature of a modern Hopfield network.
``memories``
    Memory sets whose geometry is known: a cluster with an outlier, rotations.
``phases``
    How many basins a cluster with an outlier has, as a function of beta.
``denoising``
    The exact denoiser of a data set, and sampling with it.
``forgetting``
    The rise in energy that a change of task brings, and its closed forms.
``replay``
    What replayed memories give back, and how to spend a replay budget.
``intervals``
    Means and rank correlations with their uncertainty.
``plotting``
    One figure style, and the figures that several chapters share.
``data``
    Image sets, their captions, and their split into tasks.
``networks``
    Networks of 1982 and 2016, the Boltzmann machine of learned memories, and its kin.
``records``
    Recorded tables and how they came about; the repository; finished parts of long runs.
``diffusion``
    Diffusion models that forget: networks, training, energies, reconstruction, replay.
``stable``
    Stable Diffusion, small and full-size: pipelines, latents, prompts, fine-tuning, replay.
``explore``
    Interactive figures and panels that also work on a page without a kernel.
``runs``
    Full-scale runs, each recorded by one command, and the check of what was recorded.
``cli``
    The command ``hopfield-cl``, which records the runs again and checks them.
"""

__version__ = "0.1.0"
