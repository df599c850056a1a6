"""What the vector stores of both frameworks share. Knows neither a framework nor an engine."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from gte_core import HybridEmbeddings
from gte_integrations._index.preparation import RESERVED_KEYS, RESERVED_PREFIX

if TYPE_CHECKING:
    from gte_integrations._index.fusion import DocumentId
    from gte_integrations._index.records import StoredDocument
    from gte_integrations._index.search import Hit

_INTEGER = re.compile(r"int:(0|-?[1-9][0-9]{0,18})")
_RENAMED = "metadata_"
_TAKEN = "|".join(map(re.escape, sorted(RESERVED_KEYS)))
# A key that an index takes for itself, renamed or not; and again, so that undoing is exact.
_ANY_TAKEN = re.compile(rf"(?:{_RENAMED})*(?:{_TAKEN}|{RESERVED_PREFIX}.*)", re.DOTALL)


def to_index_ids(ids: Iterable[str]) -> Iterable[DocumentId]:
    """A framework's ids, which are strings, as those of an index: ``int:1`` is the integer 1."""
    if isinstance(ids, str):
        return ids  # a single one, which the index refuses
    return [int(found[1]) if (found := _INTEGER.fullmatch(given)) else given for given in ids]


def from_index_id(document_id: DocumentId) -> str:
    """Undoes ``to_index_ids`` for one id."""
    return f"int:{document_id}" if isinstance(document_id, int) else document_id


def payload_key(key: str) -> str:
    """The key under which metadata is stored: ``metadata_id`` for ``id``, which an index takes."""
    return f"{_RENAMED}{key}" if isinstance(key, str) and _ANY_TAKEN.fullmatch(key) else key


def to_payload(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Metadata under keys that an index leaves to others."""
    return {payload_key(key): value for key, value in metadata.items()}


def from_payload(payload: Mapping[str, Any]) -> dict[str, Any]:
    """Undoes ``to_payload``."""
    return {
        key.removeprefix(_RENAMED) if _ANY_TAKEN.fullmatch(key) else key: value
        for key, value in payload.items()
    }


def one_query(name: str, embedding: Sequence[float]) -> HybridEmbeddings:
    """A single query, of which there is the dense vector alone."""
    dense = np.asarray(embedding, np.float32)
    if dense.ndim != 1:
        raise ValueError(
            f"{name} has the shape {dense.shape}, but must be one vector, a list of floats."
        )
    return HybridEmbeddings.of_dense(dense[None])


def most_diverse(
    hits: Sequence[Hit], stored: Iterable[StoredDocument], limit: int, relevance_weight: float
) -> list[Hit]:
    """The ``limit`` hits of greatest maximal marginal relevance, in the order of their choice.

    Args:
        hits: of a dense search, best first.
        stored: their documents with vectors; a hit without one is left out.
        limit: how many.
        relevance_weight: 1 goes by the cosine with the query alone, 0 by the distance from what
            was chosen before.
    """
    vectors = {one.id: one.dense for one in stored if one.dense is not None}
    left = [hit for hit in hits if hit.id in vectors]
    if not left:
        return []
    dense = np.stack([vectors[hit.id] for hit in left])
    relevance = np.array([hit.dense_score for hit in left])
    redundancy = np.zeros(len(left))
    chosen: list[int] = []
    while len(chosen) < min(limit, len(left)):
        gain = relevance_weight * relevance - (1 - relevance_weight) * redundancy
        gain[chosen] = -np.inf
        best = int(gain.argmax())
        alike = dense @ dense[best]
        redundancy = np.maximum(redundancy, alike) if chosen else alike
        chosen.append(best)
    return [left[row] for row in chosen]
