"""States of tokens -> one pooled state for each sequence of a pack."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

from gte_core.checkpoint.modules import PoolingMode
from gte_core.network.attention import PackLayout

Pool = Callable[[Tensor, PackLayout], Tensor]


def pool_cls(hidden: Tensor, layout: PackLayout) -> Tensor:
    """The states of the CLS tokens, float32 ``(n, hidden_size)``."""
    return hidden[layout.cls_indices].float()


def pool_mean(hidden: Tensor, layout: PackLayout) -> Tensor:
    """The mean of each sequence's states, float32 ``(n, hidden_size)``; zeros of an empty one.

    Each is added up in the order of its tokens, also on a GPU, so that its last bits depend on
    nothing else in the pack.
    """
    sequence_ids = layout.sequence_ids
    counted = layout.positions >= layout.left_out[sequence_ids]
    counts = layout.cu_seqlens.diff() - layout.left_out
    tokens = torch.arange(len(hidden), dtype=torch.int32, device=hidden.device)
    return embedding_bag(
        tokens,
        hidden.float(),
        layout.cu_seqlens,
        mode="sum",
        include_last_offset=True,
        per_sample_weights=counted.float() / counts[sequence_ids],
    )


POOLS: Mapping[PoolingMode, Pool] = {"cls": pool_cls, "mean": pool_mean}
