"""The last stage of a search: the best hits scored anew by a reranker, on their stored texts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from gte_core import Reranker, as_reranker
from gte_core.ranking import checked_scores
from gte_core.texts import as_texts
from gte_integrations._index.checks import check_count
from gte_integrations._index.fusion import best
from gte_integrations._index.search import MAX_DEPTH, Hit, Wanted, group_of, selected

_USUAL_DEPTH = 50


@dataclass(frozen=True, slots=True)
class Reranking:
    """A search whose best hits are scored anew.

    Attributes:
        reranker: scores them.
        queries: the texts that it reads, as they were given.
        wanted: what the search is to give in the end.
        depth: how many of the best hits of each query are scored.
    """

    reranker: Reranker
    queries: Sequence[str]
    wanted: Wanted
    depth: int

    @classmethod
    def of(
        cls,
        reranker: Reranker | str | Path,
        queries: str | Iterable[str],
        wanted: Wanted,
        depth: int | None,
    ) -> Reranking:
        """A stage of this depth, None for ``offset + limit``, at least 50; raise if it is less."""
        if depth is None:
            depth = max(wanted.end, _USUAL_DEPTH)
        depth = check_count("rerank_depth", depth, most=MAX_DEPTH)
        if depth < wanted.end:
            raise ValueError(
                f"rerank_depth is {depth}, but must be at least offset + limit, {wanted.end}: only "
                "what was reranked can be among the hits."
            )
        texts = list(as_texts(queries, "queries"))
        return cls(as_reranker(reranker), texts, wanted, depth)

    @property
    def first_stage(self) -> Wanted:
        """What is to be found for the reranker: single documents, with the key they group by."""
        wanted = self.wanted
        keys = wanted.payload_keys
        if keys is not None and wanted.group_by is not None:
            keys |= {wanted.group_by}
        return replace(wanted, limit=self.depth, offset=0, group_by=None, payload_keys=keys)

    def run(self, rankings: list[list[Hit]]) -> list[list[Hit]]:
        """The hits of each query by falling ``rerank_score``, ties by id; grouped, then cut."""
        pairs = [
            (query, hit.text)
            for query, hits in zip(self.queries, rankings, strict=True)
            for hit in hits
        ]
        scores = iter(self._scores(pairs))
        return [self._cut(_reordered(hits, islice(scores, len(hits)))) for hits in rankings]

    def _scores(self, pairs: list[tuple[str, str]]) -> list[float]:
        if not pairs:
            return []
        return list(map(float, checked_scores(self.reranker.score(pairs), len(pairs))))

    def _cut(self, hits: list[Hit]) -> list[Hit]:
        wanted = self.wanted
        chosen = hits if wanted.group_by is None else _best_of_groups(hits, wanted.group_by)
        return [
            replace(hit, payload=selected(hit.payload, wanted.payload_keys))
            for hit in islice(chosen, wanted.offset, wanted.end)
        ]


def refuse_depth(depth: int | None) -> None:
    """Raise ``ValueError`` for a depth without a reranker."""
    if depth is not None:
        raise ValueError(
            f"rerank_depth is {depth!r}, but there is no reranker that it could be of; pass rerank "
            "as well, or leave it out."
        )


def _reordered(hits: list[Hit], scores: Iterable[float]) -> list[Hit]:
    found = {hit.id: hit for hit in hits}
    order = best(zip(found, scores, strict=True))
    return [replace(found[document_id], rerank_score=score) for document_id, score in order]


def _best_of_groups(hits: list[Hit], key: str) -> Iterator[Hit]:
    seen: set[object] = set()
    for hit in hits:
        group = group_of(hit.id, hit.payload.get(key))
        if group not in seen:
            seen.add(group)
            yield hit
