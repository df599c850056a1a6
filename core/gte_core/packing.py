"""Group texts into windows and packs so that memory follows a token budget, not the corpus."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence, Sized
from itertools import islice
from typing import TypeVar

T = TypeVar("T")
S = TypeVar("S", bound=Sized)


def batched(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Yield lists of ``size`` items, the last one shorter; reads no further than it yields."""
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch


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


def plan_packs(lengths: Sequence[int], max_tokens: int) -> list[list[int]]:
    """Indices of the texts of each pack, longest texts first.

    A pack holds at most ``max_tokens`` tokens, or a single text that is longer. Neighbours in
    length share a pack, so that equally long texts can share one kernel call.
    """
    packs: list[list[int]] = []
    room = 0
    for index in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        if not packs or lengths[index] > room:
            packs.append([])
            room = max_tokens
        packs[-1].append(index)
        room -= lengths[index]
    return packs
