"""For tests and for trying things out: random checkpoints, and what needs no model at all."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gte_core.testing.hash_encoder import HashEncoder
from gte_core.testing.hash_reranker import HashReranker

if TYPE_CHECKING:
    from gte_core.testing.checkpoints import random_checkpoint as random_checkpoint
    from gte_core.testing.checkpoints import random_sparse_encoder as random_sparse_encoder
    from gte_core.testing.checkpoints import random_weights as random_weights
    from gte_core.testing.checkpoints import word_tokenizer as word_tokenizer

__all__ = [
    "HashEncoder",
    "HashReranker",
    "random_checkpoint",
    "random_sparse_encoder",
    "random_weights",
    "word_tokenizer",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from gte_core.testing import checkpoints  # brings torch, which hashes do not need

    return getattr(checkpoints, name)
