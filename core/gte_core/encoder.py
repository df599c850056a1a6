"""``Encoder``: what every adapter needs of a model, local or remote, one device or many."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from gte_core.embeddings import HybridEmbeddings
from gte_core.texts import as_texts, checked

NumericFamily = Literal["float", "int8", "fp8"]


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What two sets of vectors must share to be comparable.

    ``model`` is a hub id, or ``sha256:...`` of the content of a directory. All float types are one
    family: vectors built in bfloat16 may be searched in float32. The dimensions are not part of
    it; a collection states its own.
    """

    model: str
    revision: str | None
    max_length: int
    numeric: NumericFamily = "float"

    def __str__(self) -> str:
        revision = f"@{self.revision[:12]}" if self.revision else ""
        return f"{self.model}{revision} max_length={self.max_length} {self.numeric}"


class Encoder(Protocol):
    """Turns texts into vectors. Safe to call from several threads."""

    @property
    def dimensions(self) -> int:
        """Size of the dense vectors when a call does not ask for a smaller one."""
        ...

    @property
    def has_sparse(self) -> bool:
        """Whether the model gives sparse vectors; if not, only ``encode_dense`` works."""
        ...

    @property
    def fingerprint(self) -> Fingerprint:
        """What vectors of another encoder must share to be comparable with these."""
        ...

    @property
    def query_prefix(self) -> str:
        """Text that the model wants before a query, usually none."""
        ...

    def encode(
        self, texts: str | Iterable[str], *, dimensions: int | None = None
    ) -> HybridEmbeddings:
        """Both vectors of every text in one pass; one text is a list of one."""
        ...

    def encode_dense(
        self, texts: str | Iterable[str], *, dimensions: int | None = None
    ) -> NDArray[np.float32]:
        """Dense vectors alone, ``(n, dimensions)``."""
        ...

    def encode_sparse(self, texts: str | Iterable[str]) -> sp.csr_array[np.float32]:
        """Sparse vectors alone, ``(n, vocab_size)``."""
        ...

    async def aencode(
        self, texts: str | Iterable[str], *, dimensions: int | None = None
    ) -> HybridEmbeddings:
        """``encode`` without blocking the event loop."""
        ...


def as_queries(encoder: Encoder, texts: str | Iterable[str]) -> list[str]:
    """The texts as the model wants queries: with its ``query_prefix`` in front of each."""
    queries = checked(as_texts(texts, "queries"), "queries")
    return [encoder.query_prefix + query for query in queries]
