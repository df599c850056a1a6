"""How a collection keeps its dense vectors."""

from __future__ import annotations

from typing import Literal

from gte_core import Encoder
from gte_integrations._index.checks import check_choice
from gte_integrations._index.records import Facts, Vectorizer

Storage = Literal["float32", "float16", "int8"]

OVERSAMPLING = 2
"""How many times the hits wanted int8 vectors gather, for the full ones to rank."""


class StorageVectorizer(Vectorizer):
    """A ``Vectorizer`` for an engine that can keep dense vectors in less space."""

    def __init__(
        self,
        encoder: Encoder,
        *,
        dimensions: int | None = None,
        coarse_dimensions: int | None = None,
        storage: Storage = "float32",
    ) -> None:
        check_choice("storage", storage, Storage)
        super().__init__(encoder, dimensions=dimensions, coarse_dimensions=coarse_dimensions)
        self.storage: Storage = storage

    def facts(self) -> Facts:
        """What a collection's vectors must share with these to be comparable."""
        return {**super().facts(), "storage": self.storage}
