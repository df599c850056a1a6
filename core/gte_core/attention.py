"""Attention over packed sequences: the one place that knows kernels.

A *pack* is several texts laid end to end without padding. :class:`PackLayout` says where each one
starts and ends; :func:`attend` lets the tokens of a text see that text alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from gte_core.device import to_device

# Scores of the attention products that are in the works at once, so that they stay in the cache.
_SCORES_AT_ONCE = 2**22


@dataclass(frozen=True, slots=True)
class PackLayout:
    """Where each sequence of a pack starts and ends; computed once per pass, read by every layer.

    Attributes:
        lengths: tokens of each sequence, in the order of the pack.
        cu_seqlens: int32 ``(n + 1,)``, the running sum of ``lengths`` from 0.
        positions: int64 ``(total_tokens,)``, each token's place within its own sequence.
    """

    lengths: tuple[int, ...]
    cu_seqlens: Tensor
    positions: Tensor

    @classmethod
    def from_lengths(
        cls, lengths: Sequence[int], *, device: torch.device, positions: Tensor | None = None
    ) -> PackLayout:
        """Lay out sequences of these lengths; ``positions`` default to 0, 1, 2, … in each."""
        sizes = torch.tensor(lengths, dtype=torch.int64, device="cpu")
        bounds = torch.nn.functional.pad(sizes.cumsum(0), (1, 0))
        if positions is None:
            places = torch.arange(int(bounds[-1]), device="cpu")
            positions = places - bounds[:-1].repeat_interleave(sizes)
        cu_seqlens = to_device(bounds.to(torch.int32), device)
        return cls(tuple(lengths), cu_seqlens, to_device(positions, device))

    @property
    def first_tokens(self) -> Tensor:
        """int64 ``(n,)``: the place of every sequence's first token, its CLS, in the pack."""
        return self.cu_seqlens[:-1].long()

    @property
    def firsts(self) -> PackLayout:
        """The layout of the first tokens alone."""
        n = len(self.lengths)
        bounds = torch.arange(n + 1, dtype=torch.int32, device=self.cu_seqlens.device)
        return PackLayout((1,) * n, bounds, torch.zeros_like(bounds[:-1], dtype=torch.int64))

    @property
    def owners(self) -> Tensor:
        """int64 ``(total_tokens,)``: which sequence each token belongs to."""
        tokens = torch.arange(len(self.positions), device=self.positions.device)
        return torch.bucketize(tokens, self.cu_seqlens[1:], right=True)


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    layout: PackLayout,
    *,
    query_layout: PackLayout | None = None,
) -> Tensor:
    """Softmax attention within each sequence; all tensors ``(total_tokens, heads, head_dim)``.

    ``query_layout`` lays out the queries where there are fewer of them than keys.
    """
    queries = query_layout or layout
    if _has_varlen_kernel(query):
        return _varlen_attention(query, key, value, queries, layout)
    return _grouped_attention(query, key, value, queries, layout)


def _has_varlen_kernel(query: Tensor) -> bool:
    """Flash attention wants an Ampere card or newer, a half type, and head sizes in steps of 8."""
    return (
        query.is_cuda
        and query.dtype in (torch.float16, torch.bfloat16)
        and query.shape[0] > 0
        and query.shape[-1] % 8 == 0
        and torch.cuda.get_device_capability(query.device) >= (8, 0)
    )


def _varlen_attention(
    query: Tensor, key: Tensor, value: Tensor, queries: PackLayout, keys: PackLayout
) -> Tensor:
    """One launch for the whole pack; CUDA, half types only."""
    from torch.nn.attention.varlen import varlen_attn

    longest = max(queries.lengths), max(keys.lengths)
    out = varlen_attn(query, key, value, queries.cu_seqlens, keys.cu_seqlens, *longest)
    assert isinstance(out, Tensor)  # noqa: S101  the log-sum-exp was not asked for
    return out


def _grouped_attention(
    query: Tensor, key: Tensor, value: Tensor, queries: PackLayout, keys: PackLayout
) -> Tensor:
    """One call for each run of equally long sequences; a pack sorted by length has few runs."""
    kernel = _products if _products_are_faster(query) else scaled_dot_product_attention
    parts, first_query, first_key = [], 0, 0
    for (n_queries, n_keys), run in groupby(zip(queries.lengths, keys.lengths, strict=True)):
        count = len(list(run))
        of_queries = slice(first_query, first_query := first_query + count * n_queries)
        of_keys = slice(first_key, first_key := first_key + count * n_keys)
        q = query[of_queries].view(count, n_queries, *query.shape[1:])
        k, v = (x[of_keys].view(count, n_keys, *x.shape[1:]) for x in (key, value))
        out = kernel(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2))
        parts.append(out.transpose(1, 2).flatten(0, 1))
    return torch.cat(parts) if parts else torch.empty_like(query)


def _products_are_faster(query: Tensor) -> bool:
    """On a CPU torch's fused kernel computes bfloat16 at float32's speed; plain products do not."""
    return query.device.type == "cpu" and query.dtype == torch.bfloat16


def _products(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """softmax(q kᵀ / √d) v, of ``(count, heads, tokens, head_dim)``, a cache's worth at a time."""
    count, heads, n_queries, size = query.shape
    q, k, v = (x.flatten(0, 1) for x in (query, key, value))
    out = torch.empty_like(q)
    rows_at_once = max(1, min(n_queries, _SCORES_AT_ONCE // k.shape[1]))
    step = max(1, _SCORES_AT_ONCE // (rows_at_once * k.shape[1]))
    for start in range(0, count * heads, step):
        part = slice(start, start + step)
        for first in range(0, n_queries, rows_at_once):
            rows = slice(first, first + rows_at_once)
            scores = torch.bmm(q[part, rows], k[part].mT).mul_(size**-0.5)
            out[part, rows] = torch.bmm(scores.softmax(-1), v[part])
    return out.view(count, heads, n_queries, size)
