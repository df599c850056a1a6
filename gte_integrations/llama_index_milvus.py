"""LlamaIndex's ``MilvusVectorStore`` with the sparse half of GTE, one pass a text.

The store of LlamaIndex encodes sparse vectors node by node, of the text without its metadata,
which is not what the dense half sees, and on the event loop. ``GTEMilvusVectorStore`` mends that.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

try:
    from llama_index.vector_stores.milvus import MilvusVectorStore
    from llama_index.vector_stores.milvus.utils import BaseSparseEmbeddingFunction
except ImportError as error:
    raise ImportError(
        "gte_integrations.llama_index_milvus needs llama-index-vector-stores-milvus; "
        "pip install 'gte-integrations[llama-index-milvus]'"
    ) from error

from llama_index.core.schema import BaseNode, MetadataMode
from llama_index.core.vector_stores.types import VectorStoreQuery

from gte_core import CachingEncoder, Encoder, as_encoder, shared_encoder
from gte_integrations._index.sparse import sparse_dicts, stored_dicts
from gte_integrations.llama_index import GTEEmbedding

SparseVector = dict[int, float]
SearchResult = tuple[list[BaseNode], list[float], list[str]]

# Vectors of the nodes that the store is about to ask for by their texts, which lack the metadata.
_UPCOMING: ContextVar[_Upcoming | None] = ContextVar("upcoming", default=None)


class GTESparseFunction(BaseSparseEmbeddingFunction):
    """Sparse GTE vectors for ``MilvusVectorStore(sparse_embedding_function=...)``.

    Args:
        encoder: the name of a model, or an encoder.
    """

    def __init__(self, encoder: Encoder | str | Path) -> None:
        self.encoder = shared_encoder(as_encoder(encoder))

    def encode_queries(self, queries: list[str]) -> list[SparseVector]:
        """``{token id: weight}`` of queries, {} if no token has weight."""
        return sparse_dicts(self.encoder.encode_sparse(queries, role="query"))

    async def async_encode_queries(self, queries: list[str]) -> list[SparseVector]:
        """``encode_queries`` off the event loop."""
        return sparse_dicts(await self.encoder.aencode_sparse(queries, role="query"))

    def encode_documents(self, documents: list[str]) -> list[SparseVector]:
        """``{token id: weight}`` of texts; never empty, which not every Milvus takes."""
        upcoming = _UPCOMING.get()
        if upcoming is not None:
            return [upcoming.vector(text) for text in documents]
        return stored_dicts(self.encoder.encode_sparse(documents))

    async def async_encode_documents(self, documents: list[str]) -> list[SparseVector]:
        """``encode_documents`` off the event loop."""
        return await asyncio.to_thread(stored_dicts, await self.encoder.aencode_sparse(documents))


class GTEMilvusVectorStore(MilvusVectorStore):
    """A hybrid ``MilvusVectorStore`` for a ``GTEEmbedding``.

    Args:
        embedding: the embed model of the index; gives the size and the sparse half.
        uri: ``"./file.db"`` for Milvus Lite or the URI of a server.
        token: of a server that wants one.
        collection_name: its name.
        overwrite: drop a collection of this name first.
        upsert_mode: replace nodes of the same id.
        batch_size: nodes in a request.
        rrf_k: the k of reciprocal rank fusion in hybrid queries.
        use_async_client: also open the client for asynchronous calls, which belong to the event
            loop that is first used.
        store_options: further arguments of ``MilvusVectorStore``, such as ``db_name``,
            ``server_pem_path`` and ``output_fields``; it refuses none, and hands those that it does
            not know to the client.

    Hybrid queries gather ``similarity_top_k`` nodes of each kind.
    """

    def __init__(
        self,
        embedding: GTEEmbedding,
        *,
        uri: str = "./milvus_llamaindex.db",
        token: str = "",
        collection_name: str = "llamacollection",
        overwrite: bool = False,
        upsert_mode: bool = False,
        batch_size: int = 100,
        rrf_k: int = 60,
        use_async_client: bool = True,
        **store_options: Any,
    ) -> None:
        if not isinstance(embedding, GTEEmbedding):
            raise TypeError(
                f"embedding is a {type(embedding).__name__}, but must be a GTEEmbedding, whose "
                "model gives the sparse half too; GTEEmbedding(encoder=...) takes another."
            )
        embedding.encoder.require_dense_head()
        embedding.encoder.require_sparse_head()
        super().__init__(
            **store_options,
            uri=uri,
            token=token,
            collection_name=collection_name,
            dim=embedding.dimensions or embedding.encoder.dimensions,
            overwrite=overwrite,
            upsert_mode=upsert_mode,
            batch_size=batch_size,
            similarity_metric="IP",
            enable_sparse=True,
            sparse_embedding_function=GTESparseFunction(embedding.encoder),
            sparse_index_config={
                "index_type": "SPARSE_INVERTED_INDEX",
                "metric_type": "IP",
                "params": {},
            },
            hybrid_ranker="RRFRanker",
            hybrid_ranker_params={"k": rrf_k},
            use_async_client=use_async_client,
        )

    @classmethod
    def class_name(cls) -> str:
        """The name under which it is known."""
        return "GTEMilvusVectorStore"

    def add(self, nodes: list[BaseNode], **add_kwargs: Any) -> list[str]:
        """Add nodes that have their dense vectors; their sparse ones come from the same pass."""
        nodes = list(nodes)  # read more than once
        vectors = stored_dicts(self._encoder.encode_sparse(_embedded_texts(nodes)))
        with _announced(nodes, vectors):
            return list(super().add(nodes, **add_kwargs))

    async def async_add(self, nodes: list[BaseNode], **add_kwargs: Any) -> list[str]:
        """``add`` without blocking the event loop."""
        nodes = list(nodes)
        matrix = await self._encoder.aencode_sparse(_embedded_texts(nodes))
        vectors = await asyncio.to_thread(stored_dicts, matrix)
        with _announced(nodes, vectors):
            return list(await super().async_add(nodes, **add_kwargs))

    def _sparse_search(
        self, query: VectorStoreQuery, string_expr: str, output_fields: list[str], **kwargs: Any
    ) -> SearchResult:
        [vector] = self._sparse_function.encode_queries([query.query_str or ""])
        found = self.client.search(
            **self._sparse_request(vector, query, string_expr, output_fields, **kwargs)
        )
        return self._parsed(found)

    async def _async_sparse_search(
        self, query: VectorStoreQuery, string_expr: str, output_fields: list[str], **kwargs: Any
    ) -> SearchResult:
        [vector] = await self._sparse_function.async_encode_queries([query.query_str or ""])
        found = await self.aclient.search(
            **self._sparse_request(vector, query, string_expr, output_fields, **kwargs)
        )
        return self._parsed(found)

    def _sparse_request(
        self,
        vector: SparseVector,
        query: VectorStoreQuery,
        string_expr: str,
        output_fields: list[str],
        milvus_partition_names: list[str] | None = None,
        **_unused: Any,
    ) -> dict[str, Any]:
        # The base class asks for drop_ratio_search, which loses weights and which Lite refuses.
        return {
            "collection_name": self.collection_name,
            "data": [vector],
            "anns_field": self.sparse_embedding_field,
            "limit": query.similarity_top_k,
            "filter": string_expr,
            "output_fields": output_fields,
            "search_params": {"metric_type": "IP"},
            "partition_names": milvus_partition_names,
        }

    def _parsed(self, found: Any) -> SearchResult:
        nodes, similarities, ids = self._parse_from_milvus_results(found)
        return nodes, similarities, ids

    @property
    def _sparse_function(self) -> GTESparseFunction:
        function = self.sparse_embedding_function
        assert isinstance(function, GTESparseFunction)  # noqa: S101  set by the constructor
        return function

    @property
    def _encoder(self) -> CachingEncoder:
        return self._sparse_function.encoder


def _embedded_texts(nodes: list[BaseNode]) -> list[str]:
    return [node.get_content(metadata_mode=MetadataMode.EMBED) for node in nodes]


class _Upcoming:
    """Sparse vectors by the text of their node, in whatever order they are asked for."""

    def __init__(self, nodes: Sequence[BaseNode], vectors: Sequence[SparseVector]) -> None:
        self._vectors: defaultdict[str, deque[SparseVector]] = defaultdict(deque)
        for node, vector in zip(nodes, vectors, strict=True):
            self._vectors[node.get_content(metadata_mode=MetadataMode.NONE)].append(vector)

    def vector(self, text: str) -> SparseVector:
        """The vector of a node with this text; of several such nodes, in their order."""
        if text not in self._vectors:
            raise ValueError(
                f"MilvusVectorStore asks for the sparse vector of {text!r:.80}, which is the text "
                "of none of the nodes given; this version of llama-index-vector-stores-milvus "
                "does not work with GTEMilvusVectorStore, 1.2 does."
            )
        waiting = self._vectors[text]
        return waiting.popleft() if len(waiting) > 1 else waiting[0]


@contextmanager
def _announced(nodes: Sequence[BaseNode], vectors: Sequence[SparseVector]) -> Iterator[None]:
    token = _UPCOMING.set(_Upcoming(nodes, vectors))
    try:
        yield
    finally:
        _UPCOMING.reset(token)
