"""Networks with an energy, besides the modern Hopfield network at the package's root.

``classical``
    The networks of 1982 and 2016, and how many patterns a network holds.
``boltzmann``
    The Boltzmann machine of learned memories: exact likelihood, training, sampling.
``learned_forgetting``
    How much of what such a machine forgets the data foretell.
``relatives``
    The Gaussian–Bernoulli RBM, the softmax denoiser and the dense-memory harmonium.
"""
