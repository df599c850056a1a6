"""What an engine's store does for an index."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from gte_integrations._index.aliases import Aliased
from gte_integrations._index.bridge import Bridge
from gte_integrations._index.fusion import DocumentId
from gte_integrations._index.ingest import Sink
from gte_integrations._index.metadata import Metadata, check_recorded
from gte_integrations._index.records import StoredDocument, StoredVectors
from gte_integrations._index.search import FilterT_contra, Source

DOCUMENTS_PER_PAGE = 256  # of the largest that Milvus takes, half of what it sends at once
KEYS_PER_PAGE = 1_000


class Store(Sink, Aliased, Source[FilterT_contra], Protocol[FilterT_contra]):
    """One collection in one engine."""

    @property
    def name(self) -> str:
        """The collection and where it is, for messages."""
        ...

    @property
    def bridge(self) -> Bridge | None:
        """The way to an async client; None for any other."""
        ...

    def describe(self, *, reopen: bool = True) -> Metadata | None:
        """The metadata of the collection as it is, None if there is no collection.

        It may be opened again after ``close``, or else stays closed, which may be an error.
        """
        ...

    def create(self, metadata: Metadata) -> None:
        """Make the collection and keep the metadata with it."""
        ...

    def add_payload_indexes(self) -> None:
        """Make those indexes of payload keys that the store was told of and that are missing."""
        ...

    def schema(self) -> Metadata | None:
        """What the collection is built for, recorded or not, None if there is no collection.

        The keys are "dimensions", "coarse_dimensions", "metric", "storage" and "sparse"; without
        dense vectors, the first four are None.
        """
        ...

    def missing(self) -> list[str]:
        """Names of fields and payload keys that documents of an index have, and these lack."""
        ...

    def record(self, metadata: Metadata) -> None:
        """Keep metadata with a collection that is there and has none."""
        ...

    def vectors(self, document_id: DocumentId) -> StoredVectors | None:
        """The dense and the sparse vector of a document, None if it is not there."""
        ...

    def read(self, keys: Sequence[str], *, with_vectors: bool) -> list[StoredDocument]:
        """Those of these documents that are there, in any order."""
        ...

    def page(
        self, after: Any, condition: FilterT_contra | None, *, with_vectors: bool
    ) -> tuple[list[StoredDocument], Any]:
        """Some documents, in any order, and what to ask for the next ones with.

        ``after`` is None for the first page, and then what came beside the one before; with the
        last page comes None. A page may be asked for again, and written to in between: a document
        that stays is in exactly one.
        """
        ...

    def key_page(self, after: Any, condition: FilterT_contra | None) -> tuple[list[str], Any]:
        """``page``, but the keys alone."""
        ...

    def is_empty(self, condition: FilterT_contra) -> bool:
        """Whether the condition says nothing, so that every document meets it."""
        ...

    def count(self) -> int:
        """Number of documents, exactly."""
        ...

    def drop(self) -> None:
        """Remove the collection, or what a killed ``create`` left of it; no error without one."""
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


def recorded_metadata(store: Store[Any]) -> Metadata | None:
    """The metadata of a store's collection, None if there is none.

    Raises ``CollectionMismatch`` if the collection was made by something else.
    """
    found = store.describe()
    if found is not None:
        check_recorded(store.name, found)
    return found


def read_metadata(store: Store[Any]) -> Metadata | None:
    """``recorded_metadata`` of a store that is opened for nothing else, and closed again."""
    try:
        return recorded_metadata(store)
    finally:
        store.close()


def list_collections(store: Store[Any]) -> list[str]:
    """The collections beside the store's own; it is opened for nothing else, and closed again."""
    try:
        return store.collections()
    finally:
        store.close()
