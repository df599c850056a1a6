"""Documents as Qdrant keeps them: vectors, ids, points, and what a search asks for and finds."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from gte_integrations._index.explain import StoredVectors
from gte_integrations._index.fusion import DocumentId, Leg
from gte_integrations._index.index import gathered
from gte_integrations._index.qdrant.client import (
    models,
)
from gte_integrations._index.records import (
    Facts,
    Queries,
    Record,
    id_to_key,
    users_payload,
)
from gte_integrations._index.storage import OVERSAMPLING, Storage

DENSE, COARSE, SPARSE = "dense", "_gte_coarse", "sparse"
ID, HASH, TEXT = "_gte_id", "_gte_hash", "text"
_INT8 = models.ScalarQuantization(
    scalar=models.ScalarQuantizationConfig(type=models.ScalarType.INT8)
)
_NAMESPACE = uuid.UUID("6f1c2a52-6f0e-5c8e-9d52-0b6a3c1f7e10")


@lru_cache(maxsize=4096)  # a document's is needed to look it up, and again to write it
def point_id(key: str) -> str:
    """The UUID of a document: the same in every run, on every machine."""
    # What uuid.uuid5 gives, in half the time; every document needs one.
    name = _NAMESPACE.bytes + key.encode()
    digits = hashlib.sha1(name, usedforsecurity=False).hexdigest()
    variant = "89ab"[int(digits[16], 16) & 3]
    return f"{digits[:8]}-{digits[8:12]}-5{digits[13:16]}-{variant}{digits[17:20]}-{digits[20:32]}"


def to_point(record: Record) -> models.PointStruct:
    """A record as qdrant-client takes it."""
    return models.PointStruct(
        id=point_id(record.document.key),
        vector=vectors_of(record, sparse_vector),
        payload=payload_of(record),
    )


def sparse_vector(indices: list[int], values: list[float]) -> models.SparseVector:
    """A sparse vector as qdrant-client takes it."""
    return models.SparseVector(indices=indices, values=values)


def dense_config(facts: Facts) -> dict[str, models.VectorParams]:
    """The dense vectors. All have length 1, so the dot product is the cosine."""
    return {
        name: models.VectorParams(
            size=size,
            distance=models.Distance.DOT,
            datatype=models.Datatype.FLOAT16 if facts["storage"] == "float16" else None,
            quantization_config=_INT8 if facts["storage"] == "int8" else None,
        )
        for name, size in sizes_of(facts).items()
    }


def sparse_config(facts: Facts) -> dict[str, models.SparseVectorParams]:
    """The sparse vector, if the model has one. Without IDF: its weights are learned."""
    return {SPARSE: models.SparseVectorParams()} if facts["sparse"] else {}


def search_params(storage: Storage, coarse: object | None) -> models.SearchParams | None:
    """How to search with the full vectors, alone or after the coarse ones."""
    options = quantized_search(storage, coarse)
    if options is None:
        return None
    return models.SearchParams(quantization=models.QuantizationSearchParams(**options))


def quantized_search(storage: Storage, coarse: object | None) -> dict[str, Any] | None:
    if storage != "int8":
        return None
    if coarse is not None:  # which has gathered enough; int8 would only blur its ranking
        return {"ignore": True}
    return {"rescore": True, "oversampling": float(OVERSAMPLING)}


def coarse_prefetch(
    coarse: list[float], limit: int, condition: models.Filter | None = None
) -> models.Prefetch:
    """The search with the short vector, for the full one to rank."""
    return models.Prefetch(query=coarse, using=COARSE, limit=gathered(limit), filter=condition)


def storage_of(dense: models.VectorParams) -> Storage:
    if dense.quantization_config is not None:
        return "int8"
    return "float16" if dense.datatype == models.Datatype.FLOAT16 else "float32"


def sizes_of(facts: Facts) -> dict[str, int]:
    sizes = {DENSE: facts["dimensions"], COARSE: facts["coarse_dimensions"]}
    return {name: int(size) for name, size in sizes.items() if size is not None}


def dense_rows(queries: Queries) -> list[tuple[list[float], list[float] | None]]:
    """The full and, if there is one, the coarse vector of each query."""
    if queries.dense is None:
        return []
    none = [None] * len(queries.dense)
    coarse = none if queries.coarse is None else queries.coarse.tolist()
    return list(zip(queries.dense.tolist(), coarse, strict=True))


def vectors_of(
    record: Record, make_sparse: Callable[[list[int], list[float]], Any]
) -> dict[str, Any]:
    vectors: dict[str, Any] = {DENSE: record.dense.tolist()}
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


def stored_vectors(vectors: Mapping[str, Any]) -> StoredVectors:
    sparse = vectors.get(SPARSE)  # a text without positive token weights has none
    weights = {} if sparse is None else dict(zip(sparse.indices, sparse.values, strict=True))
    return StoredVectors(np.asarray(vectors[DENSE], np.float32), weights)


def key_of_point(point: Any) -> str:
    return id_to_key(point.payload[ID])


def leg_of(points: Sequence[Any]) -> Leg:
    return [(point.payload[ID], point.score) for point in points]
