"""Checks of an index's arguments; each error says what is allowed."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Collection, Iterable, Mapping
from numbers import Real
from typing import Any, get_args

import numpy as np

from gte_integrations._index.fusion import Fusion, Linear
from gte_integrations._index.preparation import is_reserved


def check_name(what: str, name: object, allowed: re.Pattern[str], wording: str) -> str:
    """What names a collection; ``ValueError`` with ``wording`` unless it matches ``allowed``."""
    if not isinstance(name, str) or not allowed.fullmatch(name):
        raise ValueError(f"{what} is {name!r}, but must be {wording}.")
    return name


def check_count(name: str, value: object, *, least: int = 1, most: int | None = None) -> int:
    """The integer, which may be NumPy's; raise unless it is from ``least`` to ``most``."""
    allowed = f"from {least} to {most:,}" if most else f"at least {least}"
    if isinstance(value, (bool, np.bool_)) or not hasattr(value, "__index__"):
        raise TypeError(f"{name} must be an integer, {allowed}, got {value!r}.")
    count = operator.index(value)
    if count < least or (most and count > most):
        raise ValueError(f"{name} is {count}, but must be {allowed}.")
    return count


def check_choice(name: str, value: str, choices: Any) -> None:
    """Raise ``ValueError`` unless the value is one of the literal type ``choices``."""
    if value not in get_args(choices):
        allowed = ", ".join(map(repr, get_args(choices)))
        raise ValueError(f"{name} is {value!r}, but must be one of {allowed}.")


def check_fusion(fusion: object) -> None:
    """Raise ``TypeError`` unless it is ``Linear`` or ``RRF``."""
    if not isinstance(fusion, get_args(Fusion)):
        raise TypeError(f"fusion is {fusion!r}, but must be Linear(...) or RRF(...).")


def check_score_threshold(threshold: object) -> None:
    """Raise unless it is a finite number, or None."""
    if threshold is None:
        return
    if isinstance(threshold, bool) or not isinstance(threshold, Real):
        raise TypeError(f"score_threshold is {threshold!r}, but must be a number, or None for all.")
    if not math.isfinite(threshold):
        raise ValueError(f"score_threshold is {threshold!r}, but must be finite, or None for all.")


def check_group_by(key: object) -> None:
    """Raise unless it is one key of the payload, or None."""
    if not (key is None or isinstance(key, str)):
        raise TypeError(
            f"group_by is {key!r}, but must be a key of the payload, a str, or None for no groups."
        )
    if key is not None and is_reserved(key):
        raise ValueError(
            f"group_by is {key!r}, which the index uses itself and no payload has; name a key of "
            "the payload."
        )


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


def check_key(name: str, key: object) -> None:
    """Raise unless a server's key is a text that can be sent; no error shows it."""
    if not isinstance(key, str):
        raise TypeError(f"{name} must be a str or None, got {type(key).__name__}.")
    if not key or not key.isprintable() or key != key.strip():
        raise ValueError(
            f"{name} is empty, or has a line break, another control character or a space around "
            "it; pass the key alone, without what was around it in a file."
        )


def check_options(name: str, options: object, allowed: Collection[str]) -> dict[str, Any]:
    """Options for an engine as a dict; an error for a name that is not ``allowed``.

    Values are left to the engine, and not shown: there may be secrets among them.
    """
    if options is None:
        return {}
    if not isinstance(options, Mapping):
        raise TypeError(f"{name} must be a dict of names and values, got {type(options).__name__}.")
    for option in options:
        if option not in allowed:
            raise ValueError(
                f"{name} has {option!r}, but may have only: {', '.join(sorted(allowed))}."
            )
    return dict(options)


def refuse_for(location: str, **given: object) -> None:
    """Raise ``ValueError`` for arguments of a connection where none is made."""
    for name, value in given.items():
        if value is not None:
            raise ValueError(
                f"{name} was given, but location is {location}; it goes with the URL of a server, "
                "to which the index then connects."
            )
