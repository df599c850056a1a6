"""Scores of pairs as the script that the model's authors published gives them."""

from __future__ import annotations

import numpy as np

from gte_core.embeddings import Floats, HybridEmbeddings


def pair_scores(
    queries: HybridEmbeddings,
    documents: HybridEmbeddings,
    *,
    dense_weight: float,
    sparse_weight: float,
) -> Floats:
    """Score every query with the document in its row, float32 ``(n,)``.

    Ids that decode to the same string count as one token.
    """
    scores = dense_weight * np.einsum("ij,ij->i", queries.dense, documents.dense)
    if sparse_weight:
        pairs = ((queries.token_weights(i), documents.token_weights(i)) for i in range(len(scores)))
        scores = scores + sparse_weight * np.array([_dot(*pair) for pair in pairs])
    return np.asarray(scores, dtype=np.float32)


def _dot(one: dict[str, float], other: dict[str, float]) -> float:
    return sum(weight * other[token] for token, weight in one.items() if token in other)
