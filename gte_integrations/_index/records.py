"""Documents with their vectors, and what a store says of those it has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gte_integrations._index.document import Document  # noqa: F401  where pickles of 0.2.0 look
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
class Record:
    """A document with its vectors, ready to be written.

    ``dense`` is float32 ``(dimensions,)``, ``coarse`` its leading part or None; ``token_ids`` are
    int64, sorted and unique, ``weights`` float32 and positive, both of the same length, which may
    be 0. ``vocab_size`` is above every token id. ``truncated`` says that the model read the
    beginning of the text alone.
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


def users_payload(stored: Mapping[str, Any]) -> dict[str, Any]:
    """The payload without the keys that an index keeps for itself."""
    return {key: value for key, value in stored.items() if not key.startswith(RESERVED_PREFIX)}


def as_stored(marks: Mapping[str, Any], content_hash: str) -> Stored:
    """What ``Record.marks`` said when the document was written."""
    return Stored(content_hash, marks.get(ORIGIN), bool(marks.get(TRUNCATED)))
