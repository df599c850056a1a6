"""``RemoteReranker``: what the rerankers of all providers share, whatever their servers speak."""

from __future__ import annotations

from abc import abstractmethod
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gte_core import NonFiniteError, ScoringReranker
from gte_core.texts import as_pair, checked_pairs
from gte_integrations.remote.base import Remote, RemoteError, sendable
from gte_integrations.remote.encoder import shown
from gte_integrations.remote.loop import all_of


@dataclass(frozen=True, slots=True)
class Limits:
    """What a server takes in one request.

    Attributes:
        documents: how many.
        bytes: of all documents in UTF-8, with the query counted once for each.
    """

    documents: int
    bytes: int


class RemoteReranker(Remote, ScoringReranker):
    """A ``Reranker`` whose scores a server gives. Safe to use from several threads.

    The documents of each query go in as few requests as the server takes, of several queries at
    the same time. A text without a character is sent as a space, which servers take.

    Attributes:
        model: what results name it by.
    """

    model: str

    @abstractmethod
    async def _limits(self) -> Limits:
        """Ask, or know, what goes into one request."""

    @abstractmethod
    async def _ask(self, query: str, documents: Sequence[str]) -> list[float]:
        """Make one request; the scores in the order of the documents."""

    def score(self, pairs: Iterable[tuple[str, str]]) -> NDArray[np.float32]:
        """Relevance of each ``(query, document)`` pair, float32 ``(n,)``.

        Raises:
            RemoteError: the server refused, failed or answered nonsense, in the end.
            NonFiniteError: it gave a score that is no finite number.
        """
        given = list(checked_pairs(pairs))
        return self.connection.call(self._scores(given)) if given else np.empty(0, np.float32)

    async def ascore(self, pairs: Iterable[tuple[str, str]]) -> NDArray[np.float32]:
        """``score`` without blocking the event loop; cancelled, it closes its requests."""
        given = list(checked_pairs(pairs))
        if not given:
            return np.empty(0, np.float32)
        return await self.connection.acall(self._scores(given))

    async def _scores(self, pairs: list[tuple[str, str]]) -> NDArray[np.float32]:
        limits = await self._limits()
        places: defaultdict[str, list[int]] = defaultdict(list)
        for place, (query, _) in enumerate(pairs):
            places[query].append(place)
        documents = [document for _, document in pairs]
        found = await all_of(
            [self._of_one_query(query, documents, rows, limits) for query, rows in places.items()]
        )
        scores = np.empty(len(pairs), np.float32)
        for rows, those in zip(places.values(), found, strict=True):
            scores[rows] = those
        if not np.isfinite(scores).all():
            first = as_pair(int(np.argmin(np.isfinite(scores))))
            raise NonFiniteError(f"{first}: {self.connection.url} gave no finite score.")
        return scores

    async def _of_one_query(
        self, query: str, documents: list[str], rows: list[int], limits: Limits
    ) -> list[float]:
        sent = sendable(query)
        size_of_query = len(sent.encode())
        texts = {row: sendable(documents[row]) for row in rows}
        parts = await self.connection.ask_in_parts(
            rows,
            lambda some: self._ask(sent, [texts[row] for row in some]),
            most=limits.documents,
            most_bytes=limits.bytes,
            size_of=lambda row: size_of_query + len(texts[row].encode()),
            name_of=as_pair,
        )
        return [score for part in parts for score in part]


def in_order(results: Any, score: str, n_documents: int, where: str) -> list[float]:
    """The scores of results that each name a document by its ``index``.

    ``RemoteError`` unless there is one number under the key ``score`` for every document.
    """
    try:
        found = {int(one["index"]): float(one[score]) for one in results}
    except (KeyError, TypeError, ValueError):
        found = {}
    if set(found) != set(range(n_documents)) or len(results) != n_documents:
        raise RemoteError(
            f"{where} answered {shown(results)}, but must give index and {score} of each of "
            f"{n_documents} documents."
        )
    return [found[place] for place in range(n_documents)]
