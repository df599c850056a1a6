"""The sparse half of GTE for LlamaIndex's ``QdrantVectorStore``, and a fusion that suits it.

::

    store = QdrantVectorStore("docs", client=client, **embedding.qdrant_options())
"""

from __future__ import annotations

from typing import Any

try:
    import llama_index.vector_stores.qdrant as _store  # noqa: F401  what the extra brings
    from llama_index.core.vector_stores.types import VectorStoreQueryResult
except ImportError as error:
    raise ImportError(
        "gte_integrations.llama_index_qdrant needs llama-index-vector-stores-qdrant; "
        "pip install 'gte-integrations[llama-index-qdrant]'"
    ) from error

from typing_extensions import deprecated

from gte_core import CachingEncoder
from gte_integrations._index.fusion import RRF, fuse
from gte_integrations._index.sparse import sparse_lists

SparseVectors = tuple[list[list[int]], list[list[float]]]


@deprecated("qdrant_settings is deprecated; use the embedding's own qdrant_options().")
def qdrant_settings(embedding: Any) -> dict[str, Any]:
    """Deprecated: ``embedding.qdrant_options()``."""
    options: dict[str, Any] = embedding.qdrant_options()
    return options


def store_options(encoder: CachingEncoder) -> dict[str, Any]:
    """What ``GTEEmbedding.qdrant_options`` gives for its encoder."""

    def encode_documents(texts: list[str]) -> SparseVectors:
        return _unzipped(encoder.encode_sparse(texts))

    def encode_queries(texts: list[str]) -> SparseVectors:
        return _unzipped(encoder.encode_sparse(texts, role="query"))

    return {
        "enable_hybrid": True,
        "sparse_doc_fn": encode_documents,
        "sparse_query_fn": encode_queries,
        "hybrid_fusion_fn": reciprocal_rank_fusion,
    }


def reciprocal_rank_fusion(
    dense_result: VectorStoreQueryResult,
    sparse_result: VectorStoreQueryResult,
    alpha: float | None = 0.5,
    top_k: int = 2,
) -> VectorStoreQueryResult:
    """Fuse by rank: ``alpha / (60 + dense rank) + (1 - alpha) / (60 + sparse rank)``.

    Right for results of a single hit, and for an ``alpha`` of 0 (words alone) or 1 (meaning
    alone), where the store's own fusion of scores is not.
    """
    alpha = 0.5 if alpha is None else alpha
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha is {alpha!r}, but must be from 0 (sparse) to 1 (dense).")
    nodes = {node.node_id: node for r in (sparse_result, dense_result) for node in r.nodes or ()}
    dense, sparse = (_hits(r) for r in (dense_result, sparse_result))
    fusion = RRF(dense_weight=alpha, sparse_weight=1 - alpha)
    found = fuse(dense if alpha > 0 else [], sparse if alpha < 1 else [], fusion, top_k)
    return VectorStoreQueryResult(
        nodes=[nodes[str(hit.id)] for hit in found],
        similarities=[hit.score for hit in found],
        ids=[str(hit.id) for hit in found],
    )


def _hits(result: VectorStoreQueryResult) -> list[tuple[str | int, float]]:
    ids = [node.node_id for node in result.nodes or ()]
    # Without scores, the order is the ranking.
    scores = result.similarities or [float(-rank) for rank in range(len(ids))]
    return list(zip(ids, scores, strict=True))


def _unzipped(matrix: Any) -> SparseVectors:
    rows = sparse_lists(matrix)
    return [ids for ids, _ in rows], [weights for _, weights in rows]
