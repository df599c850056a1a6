"""A Qdrant collection behind a client: a server, or the client's own local mode."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gte_integrations._index.bridge import Bridge
from gte_integrations._index.qdrant.answers import Answers
from gte_integrations._index.qdrant.client import (
    QdrantClient,
    QdrantException,
    ResourceExhaustedResponse,
    ResponseHandlingException,
    UnexpectedResponse,
    grpc,
    httpx,
    models,
)
from gte_integrations._index.qdrant.filters import to_client_filter
from gte_integrations._index.qdrant.layouts import refuse_ours
from gte_integrations._index.qdrant.points import (
    COARSE,
    DENSE,
    ID,
    SPARSE,
    coarse_prefetch,
    dense_config,
    key_of_point,
    point_id,
    search_params,
    sparse_config,
    sparse_vector,
    storage_of,
    to_point,
)
from gte_integrations._index.qdrant.store import QdrantStore
from gte_integrations._index.records import (
    Facts,
    Record,
)
from gte_integrations._index.retry import (
    PERMANENT,
    TRANSIENT,
    Trouble,
    judge_grpc,
    judge_http,
    seconds_of,
)
from gte_integrations._index.storage import Storage

_FACTS = "gte"


class ClientStore(QdrantStore[models.Filter]):
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
        facts["storage"] = storage_of(dense) if dense else None
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
            self._collection, limit=1000, offset=after, with_payload=[ID]
        )
        return [key_of_point(point) for point in points], following

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
            with_payload=[ID],
        )

    def _query(self, requests: list[models.QueryRequest]) -> Sequence[Sequence[Any]]:
        answers = self._client.query_batch_points(self._collection, requests)
        return [answer.points for answer in answers]

    def _sparse_vector(self, indices: list[int], values: list[float]) -> models.SparseVector:
        return sparse_vector(indices, values)
