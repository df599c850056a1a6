"""An encoder without a model, for tests of what is built on encoders."""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Iterable, Sequence
from functools import partial

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from gte_core.embeddings import HybridEmbeddings, check_dimensions, cut
from gte_core.encoder import (
    Fingerprint,
    Role,
    missing_dense_head,
    missing_sparse_head,
    with_prefix,
)
from gte_core.texts import check_max_length, checked

_N_SPECIAL = 2  # tokens that every text gets, as with a real model


class HashEncoder:
    """Satisfies ``Encoder`` without a model: vectors are made of the hashes of words.

    A word is a token. Texts that share words are near each other; equal texts have equal vectors
    in every process. Nothing else about them means anything.

    Args:
        dimensions: size of the dense vectors, where there are any.
        vocab_size: width of the sparse vectors; words whose hashes meet share a token id.
        has_sparse: whether there are sparse vectors.
        has_dense: whether there are dense vectors; without, ``dimensions`` is 0.
        query_prefix: text that ``role="query"`` puts before each text.
        document_prefix: text that ``role="document"`` puts before each text.
        max_length: tokens of a text that are read, two special ones included.
        name: of the model in the fingerprint.
    """

    def __init__(
        self,
        *,
        dimensions: int = 64,
        vocab_size: int = 1024,
        has_sparse: bool = True,
        has_dense: bool = True,
        query_prefix: str = "",
        document_prefix: str = "",
        max_length: int = 512,
        name: str = "hash",
    ) -> None:
        if not (has_dense or has_sparse):
            raise ValueError("has_dense and has_sparse are both False; leave one of them True.")
        self.dimensions = dimensions if has_dense else 0
        self.vocab_size = vocab_size
        self.has_dense = has_dense
        self.has_sparse = has_sparse
        self.query_prefix = query_prefix
        self.document_prefix = document_prefix
        length = check_max_length(max_length, _N_SPECIAL)
        self.fingerprint = Fingerprint(name, None, length, document_prefix=document_prefix)

    def encode(
        self, texts: str | Iterable[str], *, role: Role = "document", dimensions: int | None = None
    ) -> HybridEmbeddings:
        """Both vectors of every text; ``MissingHeadError`` if there are not both."""
        self._require_dense()
        self._require_sparse()
        return self.encode_available(texts, role=role, dimensions=dimensions)

    def encode_available(
        self, texts: str | Iterable[str], *, role: Role = "document", dimensions: int | None = None
    ) -> HybridEmbeddings:
        """What there is of both vectors, with the counts of words and special tokens."""
        if dimensions is not None:
            self._require_dense()
        words = self._words(texts, role)
        size = self.dimensions if dimensions is None else dimensions
        limit = self.fingerprint.max_length
        n_tokens = np.array([len(each) + _N_SPECIAL for each in words], np.int64)
        read = [each[: limit - _N_SPECIAL] for each in words]
        return HybridEmbeddings(
            self._dense(read, size),
            self._sparse(read if self.has_sparse else [()] * len(read)),
            np.minimum(n_tokens, limit),
            n_tokens > limit,
            str,
        )

    def encode_dense(
        self, texts: str | Iterable[str], *, role: Role = "document", dimensions: int | None = None
    ) -> NDArray[np.float32]:
        """Dense vectors alone, float32 ``(n, dimensions)``."""
        self._require_dense()
        return self.encode_available(texts, role=role, dimensions=dimensions).dense

    def encode_sparse(
        self, texts: str | Iterable[str], *, role: Role = "document"
    ) -> sp.csr_array[np.float32]:
        """Sparse vectors alone, float32 CSR ``(n, vocab_size)``."""
        self._require_sparse()
        return self.encode_available(texts, role=role).sparse

    async def aencode(
        self, texts: str | Iterable[str], *, role: Role = "document", dimensions: int | None = None
    ) -> HybridEmbeddings:
        """``encode`` in a thread."""
        encode = partial(self.encode, texts, role=role, dimensions=dimensions)
        return await asyncio.to_thread(encode)

    def _require_dense(self) -> None:
        if not self.has_dense:
            raise missing_dense_head(self.fingerprint.model)

    def _require_sparse(self) -> None:
        if not self.has_sparse:
            raise missing_sparse_head(self.fingerprint.model)

    def _words(self, texts: str | Iterable[str], role: Role) -> list[list[str]]:
        given = checked(with_prefix(texts, role, self.query_prefix, self.document_prefix))
        return list(map(words_of, given))

    def _dense(self, texts: Sequence[Sequence[str]], size: int) -> NDArray[np.float32]:
        if not self.has_dense:
            return np.zeros((len(texts), 0), np.float32)
        size = check_dimensions(size, self.dimensions)
        total = np.zeros((len(texts), self.dimensions), np.float32)
        for row, words in enumerate(texts):
            for word in ("", *words):  # the first is in every text, so that none is zero
                total[row] += _direction(word, self.dimensions)
        return cut(total, size)

    def _sparse(self, texts: Sequence[Sequence[str]]) -> sp.csr_array[np.float32]:
        weights: list[dict[int, float]] = []
        for words in texts:
            whole = " ".join(words)  # like a model's, a weight depends on the whole text
            weights.append(
                {_number(word) % self.vocab_size: _weight(word, whole) for word in words}
            )
        bounds = np.cumsum([0, *map(len, weights)])
        ids = [token_id for row in weights for token_id in sorted(row)]
        values = [row[token_id] for row in weights for token_id in sorted(row)]
        shape = (len(texts), self.vocab_size)
        matrix: sp.csr_array[np.float32] = sp.csr_array(
            (np.array(values, np.float32), np.array(ids, np.int32), bounds), shape=shape
        )
        return matrix


def words_of(text: str) -> list[str]:
    """The words of a text, in lower case."""
    return re.findall(r"\w+", text.lower())


def _number(word: str) -> int:
    return int.from_bytes(hashlib.blake2b(repr(word).encode(), digest_size=7).digest())


def _direction(word: str, dimensions: int) -> NDArray[np.int16]:
    return np.frombuffer(hashlib.shake_128(repr(word).encode()).digest(2 * dimensions), "<i2")


def _weight(word: str, text: str) -> float:
    return 0.2 + _number(word + text) % 9973 / 9973
