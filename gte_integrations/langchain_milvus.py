"""The sparse half of GTE for LangChain's ``Milvus``, and settings that work on Lite and servers."""

from __future__ import annotations

import asyncio
from copy import deepcopy
from typing import Any

try:
    from langchain_milvus.utils.sparse import BaseSparseEmbedding
except ImportError as error:
    raise ImportError(
        "gte_integrations.langchain_milvus needs langchain-milvus; "
        "pip install 'gte-integrations[langchain-milvus]'"
    ) from error

from typing_extensions import deprecated

from gte_integrations._encoder_fields import EncoderFields, check_query
from gte_integrations._index.sparse import sparse_dicts, stored_dicts

# Index 0 is of the dense half, 1 of the sparse one.
_STORE_OPTIONS: dict[str, Any] = {
    "vector_field": ["dense", "sparse"],
    "index_params": [
        {"metric_type": "IP", "index_type": "AUTOINDEX", "params": {}},
        {"metric_type": "IP", "index_type": "SPARSE_INVERTED_INDEX", "params": {}},
    ],
    "search_params": [{"metric_type": "IP", "params": {}} for _ in range(2)],
    "enable_dynamic_field": True,
}


class GTEMilvusSparse(EncoderFields, BaseSparseEmbedding):
    """Sparse GTE vectors for ``Milvus(embedding_function=[GTEEmbeddings(...), ...])``.

    With the settings of a ``GTEEmbeddings`` it finds the vectors that one's pass left behind, so
    a hybrid store costs one pass. ``dimensions`` is of the dense half and not read here.
    """

    def embed_documents(self, texts: list[str]) -> list[dict[int, float]]:
        """``{token id: weight}`` of texts; never empty, which not every Milvus takes."""
        return stored_dicts(self.encoder.encode_sparse(texts))

    def embed_query(self, query: str) -> dict[int, float]:
        """``{token id: weight}`` of a query, {} if no token has weight."""
        check_query(query)
        return sparse_dicts(self.encoder.encode_sparse(query, role="query"))[0]

    async def aembed_documents(self, texts: list[str]) -> list[dict[int, float]]:
        """``embed_documents`` off the event loop."""
        return await asyncio.to_thread(stored_dicts, await self.encoder.aencode_sparse(texts))

    async def aembed_query(self, query: str) -> dict[int, float]:
        """``embed_query`` off the event loop."""
        check_query(query)
        return sparse_dicts(await self.encoder.aencode_sparse(query, role="query"))[0]


def store_options(embeddings: EncoderFields) -> dict[str, Any]:
    """What ``GTEEmbeddings.milvus_options`` gives.

    LangChain's own defaults drop the smallest weights, which Milvus Lite refuses, rank dense
    vectors by distance, and take the metadata columns from the first document alone.
    """
    return {
        "embedding_function": [embeddings, GTEMilvusSparse(**embeddings.arguments())],
        **deepcopy(_STORE_OPTIONS),
    }


@deprecated("milvus_settings is deprecated; pass **GTEEmbeddings(...).milvus_options() to Milvus.")
def milvus_settings() -> dict[str, Any]:
    """Deprecated: ``GTEEmbeddings.milvus_options`` without the embedding functions."""
    return deepcopy(_STORE_OPTIONS)
