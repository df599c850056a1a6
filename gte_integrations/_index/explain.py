"""Explains the scores of documents by the vectors that a store holds."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from gte_core import Encoder, Explanation
from gte_integrations._index.fusion import DocumentId, Linear
from gte_integrations._index.records import StoredVectors
from gte_integrations._index.sparse import sparse_dicts


def explain(
    encoder: Encoder, query: str, documents: Mapping[DocumentId, StoredVectors], fusion: Linear
) -> dict[DocumentId, Explanation]:
    """Encode the query once, in the size of the stored vectors, and compare it with each."""
    if not documents:
        return {}
    size = len(next(iter(documents.values())).dense)
    weights: dict[int, float] = {}
    name: Callable[[int], str] = str
    if encoder.has_sparse:
        both = encoder.encode(query, role="query", dimensions=size)
        dense, name = both.dense[0], both.decode_token
        [weights] = sparse_dicts(both.sparse)
    else:
        dense = encoder.encode_dense(query, role="query", dimensions=size)[0]
    return {
        document_id: Explanation.of(
            float(dense @ stored.dense),
            weights,
            stored.weights,
            name=name,
            dense_weight=fusion.dense_weight,
            sparse_weight=fusion.sparse_weight,
        )
        for document_id, stored in documents.items()
    }
