"""This library with compiled layers and CUDA graphs."""

from __future__ import annotations

from pathlib import Path

from gte_core import GTEEmbedder
from gte_integrations.bench.contenders.gte import Embedder


def load(directory: Path, device: str, dtype: str) -> Embedder:
    """Load a checkpoint in its original form; what is compiled is compiled in its first passes."""
    return Embedder(
        GTEEmbedder.from_pretrained(directory, device=device, dtype=dtype, torch_compile=True)
    )
