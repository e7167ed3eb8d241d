"""Softmax statistics of a memory set, read one chunk of memories at a time.

For queries y (Q, d), memories x_i (N, d) and masses w_i (N,), with scores s_i = y·x_i + log w_i:

* ``log_partition`` is log Σ_i exp(s_i) = log Σ_i w_i exp(y·x_i);
* ``softmax_mean`` is Σ_i softmax_i(s) x_i, together with the log-partition.

Both keep a running maximum, so that no exponential overflows and the result does not depend on the
chunk size beyond rounding. The largest temporary is one block of scores, chunk × Q. The backward
passes recompute the scores chunk by chunk, so that gradients obey the same bound; they are written
in differentiable operations, so that second derivatives exist as well.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

# Scores and cached memories of one chunk should stay in the processor's cache: with 256 queries,
# 4 MiB of float32 scores are 4,096 memories. See benchmarks/energy.py for the measurement.
_SCORE_BYTES = 4 * 2**20
_CHUNK_BYTES = 16 * 2**20


def default_chunk_size(queries: int, dim: int, dtype: torch.dtype) -> int:
    """Number of memories to read at a time, from the size of a block of scores and of memories."""
    item = torch.finfo(dtype).bits // 8
    by_scores = _SCORE_BYTES // (item * max(1, queries))
    by_memories = _CHUNK_BYTES // (item * dim)
    return max(64, min(by_scores, by_memories))


def log_partition(
    queries: Tensor, memories: Tensor, weights: Tensor | None, chunk_size: int | None
) -> Tensor:
    """Return log Σ_i w_i exp(y·x_i) for each query, shape (Q,)."""
    chunk = chunk_size or default_chunk_size(*queries.shape, queries.dtype)
    return _LogPartition.apply(queries, memories, weights, chunk)


def softmax_mean(
    queries: Tensor, memories: Tensor, weights: Tensor | None, chunk_size: int | None
) -> tuple[Tensor, Tensor]:
    """Return the softmax-weighted mean of the memories (Q, d), and the log-partition (Q,)."""
    chunk = chunk_size or default_chunk_size(*queries.shape, queries.dtype)
    return _SoftmaxMean.apply(queries, memories, weights, chunk)


def _score_chunks(
    queries: Tensor, memories: Tensor, weights: Tensor | None, chunk_size: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield (memories of the chunk (c, d), their scores (c, Q)), in the dtype of the queries."""
    for start in range(0, memories.shape[0], chunk_size):
        chunk = memories[start : start + chunk_size].to(queries.dtype)
        scores = chunk @ queries.mT  # memories × queries: the faster layout of the product
        if weights is not None:
            scores += weights[start : start + chunk_size, None].to(queries.dtype).log()
        yield chunk, scores


def _lowest(dtype: torch.dtype) -> float:
    """Exponent below which exp is subnormal; those are slow to compute and too small to count."""
    return math.log(torch.finfo(dtype).tiny) + 1  # one above, so that rounding stays normal


def _exp_shifted_(scores: Tensor, shift: Tensor) -> Tensor:
    """exp(scores − shift), in the memory of the scores."""
    return scores.sub_(shift).clamp_(min=_lowest(scores.dtype)).exp_()


class _LogPartition(torch.autograd.Function):
    @staticmethod
    def forward(ctx, queries, memories, weights, chunk_size):
        running_max = queries.new_full((queries.shape[0],), -torch.inf)
        total = queries.new_zeros(queries.shape[0])
        for _, scores in _score_chunks(queries, memories, weights, chunk_size):
            new_max = torch.maximum(running_max, scores.amax(0))
            total = total * (running_max - new_max).exp()
            total = total + _exp_shifted_(scores, new_max).sum(0)
            running_max = new_max
        log_z = running_max + total.log()
        ctx.save_for_backward(queries, memories, weights, log_z)
        ctx.chunk_size = chunk_size
        return log_z

    @staticmethod
    def backward(ctx, grad_log_z):
        queries, memories, weights, log_z = ctx.saved_tensors

        def pull_back(chunk, p):
            return p * grad_log_z, None

        return _gradients(ctx, queries, memories, weights, log_z, pull_back)


class _SoftmaxMean(torch.autograd.Function):
    @staticmethod
    def forward(ctx, queries, memories, weights, chunk_size):
        running_max = queries.new_full((queries.shape[0],), -torch.inf)
        total = queries.new_zeros(queries.shape[0])
        mean = torch.zeros_like(queries)
        for chunk, scores in _score_chunks(queries, memories, weights, chunk_size):
            new_max = torch.maximum(running_max, scores.amax(0))
            shrink = (running_max - new_max).exp()
            p = _exp_shifted_(scores, new_max)
            total = total * shrink + p.sum(0)
            mean = torch.addmm(mean * shrink[:, None], p.mT, chunk)
            running_max = new_max
        mean = mean / total[:, None]
        log_z = running_max + total.log()
        ctx.save_for_backward(queries, memories, weights, mean, log_z)
        ctx.chunk_size = chunk_size
        return mean, log_z

    @staticmethod
    def backward(ctx, grad_mean, grad_log_z):
        queries, memories, weights, mean, log_z = ctx.saved_tensors
        slope = grad_log_z - (mean * grad_mean).sum(-1)

        def pull_back(chunk, p):
            return p * (chunk @ grad_mean.mT + slope), p @ grad_mean

        return _gradients(ctx, queries, memories, weights, log_z, pull_back)


def _gradients(
    ctx,
    queries: Tensor,
    memories: Tensor,
    weights: Tensor | None,
    log_z: Tensor,
    pull_back: Callable[[Tensor, Tensor], tuple[Tensor, Tensor | None]],
) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
    """Gradients with respect to queries, memories and masses, one chunk at a time.

    ``pull_back(chunk, p)`` gives the gradient of the scores (c, Q), and the gradient that reaches
    the memories other than through their scores, (c, d) or None.
    """
    wants_queries, wants_memories, wants_weights, _ = ctx.needs_input_grad
    grad_queries = torch.zeros_like(queries) if wants_queries else None
    grad_memories, grad_weights = [], []
    lowest = _lowest(queries.dtype)
    for chunk, scores in _score_chunks(queries, memories, weights, ctx.chunk_size):
        p = (scores - log_z).clamp(min=lowest).exp()
        grad_scores, direct = pull_back(chunk, p)
        if wants_queries:
            grad_queries = grad_queries + grad_scores.mT @ chunk
        if wants_memories:
            through_scores = grad_scores @ queries
            whole = through_scores if direct is None else through_scores + direct
            grad_memories.append(whole.to(memories.dtype))
        if wants_weights:
            start = len(grad_weights) * ctx.chunk_size
            mass = weights[start : start + ctx.chunk_size]
            grad_weights.append((grad_scores.sum(1) / mass.to(queries.dtype)).to(weights.dtype))
    return (
        grad_queries,
        torch.cat(grad_memories) if wants_memories else None,
        torch.cat(grad_weights) if wants_weights else None,
        None,
    )
