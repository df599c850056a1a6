"""One shard of Qdrant's embedded engine, shared by threads: who opens it, and when it may close."""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from weakref import WeakSet

from gte_integrations._index.qdrant.embedded import edge


class SharedShard:
    """Opens a shard at its first use and closes it when nobody uses it any more.

    ::

        with shard() as opened:
            opened.count(...)

    Any number of threads may be inside at once. ``close`` waits for them; after it, entering is an
    error until ``allow`` is called. In a forked child, entering is an error too: the engine's
    threads stayed with the parent, so a call would wait for ever.

    Args:
        name: the collection and where it is, for messages.
        load: opens the shard.
    """

    def __init__(self, name: str, load: Callable[[], edge.EdgeShard]) -> None:
        self._name = name
        self._load = load
        self._opened: edge.EdgeShard | None = None
        self._users = 0
        self._closed = False
        self._inherited = False
        self._lock = threading.Lock()
        self._left = threading.Condition(self._lock)
        _everyone.add(self)

    @contextmanager
    def __call__(self) -> Iterator[edge.EdgeShard]:
        """The open shard. Not to be nested: the inner call could wait for the outer one."""
        shard = self._enter()
        try:
            yield shard
        finally:
            self._leave()

    def allow(self) -> None:
        """Let the shard be opened again after ``close``."""
        self._closed = False

    def open_with(self, load: Callable[[], edge.EdgeShard]) -> None:
        """Open the shard in another way than usual, alone; what was open is closed before."""
        self._refuse_inherited()
        with self._lock:
            self._left.wait_for(self._is_unused)
            self._release()
            self._opened = load()
            self._closed = False

    def close(self) -> None:
        """Wait for the calls that run, then flush and close; may be called again and again."""
        if self._inherited:  # not this process's to flush
            return
        with self._lock:
            self._closed = True
            self._left.wait_for(self._is_unused)
            self._release()

    def inherit(self) -> None:
        """Begin anew in a forked child."""
        # A lock that another thread held stays locked in the child. Its holder was opening the
        # shard, or using or closing it, so half of that may be in the child's memory.
        self._inherited = self._inherited or self._opened is not None or self._lock.locked()
        self._users = 0
        self._lock = threading.Lock()
        self._left = threading.Condition(self._lock)
        if self._opened is not None:
            # Deleted, even at the end of the child, the shard would write what it holds in memory
            # over what its parent has written since. One more reference keeps it for ever.
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._opened))

    def _enter(self) -> edge.EdgeShard:
        self._refuse_inherited()
        with self._lock:
            if self._closed:
                raise RuntimeError(
                    f"{self._name} was closed by another thread while it was in use. What was "
                    "written before is kept; end what uses an index before closing it."
                )
            if self._opened is None:
                self._opened = self._load()
            self._users += 1
            return self._opened

    def _leave(self) -> None:
        with self._lock:
            self._users -= 1
            self._left.notify_all()

    def _is_unused(self) -> bool:
        return self._users == 0

    def _release(self) -> None:
        shard, self._opened = self._opened, None
        if shard is not None:
            shard.flush()
            shard.close()

    def _refuse_inherited(self) -> None:
        if self._inherited:
            raise RuntimeError(
                f"{self._name} was open when this process was forked, and only the parent can go "
                "on with it. Start worker processes with the method 'spawn', or close the index "
                "before the fork and let one process open it after."
            )


_everyone: WeakSet[SharedShard] = WeakSet()


def _inherit_all() -> None:
    for shard in list(_everyone):
        shard.inherit()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_inherit_all)
