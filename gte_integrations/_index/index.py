"""The verbs of a hybrid index, the same for every engine.

An engine adds a ``Vectorizer`` that knows its types and a ``Store`` that talks to it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import Any, Generic, Protocol, Self

from gte_core import CollectionNotFound, Explanation
from gte_core.iteration import batched
from gte_integrations._index.awaited import Stoppable, awaited, in_thread
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
from gte_integrations._index.ids import id_to_key
from gte_integrations._index.ingest import OnError, Sink, ingest
from gte_integrations._index.metadata import Metadata, compare_metadata, recorded_metadata
from gte_integrations._index.planning import Producer
from gte_integrations._index.reports import IndexReport
from gte_integrations._index.retry import Sender
from gte_integrations._index.search import MAX_DEPTH, FilterT, FilterT_contra, Hit, Source, search
from gte_integrations._index.vectorizer import Mode, Vectorizer

_IDS_PER_REQUEST = 1_000
_ALONE = Linear(dense_weight=1.0, sparse_weight=1.0)


class Store(Sink, Source[FilterT_contra], Protocol[FilterT_contra]):
    """One collection in one engine."""

    @property
    def name(self) -> str:
        """The collection and where it is, for messages."""
        ...

    @property
    def bridge(self) -> Bridge | None:
        """The way to an async client; None for any other."""
        ...

    def describe(self) -> Metadata | None:
        """The metadata of the collection as it is, None if there is no collection."""
        ...

    def create(self, metadata: Metadata) -> None:
        """Make the collection and keep the metadata with it."""
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

    def collections(self) -> list[str]:
        """The names of all collections beside this one, sorted, whoever made them."""
        ...

    def optimize(self) -> None:
        """Build the indexes now, if the engine would not by itself."""
        ...

    def close(self) -> None:
        """Release files and connections."""
        ...


class HybridIndex(Generic[FilterT]):
    """The verbs. Engines subclass it with a constructor and say what a filter is."""

    def __init__(
        self,
        vectorizer: Vectorizer,
        store: Store[FilterT],
        *,
        retry_seconds: float,
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
        self._verify(self._sender().retry(self._make))

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
        self._open_with_retries()
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
        source = Stoppable(documents)
        add = partial(
            self.add,
            source,
            batch_size=batch_size,
            show_progress=show_progress,
            on_error=on_error,
            moved_from=moved_from,
        )
        return await source.until_cancelled(in_thread(self._store.bridge, add))

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
        sender = self._open_with_retries()
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
        sender = self._open_with_retries()
        return self._delete([key for key in self._all_keys(sender) if key not in keep], sender)

    def metadata(self) -> Metadata | None:
        """What is stored about the collection's making; None if there is no collection.

        "model", "revision", "max_length", "numeric", "dimensions", "coarse_dimensions", "metric",
        "storage" and "sparse" are what a ``CollectionMismatch`` compares. "name" is the model as
        it was given and "query_prefix" what goes before queries; 0.1.0 did not record these two.

        Raises ``CollectionMismatch`` if the collection was made by something else.
        """
        return recorded_metadata(self._store)

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

    acreate = awaited(create)
    asearch = awaited(search)
    aexplain = awaited(explain)
    aexplain_all = awaited(explain_all)
    adelete = awaited(delete)
    aprune = awaited(prune)
    ametadata = awaited(metadata)
    acount = awaited(count)
    aoptimize = awaited(optimize)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _sender(self) -> Sender:
        return Sender(self._store.classify, self._retry_seconds)

    def _all_keys(self, sender: Sender) -> Iterator[str]:
        after = None
        while True:
            keys, after = sender.retry(partial(self._store.key_page, after))
            yield from keys
            if after is None:
                return

    def _delete(self, keys: Iterable[str], sender: Sender) -> int:
        store = self._store
        removed = 0
        for part in batched(keys, _IDS_PER_REQUEST):
            there = list(sender.retry(partial(store.stored, part)))
            if there:
                sender.retry(partial(store.delete, there))
            removed += len(there)
        return removed

    def _make(self) -> Metadata | None:
        """Make the collection if there is none; say what there is then. May be repeated."""
        found = self._store.describe()
        if found is not None:
            return found
        self._store.create(self.vectorizer.metadata())
        return self._store.describe()

    def _open(self) -> None:
        if not self._verified:
            self._verify(self._store.describe())

    def _open_with_retries(self) -> Sender:
        sender = self._sender()
        if not self._verified:
            self._verify(sender.retry(self._store.describe))
        return sender

    def _verify(self, found: Metadata | None) -> None:
        if found is None:
            raise CollectionNotFound(f"{self._store.name} does not exist; call create() first.")
        compare_metadata(self._store.name, self.vectorizer.comparable_metadata(), found)
        self._verified = True
