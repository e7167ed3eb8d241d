"""The density of scenes: how likely each combination of factors is.

The factors f are drawn with probability

    P(f) = (1/Z) Π_k m_k(f_k) · s(shape, colour) · s(background, texture),

a product of marginal weights m_k, in which some values are rarer than others, and of two
interactions: s is 1/10 for the two colours that a shape seldom takes (a circle is seldom green or
cyan) and for the texture that a background seldom takes (white is seldom dotted), and 1 for all
others. A seldom pair of either kind makes a rare scene, both together a very rare one. The shapes
are equally likely, and so are tasks of equally many shapes. The jitter is uniform on the unit cube
and independent of the factors, so log P(f) is also the log-density of factors and jitter together,
which determine the image. It says nothing of a density of pixels.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from hopfield_cl.data.scenes._arguments import check_factors
from hopfield_cl.data.scenes.factors import FACTORS

# The density: weights of the values of each factor, and how much rarer a seldom pair is.
_WEIGHTS = (
    (1,) * 6,
    (1,) * 8,
    (1, 1),
    (1, 1, 1, 1, 2, 1, 1, 1, 1),
    (4, 3, 2, 1),
    (4, 2, 2, 2),
)
_SELDOM = 0.1
# Shape j seldom takes the colours j + 3 and j + 4 (mod 8); background j the texture 3 − j.
_SELDOM_COLOURS = (3, 4)


def probabilities() -> Float[Tensor, "6 8 2 9 4 4"]:
    """Probability of each combination of factors.

    Returns
    -------
    Tensor of float64, shape (6, 8, 2, 9, 4, 4)
        P(f), one axis a factor, in the order of :data:`FACTORS`; the entries sum to 1.
    """
    table = torch.ones((), dtype=torch.float64)
    for weights in _WEIGHTS:
        table = table[..., None] * torch.tensor(weights, dtype=torch.float64)
    axes = [torch.arange(length) for length in table.shape]
    shape, colour, _, _, background, texture = torch.meshgrid(*axes, indexing="ij")
    seldom_colour = torch.isin(
        (colour - shape) % len(FACTORS["colour"]), torch.tensor(_SELDOM_COLOURS)
    )
    seldom_texture = background + texture == len(FACTORS["background"]) - 1
    table = table * _SELDOM ** (seldom_colour.double() + seldom_texture.double())
    return table / table.sum()


def log_probability(factors: Int[Tensor, "N 6"]) -> Float[Tensor, " N"]:
    """Logarithm of the probability of factors, log P(f).

    Parameters
    ----------
    factors : Tensor of int64, shape (N, 6)
        Indices into the values of :data:`FACTORS`.

    Returns
    -------
    Tensor of float64, shape (N,)
        In nats.

    Raises
    ------
    TypeError, ValueError
        If the factors are no such matrix or an index is out of range.
    """
    check_factors(factors, lowest=0)
    return probabilities().log().to(factors.device)[tuple(factors.T)]
