"""Forked children: they get locks as they stood, one thread, and a torch that may hang.

Locks are renewed in the child. Torch cannot be: its own threads are gone in the child, and a thread
that computed with several of them would wait for them for ever. Only the thread that forked lives
on in a child, so only that one must not compute there; threads that the child starts may.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import takewhile
from typing import Protocol, TypeVar
from weakref import WeakSet

import torch

T = TypeVar("T")
R = TypeVar("R")

_ADVICE = (
    "Start worker processes with 'spawn' (multiprocessing.get_context('spawn')), or load and use "
    "models only after the fork."
)


class Renewable(Protocol):
    """An object with locks or threads."""

    def renew(self) -> None:
        """Begin again with free locks and no threads."""
        ...


_renewable: WeakSet[Renewable] = WeakSet()
_in_torch: set[int] = set()  # threads that are computing
_forked_amid = False
_this_thread = threading.local()  # .process: the one it computed in with several torch threads


def renew_in_children(thing: Renewable) -> None:
    """Call its ``renew`` in every child that this process forks."""
    _renewable.add(thing)


class Threads:
    """A pool of threads, started when they are needed; a forked child begins with none."""

    def __init__(self, max_threads: int, name: str) -> None:
        self._max_threads = max_threads
        self._name = name
        self.renew()
        renew_in_children(self)

    def renew(self) -> None:
        """Begin again without threads."""
        self._pool = ThreadPoolExecutor(self._max_threads, thread_name_prefix=self._name)

    async def run(self, call: Callable[[Iterable[T]], R], items: Iterable[T]) -> R:
        """Call with the items in a thread; one that is cancelled gets no further items."""
        stopped = threading.Event()
        wanted = takewhile(lambda _: not stopped.is_set(), items)
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, call, wanted)
        finally:
            stopped.set()


@contextmanager
def computing() -> Iterator[None]:
    """Surrounds all that computes with torch, loading included.

    Raises ``RuntimeError`` in a forked child where torch would hang.
    """
    _refuse_a_stuck_torch()
    thread = threading.get_ident()
    outermost = thread not in _in_torch
    _in_torch.add(thread)
    try:
        yield
    finally:
        if outermost:
            _in_torch.discard(thread)
        if torch.get_num_threads() > 1:
            _this_thread.process = os.getpid()


def _refuse_a_stuck_torch() -> None:
    if _forked_amid:
        raise RuntimeError(
            "This process was forked while another thread of its parent was computing: torch's "
            f"locks may be held for ever in this copy. {_ADVICE}"
        )
    if getattr(_this_thread, "process", os.getpid()) != os.getpid():
        raise RuntimeError(
            "This process was forked by a thread that had computed with several torch threads, "
            f"which are gone in this copy: torch would wait for them for ever. {_ADVICE}"
        )


def _renew() -> None:
    global _forked_amid  # noqa: PLW0603  one process, one answer
    _forked_amid = _forked_amid or bool(_in_torch - {threading.get_ident()})
    _in_torch.clear()
    for thing in list(_renewable):
        thing.renew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew)
