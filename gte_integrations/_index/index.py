"""The verbs of a hybrid index, the same for every engine.

An engine adds a ``Vectorizer`` that knows its types and a ``Store`` that talks to it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, ClassVar, Literal, NoReturn, Self

from gte_core import CollectionMismatch, CollectionNotFound, Explanation
from gte_core.foreign import refuses_foreign
from gte_integrations._index import aliases
from gte_integrations._index.adoption import adopt
from gte_integrations._index.awaited import Stoppable, awaited, in_thread
from gte_integrations._index.checks import (
    check_ids,
    check_linear,
    check_query,
)
from gte_integrations._index.document import Document
from gte_integrations._index.explain import explain
from gte_integrations._index.fusion import DocumentId, Linear
from gte_integrations._index.ingest import OnError, ingest
from gte_integrations._index.metadata import Metadata, compare_metadata
from gte_integrations._index.planning import Producer
from gte_integrations._index.reports import IndexReport
from gte_integrations._index.search import FilterT
from gte_integrations._index.searches import Searches
from gte_integrations._index.store import Store, recorded_metadata
from gte_integrations._index.tables import documents_of
from gte_integrations._index.vectorizer import Vectorizer
from gte_integrations._retry import Sender


class HybridIndex(Searches[FilterT]):
    """The verbs. Engines subclass it with a constructor and say what a filter is."""

    engine: ClassVar[Literal["qdrant", "milvus"]]

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
        self._found: Metadata | None = None  # of the collection, as it was last compared

    def create(self, *, alias: str | None = None) -> None:
        """Make the collection, or verify the one that is there. May be called again and again.

        Indexes of payload keys that are missing are added to either.

        Args:
            alias: another name for the collection, made if there is none of it. ``ValueError``,
                before anything is made, if it leads to another one: ``switch_alias`` changes that.

        Raises:
            CollectionMismatch: with every difference, if the collection was built by another
                model, in another size, or by something else.
        """
        sender = self._sender()
        needs_alias = alias is not None and aliases.is_new(self._store, alias, sender)
        self._verify(sender.retry(self._make))
        sender.retry(self._store.add_payload_indexes)
        if alias is not None and needs_alias:
            aliases.switch(self._store, alias, sender)

    def switch_alias(self, alias: str) -> str | None:
        """Let an alias lead to this collection from now on, as at the end of a rebuild.

        Whoever opened an index by the alias finds the former collection until then, and this one
        after. The alias is made if there is none. Where there are no aliases, as in a directory,
        it is a ``NotImplementedError``.

        Returns:
            The collection that it led to before; None if there was none, or it was this one.
        """
        with self._sending(anew=True) as sender:
            return aliases.switch(self._store, alias, sender)

    def adopt(self) -> None:
        """Make a collection this index's own that a vectorizer filled through another client.

        Nothing says which model filled it, so its schema is checked, and eight of its documents are
        encoded again, whose vectors must have a cosine of at least 0.999 to those that are stored.
        Then the model is recorded, as ``create`` does it, and any index of it opens the collection.
        One that is recorded is verified and left as it is.

        Raises:
            CollectionMismatch: it was filled by another model or library; nothing was written.
            CollectionNotFound: there is no collection.
        """
        self._verify(adopt(self.vectorizer, self._store, self._sender()))

    @refuses_foreign
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
                with "id" and "text" whose other keys are payload, a tuple
                (id, text[, payload]), a ``Document`` of LangChain, or a node of LlamaIndex, whose
                text is what LlamaIndex embeds, with metadata. Or a table of pandas, Polars or
                PyArrow with the columns ``id`` and ``text``; the others are payload.
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
        read = documents_of(documents)
        with self._sending(anew=True):
            return ingest(
                producer,
                self._store,
                read,
                batch_size=batch_size,
                show_progress=show_progress,
                on_error=on_error,
                retry_seconds=self._retry_seconds,
                moved_from=moved_from,
            )

    @refuses_foreign
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
        source = Stoppable(documents_of(documents))
        add = partial(
            self.add,
            source,
            batch_size=batch_size,
            show_progress=show_progress,
            on_error=on_error,
            moved_from=moved_from,
        )
        return await source.until_cancelled(in_thread(self._store.bridge, add))

    def reindex(
        self,
        *,
        to: HybridIndex[Any],
        batch_size: int = 256,
        show_progress: bool = False,
        on_error: OnError = "raise",
    ) -> IndexReport:
        """Add all documents to another index: of another model, size or engine.

        Texts, ids, payloads and origins are read from here, a page at a time, and what ``to`` has
        unchanged is not embedded again: stopped at any point and run again, it goes on. Documents
        that only ``to`` has stay there. Nothing is changed here.

        Args:
            to: the index that takes them, whose ``create`` was called.
            batch_size: as of ``add``, like the two below.
            show_progress: show a tqdm bar.
            on_error: "raise" or "skip", for instance what is longer than the other engine allows.

        Returns:
            What ``to.add`` did.
        """
        documents = self._all_for(to)
        return to.add(
            documents, batch_size=batch_size, show_progress=show_progress, on_error=on_error
        )

    async def areindex(
        self,
        *,
        to: HybridIndex[Any],
        batch_size: int = 256,
        show_progress: bool = False,
        on_error: OnError = "raise",
    ) -> IndexReport:
        """``reindex`` in a thread of its own; cancelled, it ends as ``aadd`` does."""
        if isinstance(to, HybridIndex) and to._store.bridge is not None:
            to._store.bridge.enter()
        documents = await in_thread(self._store.bridge, partial(self._all_for, to))
        return await to.aadd(
            documents, batch_size=batch_size, show_progress=show_progress, on_error=on_error
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
        with self._opened():
            vectors = ((document_id, self._store.vectors(document_id)) for document_id in ids)
            stored = {document_id: found for document_id, found in vectors if found is not None}
            if not stored:
                return {}
            return explain(self.vectorizer.vectors([query], "query"), stored, fusion)

    def drop(self) -> None:
        """Remove the collection with all its documents; no error if there is none.

        Its model and size need not be those of this index, so that ``create`` can make it anew.
        Raises ``CollectionMismatch`` if the collection was made by something else.
        """
        sender = self._sender()
        sender.retry(self.metadata)
        sender.retry(self._store.drop)
        self._found = None

    def metadata(self) -> Metadata | None:
        """What is stored about the collection's making; None if there is no collection.

        "model", "revision", "max_length", "numeric", "dimensions", "coarse_dimensions", "metric",
        "storage", "sparse" and, where there is one, "document_prefix" are what a
        ``CollectionMismatch`` compares; from "dimensions" to "storage" they are None without dense
        vectors. "name" is the model as it was given and "query_prefix" what goes before queries;
        0.1.0 did not record these two. Of the sparse half of a ``PairedEncoder`` there is the same
        as "sparse_model", "sparse_name" and so on.

        Raises ``CollectionMismatch`` if the collection was made by something else.
        """
        return recorded_metadata(self._store)

    def count(self) -> int:
        """Number of documents in the collection."""
        with self._opened():
            return self._store.count()

    def optimize(self) -> None:
        """Build what makes a large collection fast, best after adding much to it.

        A Qdrant directory compares a query with every full vector until this is called; then it
        searches many by graph, and by int8 vectors if that is their ``storage``. Other places do
        so by themselves, and there it does nothing.
        """
        with self._opened():
            self._store.optimize()

    def close(self) -> None:
        """Release files and connections; a client that was passed in stays open."""
        self._store.close()
        self._found = None

    acreate = awaited(create)
    aswitch_alias = awaited(switch_alias)
    aadopt = awaited(adopt)
    aexplain = awaited(explain)
    aexplain_all = awaited(explain_all)
    adrop = awaited(drop)
    ametadata = awaited(metadata)
    acount = awaited(count)
    aoptimize = awaited(optimize)

    def __len__(self) -> int:
        return self.count()

    def __bool__(self) -> bool:
        return True  # also without documents: an index is there or not

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            f"{self!r} cannot be copied or sent to another process, for it has its collection "
            "open; open an index there, from the same arguments."
        )

    def __repr__(self) -> str:
        collection = self._store.name.replace("The", "the", 1)
        return f"<{type(self).__name__} on {collection} with {self.vectorizer!r}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _sender(self) -> Sender:
        return Sender(self._store.classify, self._retry_seconds)

    def _all_for(self, to: HybridIndex[Any]) -> Iterator[Document]:
        """All documents as they were added; an error at once if ``to`` is this very collection."""
        if not isinstance(to, HybridIndex):
            raise TypeError(f"to is a {type(to).__name__}, but must be an index.")
        if to is self or aliases.is_same(self._store, to._store):
            raise ValueError(
                f"to is {self._store.name}, which is the one that is read; pass an index on "
                "another collection. To change documents in place, add() them."
            )
        return (Document(one.id, one.text, one.payload, one.origin) for one in self)

    def _make(self) -> Metadata | None:
        """Make the collection if there is none; say what there is then. May be repeated."""
        found = self._store.describe()
        if found is not None:
            return found
        self.vectorizer.fit_to(None)
        self._store.create(self.vectorizer.metadata())
        return self._store.describe()

    @contextmanager
    def _opened(self) -> Iterator[None]:
        """The collection, compared with this index before its first use."""
        if self._found is None:
            self._verify(self._store.describe())
        with self._noticing_a_change():
            yield

    @contextmanager
    def _sending(self, *, anew: bool = False) -> Iterator[Sender]:
        """``_opened`` with retries; what writes has it compared ``anew``."""
        sender = self._sender()
        if anew or self._found is None:
            # Another thread may be closing the index: only what begins after that opens it again.
            describe = partial(self._store.describe, reopen=self._found is None)
            self._verify(sender.retry(describe))
        with self._noticing_a_change():
            yield sender

    @contextmanager
    def _noticing_a_change(self) -> Iterator[None]:
        """Let an error be one of the collection, if that was dropped or made anew meanwhile."""
        try:
            yield
        except Exception as error:
            before = self._found
            if before is None or self._store.classify(error).kind != "permanent":
                raise  # closed meanwhile, or the server is away
            found = self._described_again(before)
            if found == before:
                raise
            self._verify(found)
            raise CollectionMismatch(
                f"{self._store.name} was dropped and made anew while this index used it. The index "
                "fits to the new one, too; call again."
            ) from error

    def _described_again(self, before: Metadata) -> Metadata | None:
        try:
            return self._store.describe(reopen=False)
        except CollectionMismatch:
            raise
        except Exception:  # noqa: BLE001  the error that led here says more
            return before

    def _verify(self, found: Metadata | None) -> None:
        if found != self._found:
            self._found = None  # whatever is wrong, the next verb compares again
        if found is None:
            raise CollectionNotFound(f"{self._store.name} does not exist; call create() first.")
        self.vectorizer.fit_to(found)
        compare_metadata(self._store.name, self.vectorizer.comparable_metadata(), found)
        self._found = found
