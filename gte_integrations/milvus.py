"""GTE vectors in Milvus: ``MilvusVectorizer`` makes them, ``MilvusHybridIndex`` keeps them.

::

    embedder = GTEEmbedder.from_pretrained("demo")
    with MilvusHybridIndex("./index.db", "docs", embedder) as index:
        index.create()
        index.add([("a", "The seed catalogue"), ("b", "Rules of the chess club")])
        [hits] = index.search("when are tomatoes sown?", limit=1)
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property, partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp

from gte_core import Encoder, HybridEmbeddings, as_queries
from gte_integrations._bridging import Bridge
from gte_integrations._checks import check_collection
from gte_integrations._explaining import StoredVectors
from gte_integrations._fusion import RRF, DocumentId, Leg, Linear, best
from gte_integrations._indexing import (
    Document,
    Hit,
    HybridIndex,
    IndexReport,
    gathered,
)
from gte_integrations._masking import masked
from gte_integrations._records import (
    ID_MAX_BYTES,
    ORIGIN,
    TRUNCATED,
    Facts,
    Floats,
    Limits,
    Queries,
    Record,
    Stored,
    as_stored,
    from_primary_key,
    id_to_key,
    key_to_id,
    never_empty,
    primary_key,
    users_payload,
)
from gte_integrations._sending import PERMANENT, TRANSIENT, Trouble, judge_grpc
from gte_integrations._sparse import never_empty_rows, sparse_dicts, with_spare_column
from gte_integrations._storage import OVERSAMPLING, Storage, StorageVectorizer

try:
    import grpc  # type: ignore[import-untyped]
    from pymilvus import (  # type: ignore[import-untyped]
        AnnSearchRequest,
        AsyncMilvusClient,
        CollectionSchema,
        DataType,
        MilvusClient,
        MilvusException,
    )
except ImportError as error:
    raise ImportError(
        "gte_integrations.milvus needs the package pymilvus; install it with: "
        "pip install 'gte-integrations[milvus]'"
    ) from error

__all__ = [
    "RRF",
    "Document",
    "GTEEmbeddingFunction",
    "Hit",
    "IndexReport",
    "Linear",
    "MilvusHybridIndex",
    "MilvusVectorizer",
]

_ID, _TEXT, _HASH = "id", "text", "_gte_hash"
_DENSE, _COARSE, _SPARSE = "dense", "_gte_coarse", "sparse"
_DENSE_FIELDS = frozenset({_DENSE, _COARSE})
_VECTORS = _DENSE_FIELDS | {_SPARSE}
_FIELDS = _VECTORS | {_ID, _TEXT, _HASH, "$meta"}
_METRIC = "IP"
_FACTS = "gte.facts"
_MAX_BYTES = 65_535  # of a VARCHAR, and of all dynamic fields of a row together
_MARK_BYTES = 35  # of dynamic fields, left for what an index adds to them
_MAX_KEYS = 1_000  # in one expression
_NOT_LOADED = 101
_PASSING_CODES = {2, 8}  # connection lost, rate limit
_INT8_INDEX = {
    "index_type": "HNSW_SQ",
    "params": {
        "M": 16,
        "efConstruction": 200,
        "sq_type": "SQ8",
        "refine": True,
        "refine_type": "FP32",
    },
}
_MAX_EF = 32_768
_COLLECTION = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,254}")


def _document_id(key: str) -> DocumentId:
    return key_to_id(from_primary_key(key))


class MilvusVectorizer(StorageVectorizer):
    """What a Milvus client of your own needs: schema, index parameters, rows and requests.

    Args:
        encoder: the model.
        dimensions: size of the dense vectors, from 1 to ``encoder.dimensions`` (the default).
        coarse_dimensions: size of additional, shorter vectors, in the field ``_gte_coarse``; None
            for none.
        storage: how dense vectors are kept: "float32", "float16" or "int8"; see
            ``MilvusHybridIndex``.
    """

    limits = Limits(text_bytes=_MAX_BYTES, payload_bytes=_MAX_BYTES - _MARK_BYTES)
    metric = _METRIC

    def schema(self) -> CollectionSchema:
        """Fields ``id``, ``text``, ``_gte_hash``, ``dense``, ``sparse``; payload is dynamic."""
        return _schema(self.facts())

    def index_params(self) -> Any:
        """Indexes of the vectors, both by inner product, which is the cosine of dense ones."""
        return _index_params(self.facts())

    def rows(self, documents: Iterable[object]) -> list[dict[str, Any]]:
        """Embed documents, in any form that ``MilvusHybridIndex.add`` takes, in one call.

        A row's ``id`` is the document's, but ``int:1`` for the integer 1, and with quotes,
        backslashes, control characters and ``%`` written as ``%22``. A text without positive
        token weights gets a tiny one for a token beyond the vocabulary, which no query holds:
        not every Milvus takes an empty vector.
        """
        return _rows(self.records(documents), self.storage)

    def search_requests(
        self,
        queries: str | Sequence[str],
        *,
        candidates: int = 100,
        filter: str = "",  # noqa: A002
    ) -> list[list[AnnSearchRequest]]:
        """Each query's searches, dense then sparse, for ``hybrid_search``.

        The sparse one is left out for a query without positive token weights and for a model
        without a sparse head.
        """
        vectors = self.query_vectors(queries, self.default_mode)
        searches = [
            [_request(row, _DENSE, candidates, filter, self.storage)]
            for row in _dense_lists(vectors.dense, self.storage)
        ]
        if vectors.sparse is not None:
            for found, row in zip(searches, sparse_dicts(vectors.sparse), strict=True):
                if row:
                    found.append(_request(row, _SPARSE, candidates, filter, self.storage))
        return searches


class GTEEmbeddingFunction:
    """What pymilvus-model calls an embedding function, for code written against those.

    All methods give ``{"dense": [float32 ndarray (dimensions,), ...], "sparse": csr_matrix}``,
    one vector of each kind per text. The sparse one is a matrix and not an array of scipy's, so
    that ``sparse[i]`` is a row of two dimensions, the only form that pymilvus takes. It is float32
    ``(n, vocab_size + 1)``: the last column is of no token, and there a document without positive
    token weights gets a tiny one, as not every Milvus takes an empty vector.

    Args:
        encoder: the model, with a sparse head: an encoder, or what ``GTEEmbedder.from_pretrained``
            calls ``model``, which loads it with all other settings at their defaults, once in a
            process. By default the model that ``from_pretrained`` loads.
        model_name: the same by the name it has in pymilvus-model; one of both.
        dimensions: size of the dense vectors, from 1 to ``encoder.dimensions`` (the default).
    """

    def __init__(
        self,
        encoder: Encoder | str | Path | None = None,
        *,
        model_name: str | Path | None = None,
        dimensions: int | None = None,
    ) -> None:
        if encoder is not None and model_name is not None:
            raise TypeError(
                "encoder and model_name were given, but say the same; pass one of both."
            )
        model = model_name if encoder is None else encoder
        self._vectorizer = MilvusVectorizer(_loaded(model), dimensions=dimensions)
        self._vectorizer.need_sparse("GTEEmbeddingFunction")

    @property
    def dim(self) -> dict[str, int]:
        """``{"dense": dimensions, "sparse": vocab_size + 1}``."""
        return {"dense": self._vectorizer.dimensions, "sparse": self([])["sparse"].shape[1]}

    def __call__(self, texts: Sequence[str]) -> dict[str, Any]:
        """The vectors of documents, as ``encode_documents``."""
        return self.encode_documents(texts)

    def encode_documents(self, documents: Sequence[str]) -> dict[str, Any]:
        """The vectors of texts that are stored."""
        both = self._encode(documents)
        return {"dense": list(both.dense), "sparse": sp.csr_matrix(never_empty_rows(both.sparse))}

    def encode_queries(self, queries: Sequence[str]) -> dict[str, Any]:
        """The vectors of texts that are searched for, with the model's query prefix."""
        both = self._encode(as_queries(self._vectorizer.encoder, queries))
        return {"dense": list(both.dense), "sparse": sp.csr_matrix(with_spare_column(both.sparse))}

    def _encode(self, texts: Sequence[str]) -> HybridEmbeddings:
        return self._vectorizer.encoder.encode(texts, dimensions=self._vectorizer.dimensions)


def _loaded(model: Encoder | str | Path | None) -> Encoder:
    if not (model is None or isinstance(model, (str, Path))):
        return model
    from gte_core import EncoderSettings, shared_encoder  # they bring torch

    settings = EncoderSettings() if model is None else EncoderSettings(model=str(model))
    return shared_encoder(settings)


class MilvusHybridIndex(HybridIndex[str]):
    """Documents in a Milvus collection, found by meaning and by words.

    ``filter`` in ``search`` is an expression such as ``'lang == "en"'``.

    Args:
        location: a file "./name.db" for Milvus Lite, which one process at a time has open; the
            URI of a server; a ``MilvusClient``; or an ``AsyncMilvusClient``, with which only the
            awaited verbs work, such as ``asearch``, but not ``aprune``, and not ``acreate`` in
            Milvus Lite.
        collection: its name.
        encoder: the model, for documents and queries.
        dimensions: size of the dense vectors, from 1 to ``encoder.dimensions`` (the default).
        coarse_dimensions: size of additional, shorter vectors, below ``dimensions``. They gather
            the dense candidates, four times as many as are kept, which the full ones then rank:
            faster where dense search is, at the risk of missing some. None (the default): search
            with the full ones alone.
        storage: how dense vectors are kept. "float32"; "float16", half the size, scores within
            0.001; or "int8", where a fourth of the size gathers candidates, which the full
            vectors, kept beside, then rank. Milvus Lite keeps "float32" alone.
        retry_seconds: how long ``create``, ``add``, ``delete`` and ``prune`` repeat a request that
            fails because the server is away or busy; 0 for not at all.
    """

    def __init__(
        self,
        location: str | Path | MilvusClient | AsyncMilvusClient,
        collection: str,
        encoder: Encoder,
        *,
        dimensions: int | None = None,
        coarse_dimensions: int | None = None,
        storage: Storage = "float32",
        retry_seconds: float = 120.0,
    ) -> None:
        check_collection(
            collection,
            _COLLECTION,
            "1 to 255 ASCII letters, digits or '_', and not begin with a digit",
        )
        vectorizer = MilvusVectorizer(
            encoder, dimensions=dimensions, coarse_dimensions=coarse_dimensions, storage=storage
        )
        bridge = Bridge(location) if isinstance(location, AsyncMilvusClient) else None
        store = _MilvusStore(bridge or location, collection, storage)
        super().__init__(vectorizer, store, retry_seconds=retry_seconds, bridge=bridge)


class _MilvusStore:
    """A collection in Milvus Lite or on a server."""

    request_bytes = 32 * 2**20  # half of what a server takes, for the size is an estimate

    def __init__(self, location: object, collection: str, storage: Storage) -> None:
        self._storage = storage
        self._owned = not isinstance(location, (MilvusClient, Bridge))
        self._uri = _uri(location) if self._owned else ""
        self._connected: Any = None if self._owned else location
        self._collection = collection
        self.name = f"The Milvus collection {collection!r}"

    def describe(self) -> Facts | None:
        if not self._client.has_collection(self._collection):
            return None
        collection = self._client.describe_collection(self._collection)
        fields = {field["name"]: field for field in collection["fields"]}
        facts: Facts = json.loads(collection.get("properties", {}).get(_FACTS, "{}"))
        indexes = self._client.list_indexes(self._collection)
        if facts and not _VECTORS.intersection(fields) <= set(indexes):
            return None  # a create() that was killed: it may go on
        for fact, field in (("dimensions", _DENSE), ("coarse_dimensions", _COARSE)):
            facts[fact] = fields.get(field, {}).get("params", {}).get("dim")
        index = self._dense_index() if _DENSE in indexes else {}
        facts["metric"] = index.get("metric_type")
        facts["storage"] = _storage_of(fields.get(_DENSE, {}), index)
        facts["sparse"] = _SPARSE in fields
        return facts

    def create(self, facts: Facts) -> None:
        if self._is_lite:
            self._check_lite()
        if not self._client.has_collection(self._collection):
            self._client.create_collection(
                self._collection,
                schema=_schema(facts),
                consistency_level="Session",  # a client finds what it has written
                properties={_FACTS: json.dumps(facts)},
            )
        # Waiting takes half a second for each index, and an empty one is ready at once.
        self._client.create_index(self._collection, _index_params(facts), sync=False)
        self._client.load_collection(self._collection)

    def stored(self, keys: Sequence[str]) -> dict[str, Stored]:
        key_of = {primary_key(key): key for key in keys}
        fields = [_HASH, ORIGIN, TRUNCATED]
        rows = self._get(list(key_of), fields, consistency_level="Strong")
        return {key_of[row[_ID]]: as_stored(row, row[_HASH]) for row in rows}

    def set_origins(self, origins: Mapping[str, str]) -> None:
        # Not every Milvus can change a part of a row.
        key_of = {primary_key(key): key for key in origins}
        rows = self._get(list(key_of), ["*"], consistency_level="Strong")
        self.write([_again(row, origins[key_of[row[_ID]]], self._storage) for row in rows])

    def pack(self, records: Sequence[Record]) -> list[dict[str, Any]]:
        return _rows(records, self._storage)

    def write(self, packed: Sequence[dict[str, Any]]) -> None:
        # Milvus Lite's upsert keeps payload keys that the new row lacks, its insert replaces the
        # whole row; on a server insert would leave two rows and upsert replaces.
        write = self._client.insert if self._is_lite else self._client.upsert
        write(self._collection, list(packed))

    def legs(
        self, queries: Queries, limit: int, condition: str | None
    ) -> tuple[list[Leg], list[Leg]]:
        dense = self._dense_legs(queries, limit, condition)
        rows = [] if queries.sparse is None else sparse_dicts(queries.sparse)
        answers = self._search(_SPARSE, [row for row in rows if row], limit, condition)
        found = (_leg(hits) for hits in answers)
        sparse: list[Leg] = [next(found) if row else [] for row in rows]
        return dense or [[] for _ in sparse], sparse or [[] for _ in dense]

    def fetch(
        self, ids: Sequence[DocumentId], payload_keys: Sequence[str] | None
    ) -> dict[DocumentId, tuple[str, Mapping[str, Any]]]:
        keys = [primary_key(id_to_key(document_id)) for document_id in ids]
        chosen = ["$meta"] if payload_keys is None else payload_keys
        rows = self._get(keys, [_TEXT, *chosen])
        return {_document_id(row[_ID]): (row[_TEXT], _payload(row)) for row in rows}

    def vectors(self, document_id: DocumentId) -> StoredVectors | None:
        # Without a sparse field, that name is read as a payload key, which no document has.
        found = self._get([primary_key(id_to_key(document_id))], [_DENSE, _SPARSE])
        return _stored(found[0]) if found else None

    def key_page(self, after: Any) -> tuple[list[str], Any]:
        pages = after or self._loaded(
            "query_iterator",
            batch_size=_MAX_KEYS,
            output_fields=[_ID],
            consistency_level="Strong",
        )
        page = pages.next()  # stays where it is when the request fails
        return [from_primary_key(row[_ID]) for row in page], pages if page else None

    def delete(self, keys: Sequence[str]) -> None:
        self._loaded("delete", ids=[primary_key(key) for key in keys])

    def size_of(self, record: Record) -> int:
        vectors = 4 * record.dense_size + 8 * len(record.weights)
        return vectors + record.document.size + 200

    def judge(self, error: Exception) -> Trouble:
        if isinstance(error, grpc.RpcError):
            return judge_grpc(error.code())
        if isinstance(error, MilvusException):
            passing = error.code in _PASSING_CODES or getattr(error, "retriable", False)
            return TRANSIENT if passing else judge_grpc(error.code)
        return PERMANENT

    def count(self) -> int:
        [row] = self._loaded("query", output_fields=["count(*)"], consistency_level="Strong")
        return int(row["count(*)"])

    def optimize(self) -> None:
        """Milvus does so by itself."""

    def close(self) -> None:
        if self._owned and self._connected is not None:
            self._connected.close()
            self._connected = None

    @property
    def _client(self) -> Any:
        if self._connected is None:
            self._connected = MilvusClient(self._uri)
        return self._connected

    @cached_property
    def _is_lite(self) -> bool:
        return str(self._client.get_server_version()).startswith("milvus_lite")

    def _loaded(self, verb: str, **arguments: Any) -> Any:
        """Call the client; load the collection if the server has let it go, as when restarted."""
        call = partial(getattr(self._client, verb), self._collection, **arguments)
        try:
            return call()
        except MilvusException as error:
            if error.code != _NOT_LOADED:
                raise
            self._client.load_collection(self._collection)
            return call()

    def _check_lite(self) -> None:
        if self._storage != "float32":
            raise ValueError(
                f"storage is {self._storage!r}, but Milvus Lite keeps float32 vectors alone; pass "
                'storage="float32", or use a Milvus server.'
            )
        if isinstance(self._connected, Bridge):  # it waits for each index by a call Lite lacks
            raise NotImplementedError(
                "An AsyncMilvusClient cannot make a collection in Milvus Lite; call create() once "
                "on an index with a MilvusClient."
            )

    def _dense_index(self) -> Mapping[str, Any]:
        index: Mapping[str, Any] = self._client.describe_index(self._collection, _DENSE)
        return index

    def _get(self, keys: list[str], fields: list[str], **options: Any) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = []
        for part in _chunks(keys, _MAX_KEYS):
            rows += self._loaded("get", ids=part, output_fields=[_ID, *fields], **options)
        return rows

    def _dense_legs(self, queries: Queries, limit: int, condition: str | None) -> list[Leg]:
        if queries.dense is None or queries.coarse is None:
            answers = self._search(
                _DENSE, _dense_lists(queries.dense, self._storage), limit, condition
            )
            return [_leg(hits) for hits in answers]
        coarse = _dense_lists(queries.coarse, self._storage)
        answers = self._search(_COARSE, coarse, gathered(limit), condition, with_dense=True)
        return [
            best(_ranked(hits, query), limit)
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
            filter=condition or "",
            output_fields=[_ID, _DENSE] if with_dense else [_ID],
            search_params=_search_params(field, limit, self._storage),
        )
        return list(answers)


def _uri(location: object) -> str:
    if not isinstance(location, (str, os.PathLike)):
        raise TypeError(
            f"location is a {type(location).__name__}, but must be a path that ends in .db, a URI, "
            "a MilvusClient or an AsyncMilvusClient."
        )
    place = os.fspath(location)
    if re.match(r"(https?|tcp|unix)://", str(place)):
        return str(place)
    path, shown = Path(str(place)), masked(str(place))
    if path.suffix != ".db":
        raise ValueError(
            f"location is {shown!r}, but must be a path that ends in .db, a URI such as "
            "http://localhost:19530, or a MilvusClient."
        )
    if not path.parent.is_dir():
        raise FileNotFoundError(
            f"location is {shown!r}, but there is no directory {str(Path(shown).parent)!r}; make "
            "it first."
        )
    if path.is_file():
        raise NotADirectoryError(
            f"location is {place!r}, which is a file; Milvus Lite 3 keeps its data in a directory "
            "of that name, so choose another."
        )
    return str(path)


def _schema(facts: Facts) -> CollectionSchema:
    schema = MilvusClient.create_schema(auto_id=False, enable_dynamic_field=True)
    schema.add_field(_ID, DataType.VARCHAR, is_primary=True, max_length=3 * ID_MAX_BYTES)
    schema.add_field(_TEXT, DataType.VARCHAR, max_length=_MAX_BYTES)
    schema.add_field(_HASH, DataType.VARCHAR, max_length=32)
    half = facts["storage"] == "float16"
    dense = DataType.FLOAT16_VECTOR if half else DataType.FLOAT_VECTOR
    schema.add_field(_DENSE, dense, dim=facts["dimensions"])
    if facts["coarse_dimensions"]:
        schema.add_field(_COARSE, dense, dim=facts["coarse_dimensions"])
    if facts["sparse"]:
        schema.add_field(_SPARSE, DataType.SPARSE_FLOAT_VECTOR)
    return schema


def _index_params(facts: Facts) -> Any:
    params = MilvusClient.prepare_index_params()
    dense = _INT8_INDEX if facts["storage"] == "int8" else {"index_type": "AUTOINDEX"}
    params.add_index(_DENSE, metric_type=_METRIC, **dense)
    if facts["coarse_dimensions"]:
        params.add_index(_COARSE, metric_type=_METRIC, **dense)
    if facts["sparse"]:
        params.add_index(
            _SPARSE,
            index_type="SPARSE_INVERTED_INDEX",
            metric_type=_METRIC,
            params={"inverted_index_algo": "DAAT_MAXSCORE"},
        )
    return params


def _row(record: Record) -> dict[str, Any]:
    document = record.document
    row = {
        **document.payload,
        _ID: primary_key(document.key),
        _TEXT: document.text,
        _HASH: document.content_hash,
        _DENSE: record.dense,
        **record.marks,
    }
    if record.coarse is not None:
        row[_COARSE] = record.coarse
    if record.vocab_size:
        row[_SPARSE] = dict(zip(*never_empty(record), strict=True))
    return row


def _rows(records: Sequence[Record], storage: Storage) -> list[dict[str, Any]]:
    return [_as_stored_type(_row(record), storage) for record in records]


def _again(row: Mapping[str, Any], origin: str, storage: Storage) -> dict[str, Any]:
    """A row as it was read, with another origin, as ``write`` takes it."""
    dense = {name: _floats(row[name]) for name in _DENSE_FIELDS & row.keys()}
    return _as_stored_type({**row, **dense, ORIGIN: origin}, storage)


def _as_stored_type(row: dict[str, Any], storage: Storage) -> dict[str, Any]:
    if storage == "float16":  # pymilvus takes no other type for such a field
        row.update({name: row[name].astype(np.float16) for name in _DENSE_FIELDS & row.keys()})
    return row


def _storage_of(field: Mapping[str, Any], index: Mapping[str, Any]) -> Storage:
    if index.get("index_type") == _INT8_INDEX["index_type"]:
        return "int8"
    return "float16" if field.get("type") == DataType.FLOAT16_VECTOR else "float32"


def _payload(row: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in users_payload(row).items() if key not in _FIELDS}


def _stored(row: Mapping[str, Any]) -> StoredVectors:
    return StoredVectors(_floats(row[_DENSE]), row.get(_SPARSE, {}))


def _floats(vector: Any) -> Floats:
    """A dense vector as pymilvus gives it: numbers, or the bytes of a float16 one, or [bytes]."""
    raw = vector[0] if isinstance(vector[0], bytes) else vector
    return np.asarray(np.frombuffer(raw, np.float16) if isinstance(raw, bytes) else raw, np.float32)


def _dense_lists(vectors: Floats | None, storage: Storage) -> list[Any]:
    if vectors is None:
        return []
    return list(vectors.astype(np.float16)) if storage == "float16" else list(vectors.tolist())


def _leg(hits: Iterable[Any]) -> Leg:
    return [(_document_id(hit[_ID]), hit["distance"]) for hit in hits]


def _ranked(hits: Iterable[Any], query: Floats) -> Leg:
    """What the coarse vectors gathered, scored by the full ones."""
    return [(_document_id(hit[_ID]), float(_floats(hit["entity"][_DENSE]) @ query)) for hit in hits]


def _request(
    vector: Any, field: str, limit: int, condition: str, storage: Storage
) -> AnnSearchRequest:
    param = _search_params(field, limit, storage)
    return AnnSearchRequest([vector], anns_field=field, param=param, limit=limit, expr=condition)


def _search_params(field: str, limit: int, storage: Storage) -> dict[str, Any]:
    if storage != "int8" or field == _SPARSE:
        return {"metric_type": _METRIC}
    depth = min(max(64, OVERSAMPLING * limit), _MAX_EF)
    return {"metric_type": _METRIC, "params": {"ef": depth, "refine_k": OVERSAMPLING}}


def _chunks(items: list[str], size: int) -> Iterator[list[str]]:
    iterator = iter(items)
    while part := list(islice(iterator, size)):
        yield part
