"""``PairedEncoder``: dense vectors of one model and sparse vectors of another."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from gte_core.completion import as_encoder
from gte_core.embeddings import HybridEmbeddings
from gte_core.encoder import Encoder, Fingerprint, Role, available, name_of, with_prefix
from gte_core.exceptions import MissingHeadError
from gte_core.foreign import refuses_foreign
from gte_core.texts import checked


class PairedEncoder:
    """An ``Encoder`` of two: its dense half comes from one model, its sparse half from another.

    Every text goes through both, once each. ``role="query"`` is what each makes of it: either puts
    a prefix of its own, or looks the query up. Safe to call from several threads, as far as both
    are.

    Args:
        dense: gives the dense vectors: an encoder, or the name of a model, which is loaded.
        sparse: gives the sparse vectors: the same.

    Attributes:
        dense: the encoder of the dense half.
        sparse: the encoder of the sparse half.

    Raises:
        MissingHeadError: ``dense`` has no dense vectors, or ``sparse`` no sparse ones.
        TypeError: one of them is no encoder.
    """

    has_dense = True
    has_sparse = True

    def __init__(self, *, dense: Encoder | str | Path, sparse: Encoder | str | Path) -> None:
        self.dense = as_encoder(dense)
        self.sparse = as_encoder(sparse)
        for kind, half, has_it in (
            ("dense", self.dense, self.dense.has_dense),
            ("sparse", self.sparse, self.sparse.has_sparse),
        ):
            if not has_it:
                raise MissingHeadError(
                    f"{kind} is {half.fingerprint.model!r}, which gives no {kind} vectors; pass a "
                    "model that does."
                )

    def __repr__(self) -> str:
        return f"PairedEncoder(dense={self.dense!r}, sparse={self.sparse!r})"

    @property
    def model(self) -> str:
        """What the dense half calls its model, or else its fingerprint does."""
        return name_of(self.dense)

    @property
    def dimensions(self) -> int:
        """Size of the dense vectors when a call does not ask for another."""
        return self.dense.dimensions

    @property
    def vocab_size(self) -> int | None:
        """Width of the sparse vectors; None where it is not known."""
        return self.sparse.vocab_size

    @property
    def fingerprint(self) -> Fingerprint:
        """The dense half's, with the sparse half's as its ``sparse``."""
        sparse = self.sparse.fingerprint
        return replace(self.dense.fingerprint, sparse=sparse.sparse or sparse)

    @property
    def query_prefix(self) -> str:
        """The dense half's; the sparse half puts its own."""
        return self.dense.query_prefix

    @property
    def document_prefix(self) -> str:
        """The dense half's; the sparse half puts its own."""
        return self.dense.document_prefix

    @refuses_foreign
    def encode(
        self, texts: str | Iterable[str], *, role: Role = "document", dimensions: int | None = None
    ) -> HybridEmbeddings:
        """Both vectors of every text.

        ``n_tokens`` are those of the dense half. A text counts as truncated if either half read its
        beginning alone.
        """
        given = _listed(texts, role)
        return _joined(
            self.dense.encode_available(given, role=role, dimensions=dimensions),
            self.sparse.encode_available(given, role=role),
        )

    @refuses_foreign
    def encode_available(
        self, texts: str | Iterable[str], *, role: Role = "document", dimensions: int | None = None
    ) -> HybridEmbeddings:
        """The same as ``encode``: a pair has both."""
        return self.encode(texts, role=role, dimensions=dimensions)

    @refuses_foreign
    def encode_dense(
        self, texts: str | Iterable[str], *, role: Role = "document", dimensions: int | None = None
    ) -> NDArray[np.float32]:
        """Dense vectors alone, float32 ``(n, dimensions)``; the sparse half is not asked."""
        return self.dense.encode_dense(texts, role=role, dimensions=dimensions)

    @refuses_foreign
    def encode_sparse(
        self, texts: str | Iterable[str], *, role: Role = "document"
    ) -> sp.csr_array[np.float32]:
        """Sparse vectors alone, float32 CSR ``(n, vocab_size)``; the dense half is not asked."""
        return self.sparse.encode_sparse(texts, role=role)

    @refuses_foreign
    async def aencode(
        self, texts: str | Iterable[str], *, role: Role = "document", dimensions: int | None = None
    ) -> HybridEmbeddings:
        """``encode`` without blocking the event loop, by both halves at the same time."""
        given = _listed(texts, role)
        both = await asyncio.gather(
            available(self.dense, given, role, dimensions),
            available(self.sparse, given, role),
        )
        return _joined(*both)


def _listed(texts: str | Iterable[str], role: Role) -> list[str]:
    return list(checked(with_prefix(texts, role, "")))  # each half puts its own prefix


def _joined(dense: HybridEmbeddings, sparse: HybridEmbeddings) -> HybridEmbeddings:
    return replace(
        dense,
        sparse=sparse.sparse,
        truncated=dense.truncated | sparse.truncated,
        decode_token=sparse.decode_token,
    )
