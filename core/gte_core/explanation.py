"""Why a document matches a query: the tokens they share and what each adds to the score."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from gte_core.embeddings import HybridEmbeddings


@dataclass(frozen=True, slots=True)
class TokenContribution:
    """One token that query and document share.

    ``contribution`` is ``query_weight * document_weight``, its share of the sparse score.
    """

    token: str
    token_id: int
    query_weight: float
    document_weight: float
    contribution: float


@dataclass(frozen=True, slots=True)
class Explanation:
    """A score taken apart: ``dense_weight * dense_score + sparse_weight * sparse_score``.

    ``tokens`` are the shared tokens by token id, the largest contribution first; their
    contributions add up to ``sparse_score``.
    """

    dense_score: float
    sparse_score: float
    dense_weight: float
    sparse_weight: float
    tokens: tuple[TokenContribution, ...]

    @property
    def score(self) -> float:
        """The weighted sum of both parts."""
        return self.dense_weight * self.dense_score + self.sparse_weight * self.sparse_score


def explain(
    query: HybridEmbeddings,
    document: HybridEmbeddings,
    *,
    piece: Callable[[int], str],
    dense_weight: float,
    sparse_weight: float,
) -> Explanation:
    """Compare the first text of ``query`` with the first of ``document``, by token id.

    ``piece`` names an id for the reader.
    """
    query_dense, query_ids, query_weights = next(query.rows())
    dense, ids, weights = next(document.rows())
    of_document = dict(zip(ids.tolist(), weights.tolist(), strict=True))
    shared = [
        TokenContribution(piece(i), i, weight, of_document[i], weight * of_document[i])
        for i, weight in zip(query_ids.tolist(), query_weights.tolist(), strict=True)
        if i in of_document
    ]
    return Explanation(
        dense_score=float(query_dense @ dense),
        sparse_score=sum(token.contribution for token in shared),
        dense_weight=dense_weight,
        sparse_weight=sparse_weight,
        tokens=tuple(sorted(shared, key=lambda token: -token.contribution)),
    )
