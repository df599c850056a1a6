"""One event loop in a thread of its own, on which all requests of a process are made.

So a connection is shared by callers that wait and by those on event loops of their own, and a
request is closed when its caller is interrupted or cancelled.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

R = TypeVar("R")


class _Background:
    """The loop, started when it is first needed; a forked child begins without one."""

    def __init__(self) -> None:
        self.renew()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self.renew)

    def renew(self) -> None:
        """Begin again with a free lock and no thread."""
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                run = self._loop.run_forever
                threading.Thread(target=run, name="gte-remote", daemon=True).start()
            return self._loop


_BACKGROUND = _Background()


def wait_for(work: Coroutine[Any, Any, R]) -> R:
    """What the work comes to; an interrupt, such as Ctrl-C, cancels it."""
    future = asyncio.run_coroutine_threadsafe(work, _BACKGROUND.loop)
    try:
        return future.result()
    except BaseException:
        future.cancel()
        raise


async def awaited(work: Coroutine[Any, Any, R]) -> R:
    """The same without blocking the caller's event loop; cancelled with its caller."""
    return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, _BACKGROUND.loop))


async def all_of(works: list[Coroutine[Any, Any, R]]) -> list[R]:
    """What all come to, in their order; if one fails, the others are cancelled."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
