"""sentence-transformers: its own sorting and batches, at its default size and smaller ones."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer

from gte_integrations.bench.contenders.batches import batch_size, batch_variants


@dataclass(frozen=True, slots=True)
class Model:
    """A model with its pooling and normalisation."""

    model: Any
    device: str
    dtype: str

    @property
    def variants(self) -> tuple[str, ...]:
        """Batch sizes, its default of 32 first."""
        return batch_variants(self.device)

    def encode(self, texts: list[str], variant: str) -> NDArray[np.float32]:
        """Dense vectors."""
        vectors = self.model.encode(
            texts, batch_size=batch_size(variant), show_progress_bar=False, convert_to_tensor=True
        )
        on_host: NDArray[np.float32] = vectors.float().cpu().numpy()
        return on_host


def load(directory: Path, device: str, dtype: str) -> Model:
    """Load a checkpoint in transformers' form, with the modules behind it."""
    model = SentenceTransformer(
        str(directory), device=device, model_kwargs={"dtype": dtype}, local_files_only=True
    )
    return Model(model, device, dtype)
