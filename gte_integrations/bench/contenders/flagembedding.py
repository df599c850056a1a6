"""FlagEmbedding's BGE-M3 at equal shape, with random weights; only its speed can be compared.

Run with FlagEmbedding 1.4.2 on transformers 5.23, on a CPU.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gte_integrations.bench.contenders.batches import batch_size, batch_variants

_MAX_LENGTH = 8192


@dataclass(frozen=True, slots=True)
class BGEM3:
    """A model whose dense vectors are asked for, though it could give others too."""

    model: Any
    device: str
    dtype: str

    @property
    def variants(self) -> tuple[str, ...]:
        """Batch sizes."""
        return batch_variants(self.device)[:2]

    def encode(self, texts: list[str], variant: str) -> NDArray[np.float32]:
        """Dense vectors."""
        given = self.model.encode(
            texts, batch_size=batch_size(variant), max_length=_MAX_LENGTH, return_dense=True
        )
        return np.asarray(given["dense_vecs"], dtype=np.float32)


def load(directory: Path, device: str, dtype: str) -> BGEM3:
    """Load an XLM-RoBERTa checkpoint; the heads that it lacks get random weights."""
    kind = import_module("FlagEmbedding").BGEM3FlagModel
    model = kind(str(directory), use_fp16=dtype == "float16", devices=device)
    return BGEM3(model, device, dtype)
