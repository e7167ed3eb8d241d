"""Forgetting has an energy: modern Hopfield networks, continual learning and replay.

The package is a small house; imports go upwards only.

``energy``
    Energy, retrieval, fixed points and curvature of a modern Hopfield network.
``memories``
    Memory sets whose geometry is known: a cluster with an outlier, rotations.
``phases``
    How many basins a cluster with an outlier has, as a function of beta.
``data``
    Image sets that need no network, and their split into tasks.
``plotting``
    One figure style, and the figures that several chapters share.
``explore``
    Interactive panels that also work on a page without a kernel.
"""

__version__ = "0.1.0"
