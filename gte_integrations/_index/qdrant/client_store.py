"""A Qdrant collection behind a client: a server, or the client's own local mode."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gte_integrations._index.aliases import check_no_alias
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
from gte_integrations._index.qdrant.options import missing
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
from gte_integrations._retry import (
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
        payload_schemas: parameters of the indexes of payload keys.
        collection_options: what ``create_collection`` is given besides.
    """

    def __init__(
        self,
        client: QdrantClient | AsyncQdrantClient,
        collection: str,
        *,
        quantization: Quantization,
        owned: bool,
        payload_schemas: Mapping[str, Any],
        collection_options: Mapping[str, Any],
    ) -> None:
        self.bridge = Bridge(client) if isinstance(client, AsyncQdrantClient) else None
        self._client: Any = Answers(self.bridge or client)
        self._sparse_vector = sparse_vector
        self._quantization = quantization
        self._collection = collection
        self._owned = owned
        self.place = (client.init_options.get("url") or id(client), collection)
        self._payload_schemas = payload_schemas
        self._collection_options = collection_options
        path = client.init_options.get("path")
        self._path = None if path is None else Path(path)  # of the local mode
        in_memory = client.init_options.get("location") == ":memory:"
        self._is_local = in_memory or path is not None
        self.name = f"The Qdrant collection {collection!r}"

    def describe(self, *, reopen: bool = True) -> Metadata | None:
        config = self._config()
        if config is None:
            if self._path is not None:
                refuse_ours(self._path, self._collection)
            return None
        return {**(config.metadata or {}).get(_METADATA, {}), **_schema(config.params)}

    def schema(self) -> Metadata | None:
        config = self._config()
        return None if config is None else _schema(config.params)

    def record(self, metadata: Metadata) -> None:
        self._client.update_collection(self._collection, metadata={_METADATA: metadata})

    def create(self, metadata: Metadata) -> None:
        self._client.create_collection(
            self._collection,
            vectors_config=dense_config(metadata),
            sparse_vectors_config=sparse_config(metadata),
            metadata={_METADATA: metadata},
            **self._collection_options,
        )

    def add_payload_indexes(self) -> None:
        if not self._payload_schemas or self._is_local:  # where they would have no effect
            return
        there = self._client.get_collection(self._collection).payload_schema
        for key, params in missing(self._payload_schemas, there).items():
            self._client.create_payload_index(self._collection, key, field_schema=params)

    def alias_target(self, alias: str) -> str | None:
        for found in self._client.get_aliases().aliases:
            if found.alias_name == alias:
                return str(found.collection_name)
        return alias if self._client.collection_exists(alias) else None

    def set_alias(self, alias: str, collection: str) -> None:
        # Both at once for whoever searches; deleting one that is not there is no error.
        delete = models.DeleteAlias(alias_name=alias)
        create = models.CreateAlias(collection_name=collection, alias_name=alias)
        self._client.update_collection_aliases(
            [
                models.DeleteAliasOperation(delete_alias=delete),
                models.CreateAliasOperation(create_alias=create),
            ]
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
        check_no_alias(self)
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

    def _config(self) -> models.CollectionConfig | None:
        """The configuration of the collection, None if there is none."""
        if not self._client.collection_exists(self._collection):
            return None
        config: models.CollectionConfig = self._client.get_collection(self._collection).config
        return config

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


def _schema(params: models.CollectionParams) -> Metadata:
    vectors = params.vectors if isinstance(params.vectors, dict) else {}
    dense, coarse = vectors.get(DENSE), vectors.get(COARSE)
    return {
        "dimensions": dense.size if dense else None,
        "coarse_dimensions": coarse.size if coarse else None,
        "metric": dense.distance.value if dense else None,
        "storage": quantization_of(dense) if dense else None,
        "sparse": SPARSE in (params.sparse_vectors or {}),
    }
