"""GTE vectors in Qdrant: ``QdrantVectorizer`` makes them, ``QdrantHybridIndex`` keeps them.

::

    embedder = GTEEmbedder.from_pretrained("demo")
    with QdrantHybridIndex("./index", "docs", embedder) as index:
        index.create()
        index.add([("a", "The seed catalogue"), ("b", "Rules of the chess club")])
        [hits] = index.search("when are tomatoes sown?", limit=1)
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gte_core import Encoder
from gte_core.foreign import refuses_foreign
from gte_integrations._index.checks import check_options, refuse_for
from gte_integrations._index.document import Document
from gte_integrations._index.fusion import RRF, Linear
from gte_integrations._index.index import HybridIndex
from gte_integrations._index.masking import masked
from gte_integrations._index.metadata import (
    Metadata,
    Quantization,
)
from gte_integrations._index.preparation import with_tenant
from gte_integrations._index.qdrant.directory import EdgeStore
from gte_integrations._index.qdrant.embedded import edge
from gte_integrations._index.qdrant.options import (
    DIRECTORY_OPTIONS,
    check_collection,
    payload_schemas,
)
from gte_integrations._index.qdrant.points import searches_of
from gte_integrations._index.records import StoredDocument
from gte_integrations._index.reports import IndexReport
from gte_integrations._index.search import Hit
from gte_integrations._index.store import list_collections, read_metadata
from gte_integrations._index.vectorizer import Vectorizer

# A directory needs neither, and qdrant-client takes long to import.
if TYPE_CHECKING:
    from gte_integrations._index.qdrant.client import AsyncQdrantClient, QdrantClient, models
    from gte_integrations._index.qdrant.client_store import ClientStore

__all__ = [
    "RRF",
    "Document",
    "Hit",
    "IndexReport",
    "Linear",
    "QdrantHybridIndex",
    "QdrantVectorizer",
    "StoredDocument",
]


class QdrantVectorizer(Vectorizer):
    """What a Qdrant client of your own needs: configuration, points and queries.

    The vectors are named ``dense`` and ``sparse``.

    Args:
        encoder: the model: its name, or an encoder.
        dimensions: size of the dense vectors, from 1 to ``encoder.dimensions`` (the default).
        coarse_dimensions: size of additional, shorter vectors, named ``_gte_coarse``, which gather
            candidates for the full ones; None for none.
        storage: how dense vectors are kept: "float32", "float16" or "int8"; see
            ``QdrantHybridIndex``.
    """

    metric = "Dot"

    def comparable_metadata(self) -> Metadata:
        """What a collection must have been made with, the tenant key included if there is one."""
        key = self.limits.tenant_key
        return super().comparable_metadata() | ({} if key is None else {"tenant_key": key})

    def vectors_config(self) -> dict[str, models.VectorParams]:
        """The dense vector, for ``create_collection(vectors_config=...)``; empty without one."""
        from gte_integrations._index.qdrant.client_points import dense_config

        return dense_config(self.comparable_metadata())

    def sparse_vectors_config(self) -> dict[str, models.SparseVectorParams]:
        """The sparse vector; empty for a model without a sparse head."""
        from gte_integrations._index.qdrant.client_points import sparse_config

        return sparse_config(self.comparable_metadata())

    def points(self, documents: Iterable[object]) -> list[models.PointStruct]:
        """Embed documents, in any form that ``QdrantHybridIndex.add`` takes, in one call.

        A point's id is a UUID made of the document's id, which stays in the payload as
        ``_gte_id``. A text without positive token weights gets no sparse vector.
        """
        from gte_integrations._index.qdrant.client_points import to_point

        return [to_point(record) for record in self.records(documents)]

    def prefetches(
        self, queries: str | Sequence[str], *, candidates: int = 100
    ) -> list[list[models.Prefetch]]:
        """Each query's searches, dense then sparse, for ``query_points(prefetch=...)``.

        What the model does not give is left out, and the sparse one of a query without positive
        token weights.
        """
        from gte_integrations._index.qdrant.client_points import prefetch, sparse_vector

        searches = searches_of(self.query_vectors(queries, self.default_mode), sparse_vector)
        return [[prefetch(one, candidates, self.storage) for one in query] for query in searches]


class QdrantHybridIndex(HybridIndex[Any]):
    """Documents in a Qdrant collection, found by meaning and by words.

    A ``filter`` is a ``qdrant_client.models.Filter``, wherever the collection is. Its
    ``has_id`` means the ids that documents were added with, not the ids of points. A directory also
    takes a ``qdrant_edge.Filter``, as it is: there ``HasIdCondition`` means the ids of points.

    Args:
        location: a directory, where Qdrant's engine runs inside this process and one process at a
            time has a collection open (not a directory of ``QdrantClient(path=...)``, which keeps
            its data in another way); "http://..." or "https://..." of a server; a
            ``QdrantClient``; or an ``AsyncQdrantClient``, with which only the awaited verbs work,
            such as ``asearch``.
            Collections made here need a server of version 1.16 or newer.
        collection: its name: letters, digits, "_", "-" and ".", up to 255 bytes in UTF-8.
        encoder: the model, for documents and queries: its name, or an encoder.
        dimensions: size of the dense vectors, from 1 to ``encoder.dimensions``; None (the default)
            for that of the collection, and in a new one ``encoder.dimensions``.
        coarse_dimensions: size of additional, shorter vectors, below ``dimensions``. They gather
            the dense candidates, four times as many as are kept, which the full ones then rank:
            faster where dense search is, at the risk of missing some. None (the default): search
            with the full ones alone.
        storage: how dense vectors are kept. "float32"; "float16", half the size, scores within
            0.001; or "int8", where a fourth of the size gathers candidates, which the full
            vectors, kept beside, then rank. A directory makes use of "int8" after
            ``optimize()``, and the client's own local mode keeps "float32" whatever is asked.
        retry_seconds: how long ``create``, ``add`` and the verbs that read documents by id, list or
            remove them repeat a request that fails because the server is away or busy; 0 for not
            at all.
        api_key: the key of the server at a URL.
        client_options: more for the client that connects to a URL, by the names it has in
            ``QdrantClient``, such as ``{"timeout": 30, "prefer_grpc": True}``, or in
            ``httpx.Client``, such as ``{"verify": "ca.pem"}``.
        payload_indexes: payload keys that ``create`` makes an index of, which filters are fast by
            and strict servers demand: ``{"lang": "keyword"}``. The types are keyword, integer,
            float, bool, datetime, text, uuid and geo; parameters such as
            ``models.TextIndexParams(...)`` say more, in a directory those of ``qdrant_edge``. The
            client's own local mode makes none.
        tenant_key: a payload key that names the tenant of a document, a string each must have.
            ``create`` makes an index of it that keeps a tenant's documents together, and records
            it; a filter by it is for the search to give.
        collection_options: more for a collection that ``create`` makes, by the names it has in
            ``QdrantClient.create_collection``, such as ``{"shard_number": 2,
            "replication_factor": 2}``; in a directory, in ``qdrant_edge.EdgeConfig``.
    """

    engine = "qdrant"

    @refuses_foreign
    def __init__(
        self,
        location: str | Path | QdrantClient | AsyncQdrantClient,
        collection: str,
        encoder: Encoder | str | Path,
        *,
        dimensions: int | None = None,
        coarse_dimensions: int | None = None,
        storage: Quantization = "float32",
        retry_seconds: float = 120.0,
        api_key: str | None = None,
        client_options: Mapping[str, Any] | None = None,
        payload_indexes: Mapping[str, Any] | None = None,
        tenant_key: str | None = None,
        collection_options: Mapping[str, Any] | None = None,
    ) -> None:
        vectorizer = QdrantVectorizer(
            encoder, dimensions=dimensions, coarse_dimensions=coarse_dimensions, storage=storage
        )
        vectorizer.limits = with_tenant(vectorizer.limits, tenant_key)
        store = _store(
            location,
            collection,
            storage=storage,
            api_key=api_key,
            client_options=client_options,
            payload_indexes=payload_indexes,
            tenant_key=tenant_key,
            collection_options=collection_options,
        )
        super().__init__(vectorizer, store, retry_seconds=retry_seconds)

    def _verify(self, found: Metadata | None) -> None:
        super()._verify(found)
        # Of a collection that records one, whether or not this index was told it.
        key = (found or {}).get("tenant_key")
        if isinstance(key, str):
            self.vectorizer.limits = with_tenant(self.vectorizer.limits, key)

    @classmethod
    def read_metadata(
        cls,
        location: str | Path | QdrantClient,
        collection: str,
        *,
        api_key: str | None = None,
        client_options: Mapping[str, Any] | None = None,
    ) -> Metadata | None:
        """What a collection records, as ``metadata`` gives it, without a model.

        None if there is no collection. It makes nothing, and closes what it opened.

        Args:
            location: as of an index, but for an ``AsyncQdrantClient``.
            collection: its name.
            api_key: as of an index.
            client_options: as of an index.

        Raises:
            CollectionMismatch: the collection was made by something else.
        """
        store = _store(location, collection, api_key=api_key, client_options=client_options)
        return read_metadata(store)

    @classmethod
    def collections(
        cls,
        location: str | Path | QdrantClient,
        *,
        api_key: str | None = None,
        client_options: Mapping[str, Any] | None = None,
    ) -> list[str]:
        """The names of the collections in a place, sorted, whoever made them.

        It makes nothing, and closes what it opened.

        Args:
            location: as of an index, but for an ``AsyncQdrantClient``.
            api_key: as of an index.
            client_options: as of an index.
        """
        return list_collections(
            _store(location, "_", api_key=api_key, client_options=client_options)
        )


def _store(
    location: object,
    collection: str,
    *,
    storage: Quantization = "float32",
    api_key: str | None = None,
    client_options: Mapping[str, Any] | None = None,
    payload_indexes: Mapping[str, Any] | None = None,
    tenant_key: str | None = None,
    collection_options: Mapping[str, Any] | None = None,
) -> ClientStore | EdgeStore:
    check_collection("collection", collection)
    place = str(os.fspath(location)) if isinstance(location, (str, os.PathLike)) else None
    if place is not None and not place.startswith(("http://", "https://")):
        directory = _directory(place)
        refuse_for("a directory", api_key=api_key, client_options=client_options)
        return EdgeStore(
            directory,
            collection,
            quantization=storage,
            payload_schemas=payload_schemas(payload_indexes, tenant_key, edge),
            collection_options=check_options(
                "collection_options", collection_options, DIRECTORY_OPTIONS
            ),
        )
    from gte_integrations._index.qdrant import client  # only for a client
    from gte_integrations._index.qdrant import client_options as names
    from gte_integrations._index.qdrant.client_store import ClientStore

    connected = names.client_at(place or location, api_key, client_options)
    return ClientStore(
        connected,
        collection,
        quantization=storage,
        owned=connected is not location,
        payload_schemas=payload_schemas(payload_indexes, tenant_key, client.models),
        collection_options=check_options(
            "collection_options", collection_options, names.COLLECTION_OPTIONS
        ),
    )


def _directory(place: str) -> Path:
    if not place or re.search(r"://|:\d+$|^:memory:$", place):
        raise ValueError(
            f"location is {masked(place)!r}, but must be a directory, a URL that begins with "
            'http:// or https://, or a QdrantClient, such as QdrantClient(":memory:").'
        )
    path = Path(place)
    if path.exists() and not path.is_dir():
        raise NotADirectoryError(
            f"location is {place!r}, which is a file; name a directory, in which each collection "
            "gets one of its own."
        )
    return path
