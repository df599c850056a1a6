"""From a location to a Milvus client: opened when first used, closed by whoever opened it."""

from __future__ import annotations

import os
import re
import threading
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from gte_integrations._index.bridge import Bridge
from gte_integrations._index.masking import masked
from gte_integrations._index.milvus.client import AsyncMilvusClient, MilvusClient
from gte_integrations._index.milvus.lite import LiteServer, open_before_fork

# gRPC lets up to two minutes pass before it looks again for a server that was away, and until then
# fails every request at once. How long to wait is for ``retry_seconds`` to say.
_GRPC_OPTIONS = {"grpc.initial_reconnect_backoff_ms": 100, "grpc.max_reconnect_backoff_ms": 500}


class Connection:
    """The client of one index.

    Args:
        location: a path ending in ``.db``, a URI, or a client, which stays open.
    """

    def __init__(self, location: object) -> None:
        self.bridge = Bridge(location) if isinstance(location, AsyncMilvusClient) else None
        self._owned = not isinstance(location, (MilvusClient, AsyncMilvusClient))
        self._location = _checked(location) if self._owned else type(location).__name__
        self.place = self._location if self._owned else id(location)
        self._client: Any = None if self._owned else self.bridge or location
        self._server: LiteServer | None = None
        self._opening = threading.Lock()
        self._process = os.getpid()
        self._closed = False

    @property
    def client(self) -> Any:
        """The client, connected now if it was not.

        ``RuntimeError`` if that was before a fork, or between ``close`` and ``allow``.
        """
        if self._client is None:
            with self._opening:
                if self._client is None:
                    self._client = self._open()
        if self._process != os.getpid():
            raise self._forked()
        return self._client

    def is_there(self) -> bool:
        """Whether there is anything to open; Milvus Lite would make what is missing."""
        return not self._owned or _is_uri(self._location) or Path(self._location).exists()

    def allow(self) -> None:
        """Let it be opened again after ``close``: another verb begins."""
        self._closed = False

    def room_for(self, collection: str) -> AbstractContextManager[None]:
        """Make a collection, alone and where nothing is in its way, if that is in our hands."""
        return nullcontext() if self._server is None else self._server.room_for(collection)

    def close(self) -> None:
        """Close what was opened here; in a forked process that is left to the parent."""
        if not self._owned or self._process != os.getpid():
            return
        with self._opening:
            self._closed = True
            opened, self._client, self._server = self._server or self._client, None, None
        if opened is not None:
            opened.close()

    def _open(self) -> Any:
        if self._closed:
            raise RuntimeError(
                f"{masked(self._location)!r} was closed by another thread while it was in use. "
                "What was written before is kept; end what uses an index before closing it."
            )
        if open_before_fork():
            raise self._forked()
        self._process = os.getpid()
        if _is_uri(self._location):
            return MilvusClient(self._location, grpc_options=_GRPC_OPTIONS)
        self._server = LiteServer(self._location)
        return self._server.client

    def _forked(self) -> RuntimeError:
        shown = masked(self._location)
        return RuntimeError(
            f"This process was forked from one that had Milvus open, so {shown!r} cannot be used "
            "here: gRPC does not survive a fork. Start worker processes with spawn, as in "
            'multiprocessing.get_context("spawn"), or open the index in the child and not before.'
        )


def _is_uri(place: str) -> bool:
    return re.match(r"(https?|tcp|unix)://", place) is not None


def _checked(location: object) -> str:
    if not isinstance(location, (str, os.PathLike)):
        raise TypeError(
            f"location is a {type(location).__name__}, but must be a path that ends in .db, a URI, "
            "a MilvusClient or an AsyncMilvusClient."
        )
    place = os.fspath(location)
    if _is_uri(str(place)):
        return str(place)
    path, shown = Path(str(place)), masked(str(place))
    if path.suffix != ".db":
        raise ValueError(
            f"location is {shown!r}, but must be a path that ends in .db, a URI such as "
            "http://localhost:19530, or a MilvusClient."
        )
    if not path.parent.is_dir():
        raise FileNotFoundError(
            f"location is {shown!r}, but there is no directory {str(Path(shown).parent)!r}; make "
            "it first."
        )
    if path.is_file():
        raise NotADirectoryError(
            f"location is {place!r}, which is a file; Milvus Lite 3 keeps its data in a directory "
            "of that name, so choose another."
        )
    return os.path.abspath(path)  # noqa: PTH100 - as milvus_lite names it, links and all
