"""Reads through a collection, page by page, and looks documents up."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, TypeVar

from gte_core.iteration import batched
from gte_integrations._index.ids import id_to_key
from gte_integrations._index.records import StoredDocument
from gte_integrations._index.retry import Sender
from gte_integrations._index.search import FilterT
from gte_integrations._index.store import DOCUMENTS_PER_PAGE, Store

T = TypeVar("T")


def read_documents(
    store: Store[Any], keys: Iterable[str], sender: Sender, *, with_vectors: bool
) -> list[StoredDocument]:
    """Those of these documents that are there, in the order of the keys, each once."""
    documents: list[StoredDocument] = []
    for part in batched(dict.fromkeys(keys), DOCUMENTS_PER_PAGE):
        read = sender.retry(partial(store.read, part, with_vectors=with_vectors))
        found = {id_to_key(document.id): document for document in read}
        documents += [found[key] for key in part if key in found]
    return documents


def read_pages(
    store: Store[FilterT], sender: Sender, condition: FilterT | None, *, with_vectors: bool
) -> Iterator[list[StoredDocument]]:
    """The documents that meet the condition; no page is empty."""
    page = partial(store.page, condition=condition, with_vectors=with_vectors)
    return filter(None, _pages(page, sender))


def read_keys(store: Store[FilterT], sender: Sender, condition: FilterT | None) -> Iterator[str]:
    """The keys of the documents that meet the condition."""
    for keys in _pages(partial(store.key_page, condition=condition), sender):
        yield from keys


def _pages(page: Callable[[Any], tuple[list[T], Any]], sender: Sender) -> Iterator[list[T]]:
    after = None
    while True:
        items, after = sender.retry(partial(page, after))
        yield items
        if after is None:
            return
