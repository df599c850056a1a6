"""Scores of pairs of texts: as the published script gives them, and taken apart."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from gte_core.embeddings import HybridEmbeddings
from gte_core.encoder import Role
from gte_core.explanation import Explanation
from gte_core.loaded import LoadedEncoder
from gte_core.look_up import LookUp
from gte_core.published import pair_scores
from gte_core.runtime.vectors import TextVectors
from gte_core.texts import FedTexts, NameOf, check_max_length, checked_pairs, checked_text
from gte_core.truncation import WindowedCall
from gte_core.windows import Part, WindowedEncoding


class Scoring(LoadedEncoder, ABC):
    """What an embedder says of a query and a document."""

    look_up: LookUp | None
    _windows: WindowedEncoding

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
            *self._fed([query for query, _ in listed], "query"),
            *self._fed([document for _, document in listed], "document"),
        ]
        limit = min(check_max_length(max_length, self.tokenizer.n_special), self.max_length)
        call = WindowedCall(limit, lambda i: f"pairs[{i % n}][{i // n}]", place_of=lambda i: i % n)
        both = self._joined(self._windows.parts(texts, call), size)
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
        size = self._size(dimensions)
        asked = list(self._fed(checked_text(query, "query"), "query"))
        texts = [*asked, *self._fed(checked_text(document, "document"), "document")]
        both = self._joined(self._windows.parts(texts, WindowedCall(self.max_length)), size)
        return Explanation.between(
            self.look_up.encode([fed.text for fed in asked]) if self.look_up else both[0],
            both[1],
            name=self.tokenizer.piece,
            dense_weight=dense_weight,
            sparse_weight=sparse_weight,
        )

    def _joined(self, parts: Iterable[Part], size: int) -> HybridEmbeddings:
        return HybridEmbeddings.concatenate(self._embeddings(*part, size) for part in parts)

    @abstractmethod
    def _fed(self, texts: str | Iterable[str], role: Role) -> FedTexts: ...

    @abstractmethod
    def _embeddings(self, encoded: TextVectors, name_of: NameOf, size: int) -> HybridEmbeddings: ...
