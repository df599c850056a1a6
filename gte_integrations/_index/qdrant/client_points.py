"""Collections, points and searches in the types of qdrant-client."""

from __future__ import annotations

from gte_integrations._index.metadata import Metadata, Quantization
from gte_integrations._index.qdrant.client import models
from gte_integrations._index.qdrant.points import (
    COARSE,
    SPARSE,
    Search,
    payload_of,
    point_id,
    quantized_search,
    sizes_of,
    vectors_of,
)
from gte_integrations._index.records import Record
from gte_integrations._index.search import gathered

_INT8 = models.ScalarQuantization(
    scalar=models.ScalarQuantizationConfig(type=models.ScalarType.INT8)
)


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


def dense_config(metadata: Metadata) -> dict[str, models.VectorParams]:
    """The dense vectors. All have length 1, so the dot product is the cosine."""
    return {
        name: models.VectorParams(
            size=size,
            distance=models.Distance.DOT,
            datatype=models.Datatype.FLOAT16 if metadata["storage"] == "float16" else None,
            quantization_config=_INT8 if metadata["storage"] == "int8" else None,
        )
        for name, size in sizes_of(metadata).items()
    }


def sparse_config(metadata: Metadata) -> dict[str, models.SparseVectorParams]:
    """The sparse vector, if the model has one. Without IDF: its weights are learned."""
    return {SPARSE: models.SparseVectorParams()} if metadata["sparse"] else {}


def prefetch(search: Search, limit: int, quantization: Quantization) -> models.Prefetch:
    """A search whose hits a query fuses."""
    return models.Prefetch(
        prefetch=coarse_prefetch(search, limit),
        query=search.query,
        using=search.using,
        limit=limit,
        params=search_params(search, quantization),
    )


def coarse_prefetch(
    search: Search, limit: int, condition: models.Filter | None = None
) -> models.Prefetch | None:
    """The search with the short vector, for the full one to rank."""
    if search.coarse is None:
        return None
    size = gathered(limit)
    return models.Prefetch(query=search.coarse, using=COARSE, limit=size, filter=condition)


def search_params(search: Search, quantization: Quantization) -> models.SearchParams | None:
    """What quantized vectors need to be searched well, None for others."""
    options = quantized_search(search, quantization)
    if options is None:
        return None
    return models.SearchParams(quantization=models.QuantizationSearchParams(**options))


def quantization_of(dense: models.VectorParams) -> Quantization:
    if dense.quantization_config is not None:
        return "int8"
    return "float16" if dense.datatype == models.Datatype.FLOAT16 else "float32"
