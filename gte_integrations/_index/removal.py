"""Removes documents by their keys."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any

from gte_core.iteration import batched
from gte_integrations._index.retry import Sender
from gte_integrations._index.store import KEYS_PER_PAGE, Store


def remove(store: Store[Any], keys: Iterable[str], sender: Sender) -> int:
    """Remove those documents that are there; return how many."""
    removed = 0
    for part in batched(keys, KEYS_PER_PAGE):
        there = list(sender.retry(partial(store.stored, part)))
        if there:
            sender.retry(partial(store.delete, there))
        removed += len(there)
    return removed
