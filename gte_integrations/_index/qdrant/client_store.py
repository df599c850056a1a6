"""A Qdrant collection behind a client: a server, or the client's own local mode."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gte_integrations._index.bridge import Bridge
from gte_integrations._index.metadata import Metadata, Quantization
from gte_integrations._index.qdrant.answers import Answers
from gte_integrations._index.qdrant.client import (
    AsyncQdrantClient,
    QdrantClient,
    QdrantException,
    ResourceExhaustedResponse,
    ResponseHandlingException,
    UnexpectedResponse,
    grpc,
    httpx,
    models,
)
from gte_integrations._index.qdrant.client_points import (
    coarse_prefetch,
    dense_config,
    quantization_of,
    search_params,
    sparse_config,
    sparse_vector,
    to_point,
)
from gte_integrations._index.qdrant.filters import to_client_filter
from gte_integrations._index.qdrant.layouts import refuse_ours
from gte_integrations._index.qdrant.points import (
    COARSE,
    DENSE,
    ID,
    SPARSE,
    Search,
    point_id,
)
from gte_integrations._index.qdrant.store import QdrantStore
from gte_integrations._index.records import Record
from gte_integrations._index.retry import (
    PERMANENT,
    TRANSIENT,
    Failure,
    classify_grpc,
    classify_http,
    seconds_of,
)

_METADATA = "gte"  # the key in the collection's own metadata


class ClientStore(QdrantStore[models.Filter]):
    """A collection behind a client: a server, or the client's own local mode.

    Args:
        client: of either kind.
        collection: its name.
        quantization: how dense vectors are kept.
        owned: whether ``close`` closes the client.
    """

    def __init__(
        self,
        client: QdrantClient | AsyncQdrantClient,
        collection: str,
        *,
        quantization: Quantization,
        owned: bool,
    ) -> None:
        self.bridge = Bridge(client) if isinstance(client, AsyncQdrantClient) else None
        self._client: Any = Answers(self.bridge or client)
        self._sparse_vector = sparse_vector
        self._quantization = quantization
        self._collection = collection
        self._owned = owned
        self.place = (client.init_options.get("url") or id(client), collection)
        path = client.init_options.get("path")
        self._path = None if path is None else Path(path)  # of the local mode
        self.name = f"The Qdrant collection {collection!r}"

    def describe(self) -> Metadata | None:
        if not self._client.collection_exists(self._collection):
            if self._path is not None:
                refuse_ours(self._path, self._collection)
            return None
        config = self._client.get_collection(self._collection).config
        metadata: Metadata = dict((config.metadata or {}).get(_METADATA, {}))
        vectors = config.params.vectors
        dense = vectors.get(DENSE) if isinstance(vectors, dict) else None
        coarse = vectors.get(COARSE) if isinstance(vectors, dict) else None
        metadata["dimensions"] = dense.size if dense else None
        metadata["coarse_dimensions"] = coarse.size if coarse else None
        metadata["metric"] = dense.distance.value if dense else None
        metadata["storage"] = quantization_of(dense) if dense else None
        metadata["sparse"] = SPARSE in (config.params.sparse_vectors or {})
        return metadata

    def create(self, metadata: Metadata) -> None:
        self._client.create_collection(
            self._collection,
            vectors_config=dense_config(metadata),
            sparse_vectors_config=sparse_config(metadata),
            metadata={_METADATA: metadata},
        )

    def pack(self, records: Sequence[Record]) -> list[models.PointStruct]:
        return [to_point(record) for record in records]

    def write(self, packed: Sequence[models.PointStruct]) -> None:
        self._client.upsert(self._collection, list(packed), wait=True)

    def count(self) -> int:
        return int(self._client.count(self._collection, exact=True).count)

    def delete(self, keys: Sequence[str]) -> None:
        selected = models.PointIdsList(points=[point_id(key) for key in keys])
        self._client.delete(self._collection, selected, wait=True)

    def drop(self) -> None:
        self._client.delete_collection(self._collection)

    def classify(self, error: Exception) -> Failure:
        if isinstance(error, ResourceExhaustedResponse):
            return Failure("transient", error.retry_after_s)
        if isinstance(error, QdrantException):  # a 429 whose Retry-After the client cannot read
            _, unread, retry_after = str(error).partition("not a valid integer: ")
            return Failure("transient", seconds_of(retry_after)) if unread else PERMANENT
        if isinstance(error, UnexpectedResponse):
            asked = error.headers.get("Retry-After")
            return classify_http(error.status_code or 0, error.content, asked)
        if isinstance(error, ResponseHandlingException):
            return TRANSIENT if isinstance(error.source, httpx.TransportError) else PERMANENT
        if isinstance(error, grpc.RpcError):
            return classify_grpc(error.code())
        return TRANSIENT if isinstance(error, ConnectionError) else PERMANENT

    def collections(self) -> list[str]:
        return sorted(found.name for found in self._client.get_collections().collections)

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

    def _scroll(
        self,
        after: Any,
        condition: models.Filter | None,
        size: int,
        payload: bool | list[str],
        *,
        vectors: bool = False,
    ) -> tuple[Sequence[Any], Any]:
        points, following = self._client.scroll(
            self._collection,
            condition,
            limit=size,
            offset=after,
            with_payload=payload,
            with_vectors=vectors,
        )
        return points, following

    def _set_payload(self, point_ids: list[str], values: dict[str, Any]) -> None:
        selected = models.PointIdsList(points=[*point_ids])
        self._client.set_payload(self._collection, values, selected, wait=True)

    def _filter(self, condition: object) -> models.Filter | None:
        return to_client_filter(condition, point_id)

    def _request(
        self, search: Search, limit: int, condition: models.Filter | None
    ) -> models.QueryRequest:
        return models.QueryRequest(
            prefetch=coarse_prefetch(search, limit, condition),
            query=search.query,
            using=search.using,
            limit=limit,
            filter=condition,
            params=search_params(search, self._quantization),
            with_payload=[ID],
        )

    def _query(self, requests: list[models.QueryRequest]) -> Sequence[Sequence[Any]]:
        answers = self._client.query_batch_points(self._collection, requests)
        return [answer.points for answer in answers]
