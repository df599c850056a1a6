"""Group texts into windows and packs so that memory follows a token budget, not the corpus."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")
S = TypeVar("S", bound=Sized)


def windows(items: Iterable[S], *, max_size: int, max_items: int) -> Iterator[list[S]]:
    """Split a stream into runs that end once they hold ``max_size`` units or ``max_items``."""
    window: list[S] = []
    size = 0
    for item in items:
        window.append(item)
        size += len(item)
        if size >= max_size or len(window) >= max_items:
            yield window
            window, size = [], 0
    if window:
        yield window


def computed_ahead(function: Callable[[T], R], items: Iterable[T], *, depth: int) -> Iterator[R]:
    """``map``, with up to ``depth`` results being made in a thread while the caller is busy.

    The items are read in the caller's thread, ``depth`` further than results are asked for.
    """
    if not depth:
        yield from map(function, items)
        return
    worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="gte-tokenize")
    try:
        started: deque[Future[R]] = deque()
        for item in items:
            started.append(worker.submit(function, item))
            if len(started) > depth:
                yield started.popleft().result()
        while started:
            yield started.popleft().result()
    finally:
        worker.shutdown(cancel_futures=True)


def plan_packs(lengths: Mapping[int, int], max_tokens: int) -> list[list[int]]:
    """The numbers of the texts of each pack, longest texts first; lengths are by number too.

    A pack holds at most ``max_tokens`` tokens, or a single text that is longer. Neighbours in
    length share a pack, so that equally long texts can share one kernel call. Packs are about
    equally full: a small one at the end would cost nearly as much as a full one.
    """
    total = sum(lengths.values())
    enough = total / -(-total // max_tokens) if total else 0
    packs: list[list[int]] = []
    held = max_tokens
    for number, length in sorted(lengths.items(), key=lambda item: -item[1]):
        if held >= enough or held + length > max_tokens:
            packs.append([])
            held = 0
        packs[-1].append(number)
        held += length
    return packs
