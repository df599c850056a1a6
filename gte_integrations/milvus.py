"""GTE vectors in Milvus: ``MilvusVectorizer`` makes them, ``MilvusHybridIndex`` keeps them.

::

    embedder = GTEEmbedder.from_pretrained("demo")
    with MilvusHybridIndex("./index.db", "docs", embedder) as index:
        index.create()
        index.add([("a", "The seed catalogue"), ("b", "Rules of the chess club")])
        [hits] = index.search("when are tomatoes sown?", limit=1)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import scipy.sparse as sp

from gte_core import Encoder, EncoderSettings, HybridEmbeddings, Role, as_encoder
from gte_core.foreign import refuses_foreign
from gte_integrations._index.checks import check_options
from gte_integrations._index.document import Document
from gte_integrations._index.fusion import RRF, Linear
from gte_integrations._index.index import HybridIndex
from gte_integrations._index.metadata import (
    Metadata,
    Quantization,
)
from gte_integrations._index.milvus.client import (
    AnnSearchRequest,
    AsyncMilvusClient,
    CollectionSchema,
    MilvusClient,
)
from gte_integrations._index.milvus.connection import Connection
from gte_integrations._index.milvus.options import (
    COLLECTION_OPTIONS,
    check_collection,
    payload_types,
)
from gte_integrations._index.milvus.rows import (
    DENSE,
    MARK_BYTES,
    MAX_BYTES,
    METRIC,
    SPARSE,
    dense_lists,
    index_params_of,
    rows_of,
    schema_of,
    search_request,
)
from gte_integrations._index.milvus.store import MilvusStore
from gte_integrations._index.preparation import Limits, with_tenant
from gte_integrations._index.records import StoredDocument
from gte_integrations._index.reports import IndexReport
from gte_integrations._index.search import Hit
from gte_integrations._index.sparse import never_empty_rows, sparse_dicts, with_spare_column
from gte_integrations._index.store import list_collections, read_metadata
from gte_integrations._index.vectorizer import Vectorizer

__all__ = [
    "RRF",
    "Document",
    "GTEEmbeddingFunction",
    "Hit",
    "IndexReport",
    "Linear",
    "MilvusHybridIndex",
    "MilvusVectorizer",
    "StoredDocument",
]


class MilvusVectorizer(Vectorizer):
    """What a Milvus client of your own needs: schema, index parameters, rows and requests.

    Args:
        encoder: the model: its name, or an encoder.
        dimensions: size of the dense vectors, from 1 to ``encoder.dimensions`` (the default).
        coarse_dimensions: size of additional, shorter vectors, in the field ``_gte_coarse``; None
            for none.
        storage: how dense vectors are kept: "float32", "float16" or "int8"; see
            ``MilvusHybridIndex``.
    """

    limits = Limits(
        text_bytes=MAX_BYTES,
        payload_bytes=MAX_BYTES - MARK_BYTES,
        lost_keys=frozenset({"_seq", "_partition"}),  # by Milvus Lite
    )
    metric = METRIC

    def schema(self) -> CollectionSchema:
        """Fields ``id``, ``text``, ``_gte_hash``, ``dense``, ``sparse``; payload is dynamic.

        The field of a vector that the model does not give is left out.
        """
        return schema_of(self.comparable_metadata())

    def index_params(self) -> Any:
        """Indexes of the vectors, all by inner product, which is the cosine of dense ones."""
        return index_params_of(self.comparable_metadata())

    def rows(self, documents: Iterable[object]) -> list[dict[str, Any]]:
        """Embed documents, in any form that ``MilvusHybridIndex.add`` takes, in one call.

        A row's ``id`` is the document's, but ``int:1`` for the integer 1, and with quotes,
        backslashes, control characters and ``%`` written as ``%22``. A text without positive
        token weights gets a tiny one for a token beyond the vocabulary, which no query holds:
        not every Milvus takes an empty vector.
        """
        return rows_of(self.records(documents), self.storage)

    def search_requests(
        self,
        queries: str | Sequence[str],
        *,
        candidates: int = 100,
        filter: str = "",  # noqa: A002
    ) -> list[list[AnnSearchRequest]]:
        """Each query's searches, dense then sparse, for ``hybrid_search``.

        What the model does not give is left out, and the sparse one of a query without positive
        token weights.
        """
        vectors = self.query_vectors(queries, self.default_mode)
        dense = dense_lists(vectors.dense, self.storage)
        sparse = [] if vectors.sparse is None else sparse_dicts(vectors.sparse)
        requests: list[list[AnnSearchRequest]] = [[] for _ in range(len(vectors))]
        for field, rows in ((DENSE, dense), (SPARSE, sparse)):
            for found, row in zip(requests, rows, strict=False):
                if len(row):
                    found.append(search_request(row, field, candidates, filter, self.storage))
        return requests


class GTEEmbeddingFunction:
    """What pymilvus-model calls an embedding function, for code written against those.

    All methods give ``{"dense": [float32 ndarray (dimensions,), ...], "sparse": csr_matrix}``,
    one vector of each kind per text. The sparse one is a matrix and not an array of scipy's, so
    that ``sparse[i]`` is a row of two dimensions, the only form that pymilvus takes. It is float32
    ``(n, vocab_size + 1)``: the last column is of no token, and there a document without positive
    token weights gets a tiny one, as not every Milvus takes an empty vector.

    Args:
        encoder: the model, which gives both vectors: an encoder, or what
            ``GTEEmbedder.from_pretrained`` calls ``model``, which loads it with all other settings
            at their defaults, once in a process. By default the model that ``from_pretrained``
            loads.
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
        if encoder is None:
            encoder = EncoderSettings().model if model_name is None else model_name
        self._vectorizer = MilvusVectorizer(as_encoder(encoder), dimensions=dimensions)
        self._vectorizer.need("hybrid", "GTEEmbeddingFunction")

    @property
    def dim(self) -> dict[str, int]:
        """``{"dense": dimensions, "sparse": vocab_size + 1}``."""
        return {"dense": self._vectorizer.dimensions, "sparse": self([])["sparse"].shape[1]}

    def __call__(self, texts: Sequence[str]) -> dict[str, Any]:
        """The vectors of documents, as ``encode_documents``."""
        return self.encode_documents(texts)

    def encode_documents(self, documents: Sequence[str]) -> dict[str, Any]:
        """The vectors of texts that are stored."""
        both = self._encode(documents, "document")
        return {"dense": list(both.dense), "sparse": sp.csr_matrix(never_empty_rows(both.sparse))}

    def encode_queries(self, queries: Sequence[str]) -> dict[str, Any]:
        """The vectors of texts that are searched for, with the model's query prefix."""
        both = self._encode(queries, "query")
        return {"dense": list(both.dense), "sparse": sp.csr_matrix(with_spare_column(both.sparse))}

    def _encode(self, texts: Sequence[str], role: Role) -> HybridEmbeddings:
        encoder, dimensions = self._vectorizer.encoder, self._vectorizer.dimensions
        return encoder.encode(texts, role=role, dimensions=dimensions)


class MilvusHybridIndex(HybridIndex[str]):
    """Documents in a Milvus collection, found by meaning and by words.

    A ``filter`` is an expression such as ``'lang == "en"'``.

    Args:
        location: a file "./name.db" for Milvus Lite, which one process at a time has open; the
            URI of a server; a ``MilvusClient``; or an ``AsyncMilvusClient``, with which only the
            awaited verbs work, such as ``asearch``, but not ``acreate`` in Milvus Lite.
        collection: its name.
        encoder: the model, for documents and queries: its name, or an encoder.
        dimensions: size of the dense vectors, from 1 to ``encoder.dimensions``; None (the default)
            for that of the collection, and in a new one ``encoder.dimensions``.
        coarse_dimensions: size of additional, shorter vectors, below ``dimensions``. They gather
            the dense candidates, four times as many as are kept, which the full ones then rank:
            faster where dense search is, at the risk of missing some. None (the default): search
            with the full ones alone.
        storage: how dense vectors are kept. "float32"; "float16", half the size, scores within
            0.001; or "int8", where a fourth of the size gathers candidates, which the full
            vectors, kept beside, then rank. Milvus Lite keeps "float32" alone.
        retry_seconds: how long ``create``, ``add`` and the verbs that read documents by id, list or
            remove them repeat a request that fails because the server is away or busy; 0 for not
            at all.
        token: the token of the server at a URI: an API key, or "user:password".
        client_options: more for the client that connects to a URI, by the names it has in
            ``MilvusClient``, such as ``{"db_name": "library", "timeout": 30}``.
        payload_indexes: payload keys that ``create`` makes an index of, which filters are fast by:
            ``{"lang": "varchar"}``. The types are varchar, double (all numbers), bool, and
            array_varchar, array_double, array_bool. It needs a server, of version 2.5.13 or newer;
            Milvus Lite has no such indexes, and ``create`` says so.
        tenant_key: a payload key that names the tenant of a document, a string each must have.
            A collection that ``create`` makes is partitioned by it; a filter by it is for the
            search to give.
        collection_options: more for a collection that ``create`` makes, by the names it has in
            ``MilvusClient.create_collection``: "num_shards", "num_partitions" (with a
            ``tenant_key``), "consistency_level" and "properties", such as
            ``{"properties": {"collection.replica.number": 2}}``. Milvus Lite ignores shards.
    """

    engine = "milvus"

    @refuses_foreign
    def __init__(
        self,
        location: str | Path | MilvusClient | AsyncMilvusClient,
        collection: str,
        encoder: Encoder | str | Path,
        *,
        dimensions: int | None = None,
        coarse_dimensions: int | None = None,
        storage: Quantization = "float32",
        retry_seconds: float = 120.0,
        token: str | None = None,
        client_options: Mapping[str, Any] | None = None,
        payload_indexes: Mapping[str, str] | None = None,
        tenant_key: str | None = None,
        collection_options: Mapping[str, Any] | None = None,
    ) -> None:
        vectorizer = MilvusVectorizer(
            encoder, dimensions=dimensions, coarse_dimensions=coarse_dimensions, storage=storage
        )
        vectorizer.limits = with_tenant(vectorizer.limits, tenant_key)
        store = _store(
            location,
            collection,
            storage=storage,
            token=token,
            client_options=client_options,
            payload_indexes=payload_indexes,
            tenant_key=tenant_key,
            collection_options=collection_options,
        )
        super().__init__(vectorizer, store, retry_seconds=retry_seconds)

    def _verify(self, found: Metadata | None) -> None:
        super()._verify(found)
        # Of a collection that is partitioned, whether or not this index was told by what.
        key = getattr(self._store, "tenant_key", None)
        self.vectorizer.limits = replace(self.vectorizer.limits, tenant_key=key)

    @classmethod
    def read_metadata(
        cls,
        location: str | Path | MilvusClient,
        collection: str,
        *,
        token: str | None = None,
        client_options: Mapping[str, Any] | None = None,
    ) -> Metadata | None:
        """What a collection records, as ``metadata`` gives it, without a model.

        None if there is no collection. It makes nothing, and closes what it opened.

        Args:
            location: as of an index, but for an ``AsyncMilvusClient``.
            collection: its name.
            token: as of an index.
            client_options: as of an index.

        Raises:
            CollectionMismatch: the collection was made by something else.
        """
        store = _store(location, collection, token=token, client_options=client_options)
        return read_metadata(store) if store.is_there() else None

    @classmethod
    def collections(
        cls,
        location: str | Path | MilvusClient,
        *,
        token: str | None = None,
        client_options: Mapping[str, Any] | None = None,
    ) -> list[str]:
        """The names of the collections in a place, sorted, whoever made them.

        It makes nothing, and closes what it opened.

        Args:
            location: as of an index, but for an ``AsyncMilvusClient``.
            token: as of an index.
            client_options: as of an index.
        """
        return list_collections(_store(location, "_", token=token, client_options=client_options))


def _store(
    location: object,
    collection: str,
    *,
    storage: Quantization = "float32",
    token: str | None = None,
    client_options: Mapping[str, Any] | None = None,
    payload_indexes: Mapping[str, str] | None = None,
    tenant_key: str | None = None,
    collection_options: Mapping[str, Any] | None = None,
) -> MilvusStore:
    check_collection("collection", collection)
    return MilvusStore(
        Connection(location, token, client_options),
        collection,
        quantization=storage,
        payload_types=payload_types(payload_indexes, tenant_key),
        tenant_key=tenant_key,
        collection_options=check_options(
            "collection_options", collection_options, COLLECTION_OPTIONS
        ),
    )
