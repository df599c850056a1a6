"""A Qdrant collection: what every place shares, and the one behind a client."""

from __future__ import annotations

import hashlib
import uuid
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Generic

import numpy as np

from gte_integrations._answers import Answers
from gte_integrations._bridging import Bridge
from gte_integrations._explaining import StoredVectors
from gte_integrations._fusion import DocumentId, Leg
from gte_integrations._indexing import FilterT, gathered
from gte_integrations._qdrant_layouts import refuse_ours
from gte_integrations._records import (
    ORIGIN,
    TRUNCATED,
    Facts,
    Queries,
    Record,
    Stored,
    as_stored,
    id_to_key,
    sparse_rows,
    users_payload,
)
from gte_integrations._sending import (
    PERMANENT,
    TRANSIENT,
    Trouble,
    judge_grpc,
    judge_http,
    seconds_of,
)
from gte_integrations._storage import OVERSAMPLING, Storage

try:
    import grpc  # type: ignore[import-untyped]
    import httpx
    import qdrant_edge as edge
    from qdrant_client import AsyncQdrantClient, QdrantClient, models
    from qdrant_client.common.client_exceptions import QdrantException, ResourceExhaustedResponse
    from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

    from gte_integrations._qdrant_filters import to_client_filter
except ImportError as error:
    raise ImportError(
        "gte_integrations.qdrant needs the packages qdrant-client and qdrant-edge-py; install "
        "them with: pip install 'gte-integrations[qdrant]'"
    ) from error

__all__ = [
    "DENSE",
    "SPARSE",
    "AsyncQdrantClient",
    "ClientStore",
    "QdrantClient",
    "coarse_prefetch",
    "dense_config",
    "dense_rows",
    "edge",
    "models",
    "point_id",
    "search_params",
    "sparse_config",
    "sparse_vector",
    "to_point",
]

DENSE, COARSE, SPARSE = "dense", "_gte_coarse", "sparse"
_ID, _HASH, _TEXT = "_gte_id", "_gte_hash", "text"
_FACTS = "gte"
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
        vector=_vectors(record, sparse_vector),
        payload=_payload(record),
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
        for name, size in _sizes(facts).items()
    }


def sparse_config(facts: Facts) -> dict[str, models.SparseVectorParams]:
    """The sparse vector, if the model has one. Without IDF: its weights are learned."""
    return {SPARSE: models.SparseVectorParams()} if facts["sparse"] else {}


def search_params(storage: Storage, coarse: object | None) -> models.SearchParams | None:
    """How to search with the full vectors, alone or after the coarse ones."""
    options = _quantized_search(storage, coarse)
    if options is None:
        return None
    return models.SearchParams(quantization=models.QuantizationSearchParams(**options))


def _quantized_search(storage: Storage, coarse: object | None) -> dict[str, Any] | None:
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


class _QdrantStore(ABC, Generic[FilterT]):
    """What both engines share; subclasses say how a request is put and sent."""

    request_bytes = 16 * 2**20  # half of what a server takes, for the size is an estimate

    def stored(self, keys: Sequence[str]) -> dict[str, Stored]:
        key_of = {point_id(key): key for key in keys}
        found = self._retrieve(list(key_of), [_HASH, ORIGIN, TRUNCATED])
        return {
            key_of[str(point.id)]: as_stored(point.payload, point.payload.get(_HASH, ""))
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
        dense: list[Leg] = [_leg(next(found)) for _ in dense_rows(queries)]
        if queries.sparse is None:
            return dense, [[] for _ in dense]
        sparse: list[Leg] = [
            _leg(next(found)) if len(ids) else [] for ids, _ in sparse_rows(queries.sparse)
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
        chosen = True if payload_keys is None else [_ID, _TEXT, *payload_keys]
        return dict(_content(point.payload) for point in self._retrieve(wanted, chosen))

    def vectors(self, document_id: DocumentId) -> StoredVectors | None:
        wanted = [point_id(id_to_key(document_id))]
        found = self._retrieve(wanted, False, vectors=True)
        return _stored(found[0].vector) if found else None

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


class ClientStore(_QdrantStore[models.Filter]):
    """A collection behind a ``QdrantClient``: a server, or the client's own local mode.

    ``path`` is the directory of the local mode, if it has one.
    """

    def __init__(
        self,
        client: QdrantClient | Bridge,
        collection: str,
        *,
        storage: Storage,
        owned: bool,
        path: Path | None = None,
    ) -> None:
        self._client: Any = Answers(client)
        self._storage = storage
        self._collection = collection
        self._owned = owned
        self._path = path
        self.name = f"The Qdrant collection {collection!r}"

    def describe(self) -> Facts | None:
        if not self._client.collection_exists(self._collection):
            if self._path is not None:
                refuse_ours(self._path, self._collection)
            return None
        config = self._client.get_collection(self._collection).config
        facts: Facts = dict((config.metadata or {}).get(_FACTS, {}))
        vectors = config.params.vectors
        dense = vectors.get(DENSE) if isinstance(vectors, dict) else None
        coarse = vectors.get(COARSE) if isinstance(vectors, dict) else None
        facts["dimensions"] = dense.size if dense else None
        facts["coarse_dimensions"] = coarse.size if coarse else None
        facts["metric"] = dense.distance.value if dense else None
        facts["storage"] = _storage_of(dense) if dense else None
        facts["sparse"] = SPARSE in (config.params.sparse_vectors or {})
        return facts

    def create(self, facts: Facts) -> None:
        self._client.create_collection(
            self._collection,
            vectors_config=dense_config(facts),
            sparse_vectors_config=sparse_config(facts),
            metadata={_FACTS: facts},
        )

    def pack(self, records: Sequence[Record]) -> list[models.PointStruct]:
        return [to_point(record) for record in records]

    def write(self, packed: Sequence[models.PointStruct]) -> None:
        self._client.upsert(self._collection, list(packed), wait=True)

    def count(self) -> int:
        return int(self._client.count(self._collection, exact=True).count)

    def key_page(self, after: Any) -> tuple[list[str], Any]:
        points, following = self._client.scroll(
            self._collection, limit=1000, offset=after, with_payload=[_ID]
        )
        return [_key(point) for point in points], following

    def delete(self, keys: Sequence[str]) -> None:
        selected = models.PointIdsList(points=[point_id(key) for key in keys])
        self._client.delete(self._collection, selected, wait=True)

    def judge(self, error: Exception) -> Trouble:
        if isinstance(error, ResourceExhaustedResponse):
            return Trouble("transient", error.retry_after_s)
        if isinstance(error, QdrantException):  # a 429 whose Retry-After the client cannot read
            _, unread, retry_after = str(error).partition("not a valid integer: ")
            return Trouble("transient", seconds_of(retry_after)) if unread else PERMANENT
        if isinstance(error, UnexpectedResponse):
            asked = error.headers.get("Retry-After")
            return judge_http(error.status_code or 0, error.content, asked)
        if isinstance(error, ResponseHandlingException):
            return TRANSIENT if isinstance(error.source, httpx.TransportError) else PERMANENT
        if isinstance(error, grpc.RpcError):
            return judge_grpc(error.code())
        return TRANSIENT if isinstance(error, ConnectionError) else PERMANENT

    def optimize(self) -> None:
        """Servers optimize by themselves."""

    def close(self) -> None:
        if self._owned:
            self._client.close()

    def _retrieve(
        self, point_ids: list[str], payload: bool | list[str], *, vectors: bool = False
    ) -> Sequence[Any]:
        if not point_ids:
            return []
        found: Sequence[Any] = self._client.retrieve(
            self._collection, point_ids, with_payload=payload, with_vectors=vectors
        )
        return found

    def _set_payload(self, point_ids: list[str], values: dict[str, Any]) -> None:
        selected = models.PointIdsList(points=[*point_ids])
        self._client.set_payload(self._collection, values, selected, wait=True)

    def _filter(self, condition: object) -> models.Filter | None:
        return to_client_filter(condition, point_id)

    def _request(
        self,
        using: str,
        query: Any,
        coarse: list[float] | None,
        limit: int,
        condition: models.Filter | None,
    ) -> models.QueryRequest:
        return models.QueryRequest(
            prefetch=None if coarse is None else coarse_prefetch(coarse, limit, condition),
            query=query,
            using=using,
            limit=limit,
            filter=condition,
            params=search_params(self._storage, coarse) if using == DENSE else None,
            with_payload=[_ID],
        )

    def _query(self, requests: list[models.QueryRequest]) -> Sequence[Sequence[Any]]:
        answers = self._client.query_batch_points(self._collection, requests)
        return [answer.points for answer in answers]

    def _sparse_vector(self, indices: list[int], values: list[float]) -> models.SparseVector:
        return sparse_vector(indices, values)


def _storage_of(dense: models.VectorParams) -> Storage:
    if dense.quantization_config is not None:
        return "int8"
    return "float16" if dense.datatype == models.Datatype.FLOAT16 else "float32"


def _sizes(facts: Facts) -> dict[str, int]:
    sizes = {DENSE: facts["dimensions"], COARSE: facts["coarse_dimensions"]}
    return {name: int(size) for name, size in sizes.items() if size is not None}


def dense_rows(queries: Queries) -> list[tuple[list[float], list[float] | None]]:
    """The full and, if there is one, the coarse vector of each query."""
    if queries.dense is None:
        return []
    none = [None] * len(queries.dense)
    coarse = none if queries.coarse is None else queries.coarse.tolist()
    return list(zip(queries.dense.tolist(), coarse, strict=True))


def _vectors(
    record: Record, make_sparse: Callable[[list[int], list[float]], Any]
) -> dict[str, Any]:
    vectors: dict[str, Any] = {DENSE: record.dense.tolist()}
    if record.coarse is not None:
        vectors[COARSE] = record.coarse.tolist()
    if len(record.token_ids):  # servers differ on empty vectors; all take a point without one
        vectors[SPARSE] = make_sparse(record.token_ids.tolist(), record.weights.tolist())
    return vectors


def _payload(record: Record) -> dict[str, Any]:
    document = record.document
    own = {_TEXT: document.text, _ID: document.id, _HASH: document.content_hash}
    return {**document.payload, **own, **record.marks}


def _content(payload: Mapping[str, Any]) -> tuple[DocumentId, tuple[str, Mapping[str, Any]]]:
    users = {key: value for key, value in users_payload(payload).items() if key != _TEXT}
    return payload[_ID], (payload[_TEXT], users)


def _stored(vectors: Mapping[str, Any]) -> StoredVectors:
    sparse = vectors.get(SPARSE)  # a text without positive token weights has none
    weights = {} if sparse is None else dict(zip(sparse.indices, sparse.values, strict=True))
    return StoredVectors(np.asarray(vectors[DENSE], np.float32), weights)


def _key(point: Any) -> str:
    return id_to_key(point.payload[_ID])


def _leg(points: Sequence[Any]) -> Leg:
    return [(point.payload[_ID], point.score) for point in points]
