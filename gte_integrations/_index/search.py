"""From query vectors to hits: search by both kinds, settle ties by id, fuse, fetch the texts."""

from __future__ import annotations

import json
import re
import reprlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar

from gte_core.pickling import restore_by_name, state_by_name
from gte_integrations._index.checks import (
    check_count,
    check_fusion,
    check_group_by,
    check_score_threshold,
)
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
_SHOWN = 60  # characters of a text


@dataclass(frozen=True, slots=True)
class Hit:
    """A document found by ``search``.

    ``score`` is what the ranking goes by; ``dense_score`` (cosine) and ``sparse_score`` (dot
    product) are None where that search missed the document or was not asked. After ``rerank`` the
    ranking goes by ``rerank_score``, which is None without.
    """

    id: DocumentId
    score: float
    text: str
    payload: Mapping[str, Any]
    dense_score: float | None
    sparse_score: float | None
    rerank_score: float | None = None

    __getstate__ = state_by_name
    __setstate__ = restore_by_name

    def __repr__(self) -> str:
        text = self.text if len(self.text) <= _SHOWN else f"{self.text[: _SHOWN - 1]}…"
        parts = [f"id={self.id!r}", f"score={self.score:.4f}", f"text={text!r}"]
        parts += [f"payload={reprlib.repr(dict(self.payload))}"] if self.payload else []
        others = {
            name: getattr(self, name) for name in ("dense_score", "sparse_score", "rerank_score")
        }
        parts += [f"{name}={score:.4f}" for name, score in others.items() if score is not None]
        return f"Hit({', '.join(parts)})"


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a search is to give of each ranking; see ``HybridIndex.search``."""

    limit: int
    offset: int
    fusion: Fusion
    score_threshold: float | None
    group_by: str | None
    payload_keys: frozenset[str] | None

    def __post_init__(self) -> None:
        counts = {
            "limit": check_count("limit", self.limit, most=MAX_DEPTH),
            "offset": check_count("offset", self.offset, least=0, most=MAX_DEPTH),
        }
        for name, count in counts.items():  # as Python's integers, which all engines take
            object.__setattr__(self, name, count)
        if self.end > MAX_DEPTH:
            raise ValueError(
                f"offset is {self.offset} and limit {self.limit}, but their sum must be at most "
                f"{MAX_DEPTH:,}, the most hits that every engine gives; narrow the search by a "
                "filter."
            )
        check_fusion(self.fusion)
        check_score_threshold(self.score_threshold)
        check_group_by(self.group_by)

    @property
    def end(self) -> int:
        """How many hits, or groups, of a ranking must be known."""
        return self.offset + self.limit

    def reached(self, ranking: list[Fused]) -> list[Fused]:
        """The part of a ranking that reaches the threshold."""
        if self.score_threshold is None:
            return ranking
        return [line for line in ranking if line.score >= self.score_threshold]


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
    wanted: Wanted,
    *,
    depth: int,
    condition: FilterT | None,
) -> list[list[Hit]]:
    """What is wanted of each query's ranking, fused from the best ``depth`` of each kind."""
    find = _plain if wanted.group_by is None else _grouped
    found: list[list[Hit]] = []
    for start in range(0, len(queries), _QUERIES_PER_REQUEST):
        part = queries[start : start + _QUERIES_PER_REQUEST]
        found += find(source, part, wanted, depth, condition)
    return found


def _plain(
    source: Source[FilterT],
    queries: Queries,
    wanted: Wanted,
    depth: int,
    condition: FilterT | None,
) -> list[list[Hit]]:
    kinds = _best_of_each_kind(source, queries, depth, condition)
    rankings = (fuse(*pair, wanted.fusion, wanted.end) for pair in zip(*kinds, strict=True))
    cut = [wanted.reached(ranking)[wanted.offset :] for ranking in rankings]
    return _filled(source, cut, wanted.payload_keys)


def _grouped(
    source: Source[FilterT],
    queries: Queries,
    wanted: Wanted,
    depth: int,
    condition: FilterT | None,
) -> list[list[Hit]]:
    """The best hit of each group, of more candidates where those hold too few groups."""
    kinds = _best_of_each_kind(source, queries, depth, condition)
    found: list[list[Hit]] = []
    short: list[int] = []
    for row, pair in enumerate(zip(*kinds, strict=True)):
        ranking = fuse(*pair, wanted.fusion)
        reached = wanted.reached(ranking)
        hits = _best_of_groups(source, reached, wanted)
        found.append(hits[wanted.offset :])
        is_cut = max(map(len, pair)) == depth and len(reached) == len(ranking)
        if is_cut and len(hits) < wanted.end:
            short.append(row)
    if short and depth < MAX_DEPTH:
        deeper = min(_WIDER * depth, MAX_DEPTH)
        again = _grouped(source, queries[short], wanted, deeper, condition)
        for row, hits in zip(short, again, strict=True):
            found[row] = hits
    return found


def _best_of_groups(source: Source[Any], ranking: list[Fused], wanted: Wanted) -> list[Hit]:
    """The first hit of each group in a ranking, which is read as far as needed."""
    group_by, keys = str(wanted.group_by), wanted.payload_keys
    asked = None if keys is None else keys | {group_by}
    hits: dict[object, Hit] = {}
    start, size = 0, wanted.end
    while start < len(ranking) and len(hits) < wanted.end:
        part = ranking[start : start + size]
        contents = source.fetch([line.id for line in part], _selectable(asked))
        for line in part:
            if line.id in contents:
                group = group_of(line.id, contents[line.id][1].get(group_by))
                hits.setdefault(group, _hit(line, contents[line.id], keys))
        start, size = start + size, 2 * size
    return list(hits.values())[: wanted.end]


def group_of(document_id: DocumentId, value: Any) -> object:
    """What two documents of one group have in common; one without a value stands alone."""
    return (document_id,) if value is None else json.dumps(value, sort_keys=True)


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
    contents = source.fetch(list(wanted), _selectable(payload_keys))
    return [
        [
            _hit(line, contents[line.id], payload_keys)
            for line in ranking
            if line.id in contents  # deleted by someone else since the search
        ]
        for ranking in rankings
    ]


def _hit(
    line: Fused, content: tuple[str, Mapping[str, Any]], payload_keys: frozenset[str] | None
) -> Hit:
    text, payload = content
    chosen = selected(payload, payload_keys)
    return Hit(line.id, line.score, text, chosen, line.dense_score, line.sparse_score)


def selected(payload: Mapping[str, Any], keys: frozenset[str] | None) -> Mapping[str, Any]:
    """The part of a payload under these keys, all of it for None."""
    return payload if keys is None else {key: payload[key] for key in keys & payload.keys()}


def _selectable(keys: frozenset[str] | None) -> list[str] | None:
    """The keys to ask a store for, None for all."""
    # Engines read a key with a dot or a bracket as a path, each by rules of its own.
    if keys is None or not all(_PLAIN_KEY.fullmatch(key) for key in keys):
        return None
    return sorted(keys)
