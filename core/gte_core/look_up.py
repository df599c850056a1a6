"""Queries of a sparse encoder: the weights of their tokens from a table, without a pass."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from itertools import chain

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
        vocab_size = len(self._weights)
        rows = np.repeat(np.arange(len(texts)), [len(text) for text in texts])
        flat = np.fromiter(chain.from_iterable(text.ids for text in texts), np.int64, len(rows))
        keys = np.unique(rows * vocab_size + flat)
        keys = keys[self._weights[keys % vocab_size] > 0]
        bounds = np.searchsorted(keys, np.arange(len(texts) + 1) * vocab_size)
        ids = (keys % vocab_size).astype(np.int32)
        csr = sp.csr_array(
            (self._weights[ids], ids, bounds.astype(np.int32)), shape=(len(texts), vocab_size)
        )
        return TextVectors.of_sparse(csr, texts)
