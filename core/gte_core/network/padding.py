"""Padded batches, and the packs that are computed in their place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gte_core.network.attention import PackLayout


@dataclass(frozen=True, slots=True)
class Padding:
    """Which places of a padded batch hold tokens; padding may stand anywhere.

    Attributes:
        mask: bool ``(batch, length)``, True for tokens.
        layout: of their pack, with the places in the batch as positions.
    """

    mask: Tensor
    layout: PackLayout

    @classmethod
    def of(
        cls, batch: Tensor, attention_mask: Tensor | None, *, positions: Tensor | None = None
    ) -> Padding:
        """The padding of a batch ``(batch, length, ...)``.

        Args:
            batch: ids or embeddings.
            attention_mask: ``(batch, length)``, 0 at padding; None for tokens everywhere.
            positions: ``(batch or 1, length)``; by default 0, 1, 2, ... in every row.
        """
        shape, device = batch.shape[:2], batch.device
        if attention_mask is None:
            mask = torch.ones(shape, dtype=torch.bool, device=device)
        else:
            mask = attention_mask.to(device) != 0
        if positions is None:
            positions = torch.arange(shape[1], device=device)
        lengths = mask.sum(1)
        layout = PackLayout.from_lengths(
            lengths[lengths > 0].tolist(), device=device, positions=positions.expand(shape)[mask]
        )
        return cls(mask, layout)

    def pack(self, batch: Tensor) -> Tensor:
        """``(batch, length, ...)`` -> ``(total_tokens, ...)``."""
        return batch[self.mask]

    def unpack(self, packed: Tensor) -> Tensor:
        """``(total_tokens, ...)`` -> ``(batch, length, ...)``, zeros at padding."""
        batch = packed.new_zeros(*self.mask.shape, *packed.shape[1:])
        batch[self.mask] = packed
        return batch

    def first(self, batch: Tensor) -> Tensor:
        """What a batch ``(batch, length, ...)`` holds at the first token of every row."""
        rows = torch.arange(len(batch), device=batch.device)
        return batch[rows, self.mask.int().argmax(1)]


def check_mask(attention_mask: Tensor | None, shape: Sequence[int]) -> None:
    """``ValueError`` for a mask of another shape, or one to be added to attention scores."""
    if attention_mask is None:
        return
    if tuple(attention_mask.shape) != tuple(shape):
        raise ValueError(
            f"attention_mask has the shape {tuple(attention_mask.shape)}, but must have that of "
            f"input_ids, {tuple(shape)}."
        )
    if attention_mask.is_floating_point() and bool((attention_mask < 0).any()):
        raise ValueError(
            "attention_mask holds negative numbers; give 1 for tokens and 0 for padding, not the "
            "values that are added to attention scores."
        )
