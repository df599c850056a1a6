"""``Encoder``: what every adapter needs of a model, local or remote, one device or many."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Iterable, Sized
from dataclasses import dataclass
from functools import partial
from typing import Literal, Protocol, get_args

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from gte_core.embeddings import HybridEmbeddings
from gte_core.exceptions import MissingHeadError
from gte_core.pickling import restore_by_name, state_by_name
from gte_core.texts import as_texts, checked

NumericFamily = Literal["float", "int8", "fp8"]

Role = Literal["document", "query"]
"""What a text is to the model: some put a prompt before queries, or compute them otherwise."""


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What two sets of vectors must share to be comparable.

    ``model`` is a hub id, or ``sha256:...`` of the content of a directory. All float types are one
    family: vectors built in bfloat16 may be searched in float32. The dimensions are not part of
    it; a collection states its own.

    ``document_prefix`` is text that goes before documents. ``sparse`` is of the model that gives
    the sparse vectors, where that is another one; see ``PairedEncoder``.
    """

    model: str
    revision: str | None
    max_length: int
    numeric: NumericFamily = "float"
    document_prefix: str = ""
    sparse: Fingerprint | None = None

    __getstate__ = state_by_name
    __setstate__ = restore_by_name

    def __str__(self) -> str:
        revision = f"@{self.revision[:12]}" if self.revision else ""
        prefix = f" document_prefix={self.document_prefix!r}" if self.document_prefix else ""
        sparse = f" and sparse {self.sparse}" if self.sparse else ""
        family = f"{self.numeric}{prefix}{sparse}"
        return f"{self.model}{revision} max_length={self.max_length} {family}"


class Encoder(Protocol):
    """Turns texts into vectors. Safe to call from several threads.

    In every verb, one text stands for a list of one, ``role`` says whether the texts are documents
    or queries, and ``dimensions`` asks for dense vectors of another size than the encoder's own.
    """

    @property
    def dimensions(self) -> int:
        """Size of the dense vectors when a call does not ask for another; 0 if there are none."""
        ...

    @property
    def vocab_size(self) -> int | None:
        """Width of the sparse vectors, above every token id; None where it is not known."""
        ...

    @property
    def has_dense(self) -> bool:
        """Whether the model gives dense vectors."""
        ...

    @property
    def has_sparse(self) -> bool:
        """Whether the model gives sparse vectors."""
        ...

    @property
    def fingerprint(self) -> Fingerprint:
        """What vectors of another encoder must share to be comparable with these."""
        ...

    @property
    def query_prefix(self) -> str:
        """Text that ``role="query"`` puts before each text, usually none."""
        ...

    @property
    def document_prefix(self) -> str:
        """Text that ``role="document"`` puts before each text, rarely any."""
        ...

    def encode(
        self, texts: str | Iterable[str], *, role: Role = "document", dimensions: int | None = None
    ) -> HybridEmbeddings:
        """Both vectors of every text in one pass; ``MissingHeadError`` if the model lacks one."""
        ...

    def encode_available(
        self, texts: str | Iterable[str], *, role: Role = "document", dimensions: int | None = None
    ) -> HybridEmbeddings:
        """What the model has, in one pass, with the counts of tokens.

        A half that it lacks is empty: ``dense`` has no columns, or ``sparse`` no entries.
        """
        ...

    def encode_dense(
        self, texts: str | Iterable[str], *, role: Role = "document", dimensions: int | None = None
    ) -> NDArray[np.float32]:
        """Dense vectors alone, float32 ``(n, dimensions)``."""
        ...

    def encode_sparse(
        self, texts: str | Iterable[str], *, role: Role = "document"
    ) -> sp.csr_array[np.float32]:
        """Sparse vectors alone, float32 CSR ``(n, vocab_size)``."""
        ...

    async def aencode(
        self, texts: str | Iterable[str], *, role: Role = "document", dimensions: int | None = None
    ) -> HybridEmbeddings:
        """``encode`` without blocking the event loop."""
        ...


def with_prefix(
    texts: str | Iterable[str], role: Role, query_prefix: str, document_prefix: str = ""
) -> Iterable[str]:
    """The texts as a model reads them in this role, with its prefix before each.

    ``ValueError`` for another role; ``TypeError`` naming what is no text, once it is read.
    """
    if role not in get_args(Role):
        raise ValueError(f"role is {role!r}; allowed are {list(get_args(Role))}.")
    if role == "document" and not document_prefix:
        return as_texts(texts)
    prefix, name = (query_prefix, "queries") if role == "query" else (document_prefix, "texts")
    given = as_texts(texts, name)
    prefixed = (prefix + text for text in checked(given, name))
    return list(prefixed) if isinstance(given, Sized) else prefixed


async def available(
    encoder: Encoder, texts: list[str], role: Role, dimensions: int | None = None
) -> HybridEmbeddings:
    """``encode_available`` without blocking the event loop, by the encoder's own way if it has one.

    That is where calls that wait share a pass, and where a cancelled request is closed.
    """
    own = getattr(encoder, "aencode_available", None)
    if own is None:
        encode = partial(encoder.encode_available, texts, role=role, dimensions=dimensions)
        return await asyncio.to_thread(encode)
    found: HybridEmbeddings = await own(texts, role=role, dimensions=dimensions)
    return found


def name_of(encoder: Encoder) -> str:
    """What an encoder calls its model, or else its fingerprint does."""
    name = getattr(encoder, "model", None)
    return name if isinstance(name, str) else encoder.fingerprint.model


def missing_sparse_head(model: str) -> MissingHeadError:
    """The error about a model that gives dense vectors alone."""
    return MissingHeadError(
        f"{model!r} has no sparse head, so it gives dense vectors alone: use encode_dense."
    )


def missing_dense_head(model: str) -> MissingHeadError:
    """The error about a model that gives sparse vectors alone."""
    return MissingHeadError(
        f"{model!r} has no dense vectors, but sparse ones alone: use encode_sparse."
    )


def as_queries(encoder: Encoder, texts: str | Iterable[str]) -> list[str]:
    """Deprecated: the texts with ``encoder.query_prefix`` before each."""
    warnings.warn(
        'as_queries is deprecated; pass role="query" to the encoder\'s verb instead.',
        DeprecationWarning,
        stacklevel=2,
    )
    return [
        encoder.query_prefix + query for query in checked(as_texts(texts, "queries"), "queries")
    ]
