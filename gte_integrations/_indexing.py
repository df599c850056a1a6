"""The verbs of a hybrid index, the same for every engine.

An engine adds a ``Vectorizer`` that knows its types and a ``Store`` that talks to it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from operator import length_hint
from types import TracebackType
from typing import Any, Generic, Protocol, Self, TypeVar

from gte_core import CollectionMismatch
from gte_integrations._adding import IndexReport, OnError, Producer, Sink, batches, ingest
from gte_integrations._checks import (
    check_choice,
    check_count,
    check_documents,
    check_fusion,
    check_ids,
)
from gte_integrations._fusion import DocumentId, Fused, Fusion, Leg, Linear, best, fuse
from gte_integrations._records import Document, Facts, Mode, Queries, Vectorizer, id_to_key
from gte_integrations._sending import Sender

__all__ = [
    "Document",
    "Hit",
    "HybridIndex",
    "IndexReport",
    "Mode",
    "OnError",
    "Store",
    "compare_facts",
    "gathered",
]

FilterT = TypeVar("FilterT")
FilterT_contra = TypeVar("FilterT_contra", contravariant=True)

_IDS_PER_REQUEST = 1_000
_QUERIES_PER_REQUEST = 100
_MAX_DEPTH = 16_384  # the most hits that Milvus gives
_COARSE_FACTOR = 4
_ALONE = Linear(dense_weight=1.0, sparse_weight=1.0)


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


class Store(Sink, Protocol[FilterT_contra]):
    """One collection in one engine."""

    @property
    def name(self) -> str:
        """The collection and where it is, for messages."""
        ...

    def describe(self) -> Facts | None:
        """The facts of the collection as it is, None if there is none."""
        ...

    def create(self, facts: Facts) -> None:
        """Make the collection and keep the facts with it."""
        ...

    def legs(
        self, queries: Queries, limit: int, condition: FilterT_contra | None
    ) -> tuple[list[Leg], list[Leg]]:
        """The best ``limit`` of each query by dense and by sparse vector, [] where that is None.

        With coarse vectors, the dense ones rank what ``gathered(limit)`` of those have found.
        """
        ...

    def fetch(self, ids: Sequence[DocumentId]) -> dict[DocumentId, tuple[str, Mapping[str, Any]]]:
        """Text and payload of those documents that are there."""
        ...

    def all_keys(self) -> Iterator[str]:
        """The keys of all documents, in any order."""
        ...

    def delete(self, keys: Sequence[str]) -> None:
        """Remove documents; those not there are no error."""
        ...

    def count(self) -> int:
        """Number of documents, exactly."""
        ...

    def close(self) -> None:
        """Release files and connections."""
        ...


def gathered(limit: int) -> int:
    """How many documents the coarse vectors gather for the full ones to rank."""
    return min(_COARSE_FACTOR * limit, _MAX_DEPTH)


def compare_facts(name: str, expected: Facts, found: Facts, kind: str = "collection") -> None:
    """Raise ``CollectionMismatch`` with every difference, one a line."""
    if found.get("model") is None:
        raise CollectionMismatch(
            f"{name} exists, but holds no record of the model that filled it, so this library did "
            f"not make it; use another {kind}."
        )
    differences = [
        f"  {fact}: the {kind} has {found.get(fact)!r}, this index needs {value!r}"
        for fact, value in expected.items()
        if found.get(fact) != value
    ]
    if differences:
        raise CollectionMismatch(
            f"{name} was built differently:\n"
            + "\n".join(differences)
            + f"\nUse the encoder and size it was built with, or another {kind}."
        )


class HybridIndex(Generic[FilterT]):
    """The verbs. Engines subclass it with a constructor and say what a filter is."""

    def __init__(
        self, vectorizer: Vectorizer, store: Store[FilterT], *, retry_seconds: float
    ) -> None:
        if not retry_seconds >= 0:
            raise ValueError(f"retry_seconds is {retry_seconds!r}, but must be at least 0.")
        self.vectorizer = vectorizer
        self._store = store
        self._retry_seconds = retry_seconds
        self._verified = False

    def create(self) -> None:
        """Make the collection, or verify the one that is there. May be called again and again.

        Raises ``CollectionMismatch`` with every difference if it was built by another model, in
        another size, or by something else.
        """
        if self._store.describe() is None:
            self._store.create(self.vectorizer.facts())
        self._verify()

    def add(
        self,
        documents: Iterable[object],
        *,
        batch_size: int = 256,
        show_progress: bool = False,
        on_error: OnError = "raise",
    ) -> IndexReport:
        """Embed and write documents; those already there unchanged are not embedded again.

        The iterable is read lazily, ``batch_size`` documents at a time, and one batch is written
        while the next is encoded. A document replaces the one with its id; of several with one id
        the last stays. Stopped at any point and run again, it ends with the same collection.

        Args:
            documents: each a ``Document``, a dataclass with id and text (and payload), a dict
                with "id" and "text" whose other keys are payload, or a tuple
                (id, text[, payload]).
            batch_size: documents that are looked up, encoded and written together.
            show_progress: show a tqdm bar.
            on_error: "raise" the first error, or "skip" a document that cannot be read or encoded
                and name it in the report. An error of the store is raised in either case.
        """
        return self.ingest(
            self.vectorizer,
            documents,
            batch_size=batch_size,
            show_progress=show_progress,
            on_error=on_error,
        )

    def ingest(
        self,
        producer: Producer,
        documents: Iterable[object],
        *,
        batch_size: int,
        show_progress: bool,
        on_error: OnError,
    ) -> IndexReport:
        """``add`` with vectors from elsewhere, which must be those of this index's encoder."""
        check_documents(documents)
        self._open()
        return ingest(
            producer,
            self._store,
            documents,
            batch_size=batch_size,
            show_progress=show_progress,
            on_error=on_error,
            retry_seconds=self._retry_seconds,
        )

    def search(
        self,
        queries: str | Sequence[str],
        *,
        limit: int = 10,
        mode: Mode = "hybrid",
        fusion: Fusion = Linear(),  # noqa: B008
        candidates: int = 100,
        filter: FilterT | None = None,  # noqa: A002
    ) -> list[list[Hit]]:
        """Find documents; one list of hits per query, best first, also for a single query.

        Args:
            queries: one text or many; all are encoded in one call.
            limit: hits per query, at most ``candidates`` in hybrid mode.
            mode: "hybrid", or "dense" or "sparse" alone.
            fusion: how hybrid mode makes one score of two; ``Linear()`` or ``RRF()``.
            candidates: how many of the best of each kind hybrid mode fuses.
            filter: a condition on the payload in the engine's own language.
        """
        check_count("limit", limit, most=_MAX_DEPTH)
        check_count("candidates", candidates, most=_MAX_DEPTH)
        check_choice("mode", mode, Mode)
        check_fusion(fusion)
        depth = _depth(mode, limit, candidates)
        self._open()
        vectors = self.vectorizer.query_vectors(queries, mode)
        rule = fusion if mode == "hybrid" else _ALONE
        found: list[list[Hit]] = []
        for start in range(0, len(vectors), _QUERIES_PER_REQUEST):
            part = vectors[start : start + _QUERIES_PER_REQUEST]
            legs = _legs(self._store, part, depth, filter)
            rankings = [fuse(*pair, rule, limit) for pair in zip(*legs, strict=True)]
            found += self._hits(rankings)
        return found

    async def aadd(
        self,
        documents: Iterable[object],
        *,
        batch_size: int = 256,
        show_progress: bool = False,
        on_error: OnError = "raise",
    ) -> IndexReport:
        """``add`` in a thread of its own, so that the event loop goes on.

        Cancelled, it reads no further, and ends when what is in flight is written.
        """
        check_documents(documents)
        source = _Stoppable(documents)
        add = partial(self.add, batch_size=batch_size, show_progress=show_progress)
        running = asyncio.ensure_future(asyncio.to_thread(add, source, on_error=on_error))
        try:
            return await asyncio.shield(running)
        except asyncio.CancelledError:
            source.stop()
            await asyncio.wait([running])
            running.exception()  # looked at, or asyncio would report it as lost
            raise

    async def asearch(
        self,
        queries: str | Sequence[str],
        *,
        limit: int = 10,
        mode: Mode = "hybrid",
        fusion: Fusion = Linear(),  # noqa: B008
        candidates: int = 100,
        filter: FilterT | None = None,  # noqa: A002
    ) -> list[list[Hit]]:
        """``search`` in a thread of its own, so that the event loop goes on."""
        return await asyncio.to_thread(
            self.search,
            queries,
            limit=limit,
            mode=mode,
            fusion=fusion,
            candidates=candidates,
            filter=filter,
        )

    def delete(self, ids: Iterable[DocumentId]) -> int:
        """Remove documents; return how many of them were there."""
        check_ids("ids", ids)
        self._open()
        return self._delete(map(id_to_key, ids))

    def prune(self, keep_ids: Iterable[DocumentId]) -> int:
        """Remove every document whose id is not given; return how many those were.

        After ``add(documents)`` this makes the collection equal to the documents. The ids are held
        in memory. ``ValueError`` if there are none: that would remove everything.
        """
        check_ids("keep_ids", keep_ids)
        keep = set(map(id_to_key, keep_ids))
        if not keep:
            raise ValueError(
                "keep_ids is empty, so every document would be removed; an iterator that was used "
                "up before? To empty a collection, delete it and create() it again."
            )
        self._open()
        return self._delete([key for key in self._store.all_keys() if key not in keep])

    def count(self) -> int:
        """Number of documents in the collection."""
        self._open()
        return self._store.count()

    def close(self) -> None:
        """Release files and connections; a client that was passed in stays open."""
        self._store.close()
        self._verified = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _sender(self) -> Sender:
        return Sender(self._store.judge, self._retry_seconds)

    def _delete(self, keys: Iterable[str]) -> int:
        sender, store = self._sender(), self._store
        removed = 0
        for part in batches(keys, _IDS_PER_REQUEST):
            there = list(sender.insist(partial(store.hashes, part)))
            if there:
                sender.insist(partial(store.delete, there))
            removed += len(there)
        return removed

    def _open(self) -> None:
        if not self._verified:
            self._verify()

    def _verify(self) -> None:
        found = self._store.describe()
        if found is None:
            raise LookupError(f"{self._store.name} does not exist; call create() first.")
        compare_facts(self._store.name, self.vectorizer.facts(), found)
        self._verified = True

    def _hits(self, rankings: list[list[Fused]]) -> list[list[Hit]]:
        wanted = dict.fromkeys(line.id for ranking in rankings for line in ranking)
        contents = self._store.fetch(list(wanted))
        return [
            [
                Hit(line.id, line.score, *contents[line.id], line.dense_score, line.sparse_score)
                for line in ranking
                if line.id in contents  # deleted by someone else since the search
            ]
            for ranking in rankings
        ]


def _legs(
    store: Store[FilterT], queries: Queries, limit: int, condition: FilterT | None
) -> tuple[list[Leg], list[Leg]]:
    """The best ``limit`` of each query and kind, ties by id.

    An engine breaks ties as it likes. Where the cut would fall between equal scores, more are
    fetched, so that equal documents do not differ by engine or from one day to the next.
    """
    depth = max(limit, min(limit + 1, _MAX_DEPTH))
    dense, sparse = store.legs(queries, depth, condition)
    while depth < _MAX_DEPTH and _end_in_tie(dense + sparse, limit, depth):
        depth = min(4 * depth, _MAX_DEPTH)
        dense, sparse = store.legs(queries, depth, condition)
    return [best(leg, limit) for leg in dense], [best(leg, limit) for leg in sparse]


def _end_in_tie(legs: Iterable[Leg], limit: int, depth: int) -> bool:
    return any(len(leg) == depth and leg[-1][1] == leg[limit - 1][1] for leg in legs)


def _depth(mode: Mode, limit: int, candidates: int) -> int:
    if mode != "hybrid":
        return limit
    if limit > candidates:
        raise ValueError(
            f"limit is {limit}, but only {candidates} candidates of each kind would be fused; "
            f"pass candidates={limit} or more."
        )
    return candidates


class _Stoppable:
    """An iterable that another thread can end with an error."""

    def __init__(self, items: Iterable[object]) -> None:
        self._items = items
        self._stopped = False

    def __iter__(self) -> Iterator[object]:
        for item in self._items:
            if self._stopped:
                raise asyncio.CancelledError
            yield item

    def __length_hint__(self) -> int:
        return length_hint(self._items)

    def stop(self) -> None:
        self._stopped = True
