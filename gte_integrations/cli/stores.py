"""Where a collection is, as it is written on the command line: ``qdrant:DIR``, a URL and so on."""

from __future__ import annotations

import difflib
import logging
import os
import re
import warnings
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast
from urllib.parse import urlsplit

from gte_core import CollectionNotFound
from gte_integrations._index.masking import masked
from gte_integrations.cli.output import note

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gte_core import Encoder
    from gte_integrations._index.index import HybridIndex
    from gte_integrations._index.metadata import Metadata, Quantization
    from gte_integrations.milvus import MilvusHybridIndex
    from gte_integrations.qdrant import QdrantHybridIndex

Engine = Literal["qdrant", "milvus"]

_PORTS: dict[str, Engine] = {"6333": "qdrant", "19530": "milvus"}
# Where the key of an engine's server is looked for, and the argument of its index that takes it.
_KEYS: dict[Engine, tuple[str, str]] = {
    "qdrant": ("QDRANT_API_KEY", "api_key"),
    "milvus": ("MILVUS_TOKEN", "token"),
}
_REFUSED = {401, 403}  # by a server that wants a key, or another one
_PACKAGES = {"grpc", "milvus_lite", "pymilvus", "qdrant_client", "qdrant_edge"}
_FORM = re.compile(r"(?P<engine>qdrant|milvus)(?::|\+(?=https?://))(?P<location>.+)", re.DOTALL)
_PORT = re.compile(r"https?://[^/]+:(\d+)")


@dataclass(frozen=True, slots=True)
class StoreLocation:
    """An engine, the directory, file or URL it shall open, and the key of a server."""

    engine: Engine
    location: str
    key: str | None = field(default=None, repr=False)

    def __str__(self) -> str:
        """As it is written, without its secrets."""
        return f"{self.engine}{'+' if self.is_url else ':'}{masked(self.location)}"

    @property
    def is_url(self) -> bool:
        """Whether a server is meant."""
        return "://" in self.location

    @property
    def credentials(self) -> dict[str, Any]:
        """The key, as an argument of an index."""
        return {} if self.key is None else {_KEYS[self.engine][1]: self.key}

    def with_key(self, file: Path | None) -> StoreLocation:
        """The same with the key of its server: from a file, or else from the environment.

        Never from the command line, which every user of the machine can read in ``ps``.
        """
        if file is not None and not self.is_url:
            raise ValueError(
                f"{str(file)!r} is to hold the key of a server, but {self} is none; leave it out."
            )
        if not self.is_url:
            return self
        if file is None:
            key = os.environ.get(_KEYS[self.engine][0], "").strip()
        else:
            key = file.read_text(encoding="utf-8").strip()
        if file is not None and not key:
            raise ValueError(
                f"{str(file)!r} is to hold the key of {self}, but is empty; write the key."
            )
        if key and urlsplit(self.location).scheme != "https":
            note(f"The key is sent to {self} unencrypted; https:// would encrypt it.")
        return replace(self, key=key or None)

    @classmethod
    def parse(cls, text: str) -> StoreLocation:
        """Read ``qdrant:DIR``, ``milvus:FILE``, ``ENGINE+URL``, or a URL with an engine's port.

        Raises ``ValueError`` that says how to write it.
        """
        shown = masked(text)
        if match := _FORM.fullmatch(text):
            _check_port(match["location"])
            found = cls(cast("Engine", match["engine"]), match["location"])
            if found.engine == "milvus" and not found.is_url and not text.endswith(".db"):
                raise ValueError(
                    f"{shown!r} names a file for Milvus without .db; write {shown}.db."
                )
            return found
        if not text.startswith(("http://", "https://")):
            raise ValueError(
                f"{shown!r} does not say which engine; write qdrant:DIR, milvus:FILE, "
                "qdrant+http://HOST:PORT or milvus+http://HOST:PORT."
            )
        port = _PORT.match(text)
        if port and (engine := _PORTS.get(port[1])):
            return cls(engine, text)
        raise ValueError(
            f"{shown!r} may be either engine, as its port is neither 6333 (Qdrant) nor 19530 "
            f"(Milvus); write qdrant+{shown} or milvus+{shown}."
        )


@dataclass(frozen=True, slots=True)
class Sizes:
    """How a collection keeps its dense vectors: arguments of an index, by their names there."""

    dimensions: int | None = None
    coarse_dimensions: int | None = None
    storage: Quantization = "float32"


class StoreError(Exception):
    """The engine behind a collection failed, or lacks the collection."""


def read_metadata(store: StoreLocation, collection: str) -> Metadata | None:
    """What is stored with a collection about its making; None if there is no collection.

    Needs no model and makes nothing. ``CollectionMismatch`` if another library made it.
    """
    with _store_errors(store, collection):
        return _index_class(store.engine).read_metadata(
            store.location, collection, **store.credentials
        )


def list_collections(store: StoreLocation) -> list[str]:
    """The names of the collections in a store, sorted; none if there is no store."""
    if not _is_there(store):
        return []
    with _store_errors(store, ""):
        return _index_class(store.engine).collections(store.location, **store.credentials)


def no_collection(store: StoreLocation, collection: str) -> StoreError:
    """The error for a collection that was to be read, with names that are near it."""
    lacks = "has no" if _is_there(store) else "does not exist, so it has no"
    close = difflib.get_close_matches(collection, list_collections(store))
    near = f"did you mean {' or '.join(map(repr, close))}?"
    hint = near if close else "fill it first, with gte index."
    return StoreError(f"{store} {lacks} collection {collection!r}; {hint}")


@contextmanager
def open_index(
    store: StoreLocation,
    collection: str,
    encoder: Encoder,
    sizes: Sizes = Sizes(),
) -> Iterator[HybridIndex[Any]]:
    """Open a collection with the engine that the location names; the other is not imported.

    What goes wrong inside the engine is raised as ``StoreError`` that names the location.
    """
    with (
        _store_errors(store, collection),
        _index_class(store.engine)(
            store.location,
            collection,
            encoder,
            dimensions=sizes.dimensions,
            coarse_dimensions=sizes.coarse_dimensions,
            storage=sizes.storage,
            **store.credentials,
        ) as index,
    ):
        yield index


@contextmanager
def _store_errors(store: StoreLocation, collection: str) -> Iterator[None]:
    try:
        yield
    except CollectionNotFound as error:
        raise no_collection(store, collection) from error
    except Exception as error:
        if not _is_from_engine(error):
            raise
        failed = StoreError(f"{store}: {getattr(error, 'message', None) or error}")
        for note in getattr(error, "__notes__", []):
            failed.add_note(note)
        if getattr(error, "status_code", None) in _REFUSED or "auth check failure" in str(failed):
            failed.add_note(
                f"The key of the server is read from {_KEYS[store.engine][0]}, or from the file "
                "that --api-key-file names."
            )
        raise failed from error


def _check_port(location: str) -> None:
    """Refuse a URL that the engines' clients would quote with a part of its password."""
    try:
        _ = urlsplit(location).port
    except ValueError:
        raise ValueError(
            f"{masked(location)!r} has no number for a port; write http://HOST:PORT, and in a name "
            "or password before the host %2F for a slash, %3F for ? and %23 for #."
        ) from None


def _is_there(store: StoreLocation) -> bool:
    """Whether there is anything to open; Milvus Lite would make what is missing."""
    return store.is_url or Path(store.location).exists()


def _index_class(engine: Engine) -> type[QdrantHybridIndex | MilvusHybridIndex]:
    if engine == "qdrant":
        from gte_integrations.qdrant import QdrantHybridIndex

        # Said once, by with_key, and without a line of our code.
        warnings.filterwarnings("ignore", "Api key is used with an insecure connection")
        return QdrantHybridIndex
    from gte_integrations.milvus import MilvusHybridIndex

    # Both log every error with a traceback before they raise it.
    for logger in ("milvus_lite", "pymilvus"):
        logging.getLogger(logger).setLevel(logging.CRITICAL)
    return MilvusHybridIndex


def _is_from_engine(error: Exception) -> bool:
    # qdrant-edge raises plain Exception.
    return type(error) is Exception or any(
        kind.__module__.partition(".")[0] in _PACKAGES for kind in type(error).__mro__
    )
