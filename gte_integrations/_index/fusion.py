"""From the hits of two searches to one ranking; the same for every engine."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

DocumentId = str | int
ScoredIds = Sequence[tuple[DocumentId, float]]
"""The hits of one search, dense or sparse: ``(id, score)``, higher is better."""


@dataclass(frozen=True, slots=True)
class Linear:
    """``dense_weight * dense + sparse_weight * sparse``, 0 for a search that missed the document.

    The model's own rule (arXiv 2407.19669); the default weight is the upper end of its range.
    """

    dense_weight: float = 1.0
    sparse_weight: float = 0.01

    def __post_init__(self) -> None:
        _check_weights(self.dense_weight, self.sparse_weight)

    def share(self, weight: float, *, rank: int, score: float) -> float:
        """What a hit with this rank and score adds to the total."""
        return weight * score


@dataclass(frozen=True, slots=True)
class RRF:
    """Reciprocal rank fusion: the sum of ``weight / (k + rank)``, ranks counted from 1."""

    k: int = 60
    dense_weight: float = 1.0
    sparse_weight: float = 1.0

    def __post_init__(self) -> None:
        _check_weights(self.dense_weight, self.sparse_weight)
        if isinstance(self.k, bool) or not isinstance(self.k, int) or self.k < 0:
            raise ValueError(f"k is {self.k!r}, but must be an integer of at least 0; 60 is usual.")

    def share(self, weight: float, *, rank: int, score: float) -> float:
        """What a hit with this rank and score adds to the total."""
        return weight / (self.k + rank)


Fusion = Linear | RRF


@dataclass(frozen=True, slots=True)
class Fused:
    """One line of a fused ranking; a part score is None where that search missed the document."""

    id: DocumentId
    score: float
    dense_score: float | None
    sparse_score: float | None


def fuse(
    dense_hits: ScoredIds, sparse_hits: ScoredIds, fusion: Fusion, limit: int | None = None
) -> list[Fused]:
    """The best ``limit`` documents of both searches together, or all, best first, ties by id.

    The hits need no order: ranks are taken from the scores, ties again by id, so that no engine's
    order of equal scores shows in the result.
    """
    totals: defaultdict[DocumentId, float] = defaultdict(float)
    weighted = ((dense_hits, fusion.dense_weight), (sparse_hits, fusion.sparse_weight))
    for hits, weight in weighted:
        for rank, (document_id, score) in enumerate(best(hits), start=1):
            totals[document_id] += fusion.share(weight, rank=rank, score=score)
    dense, sparse = dict(dense_hits), dict(sparse_hits)
    return [
        Fused(key, score, dense.get(key), sparse.get(key))
        for key, score in best(totals.items(), limit)
    ]


def best(hits: Iterable[tuple[DocumentId, float]], limit: int | None = None) -> ScoredIds:
    """The best ``limit`` hits, or all, best first, ties by id: integers, then strings."""
    return sorted(hits, key=_best_first)[:limit]


def _best_first(hit: tuple[DocumentId, float]) -> tuple[float, bool, DocumentId]:
    document_id, score = hit
    return -score, isinstance(document_id, str), document_id


def _check_weights(dense_weight: float, sparse_weight: float) -> None:
    for name, weight in (("dense_weight", dense_weight), ("sparse_weight", sparse_weight)):
        if not (math.isfinite(weight) and weight >= 0):
            raise ValueError(f"{name} is {weight!r}, but must be a finite number of at least 0.")
    if dense_weight == sparse_weight == 0:
        raise ValueError("Both weights are 0, so nothing would be ranked; set one above 0.")
