"""Explains the scores of documents by the vectors that a store holds."""

from __future__ import annotations

from collections.abc import Mapping

from gte_core import Explanation, HybridEmbeddings
from gte_integrations._index.fusion import DocumentId, Linear
from gte_integrations._index.records import StoredVectors
from gte_integrations._index.sparse import sparse_dicts


def explain(
    query: HybridEmbeddings, documents: Mapping[DocumentId, StoredVectors], fusion: Linear
) -> dict[DocumentId, Explanation]:
    """Compare the vectors of one query with those of each document, which are of the same size."""
    [dense], [weights] = query.dense, sparse_dicts(query.sparse)
    return {
        document_id: Explanation.of(
            float(dense @ stored.dense),
            weights,
            stored.weights,
            name=query.decode_token,
            dense_weight=fusion.dense_weight,
            sparse_weight=fusion.sparse_weight,
        )
        for document_id, stored in documents.items()
    }
