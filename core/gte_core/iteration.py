"""Ways through many items: in batches, and with a bar that shows how far it is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from operator import length_hint
from typing import TypeVar

T = TypeVar("T")


def batched(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Yield lists of ``size`` items, the last one shorter; reads no further than it yields."""
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch


@contextmanager
def progress_bar(
    items: Iterable[object], unit: str, *, show: bool
) -> Iterator[Callable[[int], object]]:
    """Something to call with the number of items done; draws a bar only if asked to.

    Args:
        items: what will be walked through; if its length is known, the bar shows the whole.
        unit: what an item is called, in the plural.
        show: whether to draw, on stderr.
    """
    if not show:
        yield lambda count: count
        return
    from tqdm.auto import tqdm

    with tqdm(total=length_hint(items) or None, unit=f" {unit}") as bar:
        yield bar.update
