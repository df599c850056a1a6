"""The part of a Qdrant collection that its server and its embedded engine share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Generic

from gte_integrations._index.fusion import DocumentId, ScoredIds
from gte_integrations._index.ids import id_to_key
from gte_integrations._index.metadata import Metadata
from gte_integrations._index.qdrant.options import check_collection
from gte_integrations._index.qdrant.points import (
    DENSE,
    HASH,
    ID,
    SPARSE,
    TEXT,
    MakeSparse,
    Search,
    content_of,
    document_of,
    hits_of,
    key_of_point,
    point_id,
    searches_of,
    stored_vectors,
)
from gte_integrations._index.records import (
    ORIGIN,
    TRUNCATED,
    Record,
    Stored,
    StoredDocument,
    StoredVectors,
    as_stored,
)
from gte_integrations._index.search import FilterT
from gte_integrations._index.store import DOCUMENTS_PER_PAGE, KEYS_PER_PAGE
from gte_integrations._index.vectorizer import Queries

if TYPE_CHECKING:
    from gte_integrations._index.qdrant.client import edge, models


class QdrantStore(ABC, Generic[FilterT]):
    """What both engines share; subclasses say how a request is put and sent."""

    request_bytes = 16 * 2**20  # half of what a server takes, for the size is an estimate
    _sparse_vector: MakeSparse
    _collection: str

    @property
    def collection(self) -> str:
        return self._collection

    def check_alias(self, alias: str) -> None:
        check_collection("alias", alias)

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

    def hits(
        self, queries: Queries, limit: int, condition: object
    ) -> tuple[list[ScoredIds], list[ScoredIds]]:
        native = self._filter(condition)
        searches = searches_of(queries, self._sparse_vector)
        requests = [self._request(one, limit, native) for query in searches for one in query]
        answers = iter(self._query(requests) if requests else [])
        found = [{one.using: hits_of(next(answers)) for one in query} for query in searches]
        return [hits.get(DENSE, []) for hits in found], [hits.get(SPARSE, []) for hits in found]

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

    def missing(self) -> list[str]:
        lacking: dict[str, None] = {}
        has_dense = bool((self.schema() or {}).get("dimensions"))
        needed = (*((DENSE,) if has_dense else ()), ID, TEXT, HASH)
        after = None
        while True:
            points, after = self._scroll(
                after, None, DOCUMENTS_PER_PAGE, [ID, TEXT, HASH], vectors=True
            )
            for point in points:
                there = {*(point.vector or {}), *(point.payload or {})}
                lacking |= {name: None for name in needed if name not in there}
            if after is None:
                return list(lacking)

    def read(self, keys: Sequence[str], *, with_vectors: bool) -> list[StoredDocument]:
        found = self._retrieve([point_id(key) for key in keys], True, vectors=with_vectors)
        return [document_of(point, with_vectors=with_vectors) for point in found]

    def page(
        self, after: Any, condition: object, *, with_vectors: bool
    ) -> tuple[list[StoredDocument], Any]:
        native = self._filter(condition)
        points, following = self._scroll(
            after, native, DOCUMENTS_PER_PAGE, True, vectors=with_vectors
        )
        return [document_of(point, with_vectors=with_vectors) for point in points], following

    def key_page(self, after: Any, condition: object) -> tuple[list[str], Any]:
        points, following = self._scroll(after, self._filter(condition), KEYS_PER_PAGE, [ID])
        return [key_of_point(point) for point in points], following

    def is_empty(self, condition: object) -> bool:
        try:
            return _says_nothing(condition)
        except RecursionError:  # it is refused where it would be sent
            return False

    @abstractmethod
    def schema(self) -> Metadata | None: ...

    @abstractmethod
    def _scroll(
        self,
        after: Any,
        condition: FilterT | None,
        size: int,
        payload: bool | list[str],
        *,
        vectors: bool = False,
    ) -> tuple[Sequence[Any], Any]: ...

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
        self, search: Search, limit: int, condition: FilterT | None
    ) -> models.QueryRequest | edge.QueryRequest: ...

    @abstractmethod
    def _query(self, requests: list[Any]) -> Sequence[Sequence[Any]]: ...


def _says_nothing(condition: Any) -> bool:
    """Whether every document meets a condition, as far as it is made of filters alone."""
    if not hasattr(condition, "must_not"):
        return False
    if condition.must_not or condition.min_should:
        return False
    must, should = (_listed(clause) for clause in (condition.must, condition.should))
    return all(map(_says_nothing, must)) and (not should or any(map(_says_nothing, should)))


def _listed(clause: Any) -> list[Any]:
    """A clause of a filter, which may be one condition or several."""
    return list(clause) if isinstance(clause, (list, tuple)) else [clause] if clause else []
