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
        return cls(tuple(lengths), bounds.to(device, torch.int32), positions.to(device))

    @property
    def first_tokens(self) -> Tensor:
        """int64 ``(n,)``: the place of every sequence's first token, its CLS, in the pack."""
        return self.cu_seqlens[:-1].long()


def attend(query: Tensor, key: Tensor, value: Tensor, layout: PackLayout) -> Tensor:
    """Softmax attention within each sequence; all tensors ``(total_tokens, heads, head_dim)``."""
    if _has_varlen_kernel(query):
        return _varlen_attention(query, key, value, layout)
    return _grouped_attention(query, key, value, layout)


def _has_varlen_kernel(query: Tensor) -> bool:
    """Flash attention wants an Ampere card or newer, a half type, and head sizes in steps of 8."""
    return (
        query.is_cuda
        and query.dtype in (torch.float16, torch.bfloat16)
        and query.shape[0] > 0
        and query.shape[-1] % 8 == 0
        and torch.cuda.get_device_capability(query.device) >= (8, 0)
    )


def _varlen_attention(query: Tensor, key: Tensor, value: Tensor, layout: PackLayout) -> Tensor:
    """One launch for the whole pack; CUDA, half types only."""
    from torch.nn.attention.varlen import varlen_attn

    bounds, longest = layout.cu_seqlens, max(layout.lengths)
    out = varlen_attn(query, key, value, bounds, bounds, longest, longest)
    assert isinstance(out, Tensor)  # noqa: S101  the log-sum-exp was not asked for
    return out


def _grouped_attention(query: Tensor, key: Tensor, value: Tensor, layout: PackLayout) -> Tensor:
    """One call for each run of equally long sequences; a pack sorted by length has few runs."""
    parts, start = [], 0
    for length, run in groupby(layout.lengths):
        count = len(list(run))
        tokens = slice(start, start := start + count * length)
        q, k, v = (x[tokens].view(count, length, *x.shape[1:]) for x in (query, key, value))
        out = scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2))
        parts.append(out.transpose(1, 2).flatten(0, 1))
    return torch.cat(parts) if parts else torch.empty_like(query)
