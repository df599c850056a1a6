"""The verbs that search an index: by texts, and by vectors that are there already."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from gte_core import HybridEmbeddings, Reranker
from gte_integrations._index.awaited import awaited
from gte_integrations._index.checks import check_choice, check_count, check_payload_keys
from gte_integrations._index.contents import Contents
from gte_integrations._index.fusion import Fusion, Linear
from gte_integrations._index.reranking import Reranking, refuse_depth
from gte_integrations._index.search import MAX_DEPTH, FilterT, Hit, Wanted, search
from gte_integrations._index.vectorizer import Mode, Queries, Vectorizer

_ALONE = Linear(dense_weight=1.0, sparse_weight=1.0)


class Searches(Contents[FilterT]):
    """The searches of an index, whose subclass opens it."""

    vectorizer: Vectorizer

    @abstractmethod
    def _open(self) -> None: ...

    def search(
        self,
        queries: str | Sequence[str],
        *,
        limit: int = 10,
        mode: Mode | None = None,
        fusion: Fusion = Linear(),  # noqa: B008
        candidates: int = 100,
        filter: FilterT | None = None,  # noqa: A002
        payload_keys: Iterable[str] | None = None,
        offset: int = 0,
        score_threshold: float | None = None,
        group_by: str | None = None,
        rerank: Reranker | str | Path | None = None,
        rerank_depth: int | None = None,
    ) -> list[list[Hit]]:
        """Find documents; one list of hits per query, best first, also for a single query.

        Args:
            queries: one text or many; all are encoded in one call.
            limit: hits per query.
            mode: "hybrid", or "dense" or "sparse" alone; None (the default) for all that the
                collection has, which is one of these two if its model gives that kind alone.
            fusion: how hybrid mode makes one score of two; ``Linear()`` or ``RRF()``.
            candidates: how many of the best of each kind hybrid mode fuses; ``offset + limit`` if
                that is more.
            filter: a condition on the payload in the engine's own language.
            payload_keys: which keys of the payload a hit brings along, to keep a large payload
                where it is; ``()`` for none, None (the default) for all. A key that a document
                lacks is left out. The text always comes.
            offset: how many of the best hits are left out, for what lies behind them; with
                ``limit`` at most 16,384. Pages in hybrid mode are of one ranking as long as
                ``candidates`` reaches to the end of the last.
            score_threshold: leave out hits whose ``score`` is below: in hybrid mode the fused one,
                which is a sum of weighted scores by ``Linear`` and of shares such as 1/61 by
                ``RRF``; else the cosine ("dense") or the dot product ("sparse").
            group_by: a key of the payload: of all hits with one value there, only the best comes,
                and ``limit`` and ``offset`` count groups. A document without a value stands alone.
                As many candidates are looked at as it takes, up to 16,384 of each kind; hybrid
                mode then fuses all of these. After ``rerank``, the groups are of the hits that it
                scored, and no more are looked at.
            rerank: a reranker, or the name of its model, that scores the best hits anew by their
                texts. The ranking then goes by ``rerank_score``, ties by id, and ``limit`` and
                ``offset`` are of that; ``score`` stays as it was, and so does what
                ``score_threshold`` leaves out. None (the default) for none.
            rerank_depth: how many of the best hits of each query are scored, at least
                ``offset + limit``; None (the default) for that many, and 50 if that is less.
        """
        keys = check_payload_keys(payload_keys)
        wanted = Wanted(limit, offset, fusion, score_threshold, group_by, keys)
        mode = self.vectorizer.default_mode if mode is None else mode
        if rerank is None:
            refuse_depth(rerank_depth)
            vectors_of = partial(self.vectorizer.query_vectors, queries)
            return self._find(vectors_of, mode, wanted, candidates, filter)
        stage = Reranking.of(rerank, queries, wanted, rerank_depth)
        vectors_of = partial(self.vectorizer.query_vectors, stage.queries)
        return stage.run(self._find(vectors_of, mode, stage.first_stage, candidates, filter))

    def search_vectors(
        self,
        embeddings: HybridEmbeddings,
        *,
        limit: int = 10,
        mode: Mode | None = None,
        fusion: Fusion = Linear(),  # noqa: B008
        candidates: int = 100,
        filter: FilterT | None = None,  # noqa: A002
        payload_keys: Iterable[str] | None = None,
        offset: int = 0,
        score_threshold: float | None = None,
        group_by: str | None = None,
    ) -> list[list[Hit]]:
        """``search`` by vectors of queries that are there already; nothing is encoded.

        Args:
            embeddings: of the queries, one list of hits for each: what the index's encoder gives
                for ``role="query"``, in the collection's size; ``HybridEmbeddings.of_dense`` of
                dense vectors alone. Dense vectors are scaled to length 1.
            limit: as of ``search``, like those below.
            mode: None (the default) for all vectors that the embeddings and the collection have.
            fusion: how hybrid mode makes one score of two.
            candidates: how many of the best of each kind hybrid mode fuses.
            filter: a condition on the payload in the engine's own language.
            payload_keys: which keys of the payload a hit brings along.
            offset: how many of the best hits are left out.
            score_threshold: leave out hits whose ``score`` is below.
            group_by: a key of the payload, of whose every value the best hit comes.

        Raises:
            ValueError: the vectors are not of the collection's size, or lack those that ``mode``
                needs.
        """
        keys = check_payload_keys(payload_keys)
        wanted = Wanted(limit, offset, fusion, score_threshold, group_by, keys)
        return self._find(
            partial(self.vectorizer.given_vectors, embeddings),
            self.vectorizer.mode_of(embeddings) if mode is None else mode,
            wanted,
            candidates,
            filter,
        )

    asearch = awaited(search)
    asearch_vectors = awaited(search_vectors)

    def _find(
        self,
        vectors_of: Callable[[Mode], Queries],
        mode: Mode,
        wanted: Wanted,
        candidates: int,
        condition: FilterT | None,
    ) -> list[list[Hit]]:
        candidates = check_count("candidates", candidates, most=MAX_DEPTH)
        check_choice("mode", mode, Mode)
        hybrid = mode == "hybrid"
        self._open()
        return search(
            self._store,
            vectors_of(mode),
            wanted if hybrid else replace(wanted, fusion=_ALONE),
            depth=max(wanted.end, candidates) if hybrid else wanted.end,
            condition=condition,
        )
