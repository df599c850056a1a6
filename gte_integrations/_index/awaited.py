"""The awaited verbs: those of an index in a thread of their own, so that the event loop goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Iterator
from functools import partial, update_wrapper
from operator import length_hint
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

from gte_integrations._index.bridge import Bridge


class _Bridged(Protocol):
    @property
    def bridge(self) -> Bridge | None: ...


class _Index(Protocol):
    @property
    def _store(self) -> _Bridged: ...


T = TypeVar("T")
P = ParamSpec("P")
IndexT = TypeVar("IndexT", bound=_Index)


def awaited(
    verb: Callable[Concatenate[IndexT, P], T],
) -> Callable[Concatenate[IndexT, P], Coroutine[Any, Any, T]]:
    """The verb as a coroutine: the same arguments, run in a thread of its own."""

    async def run(self: IndexT, /, *arguments: P.args, **options: P.kwargs) -> T:
        call = getattr(self, verb.__name__)  # a subclass may have one of its own
        return await in_thread(self._store.bridge, partial(call, *arguments, **options))

    update_wrapper(run, verb)  # with the signature that help() shows
    run.__name__ = f"a{verb.__name__}"
    run.__doc__ = f"``{verb.__name__}`` in a thread of its own, so that the event loop goes on."
    return run


async def in_thread(bridge: Bridge | None, call: Callable[[], T]) -> T:
    """Call in a thread; what an async client is asked there comes back to this event loop."""
    if bridge is not None:
        bridge.enter()
    return await asyncio.to_thread(call)


class Stoppable:
    """An iterable that another thread can end with an error."""

    def __init__(self, items: Iterable[object]) -> None:
        self._items = items
        self._stopped = False

    def __iter__(self) -> Iterator[object]:
        for item in self._items:
            if self._stopped:
                raise asyncio.CancelledError
            yield item

    def __length_hint__(self) -> int:
        return length_hint(self._items)

    async def until_cancelled(self, reading: Coroutine[Any, Any, T]) -> T:
        """Await what reads the items; cancelled, let it read no further, and wait for its end."""
        running = asyncio.ensure_future(reading)
        try:
            return await asyncio.shield(running)
        except asyncio.CancelledError:
            self._stopped = True
            await asyncio.wait([running])
            running.exception()  # looked at, or asyncio would report it as lost
            raise
