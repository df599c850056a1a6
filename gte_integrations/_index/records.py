"""Documents with their vectors, and what a store says of those it has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gte_core.pickling import restore_by_name, state_by_name
from gte_integrations._index.document import Document  # noqa: F401  where pickles of 0.2.0 look
from gte_integrations._index.fusion import DocumentId
from gte_integrations._index.preparation import RESERVED_PREFIX, Prepared
from gte_integrations._index.sparse import EMPTY_WEIGHT, Floats

ORIGIN, TRUNCATED = "_gte_origin", "_gte_truncated"


@dataclass(frozen=True, slots=True)
class Stored:
    """What a collection says of a document, short of the document itself."""

    content_hash: str
    origin: str | None = None
    truncated: bool = False


@dataclass(frozen=True, slots=True)
class StoredVectors:
    """A document's vectors as a store gives them back; ``weights`` are by token id.

    Either is empty in a collection without that kind.
    """

    dense: Floats
    weights: Mapping[int, float]

    @property
    def sparse(self) -> tuple[NDArray[np.int64], Floats]:
        """Token ids, sorted, and their weights, without the one that ``never_empty`` adds."""
        ids = np.array(sorted(self.weights), np.int64)
        weights = np.array([self.weights[token_id] for token_id in ids.tolist()], np.float32)
        real = weights > EMPTY_WEIGHT
        return (ids, weights) if len(ids) != 1 else (ids[real], weights[real])


@dataclass(frozen=True, slots=True)
class StoredDocument:
    """A document as a collection has it.

    The vectors are None unless they were asked for, and two documents that differ in them alone are
    equal.

    Attributes:
        id: the id that it was added with.
        text: the stored text; where half of a surrogate pair was given, U+FFFD.
        payload: the payload as JSON gives it back: lists for tuples.
        origin: where it belongs, as of ``Document``.
        dense: float32 ``(dimensions,)``, of the precision that the collection keeps; empty if its
            model gives none.
        token_ids: int64, sorted; empty if the text has no token weights.
        weights: float32, positive, one for each of ``token_ids``.
    """

    id: DocumentId
    text: str
    payload: Mapping[str, Any]
    origin: str | None = None
    dense: Floats | None = field(default=None, compare=False, repr=False)
    token_ids: NDArray[np.int64] | None = field(default=None, compare=False, repr=False)
    weights: Floats | None = field(default=None, compare=False, repr=False)

    __getstate__ = state_by_name
    __setstate__ = restore_by_name


@dataclass(frozen=True, slots=True)
class Record:
    """A document with its vectors, ready to be written.

    ``dense`` is float32 ``(dimensions,)``, empty if the model gives none, ``coarse`` its leading
    part or None; ``token_ids`` are int64, sorted and unique, ``weights`` float32 and positive, both
    of the same length, which may be 0. ``vocab_size`` is above every token id. ``truncated`` says
    that the model read the beginning of the text alone.
    """

    document: Prepared
    dense: Floats
    coarse: Floats | None
    token_ids: NDArray[np.int64]
    weights: Floats
    vocab_size: int
    truncated: bool = False

    @property
    def dense_size(self) -> int:
        """Components of the dense and the coarse vector together."""
        return len(self.dense) + (0 if self.coarse is None else len(self.coarse))

    @property
    def stored(self) -> Stored:
        """What a collection will say of it."""
        return Stored(self.document.content_hash, self.document.origin, self.truncated)

    @property
    def marks(self) -> dict[str, Any]:
        """What is stored beside text and payload, and shown to nobody."""
        origin = {} if self.document.origin is None else {ORIGIN: self.document.origin}
        return origin | ({TRUNCATED: True} if self.truncated else {})


@dataclass(frozen=True, slots=True)
class Embedded:
    """Records of one call of the encoder, and the tokens it was fed."""

    records: list[Record]
    n_tokens: int


def never_empty(record: Record) -> tuple[list[int], list[float]]:
    """Token ids and weights; of a document without any, the tiny one in the spare column."""
    if len(record.token_ids):
        return record.token_ids.tolist(), record.weights.tolist()
    return [record.vocab_size], [EMPTY_WEIGHT]


def stored_document(
    document_id: DocumentId,
    text: str,
    stored: Mapping[str, Any],
    vectors: StoredVectors | None,
) -> StoredDocument:
    """A document as a store gives it back.

    Args:
        document_id: its id.
        text: its text.
        stored: the payload, with what an index keeps for itself.
        vectors: its vectors, None if they were not asked for.
    """
    payload, origin = users_payload(stored), stored.get(ORIGIN)
    if vectors is None:
        return StoredDocument(document_id, text, payload, origin)
    return StoredDocument(document_id, text, payload, origin, vectors.dense, *vectors.sparse)


def users_payload(stored: Mapping[str, Any]) -> dict[str, Any]:
    """The payload without the keys that an index keeps for itself."""
    return {key: value for key, value in stored.items() if not key.startswith(RESERVED_PREFIX)}


def as_stored(marks: Mapping[str, Any], content_hash: str) -> Stored:
    """What ``Record.marks`` said when the document was written."""
    return Stored(content_hash, marks.get(ORIGIN), bool(marks.get(TRUNCATED)))
