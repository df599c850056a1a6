"""transformers' own class for the network: padded batches, sorted by length.

Sorting is what a careful user writes around it; without it the padding would be most of the work.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoModel, AutoTokenizer

from gte_integrations.bench.contenders.batches import batch_size, batch_variants

_MAX_LENGTH = 8192


@dataclass(frozen=True, slots=True)
class PaddedModel:
    """A model and its tokenizer, of which neither has types."""

    model: Any
    tokenizer: Any
    device: str
    dtype: str

    @property
    def variants(self) -> tuple[str, ...]:
        """Batch sizes; on a CPU 32 and 8, as smaller ones are no faster here."""
        return batch_variants(self.device)[:2]

    def encode(self, texts: list[str], variant: str) -> NDArray[np.float32]:
        """The states of the first tokens, scaled to length 1."""
        ids = self.tokenizer(texts, truncation=True, max_length=_MAX_LENGTH)["input_ids"]
        order = sorted(range(len(ids)), key=lambda i: len(ids[i]), reverse=True)
        size = batch_size(variant)
        vectors = np.empty((len(ids), self.model.config.hidden_size), dtype=np.float32)
        for start in range(0, len(order), size):
            batch = order[start : start + size]
            vectors[batch] = self._encode_batch([ids[i] for i in batch])
        return vectors

    def _encode_batch(self, ids: list[list[int]]) -> NDArray[np.float32]:
        padded = self.tokenizer.pad({"input_ids": ids}, return_tensors="pt").to(self.device)
        with torch.inference_mode():
            hidden = self.model(
                input_ids=padded["input_ids"], attention_mask=padded["attention_mask"]
            ).last_hidden_state
            first = torch.nn.functional.normalize(hidden[:, 0].float(), dim=-1)
        vectors: NDArray[np.float32] = first.cpu().numpy()
        return vectors


def load(directory: Path, device: str, dtype: str) -> PaddedModel:
    """Load a checkpoint in transformers' form."""
    tokenizer = AutoTokenizer.from_pretrained(directory, local_files_only=True)
    model = AutoModel.from_pretrained(directory, dtype=dtype, local_files_only=True)
    return PaddedModel(model.to(device).eval(), tokenizer, device, dtype)
