"""Milvus Lite in this process: a server that its first user starts and its last one stops.

pymilvus starts the server of a path and never stops it. It keeps its files open until the process
ends, also after the directory was deleted, and no other process can open them.
"""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gte_integrations._index.milvus.client import (
    AsyncConnectionManager,
    ConnectionManager,
    MilvusClient,
)
from gte_integrations._index.milvus.remains import remove_stored_logs, remove_unfinished


class _Life:
    """The servers that this process has started."""

    def __init__(self) -> None:
        self.lock = threading.RLock()  # one at a time: open, close, make a collection
        self.paths: set[str] = set()
        self.forked = False


_life = _Life()


def _after_fork() -> None:
    """Leave the servers to the parent: a child has none of their threads, but all their files."""
    paths, _life.paths = _life.paths, set()
    _life.lock = threading.RLock()
    if paths or _life.forked:
        _life.forked = True
        # At its end, a child would write and unlock what the parent still uses.
        atexit.unregister(_servers().release_all)


if hasattr(os, "register_at_fork"):  # not on Windows, which does not fork
    os.register_at_fork(after_in_child=_after_fork)


class LiteServer:
    """One user of the server of a path.

    Args:
        path: the directory, ending in ``.db``.

    Raises:
        OSError: it could not be opened, for instance because another process has it open.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        with _life.lock:
            remove_stored_logs(Path(path))
            uri = _servers().start_and_get_uri(path)
            if uri is None:
                _check_writable(Path(path))
                raise OSError(
                    f"Milvus Lite could not open {path!r}. One process at a time can have it open: "
                    "close the index or client that has it elsewhere, or let several use a "
                    "`milvus-lite server`. The log of milvus_lite names any other reason."
                )
            self._address = uri.removeprefix("http://")
            self.client = MilvusClient(uri)
            _life.paths.add(path)

    @contextmanager
    def room_for(self, collection: str) -> Iterator[None]:
        """Make a collection alone, where a killed attempt may have left its empty directory."""
        with _life.lock:
            remove_unfinished(Path(self._path), collection)
            yield

    def close(self) -> None:
        """Stop the server, if nobody in this process is left who uses it."""
        with _life.lock:
            self.client.close()
            if not _in_use(self._address):
                _servers().release_server(self._path)
                _life.paths.discard(self._path)


def _check_writable(path: Path) -> None:
    """``PermissionError`` where the server's files, or a place for them, are not for this user."""
    places = [path, *path.rglob("*")] if path.exists() else [path.parent]
    for place in places:
        # Also where it is only searched, the server writes.
        if not os.access(place, os.R_OK | os.W_OK | (os.X_OK if place.is_dir() else 0)):
            raise PermissionError(
                f"Milvus Lite could not open {str(path)!r}: this user may not write to "
                f"{str(place)!r}. It writes also where it is only searched; allow it, or search a "
                "copy."
            )


def open_before_fork() -> bool:
    """Whether a process that this one was forked from had Milvus Lite open."""
    return _life.forked


def _servers() -> Any:
    from milvus_lite.server_manager import server_manager_instance

    return server_manager_instance


def _in_use(address: str) -> bool:
    """Whether a client in this process is connected, be it an index's or the user's own."""
    # pymilvus has figures on its clients, but none on the async ones.
    known = ConnectionManager.get_instance().get_stats()["connections"]
    waiting = any(one["address"] == address and one["client_count"] for one in known)
    return waiting or any(
        connection.config.address == address and connection.has_clients
        for manager in list(AsyncConnectionManager._instances.values())
        for connection in [*manager._registry.values(), *manager._dedicated.values()]
    )
