"""Encoders that keep both vectors of recent texts, so that the two halves of a pair cost one pass.

Frameworks keep dense and sparse in separate objects. When both are faces of one
``CachingEncoder``, whichever asks second finds the vectors that the first one's pass left.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any, Self

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from gte_core.embeddings import (
    HybridEmbeddings,
    TokenDecoder,
    check_dimensions,
    check_offered,
    joint_decoder,
)
from gte_core.encoder import (
    Encoder,
    Fingerprint,
    Role,
    available,
    missing_dense_head,
    missing_sparse_head,
    name_of,
    with_prefix,
)
from gte_core.foreign import refuses_foreign
from gte_core.forks import renew_in_children
from gte_core.recent import RecentVectors, Vectors, dense_of, embeddings_of, vectors_of
from gte_core.texts import checked

CACHE_BYTES = 256 * 2**20


class CachingEncoder(ABC):
    """An ``Encoder`` that keeps the vectors of recent texts; made by ``shared_encoder``.

    It keeps 256 MiB of them, and beside them those of the latest call whatever their number.
    """

    @property
    @abstractmethod
    def source(self) -> Encoder:
        """What computes the vectors; a model is loaded by asking for it."""

    @property
    @abstractmethod
    def model(self) -> str:
        """The hub id, the absolute path of a directory, or ``"demo"``; nothing is loaded."""

    @property
    def dimensions(self) -> int:
        """Size of the dense vectors when a call does not ask for another; 0 if there are none."""
        return self.source.dimensions

    @property
    def separate_sizes(self) -> tuple[int, ...]:
        """The sizes of dense vectors, where each has a matrix of its own; else none."""
        return getattr(self.source, "separate_sizes", ())

    @property
    def vocab_size(self) -> int | None:
        """Width of the sparse vectors; None where it is not known."""
        return self.source.vocab_size

    @property
    def has_dense(self) -> bool:
        """Whether the model gives dense vectors."""
        return self.source.has_dense

    @property
    def has_sparse(self) -> bool:
        """Whether the model gives sparse vectors."""
        return self.source.has_sparse

    @property
    def fingerprint(self) -> Fingerprint:
        """What vectors of another encoder must share to be comparable with these."""
        return self.source.fingerprint

    @property
    def query_prefix(self) -> str:
        """Text that ``role="query"`` puts before each text, usually none."""
        return self.source.query_prefix

    @property
    def document_prefix(self) -> str:
        """Text that ``role="document"`` puts before each text, rarely any."""
        return self.source.document_prefix

    @abstractmethod
    def encode_available(
        self, texts: str | Iterable[str], *, role: Role = "document", dimensions: int | None = None
    ) -> HybridEmbeddings:
        """``encode`` with what the model has: a half that it lacks is empty."""

    @abstractmethod
    async def aencode_available(
        self, texts: str | Iterable[str], *, role: Role = "document", dimensions: int | None = None
    ) -> HybridEmbeddings:
        """``encode_available`` without blocking the event loop."""

    @refuses_foreign
    def encode(
        self, texts: str | Iterable[str], *, role: Role = "document", dimensions: int | None = None
    ) -> HybridEmbeddings:
        """Both vectors of every text; those encoded lately cost no pass."""
        self.require_dense_head()
        self.require_sparse_head()
        return self.encode_available(texts, role=role, dimensions=dimensions)

    @refuses_foreign
    def encode_dense(
        self, texts: str | Iterable[str], *, role: Role = "document", dimensions: int | None = None
    ) -> NDArray[np.float32]:
        """Dense vectors alone, float32 ``(n, dimensions)``; works without a sparse head."""
        self.require_dense_head()
        return self.encode_available(texts, role=role, dimensions=dimensions).dense

    @refuses_foreign
    def encode_sparse(
        self, texts: str | Iterable[str], *, role: Role = "document"
    ) -> sp.csr_array[np.float32]:
        """Sparse vectors alone, float32 CSR ``(n, vocab_size)``."""
        self.require_sparse_head()
        return self.encode_available(texts, role=role).sparse

    @refuses_foreign
    async def aencode(
        self, texts: str | Iterable[str], *, role: Role = "document", dimensions: int | None = None
    ) -> HybridEmbeddings:
        """``encode`` without blocking the event loop; short calls that wait share a pass.

        Of a call that is cancelled, what is not yet computed is dropped.
        """
        await self._ready()
        self.require_dense_head()
        self.require_sparse_head()
        return await self.aencode_available(texts, role=role, dimensions=dimensions)

    @refuses_foreign
    async def aencode_dense(
        self, texts: str | Iterable[str], *, role: Role = "document", dimensions: int | None = None
    ) -> NDArray[np.float32]:
        """``encode_dense`` without blocking the event loop, as ``aencode``."""
        await self._ready()
        self.require_dense_head()
        return (await self.aencode_available(texts, role=role, dimensions=dimensions)).dense

    @refuses_foreign
    async def aencode_sparse(
        self, texts: str | Iterable[str], *, role: Role = "document"
    ) -> sp.csr_array[np.float32]:
        """``encode_sparse`` without blocking the event loop, as ``aencode``."""
        await self._ready()
        self.require_sparse_head()
        return (await self.aencode_available(texts, role=role)).sparse

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self  # it is shared

    @abstractmethod
    async def _ready(self) -> None:
        """Do what must be done before properties are asked on the event loop."""

    def require_dense_head(self) -> None:
        """Raise ``MissingHeadError`` for a model without dense vectors."""
        if not self.has_dense:
            raise missing_dense_head(self.model)

    def require_sparse_head(self) -> None:
        """Raise ``MissingHeadError`` for a model without sparse vectors."""
        if not self.has_sparse:
            raise missing_sparse_head(self.model)


class CachedEncoder(CachingEncoder):
    """A cache before any other encoder, such as a remote one; that one reports truncation.

    Args:
        encoder: what computes.
    """

    def __init__(self, encoder: Encoder) -> None:
        self._source = encoder
        self._kept = RecentVectors(CACHE_BYTES)
        self._decode_token: TokenDecoder | None = None
        self._width = 0
        self.renew()
        renew_in_children(self)

    def renew(self) -> None:
        """Begin again with a free lock, as a forked child must."""
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"CachedEncoder({self._source!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._source,)

    @property
    def source(self) -> Encoder:
        """What computes the vectors."""
        return self._source

    @property
    def model(self) -> str:
        """What the encoder calls its model, or else its fingerprint does."""
        return name_of(self._source)

    @refuses_foreign
    def encode_available(
        self, texts: str | Iterable[str], *, role: Role = "document", dimensions: int | None = None
    ) -> HybridEmbeddings:
        """``encode`` with what the model has: a half that it lacks is empty."""
        wanted, size = _listed(texts, role), self._size(dimensions)
        if not self._keeps(size):
            return self._source.encode_available(wanted, role=role, dimensions=size)
        found, missing = self._look_up(wanted, role)
        if missing:
            found |= self._keep(missing, role, self._source.encode_available(missing, role=role))
        return self._embeddings([found[text] for text in wanted], size)

    @refuses_foreign
    async def aencode_available(
        self, texts: str | Iterable[str], *, role: Role = "document", dimensions: int | None = None
    ) -> HybridEmbeddings:
        """``encode_available`` without blocking the event loop."""
        wanted, size = _listed(texts, role), self._size(dimensions)
        if not self._keeps(size):
            return await available(self._source, wanted, role, size)
        found, missing = self._look_up(wanted, role)
        if missing and self.has_dense and self.has_sparse:
            found |= self._keep(missing, role, await self._source.aencode(missing, role=role))
        elif missing:
            found |= self._keep(missing, role, await available(self._source, missing, role))
        return self._embeddings([found[text] for text in wanted], size)

    def count_tokens(
        self, texts: str | Iterable[str], *, role: Role = "document"
    ) -> NDArray[np.int64]:
        """Tokens of every text, int64 ``(n,)``, as the encoder counts them.

        ``NotImplementedError`` if it does not.
        """
        count = getattr(self._source, "count_tokens", None)
        if count is None:
            raise NotImplementedError(
                f"{type(self._source).__name__} has no count_tokens; give it one, or read n_tokens "
                "of what encode gives."
            )
        counts: NDArray[np.int64] = count(texts, role=role)
        return counts

    async def _ready(self) -> None:
        """Nothing: the encoder is there."""

    def _size(self, dimensions: int | None) -> int:
        if dimensions is None:
            return self.dimensions
        self.require_dense_head()
        if self.separate_sizes:
            return check_offered(dimensions, self.separate_sizes)
        return check_dimensions(dimensions, self.dimensions)

    def _keeps(self, size: int) -> bool:
        """Whether vectors of this size can be had of those that are kept."""
        return size == self.dimensions or not self.separate_sizes

    def _look_up(self, texts: Sequence[str], role: Role) -> tuple[dict[str, Vectors], list[str]]:
        """Vectors by text, and the texts that have none yet, each once."""
        kept = self._kept.get(_key(role, text) for text in texts)
        found = {text: kept[key] for text in texts if (key := _key(role, text)) in kept}
        missing = [text for text in dict.fromkeys(texts) if text not in found]
        if missing:
            self._kept.trim()
        return found, missing

    def _keep(self, texts: Sequence[str], role: Role, both: HybridEmbeddings) -> dict[str, Vectors]:
        """What the encoder made of these texts, by text; kept for the next call."""
        _check_answer(both, len(texts))
        with self._lock:
            known = [] if self._decode_token is None else [self._decode_token]
            self._decode_token = joint_decoder([*known, both.decode_token])
            self._width = max(self._width, self.vocab_size or both.sparse.shape[1])
        rows = vectors_of(both.dense, both.sparse, both.n_tokens, both.truncated)
        computed = dict(zip(texts, rows, strict=True))
        self._kept.put({_key(role, text): vectors for text, vectors in computed.items()})
        return computed

    def _embeddings(self, rows: Sequence[Vectors], size: int) -> HybridEmbeddings:
        width = max(self._width, self.vocab_size or 0)
        dense, sizes = dense_of(rows, self.dimensions), self.separate_sizes
        both = embeddings_of(rows, dense, width, self._decode_token or str, sizes)
        return both if size == self.dimensions else both.with_dimensions(size)


def _listed(texts: str | Iterable[str], role: Role) -> list[str]:
    return list(checked(with_prefix(texts, role, "")))  # the encoder puts its own prefix


def _check_answer(both: object, n_texts: int) -> None:
    if not isinstance(both, HybridEmbeddings):
        raise TypeError(
            f"The encoder gave a {type(both).__name__}, but must give HybridEmbeddings."
        )
    if len(both) != n_texts:
        raise ValueError(
            f"The encoder gave {len(both)} vectors for {n_texts} texts, but must give one for each."
        )


def _key(role: Role, text: str) -> str:
    return f"{role}\0{text}"
