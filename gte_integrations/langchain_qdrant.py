"""The sparse half of GTE for LangChain's ``QdrantVectorStore``."""

from __future__ import annotations

import asyncio
from typing import Any

try:
    from langchain_qdrant import RetrievalMode
    from langchain_qdrant.sparse_embeddings import SparseEmbeddings, SparseVector
except ImportError as error:
    raise ImportError(
        "gte_integrations.langchain_qdrant needs langchain-qdrant; "
        "pip install 'gte-integrations[langchain-qdrant]'"
    ) from error

from gte_integrations._encoder_fields import EncoderFields, check_query
from gte_integrations._index.sparse import sparse_lists


class GTEQdrantSparse(EncoderFields, SparseEmbeddings):
    """Sparse GTE vectors for ``QdrantVectorStore(sparse_embedding=...)``.

    With the settings of a ``GTEEmbeddings`` it finds the vectors that one's pass left behind, so
    a hybrid store costs one pass. ``dimensions`` is of the dense half and not read here.
    """

    def embed_documents(self, texts: list[str]) -> list[SparseVector]:
        """Sparse vectors of texts; ids sorted and unique, weights positive, possibly none."""
        return _as_vectors(self.encoder.encode_sparse(texts))

    def embed_query(self, text: str) -> SparseVector:
        """Sparse vector of a query."""
        check_query(text)
        return _as_vectors(self.encoder.encode_sparse(text, role="query"))[0]

    async def aembed_documents(self, texts: list[str]) -> list[SparseVector]:
        """``embed_documents`` off the event loop."""
        return await asyncio.to_thread(_as_vectors, await self.encoder.aencode_sparse(texts))

    async def aembed_query(self, text: str) -> SparseVector:
        """``embed_query`` off the event loop."""
        check_query(text)
        return _as_vectors(await self.encoder.aencode_sparse(text, role="query"))[0]


def store_options(embeddings: EncoderFields) -> dict[str, Any]:
    """What ``GTEEmbeddings.qdrant_options`` gives."""
    return {
        "embedding": embeddings,
        "sparse_embedding": GTEQdrantSparse(**embeddings.arguments()),
        "retrieval_mode": RetrievalMode.HYBRID,
    }


def _as_vectors(matrix: Any) -> list[SparseVector]:
    return [SparseVector(indices=ids, values=weights) for ids, weights in sparse_lists(matrix)]
