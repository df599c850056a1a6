"""The store's own thread: ``add`` waits for it, but never for ever."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any, Self, TypeVar

T = TypeVar("T")

_PATIENCE = 5.0  # seconds that a process which is to end waits for a write


class StoreThread:
    """Runs calls of a store one after another, in a thread beside the caller's.

    Ctrl-C reaches the main thread wherever that is. Inside a client it can leave one of its locks
    taken for good (gRPC's channel has such), and the next call waits for ever. So the main thread
    only waits, and the calls are made here. The thread is a daemon: a call that never returns does
    not keep the process from ending.
    """

    def __init__(self) -> None:
        self._calls: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="gte-store", daemon=True)

    def submit(self, call: Callable[[], T]) -> Future[T]:
        """Run ``call`` when those before it are done."""
        future: Future[T] = Future()
        self._calls.put(lambda: _settle(future, call))
        return future

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        """Wait for what was submitted; with Ctrl-C or an exit under way a few seconds at most."""
        self._calls.put(None)
        leaving = isinstance(error, (KeyboardInterrupt, SystemExit))
        self._thread.join(_PATIENCE if leaving else None)

    def _run(self) -> None:
        while (call := self._calls.get()) is not None:
            call()


def _settle(future: Future[Any], call: Callable[[], Any]) -> None:
    try:
        future.set_result(call())
    except BaseException as error:  # noqa: BLE001 - the waiting thread raises it
        future.set_exception(error)
