"""A Qdrant collection in a directory, served by the embedded engine inside this process."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from gte_integrations._indexing import gathered
from gte_integrations._qdrant_engines import (
    _ID,
    COARSE,
    DENSE,
    SPARSE,
    _key,
    _payload,
    _QdrantStore,
    _quantized_search,
    _sizes,
    _vectors,
    edge,
    point_id,
)
from gte_integrations._qdrant_filters import to_edge_filter
from gte_integrations._records import Facts, Record
from gte_integrations._sending import PERMANENT, Trouble
from gte_integrations._storage import Storage

__all__ = ["EdgeStore"]


class EdgeStore(_QdrantStore[edge.Filter]):
    """A collection in a directory, served by Qdrant's engine inside this process.

    One process at a time: the engine locks the directory while it is open.
    """

    def __init__(self, directory: Path, collection: str, *, storage: Storage) -> None:
        self._storage = storage
        self._path = directory / collection
        self._record = self._path / "gte.json"
        self._opened: edge.EdgeShard | None = None
        self.name = f"The Qdrant collection {str(self._path)!r}"

    def describe(self) -> Facts | None:
        if self._record.exists():
            facts: Facts = json.loads(self._record.read_text(encoding="utf-8"))
            return facts
        # An empty shard without a record is a create() that was killed: it may go on.
        return {} if self._has_shard() and self.count() else None

    def create(self, facts: Facts) -> None:
        self._path.mkdir(parents=True, exist_ok=True)
        if not self._has_shard():
            self._opened = edge.EdgeShard.create(str(self._path), _edge_config(facts))
        unfinished = self._record.with_suffix(".partial")
        unfinished.write_text(json.dumps(facts), encoding="utf-8")
        unfinished.replace(self._record)

    def pack(self, records: Sequence[Record]) -> list[edge.Point]:
        return [
            edge.Point(
                point_id(record.document.key),
                _vectors(record, edge.SparseVector),
                _payload(record),
            )
            for record in records
        ]

    def write(self, packed: Sequence[edge.Point]) -> None:
        self._shard.update(edge.UpdateOperation.upsert_points(list(packed)))

    def count(self) -> int:
        return self._shard.count(edge.CountRequest(exact=True))

    def all_keys(self) -> Iterator[str]:
        offset: Any = None
        while True:
            request = edge.ScrollRequest(offset=offset, limit=1000, with_payload=[_ID])
            points, offset = self._shard.scroll(request)
            yield from (_key(point) for point in points)
            if offset is None:
                return

    def delete(self, keys: Sequence[str]) -> None:
        selected: list[Any] = [point_id(key) for key in keys]
        self._shard.update(edge.UpdateOperation.delete_points(selected))

    def judge(self, error: Exception) -> Trouble:
        return PERMANENT

    def optimize(self) -> None:
        self._shard.optimize()

    def close(self) -> None:
        if self._opened is not None:
            self._opened.flush()
            self._opened.close()
            self._opened = None

    @property
    def _shard(self) -> edge.EdgeShard:
        if self._opened is None:
            self._opened = self._load()
        return self._opened

    def _load(self) -> edge.EdgeShard:
        try:
            return edge.EdgeShard.load(str(self._path))
        except Exception as error:  # the engine has no error types
            if "WouldBlock" not in str(error):
                raise
            raise BlockingIOError(
                f"{self.name} is open elsewhere; the embedded engine lets one process at a time "
                "open it, and that once. Close the other index, or run a Qdrant server."
            ) from error

    def _has_shard(self) -> bool:
        return (self._path / "segments").exists()

    def _retrieve(
        self, point_ids: list[str], payload: bool | list[str], *, vectors: bool = False
    ) -> Sequence[Any]:
        return self._shard.retrieve(list(point_ids), payload, vectors)

    def _set_payload(self, point_ids: list[str], values: dict[str, Any]) -> None:
        self._shard.update(edge.UpdateOperation.set_payload(list(point_ids), values))

    def _filter(self, condition: object) -> edge.Filter | None:
        return to_edge_filter(condition, point_id)

    def _request(
        self,
        using: str,
        query: Any,
        coarse: list[float] | None,
        limit: int,
        condition: edge.Filter | None,
    ) -> edge.QueryRequest:
        return edge.QueryRequest(
            prefetches=None if coarse is None else [_edge_prefetch(coarse, limit, condition)],
            limit=limit,
            query=edge.Query.Nearest(query, using=using),
            filter=condition,
            params=_edge_params(self._storage, coarse) if using == DENSE else None,
            with_payload=[_ID],
        )

    def _query(self, requests: list[edge.QueryRequest]) -> Sequence[Sequence[Any]]:
        return self._shard.query_batch(edge.QueryBatchRequest(requests))

    def _sparse_vector(self, indices: list[int], values: list[float]) -> edge.SparseVector:
        return edge.SparseVector(indices, values)


def _edge_config(facts: Facts) -> edge.EdgeConfig:
    half = edge.VectorStorageDatatype.Float16 if facts["storage"] == "float16" else None
    int8 = edge.ScalarQuantizationConfig(edge.ScalarType.Int8)
    dense = {
        name: edge.EdgeVectorParams(
            size,
            edge.Distance.Dot,
            datatype=half,
            quantization_config=int8 if facts["storage"] == "int8" else None,
        )
        for name, size in _sizes(facts).items()
    }
    sparse = {SPARSE: edge.EdgeSparseVectorParams()} if facts["sparse"] else {}
    return edge.EdgeConfig(vectors=dense, sparse_vectors=sparse)


def _edge_params(storage: Storage, coarse: object | None) -> edge.SearchParams | None:
    options = _quantized_search(storage, coarse)
    if options is None:
        return None
    return edge.SearchParams(quantization=edge.QuantizationSearchParams(**options))


def _edge_prefetch(coarse: list[float], limit: int, condition: edge.Filter | None) -> edge.Prefetch:
    query = edge.Query.Nearest(coarse, using=COARSE)
    return edge.Prefetch(limit=gathered(limit), query=query, filter=condition)
