"""From query vectors to hits: both kinds searched, ties settled by id, fused, and filled in."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar

from gte_integrations._index.fusion import DocumentId, Fused, Fusion, Leg, best, fuse
from gte_integrations._index.records import Queries

FilterT = TypeVar("FilterT")
FilterT_contra = TypeVar("FilterT_contra", contravariant=True)

MAX_DEPTH = 16_384  # the most hits that Milvus gives
_COARSE_FACTOR = 4
_WIDER = 4
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

    def legs(
        self, queries: Queries, limit: int, condition: FilterT_contra | None
    ) -> tuple[list[Leg], list[Leg]]:
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
) -> tuple[list[Leg], list[Leg]]:
    """The best ``limit`` of each query by dense and by sparse vector, ties by id."""
    dense_queries, sparse_queries = replace(queries, sparse=None), Queries(sparse=queries.sparse)

    def dense_again(rows: list[int], depth: int) -> list[Leg]:
        return source.legs(dense_queries.take(rows), depth, condition)[0]

    def sparse_again(rows: list[int], depth: int) -> list[Leg]:
        return source.legs(sparse_queries.take(rows), depth, condition)[1]

    depth = min(limit + 1, MAX_DEPTH)
    dense, sparse = source.legs(queries, depth, condition)
    return (
        _settled(dense, limit, depth, dense_again),
        _settled(sparse, limit, depth, sparse_again),
    )


def _settled(
    first: Sequence[Leg], limit: int, depth: int, again: Callable[[list[int], int], list[Leg]]
) -> list[Leg]:
    """The best ``limit`` of each query, of hits that were fetched ``depth`` deep.

    An engine breaks ties as it likes. Where the cut falls between equal scores, more are fetched
    for that query, so that equal documents do not differ by engine or from one day to the next.
    """
    hits = list(first)
    while depth < MAX_DEPTH and (tied := _tied_rows(hits, limit, depth)):
        depth = min(_WIDER * depth, MAX_DEPTH)
        for row, found in zip(tied, again(tied, depth), strict=True):
            hits[row] = found
    return [best(found, limit) for found in hits]


def _tied_rows(hits: Sequence[Leg], limit: int, depth: int) -> list[int]:
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
