"""Checks of an index's arguments; each error says what is allowed."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, get_args

from gte_integrations._index.fusion import Fusion, Linear


def check_collection(name: object, allowed: re.Pattern[str], wording: str) -> str:
    """The name of a collection; ``ValueError`` with ``wording`` unless it matches ``allowed``."""
    if not isinstance(name, str) or not allowed.fullmatch(name):
        raise ValueError(f"collection is {name!r}, but must be {wording}.")
    return name


def check_count(name: str, value: int, *, most: int | None = None) -> None:
    """Raise unless the value is an integer of at least 1 and at most ``most``."""
    allowed = f"from 1 to {most:,}" if most else "at least 1"
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an integer, {allowed}, got {value!r}.")
    if value < 1 or (most and value > most):
        raise ValueError(f"{name} is {value}, but must be {allowed}.")


def check_choice(name: str, value: str, choices: Any) -> None:
    """Raise ``ValueError`` unless the value is one of the literal type ``choices``."""
    if value not in get_args(choices):
        allowed = ", ".join(map(repr, get_args(choices)))
        raise ValueError(f"{name} is {value!r}, but must be one of {allowed}.")


def check_fusion(fusion: object) -> None:
    """Raise ``TypeError`` unless it is ``Linear`` or ``RRF``."""
    if not isinstance(fusion, get_args(Fusion)):
        raise TypeError(f"fusion is {fusion!r}, but must be Linear(...) or RRF(...).")


def check_linear(fusion: object) -> None:
    """Raise ``TypeError`` unless it is ``Linear``, which scores each document by itself."""
    if not isinstance(fusion, Linear):
        raise TypeError(
            f"fusion is {fusion!r}, but must be Linear(...): only that rule gives a document a "
            "score that does not depend on the others."
        )


def check_query(query: object) -> None:
    """Raise ``TypeError`` unless it is one text."""
    if not isinstance(query, str):
        raise TypeError(f"query must be a str, got {type(query).__name__}; explain one at a time.")


def check_payload_keys(keys: Iterable[str] | None) -> frozenset[str] | None:
    """The keys as a set, None for all; ``TypeError`` unless they are an iterable of strings."""
    if keys is None:
        return None
    chosen = None if isinstance(keys, (str, bytes)) else frozenset(keys)
    if chosen is None or not all(isinstance(key, str) for key in chosen):
        raise TypeError(
            f"payload_keys is {keys!r}, but must be an iterable of strings, () for no payload, or "
            "None for all of it."
        )
    return chosen


def check_ids(name: str, ids: object) -> None:
    """Raise ``TypeError`` for a single id where several are expected."""
    if isinstance(ids, (str, bytes, int)):
        raise TypeError(
            f"{name} is {ids!r}, a single {type(ids).__name__}, but must be an iterable of ids; "
            "wrap it in a list."
        )
