"""One collection in Milvus: in Milvus Lite, on a server, or behind a client of the user's own."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from typing import Any, TypeVar

from gte_core import CollectionMismatch
from gte_core.iteration import batched
from gte_integrations._index.aliases import check_no_alias
from gte_integrations._index.bridge import Bridge
from gte_integrations._index.fusion import DocumentId, ScoredIds, best
from gte_integrations._index.ids import from_primary_key, id_to_key, primary_key
from gte_integrations._index.metadata import Metadata, Quantization
from gte_integrations._index.milvus.client import LoadState, MilvusException, grpc
from gte_integrations._index.milvus.connection import Connection
from gte_integrations._index.milvus.expressions import checked
from gte_integrations._index.milvus.options import check_collection, payload_index_params
from gte_integrations._index.milvus.rows import (
    COARSE,
    DENSE,
    HASH,
    ID,
    SPARSE,
    TEXT,
    VECTORS,
    dense_lists,
    document_id,
    document_of,
    given_rows,
    hits_of,
    index_params_of,
    missing_fields,
    payload_fields_of,
    payload_of,
    quantization_of,
    ranked_hits,
    row_with_origin,
    rows_of,
    schema_of,
    search_params,
    stored_vectors,
    tenant_key_of,
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
from gte_integrations._index.search import gathered
from gte_integrations._index.sparse import sparse_dicts
from gte_integrations._index.store import DOCUMENTS_PER_PAGE, KEYS_PER_PAGE
from gte_integrations._index.vectorizer import Queries
from gte_integrations._retry import PERMANENT, TRANSIENT, Failure, classify_grpc

T = TypeVar("T")

_METADATA = "gte.facts"  # the collection's property, as 0.1.0 named it
_MAX_KEYS = 1_000  # in one expression
_BY_PRIMARY_KEY = {"iterator": "True", "reduce_stop_for_best": "True"}
"""What pymilvus's own iterator asks for: the first rows by primary key, in their order."""
_LITE_DEPTH = 4
_NOT_LOADED = 101
_PASSING_CODES = {2, 8}  # connection lost, rate limit


class MilvusStore:
    """A collection in Milvus Lite or on a server."""

    request_bytes = 32 * 2**20  # half of what a server takes, for the size is an estimate

    def __init__(
        self,
        connection: Connection,
        collection: str,
        *,
        quantization: Quantization,
        payload_types: Mapping[str, str],
        tenant_key: str | None,
        collection_options: Mapping[str, Any],
    ) -> None:
        self._quantization = quantization
        self._connection = connection
        self._collection = collection
        self._payload_types = payload_types
        self._tenant_key = tenant_key
        self._collection_options = collection_options
        self._payload_fields = ["$meta"]
        self._is_loaded = False
        self.place = (self._connection.place, collection)
        self.name = f"The Milvus collection {collection!r}"

    def describe(self, *, reopen: bool = True) -> Metadata | None:
        if reopen:
            self._connection.allow()
        if not self._client.has_collection(self._collection):
            return None
        collection = self._client.describe_collection(self._collection)
        self._note_fields(collection["fields"])
        metadata: Metadata = json.loads(collection.get("properties", {}).get(_METADATA, "{}"))
        fields = {field["name"] for field in collection["fields"]}
        indexes = self._client.list_indexes(self._collection)
        if metadata and not VECTORS.intersection(fields) <= set(indexes):
            return None  # a create() that was killed: it may go on
        return {**metadata, **self._schema(collection, indexes)}

    def schema(self) -> Metadata | None:
        self._connection.allow()
        if not self._client.has_collection(self._collection):
            return None
        collection = self._client.describe_collection(self._collection)
        return self._schema(collection, self._client.list_indexes(self._collection))

    def missing(self) -> list[str]:
        collection = self._client.describe_collection(self._collection)
        lacking = missing_fields(collection["fields"])
        return lacking if collection["enable_dynamic_field"] else [*lacking, "$meta"]

    def record(self, metadata: Metadata) -> None:
        properties = {_METADATA: json.dumps(metadata)}
        self._client.alter_collection_properties(self._collection, properties)

    def create(self, metadata: Metadata) -> None:
        if self._is_lite:
            self._check_lite()
        with self._connection.room_for(self._collection):
            self._create_collection(metadata)
            done = self._client.list_indexes(self._collection)  # by a create() that was killed
            params = index_params_of(metadata, without=done, exact=self._is_lite)
            if params:
                # Waiting takes half a second for each index, and an empty one is ready at once.
                self._client.create_index(self._collection, params, sync=False)
            self._client.load_collection(self._collection)
        self._is_loaded = True

    def add_payload_indexes(self) -> None:
        if not self._payload_types:
            return
        if self._is_lite:
            self._refuse_payload_indexes()
        there = self._client.list_indexes(self._collection)
        params = payload_index_params(self._payload_types, there)
        if params:
            self._client.create_index(self._collection, params, sync=False)

    @property
    def tenant_key(self) -> str | None:
        """The payload key that the collection is partitioned by."""
        return self._tenant_key

    @property
    def collection(self) -> str:
        return self._collection

    def check_alias(self, alias: str) -> None:
        check_collection("alias", alias)

    def alias_target(self, alias: str) -> str | None:
        if not self._client.has_collection(alias):
            return None
        return str(self._client.describe_collection(alias)["collection_name"])

    def set_alias(self, alias: str, collection: str) -> None:
        is_there = self._client.has_collection(alias)
        change = self._client.alter_alias if is_there else self._client.create_alias
        change(collection, alias)

    def stored(self, keys: Sequence[str]) -> dict[str, Stored]:
        key_of = {primary_key(key): key for key in keys}
        rows = self._get(list(key_of), [HASH, ORIGIN, TRUNCATED], consistency_level="Strong")
        return {key_of[row[ID]]: as_stored(row, row[HASH]) for row in rows}

    def set_origins(self, origins: Mapping[str, str]) -> None:
        # Not every Milvus can change a part of a row.
        key_of = {primary_key(key): key for key in origins}
        rows = self._get(list(key_of), ["*"], consistency_level="Strong")
        self.write(
            [row_with_origin(row, origins[key_of[row[ID]]], self._quantization) for row in rows]
        )

    def pack(self, records: Sequence[Record]) -> list[dict[str, Any]]:
        return rows_of(records, self._quantization)

    def write(self, packed: Sequence[dict[str, Any]]) -> None:
        # Milvus Lite's upsert keeps payload keys that the new row lacks, its insert replaces the
        # whole row; on a server insert would leave two rows and upsert replaces.
        write = self._client.insert if self._is_lite else self._client.upsert
        write(self._collection, list(packed))

    def hits(
        self, queries: Queries, limit: int, condition: str | None
    ) -> tuple[list[ScoredIds], list[ScoredIds]]:
        dense = self._dense_hits(queries, limit, condition)
        rows = [] if queries.sparse is None else sparse_dicts(queries.sparse)
        answers = self._search(SPARSE, [row for row in rows if row], limit, condition)
        found = (hits_of(hits) for hits in answers)
        sparse: list[ScoredIds] = [next(found) if row else [] for row in rows]
        return dense or [[] for _ in sparse], sparse or [[] for _ in dense]

    def fetch(
        self, ids: Sequence[DocumentId], payload_keys: Sequence[str] | None
    ) -> dict[DocumentId, tuple[str, Mapping[str, Any]]]:
        keys = [primary_key(id_to_key(document_id)) for document_id in ids]
        chosen = self._payload_fields if payload_keys is None else payload_keys
        rows = self._get(keys, [TEXT, *chosen])
        return {document_id(row[ID]): (row[TEXT], payload_of(row)) for row in rows}

    def vectors(self, document_id: DocumentId) -> StoredVectors | None:
        # Without such a field, its name is read as a payload key, which no document has.
        found = self._get([primary_key(id_to_key(document_id))], [DENSE, SPARSE])
        return stored_vectors(found[0]) if found else None

    def read(self, keys: Sequence[str], *, with_vectors: bool) -> list[StoredDocument]:
        fields = self._document_fields(with_vectors=with_vectors)
        rows = self._get([primary_key(key) for key in keys], fields, consistency_level="Strong")
        return [document_of(row, with_vectors=with_vectors) for row in rows]

    def page(
        self, after: Any, condition: str | None, *, with_vectors: bool
    ) -> tuple[list[StoredDocument], Any]:
        fields = self._document_fields(with_vectors=with_vectors)
        rows, following = self._page(after, condition, fields, DOCUMENTS_PER_PAGE)
        return [document_of(row, with_vectors=with_vectors) for row in rows], following

    def key_page(self, after: Any, condition: str | None) -> tuple[list[str], Any]:
        rows, following = self._page(after, condition, [], KEYS_PER_PAGE)
        return [from_primary_key(row[ID]) for row in rows], following

    def is_empty(self, condition: str) -> bool:
        return not checked(condition).strip()

    def delete(self, keys: Sequence[str]) -> None:
        self._loaded("delete", ids=[primary_key(key) for key in keys])

    def drop(self) -> None:
        check_no_alias(self)
        if self._client.has_collection(self._collection):
            aliases = self._client.list_aliases(self._collection)
            for alias in aliases["aliases"] if isinstance(aliases, dict) else aliases:
                self._client.drop_alias(alias)  # servers ask for it
            self._client.drop_collection(self._collection)
        self._is_loaded = False

    def size_of(self, record: Record) -> int:
        vectors = 4 * record.dense_size + 8 * len(record.weights)
        return vectors + record.document.size + 200

    def classify(self, error: Exception) -> Failure:
        if isinstance(error, grpc.RpcError):
            return classify_grpc(error.code())
        if isinstance(error, MilvusException):
            passing = error.code in _PASSING_CODES or getattr(error, "retriable", False)
            return TRANSIENT if passing else classify_grpc(error.code)
        return PERMANENT

    def count(self) -> int:
        [row] = self._loaded("query", output_fields=["count(*)"], consistency_level="Strong")
        return int(row["count(*)"])

    def collections(self) -> list[str]:
        return sorted(self._client.list_collections()) if self.is_there() else []

    def optimize(self) -> None:
        """Milvus does so by itself."""

    def close(self) -> None:
        self._connection.close()
        self._is_loaded = False

    @property
    def bridge(self) -> Bridge | None:
        return self._connection.bridge

    def is_there(self) -> bool:
        """Whether looking for the collection makes nothing."""
        return self._connection.is_there()

    @property
    def _client(self) -> Any:
        return self._connection.client

    @cached_property
    def _is_lite(self) -> bool:
        return str(self._client.get_server_version()).startswith("milvus_lite")

    def _note_fields(self, fields: Sequence[Mapping[str, Any]]) -> None:
        """Remember what of the payload is a field of its own; refuse a tenant key that is none."""
        found = tenant_key_of(fields)
        if self._tenant_key not in (None, found):
            raise CollectionMismatch(
                f"{self.name} is not partitioned by {self._tenant_key!r}, the tenant_key, but by "
                f"{found!r}, and that cannot be changed; pass this, or use another collection."
            )
        self._tenant_key = found
        self._payload_fields = ["$meta", *payload_fields_of(fields)]

    def _create_collection(self, metadata: Metadata) -> None:
        if self._client.has_collection(self._collection):
            return
        properties = self._collection_options.get("properties", {})
        try:
            self._client.create_collection(
                self._collection,
                schema=schema_of(metadata, self._tenant_key),
                **{
                    "consistency_level": "Session",  # a client finds what it has written
                    **self._collection_options,
                    "properties": {**properties, _METADATA: json.dumps(metadata)},
                },
            )
        except MilvusException as error:
            if "File exists" not in error.message:
                raise
            raise FileExistsError(
                f"{self.name} cannot be made, for a directory that is no collection is in the "
                f"way: {error.message}. Remove it. A create() that was killed leaves one "
                "without data, which an index on the path of the database removes by itself."
            ) from error

    def _schema(self, collection: Mapping[str, Any], indexes: Sequence[str]) -> Metadata:
        """What a collection is built for, as Milvus describes it."""
        fields = {field["name"]: field for field in collection["fields"]}
        dense, coarse = fields.get(DENSE, {}), fields.get(COARSE, {})
        index = self._client.describe_index(self._collection, DENSE) if DENSE in indexes else {}
        return {
            "dimensions": dense.get("params", {}).get("dim"),
            "coarse_dimensions": coarse.get("params", {}).get("dim"),
            "metric": index.get("metric_type"),
            "storage": quantization_of(dense, index) if dense else None,
            "sparse": SPARSE in fields,
        }

    def _loaded(self, verb: str, **arguments: Any) -> Any:
        return self._when_loaded(
            partial(getattr(self._client, verb), self._collection, **arguments)
        )

    def _when_loaded(self, call: Callable[[], T]) -> T:
        """Call the client; load the collection if the server has let it go, as when restarted."""
        if not self._is_loaded:  # asked, because pymilvus logs a traceback of what fails
            self._load()
        try:
            return call()
        except MilvusException as error:
            if error.code != _NOT_LOADED:
                raise
            self._load()
            return call()

    def _load(self) -> None:
        state = self._client.get_load_state(self._collection)["state"]
        if state == LoadState.NotLoad:
            self._client.load_collection(self._collection)
        self._is_loaded = True

    def _check_lite(self) -> None:
        if self._quantization != "float32":
            raise ValueError(
                f"storage is {self._quantization!r}, but Milvus Lite keeps float32 vectors alone; "
                'pass storage="float32", or use a Milvus server.'
            )
        if self._payload_types:
            self._refuse_payload_indexes()
        if self.bridge is not None:  # it waits for each index by a call Lite lacks
            raise NotImplementedError(
                "An AsyncMilvusClient cannot make a collection in Milvus Lite; call create() once "
                "on an index with a MilvusClient."
            )

    def _page(
        self, after: str | None, condition: str | None, fields: list[str], size: int
    ) -> tuple[list[dict[str, Any]], str | None]:
        """Rows in the order of their keys, behind ``after``, and the last key for the next ones."""
        parts = [] if condition is None or self.is_empty(condition) else [f"({condition})"]
        if after is not None:  # a key holds nothing that would need escaping
            parts.append(f'{ID} > "{after}"')
        rows = self._loaded(
            "query",
            filter=" and ".join(parts),
            output_fields=[ID, *fields],
            limit=size,
            consistency_level="Strong",
            **_BY_PRIMARY_KEY,
        )
        following = rows[-1][ID] if rows else None  # a page may be short, and not be the last
        return given_rows(rows, self._payload_fields), following

    def _refuse_payload_indexes(self) -> None:
        raise NotImplementedError(
            f"payload_indexes names {', '.join(self._payload_types)}, but Milvus Lite cannot index "
            "payload; it filters without. Leave the argument out, or use a Milvus server."
        )

    def _document_fields(self, *, with_vectors: bool) -> list[str]:
        # Without such a field, its name is read as a payload key, which no document has.
        return [TEXT, *self._payload_fields, *([DENSE, SPARSE] if with_vectors else [])]

    def _get(self, keys: list[str], fields: list[str], **options: Any) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = []
        for part in batched(keys, _MAX_KEYS):
            rows += self._loaded("get", ids=part, output_fields=[ID, *fields], **options)
        return given_rows(rows, self._payload_fields)

    def _dense_hits(self, queries: Queries, limit: int, condition: str | None) -> list[ScoredIds]:
        if queries.dense is None or queries.coarse is None:
            answers = self._search(
                DENSE, dense_lists(queries.dense, self._quantization), limit, condition
            )
            return [hits_of(hits) for hits in answers]
        coarse = dense_lists(queries.coarse, self._quantization)
        answers = self._search(COARSE, coarse, gathered(limit), condition, with_dense=True)
        return [
            best(ranked_hits(hits, query), limit)
            for hits, query in zip(answers, queries.dense, strict=True)
        ]

    def _search(
        self,
        field: str,
        vectors: list[Any],
        limit: int,
        condition: str | None,
        *,
        with_dense: bool = False,
    ) -> list[Any]:
        if not vectors:
            return []
        answers = self._loaded(
            "search",
            data=vectors,
            anns_field=field,
            limit=limit,
            filter="" if condition is None else checked(condition),
            output_fields=[ID, DENSE] if with_dense else [ID],
            search_params=self._search_params(field, limit),
        )
        return list(answers)

    def _search_params(self, field: str, limit: int) -> dict[str, Any]:
        params = search_params(field, limit, self._quantization)
        if self._is_lite and field != SPARSE:
            # The AUTOINDEX of a collection that 0.1.0 made gives no more hits than it looks at.
            params["params"] = {"ef": _LITE_DEPTH * limit}
        return params
