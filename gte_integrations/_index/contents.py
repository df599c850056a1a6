"""What is in an index: the verbs that look into it, and those that take something out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, Generic, TypeVar

from gte_core.iteration import batched
from gte_integrations._index.awaited import awaited, in_thread
from gte_integrations._index.checks import check_ids
from gte_integrations._index.fusion import DocumentId
from gte_integrations._index.ids import id_to_key
from gte_integrations._index.records import StoredDocument
from gte_integrations._index.search import FilterT
from gte_integrations._index.store import DOCUMENTS_PER_PAGE, KEYS_PER_PAGE, Store
from gte_integrations._retry import Sender

T = TypeVar("T")


class Contents(ABC, Generic[FilterT]):
    """The documents of an index, whose subclass opens it."""

    _store: Store[FilterT]

    @abstractmethod
    def _sending(self, *, anew: bool = False) -> AbstractContextManager[Sender]: ...

    def get(self, ids: Iterable[DocumentId], *, with_vectors: bool = False) -> list[StoredDocument]:
        """Documents by their ids, in the order of those, each once.

        Documents that are not there are left out.

        Args:
            ids: of the documents; ``1`` and ``"1"`` are two.
            with_vectors: whether the vectors come along, which takes longer.
        """
        check_ids("ids", ids)
        documents: list[StoredDocument] = []
        with self._sending() as sender:
            for keys in batched(dict.fromkeys(map(id_to_key, ids)), DOCUMENTS_PER_PAGE):
                read = sender.retry(partial(self._store.read, keys, with_vectors=with_vectors))
                found = {id_to_key(document.id): document for document in read}
                documents += [found[key] for key in keys if key in found]
        return documents

    def documents(
        self,
        *,
        filter: FilterT | None = None,  # noqa: A002
        with_vectors: bool = False,
    ) -> Iterator[StoredDocument]:
        """All documents, or those that meet a filter, in an order of the engine's own.

        They are read as they are taken, and one page of them is held in memory. The index may be
        written to meanwhile: a document that is there from beginning to end comes exactly once.
        Iterating over the index itself does the same.

        Args:
            filter: a condition on the payload in the engine's own language.
            with_vectors: whether the vectors come along, which takes longer.
        """
        for page in self._pages(filter, with_vectors=with_vectors):
            yield from page

    async def adocuments(
        self,
        *,
        filter: FilterT | None = None,  # noqa: A002
        with_vectors: bool = False,
    ) -> AsyncIterator[StoredDocument]:
        """``documents`` for ``async for``; each page is read in a thread of its own."""
        pages = self._pages(filter, with_vectors=with_vectors)
        while page := await in_thread(self._store.bridge, partial(next, pages, None)):
            for document in page:
                yield document

    def delete(
        self,
        ids: Iterable[DocumentId] | None = None,
        *,
        filter: FilterT | None = None,  # noqa: A002
    ) -> int:
        """Remove documents; return how many of them were there.

        Args:
            ids: of the documents; those that are not there are no error.
            filter: a condition on the payload in the engine's own language, in place of ids.
                ``ValueError`` for an empty one, which every document would meet.
        """
        if ids is not None and filter is None:
            check_ids("ids", ids)
            with self._sending(anew=True) as sender:
                return self._remove(map(id_to_key, ids), sender)
        if ids is not None or filter is None:
            raise TypeError(
                f"delete was given {'neither' if ids is None else 'both'} of ids and filter, but "
                "takes exactly one: delete([id, ...]) or delete(filter=...)."
            )
        if self._store.is_empty(filter):
            raise ValueError(
                "filter is empty, so every document would be removed. drop() removes the "
                "collection, and prune(keep_ids) all documents but some; else give a condition."
            )
        with self._sending(anew=True) as sender:
            return self._remove(self._keys(filter, sender), sender)

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
                "up before? To empty a collection, drop() and create() it again."
            )
        with self._sending(anew=True) as sender:
            gone = (key for key in self._keys(None, sender) if key not in keep)
            return self._remove(gone, sender)

    aget = awaited(get)
    adelete = awaited(delete)
    aprune = awaited(prune)

    def __contains__(self, document_id: DocumentId) -> bool:
        with self._sending() as sender:
            return bool(sender.retry(partial(self._store.stored, [id_to_key(document_id)])))

    def __iter__(self) -> Iterator[StoredDocument]:
        return self.documents()

    def _pages(
        self, condition: FilterT | None, *, with_vectors: bool
    ) -> Iterator[list[StoredDocument]]:
        """The documents that meet the condition; no page is empty."""
        page = partial(self._store.page, condition=condition, with_vectors=with_vectors)
        with self._sending() as sender:
            yield from filter(None, _read(page, sender))

    def _keys(self, condition: FilterT | None, sender: Sender) -> Iterator[str]:
        for keys in _read(partial(self._store.key_page, condition=condition), sender):
            yield from keys

    def _remove(self, keys: Iterable[str], sender: Sender) -> int:
        """Remove those documents that are there; return how many."""
        removed = 0
        for part in batched(keys, KEYS_PER_PAGE):
            there = list(sender.retry(partial(self._store.stored, part)))
            if there:
                sender.retry(partial(self._store.delete, there))
            removed += len(there)
        return removed


def _read(page: Callable[[Any], tuple[list[T], Any]], sender: Sender) -> Iterator[list[T]]:
    after = None
    while True:
        items, after = sender.retry(partial(page, after))
        yield items
        if after is None:
            return
