"""Estimates with their uncertainty: a mean over samples, a rank correlation of two quantities.

A number that comes from a sample is reported with a standard error and an interval. An ``Estimate``
holds them together and writes itself, so that f"{estimate:.2f}" reads "0.42 [0.38, 0.46]".
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from scipy.stats import t as student
from torch import Tensor

from hopfield_cl import _checks

# Entries of the largest temporary of `rank_correlation`: a block of resamples × samples.
_BLOCK_ENTRIES = 4_000_000


@dataclass(frozen=True)
class Estimate:
    """A number, or many of one shape, with a standard error and an interval each.

    Attributes
    ----------
    value : Tensor, shape (...)
        The estimate from all samples.
    standard_error : Tensor, shape (...)
        Standard deviation that the estimate would have over repeated samples.
    low, high : Tensor, shape (...)
        Ends of the interval.
    """

    value: Float[Tensor, "*batch"]
    standard_error: Float[Tensor, "*batch"]
    low: Float[Tensor, "*batch"]
    high: Float[Tensor, "*batch"]

    def __format__(self, spec: str) -> str:
        if self.value.ndim:
            raise ValueError(
                "an Estimate must hold one number to be written, but has shape "
                f"{tuple(self.value.shape)}; write its entries, estimate[i], one by one."
            )
        value, low, high = (format(x.item(), spec) for x in (self.value, self.low, self.high))
        return f"{value} [{low}, {high}]"

    def __getitem__(self, index: object) -> Estimate:
        return Estimate(
            self.value[index], self.standard_error[index], self.low[index], self.high[index]
        )


def mean(samples: Float[Tensor, "S ..."], *, level: float = 0.95) -> Estimate:
    """Mean over independent samples, with its standard error and Student's interval.

    Parameters
    ----------
    samples : Tensor, shape (S, ...)
        One independent sample a row, for instance one a rotation or one a seed; at least 2.
    level : float
        Chance that the interval covers the mean, for normal samples; between 0 and 1.

    Returns
    -------
    Estimate
        Of shape (...), in the dtype and on the device of ``samples``.

    Raises
    ------
    TypeError, ValueError
        If ``samples`` is not a finite tensor of at least 2 rows, or ``level`` is out of range.

    References
    ----------
    Student (1908), *The probable error of a mean*.
    """
    _checks.float_tensor(samples, "samples")
    if samples.ndim == 0 or samples.shape[0] < 2:
        raise ValueError(
            "samples must hold at least 2 samples along its first axis, but has shape "
            f"{tuple(samples.shape)}."
        )
    _checks.finite(samples, "samples")
    _check_level(level)
    count = samples.shape[0]
    wide = samples.double()
    value = wide.mean(0)
    error = wide.std(0) / count**0.5
    reach = student.ppf((1 + level) / 2, count - 1) * error
    parts = (value, error, value - reach, value + reach)
    return Estimate(*(part.to(samples.dtype) for part in parts))


def rank_correlation(
    x: Float[Tensor, "*batch N"],
    y: Float[Tensor, "*batch N"],
    *,
    generator: torch.Generator | None = None,
    resamples: int = 1000,
    level: float = 0.95,
) -> Estimate:
    """Spearman's rank correlation, with a percentile interval from the bootstrap.

    Pairs are drawn again with replacement, and ranked again, ties by their mean rank. All rows of a
    batch use the same draws. The interval takes the pairs for independent; what they share, such as
    one change of task, it does not see.

    Parameters
    ----------
    x, y : Tensor, shape (..., N)
        Two quantities of the same N samples, N at least 3; leading axes broadcast.
    generator : torch.Generator, optional
        Source of the draws, on the CPU. PyTorch's default generator if not given.
    resamples : int
        Number of draws, at least 100.
    level : float
        Share of the resampled correlations inside the interval; between 0 and 1.

    Returns
    -------
    Estimate
        Of shape (...), between −1 and 1, in the dtype and on the device of ``x``.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range, the shapes do not fit, or a row is
        constant, so that it has no ranks to correlate.

    References
    ----------
    Spearman (1904); Efron & Tibshirani (1993), *An Introduction to the Bootstrap*, chapter 13.
    """
    _check_pair(x, y)
    _checks.integer_from(resamples, "resamples", 100)
    _check_level(level)
    count, batch = x.shape[-1], torch.broadcast_shapes(x.shape[:-1], y.shape[:-1])
    rows_x = x.expand(*batch, count).reshape(-1, count)
    rows_y = y.expand(*batch, count).reshape(-1, count)
    once = torch.ones(1, count, dtype=torch.float64, device=x.device)
    drawn = _resampled_counts(count, resamples, generator).to(x.device)
    value, error, ends = [], [], []
    tails = drawn.new_tensor([(1 - level) / 2, (1 + level) / 2])
    for row_x, row_y in zip(rows_x, rows_y, strict=True):
        value.append(_spearman(row_x, row_y, once)[0])
        again = _spearman(row_x, row_y, drawn)
        again = again[~again.isnan()]  # a draw of one and the same sample has no correlation
        error.append(again.std())
        ends.append(again.quantile(tails))
    low, high = torch.stack(ends).unbind(1)
    parts = (torch.stack(value), torch.stack(error), low, high)
    return Estimate(*(part.to(x.dtype).reshape(batch) for part in parts))


def _resampled_counts(count: int, resamples: int, generator: torch.Generator | None) -> Tensor:
    """How often each of N samples is drawn, in each of B resamples, shape (B, N)."""
    draws = torch.randint(count, (resamples, count), generator=generator)
    counts = torch.zeros(resamples, count, dtype=torch.float64)
    return counts.scatter_add_(1, draws, torch.ones_like(counts))


def _spearman(x: Tensor, y: Tensor, counts: Tensor) -> Tensor:
    """Rank correlation (B,) of N pairs, each taken as often as a row of ``counts`` (B, N) says."""
    block = max(1, _BLOCK_ENTRIES // x.shape[0])
    return torch.cat([_spearman_block(x, y, part) for part in counts.split(block)])


def _spearman_block(x: Tensor, y: Tensor, counts: Tensor) -> Tensor:
    # The mean rank in a resample is centred on (N + 1)/2, whatever the ties.
    middle = (x.shape[0] + 1) / 2
    rank_x, rank_y = _mean_ranks(x, counts) - middle, _mean_ranks(y, counts) - middle
    shared = (counts * rank_x * rank_y).sum(1)
    scale = (counts * rank_x.square()).sum(1) * (counts * rank_y.square()).sum(1)
    # NaN where a resample is constant; otherwise rounding must not lead out of [−1, 1].
    return (shared / scale.sqrt()).clamp(-1, 1)


def _mean_ranks(x: Tensor, counts: Tensor) -> Tensor:
    """Rank of each sample in each resample, the mean one among equals, without sorting again."""
    x = x.contiguous()
    ordered, order = x.sort()
    below = torch.zeros(counts.shape[0], x.shape[0] + 1, dtype=counts.dtype, device=x.device)
    torch.cumsum(counts[:, order], dim=1, out=below[:, 1:])
    less = below[:, torch.searchsorted(ordered, x)]
    up_to = below[:, torch.searchsorted(ordered, x, right=True)]
    return (less + up_to + 1) / 2


def _check_pair(x: Tensor, y: Tensor) -> None:
    for value, name in ((x, "x"), (y, "y")):
        _checks.float_tensor(value, name)
        if value.ndim == 0 or value.shape[-1] < 3:
            raise ValueError(
                f"{name} must hold at least 3 samples along its last axis, but has shape "
                f"{tuple(value.shape)}."
            )
        _checks.finite(value, name)
    _checks.same_kind(y, "y", x, "x")
    if x.shape[-1] != y.shape[-1]:
        raise ValueError(
            f"y must hold as many samples as x, {x.shape[-1]}, but has shape {tuple(y.shape)}."
        )
    try:
        torch.broadcast_shapes(x.shape[:-1], y.shape[:-1])
    except RuntimeError:
        raise ValueError(
            f"the leading axes of y must broadcast with those of x, {tuple(x.shape)}, but y has "
            f"shape {tuple(y.shape)}."
        ) from None
    for value, name in ((x, "x"), (y, "y")):
        if bool((value.amin(-1) == value.amax(-1)).any()):
            raise ValueError(
                f"{name} must vary within each row, but a row is constant: it has no ranks."
            )


def _check_level(level: float) -> None:
    _checks.number_between(level, "level", 0.0, 1.0)
    if level in (0, 1):
        raise ValueError(f"level must lie strictly between 0 and 1, but is {level}.")
