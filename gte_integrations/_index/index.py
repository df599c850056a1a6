"""The verbs of a hybrid index, the same for every engine.

An engine adds a ``Vectorizer`` that knows its types and a ``Store`` that talks to it.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from operator import length_hint
from types import TracebackType
from typing import Any, Generic, ParamSpec, Protocol, Self, TypeVar

from gte_core import CollectionMismatch, Explanation
from gte_integrations._index.bridge import Bridge
from gte_integrations._index.checks import (
    check_choice,
    check_count,
    check_documents,
    check_fusion,
    check_ids,
    check_linear,
    check_payload_keys,
    check_query,
)
from gte_integrations._index.explain import StoredVectors, explain
from gte_integrations._index.fusion import DocumentId, Fusion, Linear
from gte_integrations._index.ingest import IndexReport, OnError, Producer, Sink, batches, ingest
from gte_integrations._index.records import Document, Facts, Mode, Vectorizer, id_to_key
from gte_integrations._index.retry import Sender
from gte_integrations._index.search import (
    MAX_DEPTH,
    FilterT,
    FilterT_contra,
    Hit,
    Source,
    gathered,
    search,
)

__all__ = [
    "Document",
    "FilterT",
    "Hit",
    "HybridIndex",
    "IndexReport",
    "Mode",
    "OnError",
    "Store",
    "compare_facts",
    "gathered",
]

T = TypeVar("T")
P = ParamSpec("P")
_IDS_PER_REQUEST = 1_000
_ALONE = Linear(dense_weight=1.0, sparse_weight=1.0)


class Store(Sink, Source[FilterT_contra], Protocol[FilterT_contra]):
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

    def vectors(self, document_id: DocumentId) -> StoredVectors | None:
        """The dense and the sparse vector of a document, None if it is not there."""
        ...

    def key_page(self, after: Any) -> tuple[list[str], Any]:
        """Some keys of all documents, in any order, and what to ask for the next ones with.

        ``after`` is None for the first page, and what is returned beside the last one. A page that
        failed may be asked for again.
        """
        ...

    def count(self) -> int:
        """Number of documents, exactly."""
        ...

    def optimize(self) -> None:
        """Build the indexes now, if the engine would not by itself."""
        ...

    def close(self) -> None:
        """Release files and connections."""
        ...


def check_recorded(name: str, found: Facts, kind: str = "collection") -> None:
    """Raise ``CollectionMismatch`` if it is not said which model filled a collection."""
    if found.get("model") is None:
        raise CollectionMismatch(
            f"{name} exists, but holds no record of the model that filled it, so this library did "
            f"not make it; use another {kind}."
        )


def compare_facts(name: str, expected: Facts, found: Facts, kind: str = "collection") -> None:
    """Raise ``CollectionMismatch`` with every difference, one a line.

    A fact that an old collection lacks is no difference.
    """
    check_recorded(name, found, kind)
    differences = [
        f"  {fact}: the {kind} has {found.get(fact)!r}, this index needs {value!r}"
        for fact, value in expected.items()
        if found.get(fact, value) != value
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
        self,
        vectorizer: Vectorizer,
        store: Store[FilterT],
        *,
        retry_seconds: float,
        bridge: Bridge | None = None,
    ) -> None:
        if not retry_seconds >= 0:
            raise ValueError(f"retry_seconds is {retry_seconds!r}, but must be at least 0.")
        self.vectorizer = vectorizer
        self._store = store
        self._retry_seconds = retry_seconds
        self._bridge = bridge
        self._verified = False

    def create(self) -> None:
        """Make the collection, or verify the one that is there. May be called again and again.

        Raises ``CollectionMismatch`` with every difference if it was built by another model, in
        another size, or by something else.
        """
        self._verify(self._sender().insist(self._make))

    def add(
        self,
        documents: Iterable[object],
        *,
        batch_size: int = 256,
        show_progress: bool = False,
        on_error: OnError = "raise",
        moved_from: str | os.PathLike[str] | None = None,
    ) -> IndexReport:
        """Embed and write documents; those already there unchanged are not embedded again.

        The iterable is read lazily, ``batch_size`` documents at a time, and one batch is written
        while the next is encoded. A document replaces the one with its id; of several with one id
        the last stays. Stopped at any point and run again, it ends with the same collection.

        A document without a text, or of white space alone, is left out and named in the report;
        if one of its id is stored, that is deleted.

        Args:
            documents: each a ``Document``, a dataclass with id and text (and payload), a dict
                with "id" and "text" whose other keys are payload, or a tuple
                (id, text[, payload]).
            batch_size: documents that are looked up, encoded and written together.
            show_progress: show a tqdm bar.
            on_error: "raise" the first error once everything before it is written, or "skip" a
                document that cannot be read or encoded and name it in the report. An error of the
                store, or of the iterable itself, is raised in either case.
            moved_from: an origin whose documents those of another may take over; see ``Document``.
        """
        return self.ingest(
            self.vectorizer,
            documents,
            batch_size=batch_size,
            show_progress=show_progress,
            on_error=on_error,
            moved_from=moved_from,
        )

    def ingest(
        self,
        producer: Producer,
        documents: Iterable[object],
        *,
        batch_size: int,
        show_progress: bool,
        on_error: OnError,
        moved_from: str | os.PathLike[str] | None = None,
    ) -> IndexReport:
        """``add`` with vectors from elsewhere, which must be those of this index's encoder."""
        check_documents(documents)
        self._insist_on_opening(self._sender())
        return ingest(
            producer,
            self._store,
            documents,
            batch_size=batch_size,
            show_progress=show_progress,
            on_error=on_error,
            retry_seconds=self._retry_seconds,
            moved_from=moved_from,
        )

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
    ) -> list[list[Hit]]:
        """Find documents; one list of hits per query, best first, also for a single query.

        Args:
            queries: one text or many; all are encoded in one call.
            limit: hits per query.
            mode: "hybrid", or "dense" or "sparse" alone; None (the default) for all that the
                collection has, which is "dense" if its model gives no sparse vectors.
            fusion: how hybrid mode makes one score of two; ``Linear()`` or ``RRF()``.
            candidates: how many of the best of each kind hybrid mode fuses; ``limit`` if that is
                more.
            filter: a condition on the payload in the engine's own language.
            payload_keys: which keys of the payload a hit brings along, to keep a large payload
                where it is; ``()`` for none, None (the default) for all. A key that a document
                lacks is left out. The text always comes.
        """
        check_count("limit", limit, most=MAX_DEPTH)
        check_count("candidates", candidates, most=MAX_DEPTH)
        check_fusion(fusion)
        keys = check_payload_keys(payload_keys)
        if mode is None:
            mode = self.vectorizer.default_mode
        check_choice("mode", mode, Mode)
        hybrid = mode == "hybrid"
        self._open()
        return search(
            self._store,
            self.vectorizer.query_vectors(queries, mode),
            limit=limit,
            depth=max(limit, candidates) if hybrid else limit,
            fusion=fusion if hybrid else _ALONE,
            condition=filter,
            payload_keys=keys,
        )

    async def aadd(
        self,
        documents: Iterable[object],
        *,
        batch_size: int = 256,
        show_progress: bool = False,
        on_error: OnError = "raise",
        moved_from: str | os.PathLike[str] | None = None,
    ) -> IndexReport:
        """``add`` in a thread of its own, so that the event loop goes on.

        Cancelled, it reads no further, and ends when what is in flight is written.
        """
        check_documents(documents)
        source = _Stoppable(documents)
        add = partial(self.add, batch_size=batch_size, show_progress=show_progress)
        running = asyncio.ensure_future(
            self._beside_the_loop(add, source, on_error=on_error, moved_from=moved_from)
        )
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
        mode: Mode | None = None,
        fusion: Fusion = Linear(),  # noqa: B008
        candidates: int = 100,
        filter: FilterT | None = None,  # noqa: A002
        payload_keys: Iterable[str] | None = None,
    ) -> list[list[Hit]]:
        """``search`` in a thread of its own, so that the event loop goes on."""
        return await self._beside_the_loop(
            self.search,
            queries,
            limit=limit,
            mode=mode,
            fusion=fusion,
            candidates=candidates,
            filter=filter,
            payload_keys=payload_keys,
        )

    def explain(
        self,
        query: str,
        document_id: DocumentId,
        *,
        fusion: Linear = Linear(),  # noqa: B008
    ) -> Explanation:
        """Take one document's score apart: both parts, and what each shared token adds.

        The query is encoded; the document's vectors are those that are stored, so the result holds
        for the collection as it is, and the document need not be among the hits. Tokens are named
        as in ``token_weights``.

        Args:
            query: the text searched for.
            document_id: the document, such as a hit's ``id``. ``LookupError`` if it is not there.
            fusion: the weights of both parts. ``RRF`` goes by the ranks of all documents, so it
                cannot explain one.
        """
        found = self.explain_all(query, [document_id], fusion=fusion)
        if document_id not in found:
            raise LookupError(
                f"{self._store.name} has no document {document_id!r}; pass the id of one that was "
                "added, such as a hit's id."
            )
        return found[document_id]

    def explain_all(
        self,
        query: str,
        ids: Iterable[DocumentId],
        *,
        fusion: Linear = Linear(),  # noqa: B008
    ) -> dict[DocumentId, Explanation]:
        """``explain`` for several documents, for which the query is encoded once.

        Documents that are not there are left out.
        """
        check_query(query)
        check_linear(fusion)
        check_ids("ids", ids)
        self._open()
        vectors = ((document_id, self._store.vectors(document_id)) for document_id in ids)
        stored = {document_id: found for document_id, found in vectors if found is not None}
        return explain(self.vectorizer.encoder, query, stored, fusion)

    def delete(self, ids: Iterable[DocumentId]) -> int:
        """Remove documents; return how many of them were there."""
        check_ids("ids", ids)
        sender = self._sender()
        self._insist_on_opening(sender)
        return self._delete(map(id_to_key, ids), sender)

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
        sender = self._sender()
        self._insist_on_opening(sender)
        return self._delete([key for key in self._all_keys(sender) if key not in keep], sender)

    def metadata(self) -> Facts | None:
        """What is stored about the collection's making; None if there is no collection.

        "model", "revision", "max_length", "numeric", "dimensions", "coarse_dimensions", "metric",
        "storage" and "sparse" are what a ``CollectionMismatch`` compares. "name" is the model as
        it was given and "query_prefix" what goes before queries; 0.1.0 did not record these two.

        Raises ``CollectionMismatch`` if the collection was made by something else.
        """
        found = self._store.describe()
        if found is not None:
            check_recorded(self._store.name, found)
        return found

    def count(self) -> int:
        """Number of documents in the collection."""
        self._open()
        return self._store.count()

    def optimize(self) -> None:
        """Build what makes a large collection fast, best after adding much to it.

        A Qdrant directory compares a query with every full vector until this is called; then it
        searches many by graph, and by int8 vectors if that is their ``storage``. Other places do
        so by themselves, and there it does nothing.
        """
        self._open()
        self._store.optimize()

    def close(self) -> None:
        """Release files and connections; a client that was passed in stays open."""
        self._store.close()
        self._verified = False

    async def acreate(self) -> None:
        """``create`` in a thread of its own."""
        await self._beside_the_loop(self.create)

    async def aexplain(
        self,
        query: str,
        document_id: DocumentId,
        *,
        fusion: Linear = Linear(),  # noqa: B008
    ) -> Explanation:
        """``explain`` in a thread of its own."""
        return await self._beside_the_loop(self.explain, query, document_id, fusion=fusion)

    async def aexplain_all(
        self,
        query: str,
        ids: Iterable[DocumentId],
        *,
        fusion: Linear = Linear(),  # noqa: B008
    ) -> dict[DocumentId, Explanation]:
        """``explain_all`` in a thread of its own."""
        return await self._beside_the_loop(self.explain_all, query, ids, fusion=fusion)

    async def adelete(self, ids: Iterable[DocumentId]) -> int:
        """``delete`` in a thread of its own."""
        return await self._beside_the_loop(self.delete, ids)

    async def aprune(self, keep_ids: Iterable[DocumentId]) -> int:
        """``prune`` in a thread of its own."""
        return await self._beside_the_loop(self.prune, keep_ids)

    async def ametadata(self) -> Facts | None:
        """``metadata`` in a thread of its own."""
        return await self._beside_the_loop(self.metadata)

    async def acount(self) -> int:
        """``count`` in a thread of its own."""
        return await self._beside_the_loop(self.count)

    async def aoptimize(self) -> None:
        """``optimize`` in a thread of its own."""
        await self._beside_the_loop(self.optimize)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    async def _beside_the_loop(
        self, verb: Callable[P, T], /, *arguments: P.args, **options: P.kwargs
    ) -> T:
        if self._bridge is not None:
            self._bridge.enter()
        return await asyncio.to_thread(verb, *arguments, **options)

    def _sender(self) -> Sender:
        return Sender(self._store.judge, self._retry_seconds)

    def _all_keys(self, sender: Sender) -> Iterator[str]:
        after = None
        while True:
            keys, after = sender.insist(partial(self._store.key_page, after))
            yield from keys
            if after is None:
                return

    def _delete(self, keys: Iterable[str], sender: Sender) -> int:
        store = self._store
        removed = 0
        for part in batches(keys, _IDS_PER_REQUEST):
            there = list(sender.insist(partial(store.stored, part)))
            if there:
                sender.insist(partial(store.delete, there))
            removed += len(there)
        return removed

    def _make(self) -> Facts | None:
        """Make the collection if there is none; say what there is then. May be repeated."""
        found = self._store.describe()
        if found is not None:
            return found
        self._store.create(self.vectorizer.metadata())
        return self._store.describe()

    def _open(self) -> None:
        if not self._verified:
            self._verify(self._store.describe())

    def _insist_on_opening(self, sender: Sender) -> None:
        if not self._verified:
            self._verify(sender.insist(self._store.describe))

    def _verify(self, found: Facts | None) -> None:
        if found is None:
            raise LookupError(f"{self._store.name} does not exist; call create() first.")
        compare_facts(self._store.name, self.vectorizer.facts(), found)
        self._verified = True


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
