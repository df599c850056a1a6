"""Attention over packed sequences. Only this module knows the kernels of attention.

A *pack* is several texts laid end to end without padding. ``PackLayout`` says where each one
starts and ends; ``attend`` lets the tokens of a text see that text alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from gte_core.network.device import to_device

# Attention scores that are computed at once: few enough to stay in a CPU's cache.
_SCORES_AT_ONCE = 2**21


@dataclass(frozen=True, slots=True)
class PackLayout:
    """Where each sequence of a pack starts and ends; computed once per pass, read by every layer.

    Attributes:
        lengths: tokens of each sequence, in the order of the pack.
        longest: tokens of the longest sequence, or an upper bound.
        cu_seqlens: int32 ``(n + 1,)``, the running sum of ``lengths`` from 0.
        positions: int64 ``(total_tokens,)``, each token's place within its own sequence.
        left_out: int64 ``(n,)``, how many of its first tokens pooling leaves out of each sequence.
    """

    lengths: tuple[int, ...]
    longest: int
    cu_seqlens: Tensor
    positions: Tensor
    left_out: Tensor

    @classmethod
    def from_lengths(
        cls,
        lengths: Sequence[int],
        *,
        device: torch.device,
        positions: Tensor | None = None,
        left_out: Sequence[int] = (),
    ) -> PackLayout:
        """Lay out sequences of these lengths.

        ``positions`` default to 0, 1, 2, … in each, and nothing is left out.
        """
        sizes = torch.tensor(lengths, dtype=torch.int64, device="cpu")
        bounds = torch.nn.functional.pad(sizes.cumsum(0), (1, 0))
        if positions is None:
            total = sum(lengths)
            firsts = bounds[:-1].repeat_interleave(sizes, output_size=total)
            positions = torch.arange(total, device="cpu") - firsts
        cu_seqlens = to_device(bounds.to(torch.int32), device)
        longest = max(lengths, default=0)
        if any(left_out):
            leading = to_device(torch.tensor(left_out, dtype=torch.int64, device="cpu"), device)
        else:
            leading = torch.zeros(len(lengths), dtype=torch.int64, device=device)
        return cls(tuple(lengths), longest, cu_seqlens, to_device(positions, device), leading)

    @property
    def n_sequences(self) -> int:
        """How many sequences there are."""
        return len(self.cu_seqlens) - 1

    def with_any_lengths(self, longest: int) -> PackLayout:
        """This layout without its lengths, so that another pack can overwrite its tensors.

        It is for the varlen kernel alone, which reads no lengths.
        """
        return replace(self, lengths=(), longest=longest)

    @property
    def cls_indices(self) -> Tensor:
        """int64 ``(n,)``: the place in the pack of every sequence's CLS token, its first.

        Behind a prompt that is left out, it is the first token that is not.
        """
        return self.cu_seqlens[:-1] + self.left_out

    @property
    def cls_layout(self) -> PackLayout:
        """The layout of the CLS tokens alone: sequences of one token."""
        bounds = torch.arange(
            self.n_sequences + 1, dtype=torch.int32, device=self.cu_seqlens.device
        )
        positions = torch.zeros_like(bounds[:-1], dtype=torch.int64)
        return PackLayout((1,) * self.n_sequences, 1, bounds, positions, positions)

    @property
    def sequence_ids(self) -> Tensor:
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
    if len(query) and has_varlen_kernel(query.device, query.dtype, query.shape[-1]):
        return _varlen_attention(query, key, value, queries, layout)
    return _grouped_attention(query, key, value, queries, layout)


def has_varlen_kernel(device: torch.device, dtype: torch.dtype, head_dim: int) -> bool:
    """Whether there is a varlen kernel, which computes a whole pack in one launch.

    It is flash attention, for half types on Ampere or newer. It reads a layout's ``cu_seqlens`` and
    ``longest``, never its ``lengths``.
    """
    return (
        device.type == "cuda"
        and dtype in (torch.float16, torch.bfloat16)
        and head_dim % 8 == 0
        and head_dim <= 256
        and torch.cuda.get_device_properties(device).major >= 8
    )


def _varlen_attention(
    query: Tensor, key: Tensor, value: Tensor, queries: PackLayout, keys: PackLayout
) -> Tensor:
    """Attention by the varlen kernel."""
    from torch.nn.attention.varlen import varlen_attn

    longest = queries.longest, keys.longest
    out = varlen_attn(query, key, value, queries.cu_seqlens, keys.cu_seqlens, *longest)
    assert isinstance(out, Tensor)  # noqa: S101  the log-sum-exp was not asked for
    return out


def _grouped_attention(
    query: Tensor, key: Tensor, value: Tensor, queries: PackLayout, keys: PackLayout
) -> Tensor:
    """One call for each run of equally long sequences; a pack sorted by length has few runs."""
    kernel = _products if _products_are_faster(query) else scaled_dot_product_attention
    attended = torch.empty_like(query)
    first_query = first_key = 0
    for (n_queries, n_keys), run in groupby(zip(queries.lengths, keys.lengths, strict=True)):
        count = len(list(run))
        of_queries = slice(first_query, first_query := first_query + count * n_queries)
        of_keys = slice(first_key, first_key := first_key + count * n_keys)
        q, out = (x[of_queries].view(count, n_queries, *x.shape[1:]) for x in (query, attended))
        k, v = (x[of_keys].view(count, n_keys, *x.shape[1:]) for x in (key, value))
        out.copy_(kernel(*(x.transpose(1, 2) for x in (q, k, v))).transpose(1, 2))
    return attended


def _products_are_faster(query: Tensor) -> bool:
    """In bfloat16 on a CPU, torch's fused kernel is no faster than in float32; products are."""
    return query.device.type == "cpu" and query.dtype == torch.bfloat16


def _products(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """softmax(q kᵀ / √d) v of ``(count, heads, tokens, head_dim)``, in parts that fit a cache."""
    count, heads, n_queries, size = query.shape
    # Copied once: the rows of a head lie far apart, and every product would gather them again.
    q, k, v = (x.flatten(0, 1).contiguous() for x in (query * size**-0.5, key, value))
    out = torch.empty_like(q)
    rows_at_once = max(1, min(n_queries, _SCORES_AT_ONCE // k.shape[1]))
    step = max(1, _SCORES_AT_ONCE // (rows_at_once * k.shape[1]))
    for start in range(0, count * heads, step):
        part = slice(start, start + step)
        for first in range(0, n_queries, rows_at_once):
            rows = slice(first, first + rows_at_once)
            scores = torch.bmm(q[part, rows], k[part].mT)
            out[part, rows] = torch.bmm(scores.softmax(-1), v[part])
    return out.view(count, heads, n_queries, size)
