"""Async clients in synchronous code, so that an index is written once for both kinds."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any


class Bridge:
    """An async client with synchronous methods, for threads beside its event loop.

    The awaited verbs of an index work in a thread beside the event loop; each request goes back to
    the loop, where the client was made and where its connections live.
    """

    def __init__(self, client: Any) -> None:
        self._client = client
        self._loop: asyncio.AbstractEventLoop | None = None

    def enter(self) -> None:
        """Send requests to the event loop that is running here."""
        self._loop = asyncio.get_running_loop()

    def __getattr__(self, verb: str) -> Callable[..., Any]:
        return partial(self._call, verb)

    def _call(self, verb: str, *arguments: Any, **options: Any) -> Any:
        kind, loop = type(self._client).__name__, self._loop
        if loop is None or not loop.is_running() or _is_on_a_loop():
            raise RuntimeError(
                f"This index has an {kind}, which works in its event loop alone; await the verb "
                "that begins with an a, such as asearch for search, or pass a client that waits."
            )
        method = getattr(self._client, verb, None)
        if method is None:
            raise NotImplementedError(
                f"{kind} has no {verb}, which this needs; pass a {kind.removeprefix('Async')}."
            )
        return asyncio.run_coroutine_threadsafe(method(*arguments, **options), loop).result()


def _is_on_a_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
