"""What the vector stores of both frameworks share. Knows neither a framework nor an engine."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from gte_core import HybridEmbeddings
from gte_integrations._index.checks import check_ids
from gte_integrations._index.index import HybridIndex
from gte_integrations._index.preparation import RESERVED_KEYS, RESERVED_PREFIX

if TYPE_CHECKING:
    from gte_integrations._index.fusion import DocumentId
    from gte_integrations._index.records import StoredDocument
    from gte_integrations._index.search import Hit

_INTEGER = re.compile(r"int:(0|-?[1-9][0-9]{0,18})")
# A string of an index that looks like an integer, renamed or not; so that undoing is exact.
_STRING = "str:"
_LIKE_INTEGER = re.compile(rf"(?:{_STRING})*{_INTEGER.pattern}")
_RENAMED = "metadata_"
_TAKEN = "|".join(map(re.escape, sorted(RESERVED_KEYS)))
# A key that an index takes for itself, renamed or not; and again, so that undoing is exact.
_ANY_TAKEN = re.compile(rf"(?:{_RENAMED})*(?:{_TAKEN}|{RESERVED_PREFIX}.*)", re.DOTALL)


def check_index(index: object) -> HybridIndex[Any]:
    """The index itself; ``TypeError`` unless it is one."""
    if isinstance(index, HybridIndex):
        return index
    raise TypeError(
        f"index is a {type(index).__name__}, but must be a QdrantHybridIndex or a "
        "MilvusHybridIndex."
    )


def check_searches(index: Any) -> Any:
    """What a retriever asks, itself; ``TypeError`` unless it can be asked."""
    if callable(getattr(index, "search", None)):
        return index
    raise TypeError(
        f"index is a {type(index).__name__}, but must be a QdrantHybridIndex, a MilvusHybridIndex, "
        "or another object with search(queries, limit=...)."
    )


def score_of(hit: Hit) -> float:
    """What the ranking goes by."""
    return hit.score if hit.rerank_score is None else hit.rerank_score


def to_index_ids(ids: Iterable[str]) -> list[DocumentId]:
    """A framework's ids, which are strings, as those of an index.

    ``int:1`` is the integer 1, and ``str:int:1`` the string ``int:1``. ``TypeError`` for a single
    id, and for one that is no string.
    """
    check_ids("ids", ids)
    return list(map(_to_index_id, ids))


def _to_index_id(given: object) -> DocumentId:
    if not isinstance(given, str):
        raise TypeError(
            f"An id is {given!r}, a {type(given).__name__}, but must be a str; the integer 1 of an "
            'index is "int:1" here.'
        )
    if found := _INTEGER.fullmatch(given):
        return int(found[1])
    return given.removeprefix(_STRING) if _LIKE_INTEGER.fullmatch(given) else given


def from_index_id(document_id: DocumentId) -> str:
    """Undoes ``to_index_ids`` for one id."""
    if isinstance(document_id, int):
        return f"int:{document_id}"
    return f"{_STRING}{document_id}" if _LIKE_INTEGER.fullmatch(document_id) else document_id


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


def check_share(name: str, value: object, ends: str) -> None:
    """Raise unless the value is a number from 0 to 1; ``ends`` says what those two mean."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} is {value!r}, but must be a number from {ends}.")
    if not 0 <= value <= 1:
        raise ValueError(f"{name} is {value!r}, but must be from {ends}.")


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
