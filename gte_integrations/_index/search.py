"""From query vectors to hits: search by both kinds, settle ties by id, fuse, fetch the texts."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar

from gte_integrations._index.fusion import DocumentId, Fused, Fusion, ScoredIds, best, fuse
from gte_integrations._index.vectorizer import Queries

FilterT = TypeVar("FilterT")
FilterT_contra = TypeVar("FilterT_contra", contravariant=True)

MAX_DEPTH = 16_384  # the most hits that Milvus gives
_COARSE_FACTOR = 4
_WIDER = 4
OVERSAMPLING = 2  # times the hits wanted: what int8 vectors gather for the full ones to rank
_QUERIES_PER_REQUEST = 100
_PLAIN_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True, slots=True)
class Hit:
    """A document found by ``search``.

    ``score`` is what the ranking goes by; ``dense_score`` (cosine) and ``sparse_score`` (dot
    product) are None where that search missed the document or was not asked.
    """

    id: DocumentId
    score: float
    text: str
    payload: Mapping[str, Any]
    dense_score: float | None
    sparse_score: float | None


class Source(Protocol[FilterT_contra]):
    """Where documents are found and read."""

    def hits(
        self, queries: Queries, limit: int, condition: FilterT_contra | None
    ) -> tuple[list[ScoredIds], list[ScoredIds]]:
        """The best ``limit`` of each query by dense and by sparse vector, [] where that is None.

        With coarse vectors, the dense ones rank what ``gathered(limit)`` of those have found.
        """
        ...

    def fetch(
        self, ids: Sequence[DocumentId], payload_keys: Sequence[str] | None
    ) -> dict[DocumentId, tuple[str, Mapping[str, Any]]]:
        """Text and payload, all of it or at least these keys, of those documents that are there."""
        ...


def gathered(limit: int) -> int:
    """How many documents the coarse vectors gather for the full ones to rank."""
    return min(_COARSE_FACTOR * limit, MAX_DEPTH)


def search(
    source: Source[FilterT],
    queries: Queries,
    *,
    limit: int,
    depth: int,
    fusion: Fusion,
    condition: FilterT | None,
    payload_keys: frozenset[str] | None,
) -> list[list[Hit]]:
    """The best ``limit`` documents of each query, fused from the best ``depth`` of each kind."""
    found: list[list[Hit]] = []
    for start in range(0, len(queries), _QUERIES_PER_REQUEST):
        part = queries[start : start + _QUERIES_PER_REQUEST]
        kinds = _best_of_each_kind(source, part, depth, condition)
        rankings = [fuse(*pair, fusion, limit) for pair in zip(*kinds, strict=True)]
        found += _filled(source, rankings, payload_keys)
    return found


def _best_of_each_kind(
    source: Source[FilterT], queries: Queries, limit: int, condition: FilterT | None
) -> tuple[list[ScoredIds], list[ScoredIds]]:
    """The best ``limit`` of each query by dense and by sparse vector, ties by id."""
    by_dense, by_sparse = replace(queries, sparse=None), Queries(sparse=queries.sparse)
    dense, sparse = source.hits(queries, _past_the_cut(limit), condition)
    return (
        _settled(dense, limit, lambda rows, n: source.hits(by_dense[rows], n, condition)[0]),
        _settled(sparse, limit, lambda rows, n: source.hits(by_sparse[rows], n, condition)[1]),
    )


def _past_the_cut(limit: int) -> int:
    """How many hits show whether the last one shares its score with the next."""
    return min(limit + 1, MAX_DEPTH)


def _settled(
    first: Sequence[ScoredIds], limit: int, again: Callable[[list[int], int], list[ScoredIds]]
) -> list[ScoredIds]:
    """The best ``limit`` of each query, of hits that were fetched past the cut.

    An engine breaks ties as it likes. Where the cut falls between equal scores, more are fetched
    for that query, so that equal documents do not differ by engine or from one day to the next.
    """
    hits, depth = list(first), _past_the_cut(limit)
    while depth < MAX_DEPTH and (tied := _tied_rows(hits, limit, depth)):
        depth = min(_WIDER * depth, MAX_DEPTH)
        for row, found in zip(tied, again(tied, depth), strict=True):
            hits[row] = found
    return [best(found, limit) for found in hits]


def _tied_rows(hits: Sequence[ScoredIds], limit: int, depth: int) -> list[int]:
    return [
        row
        for row, found in enumerate(hits)
        if len(found) == depth and found[-1][1] == found[limit - 1][1]
    ]


def _filled(
    source: Source[Any], rankings: list[list[Fused]], payload_keys: frozenset[str] | None
) -> list[list[Hit]]:
    wanted = dict.fromkeys(line.id for ranking in rankings for line in ranking)
    contents = _contents(source, list(wanted), payload_keys)
    return [
        [
            Hit(line.id, line.score, *contents[line.id], line.dense_score, line.sparse_score)
            for line in ranking
            if line.id in contents  # deleted by someone else since the search
        ]
        for ranking in rankings
    ]


def _contents(
    source: Source[Any], ids: list[DocumentId], payload_keys: frozenset[str] | None
) -> dict[DocumentId, tuple[str, Mapping[str, Any]]]:
    contents = source.fetch(ids, _selectable(payload_keys))
    if payload_keys is None:
        return contents
    return {
        document_id: (text, {key: payload[key] for key in payload_keys & payload.keys()})
        for document_id, (text, payload) in contents.items()
    }


def _selectable(keys: frozenset[str] | None) -> list[str] | None:
    """The keys to ask a store for, None for all."""
    # Engines read a key with a dot or a bracket as a path, each by rules of its own.
    if keys is None or not all(_PLAIN_KEY.fullmatch(key) for key in keys):
        return None
    return sorted(keys)
