"""How a fit went, whichever way it went."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Bool, Float, Int
from torch import Tensor


@dataclass(frozen=True)
class FitRecord:
    """How a fit went.

    Attributes
    ----------
    log_likelihood : Tensor, shape (steps,) or (steps + 1,)
        Mean log-likelihood of a sample, in nats, before each step. EM adds that after its last
        step; minibatch gradient gives that of each batch.
    reseeded : Tensor of int64, shape (M,)
        How often each memory was empty and placed anew on a sample.
    empty : Tensor of bool, shape (M,)
        Which memories hold no data at the end: less than a thousandth of one average sample.
    converged : bool
        Whether the last step raised the mean log-likelihood by at most ``tol``. Gradient, which has
        no ``tol``, says False.
    """

    log_likelihood: Float[Tensor, " steps"]
    reseeded: Int[Tensor, " M"]
    empty: Bool[Tensor, " M"]
    converged: bool
