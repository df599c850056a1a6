"""Why a document matches a query: the tokens they share and what each adds to the score."""

from __future__ import annotations

from collections.abc import Callable, Mapping
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

    @classmethod
    def of(
        cls,
        dense_score: float,
        query: Mapping[int, float],
        document: Mapping[int, float],
        *,
        name: Callable[[int], str],
        dense_weight: float,
        sparse_weight: float,
    ) -> Explanation:
        """Compare sparse weights by token id; ``name`` says what to call an id."""
        shared = [
            TokenContribution(name(i), i, weight, document[i], weight * document[i])
            for i, weight in query.items()
            if i in document
        ]
        return cls(
            dense_score=dense_score,
            sparse_score=sum(token.contribution for token in shared),
            dense_weight=dense_weight,
            sparse_weight=sparse_weight,
            tokens=tuple(sorted(shared, key=lambda token: -token.contribution)),
        )

    @classmethod
    def between(
        cls,
        query: HybridEmbeddings,
        document: HybridEmbeddings,
        *,
        name: Callable[[int], str],
        dense_weight: float,
        sparse_weight: float,
    ) -> Explanation:
        """Compare the vectors of two texts; ``name`` says what to call an id."""
        query_weights, document_weights = (
            dict(zip(ids.tolist(), weights.tolist(), strict=True))
            for part in (query, document)
            for _, ids, weights in part.rows()
        )
        return cls.of(
            float(query.dense[0] @ document.dense[0]),
            query_weights,
            document_weights,
            name=name,
            dense_weight=dense_weight,
            sparse_weight=sparse_weight,
        )

    @property
    def score(self) -> float:
        """The weighted sum of both parts."""
        return self.dense_weight * self.dense_score + self.sparse_weight * self.sparse_score
