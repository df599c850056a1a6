"""What a collection in Qdrant is asked, wherever it lives."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Generic

from gte_integrations._index.explain import StoredVectors
from gte_integrations._index.fusion import DocumentId, Leg
from gte_integrations._index.index import FilterT
from gte_integrations._index.qdrant.client import (
    edge,
    models,
)
from gte_integrations._index.qdrant.points import (
    DENSE,
    HASH,
    ID,
    SPARSE,
    TEXT,
    content_of,
    dense_rows,
    leg_of,
    point_id,
    stored_vectors,
)
from gte_integrations._index.records import (
    ORIGIN,
    TRUNCATED,
    Queries,
    Record,
    Stored,
    as_stored,
    id_to_key,
    sparse_rows,
)


class QdrantStore(ABC, Generic[FilterT]):
    """What both engines share; subclasses say how a request is put and sent."""

    request_bytes = 16 * 2**20  # half of what a server takes, for the size is an estimate

    def stored(self, keys: Sequence[str]) -> dict[str, Stored]:
        key_of = {point_id(key): key for key in keys}
        found = self._retrieve(list(key_of), [HASH, ORIGIN, TRUNCATED])
        return {
            key_of[str(point.id)]: as_stored(point.payload, point.payload.get(HASH, ""))
            for point in found
        }

    def set_origins(self, origins: Mapping[str, str]) -> None:
        points: defaultdict[str, list[str]] = defaultdict(list)
        for key, origin in origins.items():
            points[origin].append(point_id(key))
        for origin, point_ids in points.items():
            self._set_payload(point_ids, {ORIGIN: origin})

    def legs(self, queries: Queries, limit: int, condition: object) -> tuple[list[Leg], list[Leg]]:
        native = self._filter(condition)
        requests = [
            self._request(using, query, coarse, limit, native)
            for using, query, coarse in self._searches(queries)
        ]
        found = iter(self._query(requests) if requests else [])
        dense: list[Leg] = [leg_of(next(found)) for _ in dense_rows(queries)]
        if queries.sparse is None:
            return dense, [[] for _ in dense]
        sparse: list[Leg] = [
            leg_of(next(found)) if len(ids) else [] for ids, _ in sparse_rows(queries.sparse)
        ]
        return dense or [[] for _ in sparse], sparse

    def size_of(self, record: Record) -> int:
        # As JSON: a float32 takes about 20 bytes, a character that needs escaping twice its size.
        numbers = record.dense_size + 2 * len(record.weights)
        return 22 * numbers + 2 * record.document.size + 200

    def fetch(
        self, ids: Sequence[DocumentId], payload_keys: Sequence[str] | None
    ) -> dict[DocumentId, tuple[str, Mapping[str, Any]]]:
        wanted = [point_id(id_to_key(document_id)) for document_id in ids]
        chosen = True if payload_keys is None else [ID, TEXT, *payload_keys]
        return dict(content_of(point.payload) for point in self._retrieve(wanted, chosen))

    def vectors(self, document_id: DocumentId) -> StoredVectors | None:
        wanted = [point_id(id_to_key(document_id))]
        found = self._retrieve(wanted, False, vectors=True)
        return stored_vectors(found[0].vector) if found else None

    def _searches(self, queries: Queries) -> Iterator[tuple[str, Any, list[float] | None]]:
        """Vector name, vector and coarse vector; an empty sparse one finds nothing: left out."""
        for row, coarse in dense_rows(queries):
            yield DENSE, row, coarse
        if queries.sparse is not None:
            for ids, weights in sparse_rows(queries.sparse):
                if len(ids):
                    yield SPARSE, self._sparse_vector(ids.tolist(), weights.tolist()), None

    @abstractmethod
    def _retrieve(
        self, point_ids: list[str], payload: bool | list[str], *, vectors: bool = False
    ) -> Sequence[Any]: ...

    @abstractmethod
    def _set_payload(self, point_ids: list[str], values: dict[str, Any]) -> None: ...

    @abstractmethod
    def _filter(self, condition: object) -> FilterT | None: ...

    @abstractmethod
    def _request(
        self,
        using: str,
        query: Any,
        coarse: list[float] | None,
        limit: int,
        condition: FilterT | None,
    ) -> models.QueryRequest | edge.QueryRequest: ...

    @abstractmethod
    def _query(self, requests: list[Any]) -> Sequence[Sequence[Any]]: ...

    @abstractmethod
    def _sparse_vector(self, indices: list[int], values: list[float]) -> Any: ...
