"""Documents as Qdrant points, queries as its searches, and answers as hits, in every client."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from gte_integrations._index.fusion import DocumentId, ScoredIds
from gte_integrations._index.ids import id_to_key
from gte_integrations._index.metadata import Metadata, Quantization
from gte_integrations._index.records import (
    Record,
    StoredDocument,
    StoredVectors,
    stored_document,
    users_payload,
)
from gte_integrations._index.search import OVERSAMPLING
from gte_integrations._index.sparse import sparse_lists
from gte_integrations._index.vectorizer import Queries

MakeSparse = Callable[[list[int], list[float]], Any]
"""Token ids and weights -> a sparse vector in a client's own type."""

DENSE, COARSE, SPARSE = "dense", "_gte_coarse", "sparse"
ID, HASH, TEXT = "_gte_id", "_gte_hash", "text"
_NAMESPACE = uuid.UUID("6f1c2a52-6f0e-5c8e-9d52-0b6a3c1f7e10")


@lru_cache(maxsize=4096)  # a document's is needed to look it up, and again to write it
def point_id(key: str) -> str:
    """The UUID of a document: the same in every run, on every machine."""
    # What uuid.uuid5 gives, in half the time; every document needs one.
    name = _NAMESPACE.bytes + key.encode()
    digits = hashlib.sha1(name, usedforsecurity=False).hexdigest()
    variant = "89ab"[int(digits[16], 16) & 3]
    return f"{digits[:8]}-{digits[8:12]}-5{digits[13:16]}-{variant}{digits[17:20]}-{digits[20:32]}"


class Search(NamedTuple):
    """What one query asks of one vector.

    ``using`` is the vector's name, ``query`` the values in the client's type, and ``coarse`` the
    short vector that gathers candidates for it.
    """

    using: str
    query: Any
    coarse: list[float] | None = None


def searches_of(queries: Queries, make_sparse: MakeSparse) -> list[list[Search]]:
    """Each query's searches, dense then sparse, without an empty vector, which finds nothing."""
    searches: list[list[Search]] = [[] for _ in range(len(queries))]
    if queries.dense is not None:
        coarse = [None] * len(queries) if queries.coarse is None else queries.coarse.tolist()
        for found, row, short in zip(searches, queries.dense.tolist(), coarse, strict=True):
            found.append(Search(DENSE, row, short))
    if queries.sparse is not None:
        for found, (ids, weights) in zip(searches, sparse_lists(queries.sparse), strict=True):
            if ids:
                found.append(Search(SPARSE, make_sparse(ids, weights)))
    return searches


def quantized_search(search: Search, quantization: Quantization) -> dict[str, Any] | None:
    if quantization != "int8" or search.using == SPARSE:
        return None
    if search.coarse is not None:  # which has gathered enough; int8 would only blur its ranking
        return {"ignore": True}
    return {"rescore": True, "oversampling": float(OVERSAMPLING)}


def sizes_of(metadata: Metadata) -> dict[str, int]:
    sizes = {DENSE: metadata["dimensions"], COARSE: metadata["coarse_dimensions"]}
    return {name: int(size) for name, size in sizes.items() if size is not None}


def vectors_of(record: Record, make_sparse: MakeSparse) -> dict[str, Any]:
    vectors: dict[str, Any] = {}
    if len(record.dense):
        vectors[DENSE] = record.dense.tolist()
    if record.coarse is not None:
        vectors[COARSE] = record.coarse.tolist()
    if len(record.token_ids):  # servers differ on empty vectors; all take a point without one
        vectors[SPARSE] = make_sparse(record.token_ids.tolist(), record.weights.tolist())
    return vectors


def payload_of(record: Record) -> dict[str, Any]:
    document = record.document
    own = {TEXT: document.text, ID: document.id, HASH: document.content_hash}
    return {**document.payload, **own, **record.marks}


def content_of(payload: Mapping[str, Any]) -> tuple[DocumentId, tuple[str, Mapping[str, Any]]]:
    users = {key: value for key, value in users_payload(payload).items() if key != TEXT}
    return payload[ID], (payload[TEXT], users)


def stored_vectors(vectors: Mapping[str, Any] | None) -> StoredVectors:
    vectors = vectors or {}
    sparse = vectors.get(SPARSE)  # a text without positive token weights has none
    weights = {} if sparse is None else dict(zip(sparse.indices, sparse.values, strict=True))
    return StoredVectors(np.asarray(vectors.get(DENSE, []), np.float32), weights)


def document_of(point: Any, *, with_vectors: bool) -> StoredDocument:
    stored = dict(point.payload)
    vectors = stored_vectors(point.vector) if with_vectors else None
    return stored_document(stored.pop(ID), stored.pop(TEXT), stored, vectors)


def key_of_point(point: Any) -> str:
    return id_to_key(point.payload[ID])


def hits_of(points: Sequence[Any]) -> ScoredIds:
    return [(point.payload[ID], point.score) for point in points]
