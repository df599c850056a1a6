"""Scores of pairs of texts: as the published script gives them, and taken apart."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from gte_core.embeddings import HybridEmbeddings
from gte_core.encoder import with_prefix
from gte_core.explanation import Explanation
from gte_core.look_up import LookUp
from gte_core.published import pair_scores
from gte_core.runtime.vectors import TextVectors
from gte_core.texts import NameOf, check_max_length, checked_pairs, checked_text
from gte_core.tokenizer import GTETokenizer
from gte_core.truncation import WindowedCall
from gte_core.windows import WindowedEncoding


class Scoring(ABC):
    """What an embedder says of a query and a document."""

    look_up: LookUp | None
    _tokenizer: GTETokenizer
    _windows: WindowedEncoding

    @property
    @abstractmethod
    def max_length(self) -> int:
        """Tokens of a text that are read, special tokens included."""

    @property
    @abstractmethod
    def query_prefix(self) -> str:
        """Text that goes before queries."""

    def compute_scores(
        self,
        pairs: Iterable[tuple[str, str]],
        *,
        dense_weight: float = 1.0,
        sparse_weight: float = 0.1,
        dimensions: int | None = None,
        max_length: int = 1024,
    ) -> NDArray[np.float32]:
        """Score ``(query, document)`` pairs as the model's published script does, float32 ``(n,)``.

        ``dense_weight * cosine + sparse_weight * (sum of products of token weights)``, where ids
        that decode to the same string count as one token; ``explain`` and the indexes go by
        id instead. At most ``max_length`` tokens of each text are read. ``MissingHeadError`` for a
        sparse encoder, whose scores are products of sparse vectors.
        """
        self.require_dense_head()
        if sparse_weight:
            self.require_sparse_head()
        listed = list(checked_pairs(pairs))
        n = len(listed)
        size = self._size(dimensions)
        texts = [
            *with_prefix([query for query, _ in listed], "query", self.query_prefix),
            *(document for _, document in listed),
        ]
        limit = min(check_max_length(max_length, self._tokenizer.n_special), self.max_length)
        call = WindowedCall(limit, lambda i: f"pairs[{i % n}][{i // n}]", place_of=lambda i: i % n)
        parts = self._windows.parts(texts, call)
        both = HybridEmbeddings.concatenate(self._embeddings(*part, size) for part in parts)
        return pair_scores(
            both[:n], both[n:], dense_weight=dense_weight, sparse_weight=sparse_weight
        )

    def explain(
        self,
        query: str,
        document: str,
        *,
        dense_weight: float = 1.0,
        sparse_weight: float = 0.01,
        dimensions: int | None = None,
    ) -> Explanation:
        """Take a score apart: both parts, and the shared tokens with their contributions.

        Of a sparse encoder there are the sparse part and its tokens; its dense score is 0.
        """
        self.require_sparse_head()
        asked = self.query_prefix + checked_text(query, "query")
        texts = [asked, checked_text(document, "document")]
        both = self.encode_available(texts, dimensions=dimensions)
        return Explanation.between(
            self.look_up.encode([asked]) if self.look_up else both[0],
            both[1],
            name=self._tokenizer.piece,
            dense_weight=dense_weight,
            sparse_weight=sparse_weight,
        )

    @abstractmethod
    def encode_available(
        self, texts: str | Iterable[str], *, dimensions: int | None = None
    ) -> HybridEmbeddings:
        """Both vectors, as far as there are any."""

    @abstractmethod
    def require_dense_head(self) -> None:
        """Raise ``MissingHeadError`` for a checkpoint without dense vectors."""

    @abstractmethod
    def require_sparse_head(self) -> None:
        """Raise ``MissingHeadError`` for a checkpoint without the sparse head."""

    @abstractmethod
    def _size(self, dimensions: int | None) -> int: ...

    @abstractmethod
    def _embeddings(self, encoded: TextVectors, name_of: NameOf, size: int) -> HybridEmbeddings: ...
