"""This library: dense vectors alone, as the peers give them, and both vectors of one pass."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gte_core import GTEEmbedder


@dataclass(frozen=True, slots=True)
class Embedder:
    """A loaded embedder, with the type it computes in."""

    embedder: GTEEmbedder
    dtype: str

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
    embedder = GTEEmbedder.from_pretrained(directory, device=device, dtype=dtype)
    return Embedder(embedder, _chosen_dtype(embedder))


def _chosen_dtype(embedder: GTEEmbedder) -> str:
    # Shown by the embedder, though it has no attribute for it.
    shown = re.search(r"\bdtype='(\w+)'", repr(embedder))
    if not shown:
        raise RuntimeError(f"{embedder!r} does not show the type it computes in.")
    return shown[1]
