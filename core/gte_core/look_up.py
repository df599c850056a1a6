"""Queries of a sparse encoder: the weights of their tokens from a table, without a pass."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from gte_core.embeddings import HybridEmbeddings
from gte_core.runtime.vectors import TextVectors
from gte_core.texts import NameOf, as_text
from gte_core.tokenizer import GTETokenizer, TokenizedText

_AT_ONCE = 256  # queries, within some milliseconds


class LookUp:
    """What stands for a model where queries are looked up.

    Args:
        tokenizer: makes ids of queries.
        weights: of every token id, float32 ``(vocab_size,)``.
        max_length: tokens of a query that are read, special tokens included.
    """

    pack_tokens = 4096

    def __init__(
        self, tokenizer: GTETokenizer, weights: NDArray[np.float32], max_length: int
    ) -> None:
        self.tokenizer = tokenizer
        self._max_length = max_length
        self._weights = np.maximum(weights, 0)  # only weights above zero are entries
        self._weights[[i for i in tokenizer.dropped_ids if i < len(weights)]] = 0

    def with_max_length(self, max_length: int) -> LookUp:
        """The same that reads another number of tokens."""
        return LookUp(self.tokenizer, self._weights, max_length)

    def encode(self, queries: Sequence[str]) -> HybridEmbeddings:
        """The vectors of queries that have their prefix; nothing is said of those cut off."""
        found = self.compute(self.tokenizer.tokenize(queries, self._max_length))
        return HybridEmbeddings(
            found.pooled,
            found.sparse,
            found.n_tokens,
            found.truncated,
            self.tokenizer.decode_token,
        )

    async def aencode(self, queries: Sequence[str]) -> HybridEmbeddings:
        """``encode``, with a turn for the rest of the event loop now and then."""
        parts = [self.encode(queries[:_AT_ONCE])]
        for first in range(_AT_ONCE, len(queries), _AT_ONCE):
            await asyncio.sleep(0)
            parts.append(self.encode(queries[first : first + _AT_ONCE]))
        return HybridEmbeddings.concatenate(parts)

    def compute(
        self, texts: Sequence[TokenizedText], *, sparse: bool = True, name_of: NameOf = as_text
    ) -> TextVectors:
        """Look the tokens of a window of queries up; the arguments are those of an engine."""
        flat: list[int] = []
        bounds = [0]
        for text in texts:
            flat += sorted(set(text.ids))
            bounds.append(len(flat))
        ids = np.array(flat, dtype=np.int32)
        weights = self._weights[ids]
        kept = weights > 0
        n_before = np.concatenate(([0], np.cumsum(kept)))  # entries in front of each place
        csr = sp.csr_array(
            (weights[kept], ids[kept], n_before[bounds].astype(np.int32)),
            shape=(len(texts), len(self._weights)),
        )
        return TextVectors.of(texts, csr)
