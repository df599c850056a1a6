"""This library: dense vectors alone, as the peers give them, and both vectors of one pass."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gte_core import GTEEmbedder


@dataclass(frozen=True, slots=True)
class Embedder:
    """A loaded embedder."""

    embedder: GTEEmbedder

    @property
    def dtype(self) -> str:
        """The type it computes in."""
        return self.embedder.dtype

    @property
    def variants(self) -> tuple[str, ...]:
        """``"dense"``, and ``"hybrid"`` where there is a sparse head."""
        return ("dense", "hybrid") if self.embedder.has_sparse else ("dense",)

    def encode(self, texts: list[str], variant: str) -> NDArray[np.float32]:
        """Dense vectors; the sparse ones of ``"hybrid"`` are computed and dropped."""
        if variant == "hybrid":
            return self.embedder.encode(texts).dense
        return self.embedder.encode_dense(texts)


def load(directory: Path, device: str, dtype: str) -> Embedder:
    """Load a checkpoint in its original form."""
    return Embedder(GTEEmbedder.from_pretrained(directory, device=device, dtype=dtype))
