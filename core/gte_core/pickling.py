"""Pickles of dataclasses that outlive their fields: by name, and new fields take their defaults."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, fields
from typing import Any


def state_by_name(self: Any) -> dict[str, Any]:
    """``__getstate__``: the fields by name."""
    return {field.name: getattr(self, field.name) for field in fields(self)}


def restore_by_name(self: Any, state: Any, former_order: Sequence[str] = ()) -> None:
    """``__setstate__`` for what ``state_by_name`` gave, and for pickles of version 0.1.0.

    Python's own state of a frozen dataclass is a list of its values, in the order of the fields
    at that time; that of one with slots is ``(None, {name: value})``.

    Args:
        self: the dataclass.
        state: of a pickle.
        former_order: the names of such a list, by default those of the fields today.
    """
    known = fields(self)
    if isinstance(state, list):
        names = former_order or [field.name for field in known]
        state = dict(zip(names, state, strict=False))
    values: Mapping[str, Any] = state[1] if isinstance(state, tuple) else state
    for field in known:
        value = values[field.name] if field.name in values else _default(field)
        object.__setattr__(self, field.name, value)


def _default(field: Field[Any]) -> Any:
    return field.default if field.default_factory is MISSING else field.default_factory()
