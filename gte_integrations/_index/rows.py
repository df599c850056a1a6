"""A row of named fields -> id, text and payload: of a file, of a table, of a framework's metadata.

Values become those that JSON has, by one rule wherever they come from.
"""

from __future__ import annotations

import math
import reprlib
import textwrap
from collections.abc import Iterable, Mapping
from datetime import date, time
from decimal import Decimal
from typing import Any
from uuid import UUID

import numpy as np

from gte_integrations._index.fusion import DocumentId

_MISSING = frozenset({"NaTType", "NAType"})  # of pandas, which is not imported to ask


def read_row(
    fields: Mapping[str, Any], where: str, hint: str = ""
) -> tuple[DocumentId | None, str, Any]:
    """The id (None where there is none), the text and the payload of a row.

    Raises ``ValueError`` that begins with ``where`` and names the column; ``hint`` is what else
    one may do where there is no text.
    """
    check_has_text(fields, where, hint)
    text, row_id = fields["text"], fields.get("id")
    if not isinstance(text, str):
        raise ValueError(f"{where}: 'text' must be a string, found {shown(text)}.")
    payload = {name: value for name, value in fields.items() if name not in {"id", "text"}}
    if row_id in (None, ""):
        return None, text, payload
    if isinstance(row_id, bool) or not isinstance(row_id, (str, int)):
        raise ValueError(f"{where}: 'id' must be a string or an integer, found {shown(row_id)}.")
    return row_id, text, payload


def check_has_text(names: Iterable[str], where: str, hint: str = "") -> None:
    """Raise ``ValueError`` if none of the fields is called ``text``."""
    if "text" not in (found := list(names)):
        raise ValueError(
            f"{where}: no 'text' among the fields found ({listed(found)}); "
            f"name the one to be searched 'text'. {hint}".rstrip()
        )


def listed(names: Iterable[object]) -> str:
    """How a message names fields: all of them, or the first that fit in a line or two."""
    return textwrap.shorten(", ".join(map(repr, names)), 200, placeholder=" ...")


def shown(value: Any) -> str:
    """Describe a wrong value in a message: its type, and the beginning of it."""
    return f"{type(value).__name__} {reprlib.repr(value)}"


def plain(value: Any) -> Any:
    """Make a value into one that JSON has, which is what every other kind of file gives.

    Dates and times become ISO 8601; what stands for nothing (NaN, NaT, NA) becomes None; numbers
    and arrays of NumPy become Python's. Anything else stays, to be refused by whoever stores it.
    """
    try:
        return _plain(value)
    except RecursionError:
        return value  # too deep to be stored


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray) and value.ndim == 0:
        value = value[()]
    if isinstance(value, Mapping):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        return _plain_scalar(value)
    if _is_missing(value):
        return None
    if isinstance(value, (date, time)):
        return value.isoformat()
    return str(value) if isinstance(value, (Decimal, UUID)) else value


def _plain_scalar(value: np.generic) -> Any:
    if isinstance(value, np.datetime64):
        return None if np.isnat(value) else str(value)
    # Of nanoseconds, item() makes a number that says no unit.
    item = value if isinstance(value, np.timedelta64) else value.item()
    return item if isinstance(item, np.generic) else _plain(item)


def _is_missing(value: object) -> bool:
    # NaT is a date, too, and NA compares to nothing.
    is_nan = isinstance(value, float) and math.isnan(value)
    return is_nan or type(value).__name__ in _MISSING
