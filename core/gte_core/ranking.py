"""``Reranker``: what scores pairs of query and document, here or behind a server."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from gte_core.foreign import refuses_foreign
from gte_core.texts import as_texts, checked, checked_text


@dataclass(frozen=True, slots=True)
class RankedDocument:
    """A document's place in the list it came from, its relevance as scored, and its text."""

    index: int
    score: float
    document: str


class Reranker(Protocol):
    """Scores pairs of a query and a document; the higher, the more relevant.

    Scores of different rerankers are on different scales. Safe to call from several threads.
    """

    def rank(
        self, query: str, documents: Iterable[str], *, top_n: int | None = None
    ) -> list[RankedDocument]:
        """The documents by falling relevance, ties in the order given; the first ``top_n`` only."""
        ...

    def score(self, pairs: Iterable[tuple[str, str]]) -> NDArray[np.float32]:
        """Relevance of each ``(query, document)`` pair, float32 ``(n,)``."""
        ...

    async def arank(
        self, query: str, documents: Iterable[str], *, top_n: int | None = None
    ) -> list[RankedDocument]:
        """``rank`` without blocking the event loop."""
        ...

    async def ascore(self, pairs: Iterable[tuple[str, str]]) -> NDArray[np.float32]:
        """``score`` without blocking the event loop."""
        ...


def checked_scores(scores: object, n_pairs: int) -> NDArray[np.float32]:
    """What a reranker's ``score`` gave for so many pairs, as float32 ``(n_pairs,)``.

    ``ValueError`` unless it is one finite number for each, because any other would put documents
    in a wrong order, or lose them.
    """
    try:
        with np.errstate(over="ignore"):  # beyond float32 is infinite, and so refused
            given = np.asarray(scores, np.float32)
    except (TypeError, ValueError) as error:
        raise _unfit(f"a {type(scores).__name__} that makes no array", n_pairs) from error
    if given.shape != (n_pairs,):
        raise _unfit(f"scores of shape {given.shape}", n_pairs)
    if n_wrong := np.count_nonzero(~np.isfinite(given)):
        raise _unfit(f"{n_wrong} score(s) that are NaN or infinite", n_pairs)
    return given


def _unfit(given: str, n_pairs: int) -> ValueError:
    return ValueError(
        f"The reranker gave {given} for {n_pairs} pairs, but must give one finite number for "
        "each; see gte_core.Reranker."
    )


class ScoringReranker(ABC):
    """A ``Reranker`` of which a subclass says how it scores."""

    @abstractmethod
    def score(self, pairs: Iterable[tuple[str, str]]) -> NDArray[np.float32]:
        """Relevance of each ``(query, document)`` pair, float32 ``(n,)``."""

    async def ascore(self, pairs: Iterable[tuple[str, str]]) -> NDArray[np.float32]:
        """``score`` in a thread, so that the event loop goes on."""
        return await asyncio.to_thread(self.score, pairs)

    @refuses_foreign
    def rank(
        self, query: str, documents: Iterable[str], *, top_n: int | None = None
    ) -> list[RankedDocument]:
        """The documents by falling relevance, ties in the order given; the first ``top_n`` only."""
        texts = _rankable(query, documents, top_n)
        return _ranked(texts, self.score([(query, text) for text in texts]), top_n)

    @refuses_foreign
    async def arank(
        self, query: str, documents: Iterable[str], *, top_n: int | None = None
    ) -> list[RankedDocument]:
        """``rank`` without blocking the event loop."""
        texts = _rankable(query, documents, top_n)
        return _ranked(texts, await self.ascore([(query, text) for text in texts]), top_n)


def _rankable(query: str, documents: Iterable[str], top_n: int | None) -> list[str]:
    checked_text(query, "query")
    _check_top_n(top_n)
    return list(checked(as_texts(documents, "documents"), "documents"))


def _check_top_n(top_n: int | None) -> None:
    if top_n is None:
        return
    if isinstance(top_n, bool) or not hasattr(top_n, "__index__"):
        raise TypeError(f"top_n must be an integer of at least 1, or None for all, got {top_n!r}.")
    if top_n < 1:
        raise ValueError(f"top_n is {top_n}, but must be at least 1, or None for all.")


def _ranked(texts: list[str], given: object, top_n: int | None) -> list[RankedDocument]:
    scores = checked_scores(given, len(texts))
    order = np.argsort(-scores, kind="stable")[:top_n]
    return [RankedDocument(int(i), float(scores[i]), texts[i]) for i in order]
