"""What the filters of both engines have in common: which values LlamaIndex' operators take.

``MetadataFilters`` mean what LlamaIndex' own in-memory store makes of them: metadata that is not
there meets ``!=``, ``nin`` and ``is_empty`` alone. What an engine cannot do is a ``ValueError``.
"""

from __future__ import annotations

import math
from typing import Any

from llama_index.core.vector_stores.types import (
    FilterOperator,
    MetadataFilter,
    MetadataFilters,
)

from gte_integrations._index.ids import LONE_SURROGATE

_OF_LISTS = {FilterOperator.IN, FilterOperator.NIN, FilterOperator.ANY, FilterOperator.ALL}
NEGATED = {FilterOperator.NE: FilterOperator.EQ, FilterOperator.NIN: FilterOperator.IN}
"""Operators that hold where another does not."""


def check_filters(filters: object) -> None:
    """Raise ``TypeError`` unless it is ``MetadataFilters``, or None."""
    if not (filters is None or isinstance(filters, MetadataFilters)):
        raise TypeError(
            f"filters is a {type(filters).__name__}, but must be MetadataFilters(filters=[...])."
        )


def has_conditions(filters: MetadataFilters) -> bool:
    """Whether there is a condition in it; every node meets one without."""
    return any(
        not isinstance(part, MetadataFilters) or has_conditions(part) for part in filters.filters
    )


def value_of(condition: MetadataFilter) -> Any:
    """The value; ``ValueError`` unless it is of the form that the operator takes."""
    operator, value = condition.operator, condition.value
    for part in (condition.key, *(value if isinstance(value, list) else [value])):
        _check_storable(condition, part)
    if operator == FilterOperator.IS_EMPTY:
        return value
    if operator == FilterOperator.ALL and value == []:
        allowed = "a list of at least one"
    else:
        allowed = "a list" if operator in _OF_LISTS else "a single str, int or float"
        if value is not None and isinstance(value, list) is (operator in _OF_LISTS):
            return value
    raise ValueError(f"{_shown(condition)}, but needs {allowed}.")


def _check_storable(condition: MetadataFilter, value: object) -> None:
    """``ValueError`` for what no document can have, and engines take for something else."""
    if isinstance(value, str) and LONE_SURROGATE.search(value):
        raise ValueError(
            f"{_shown(condition)}, which holds half of a surrogate pair, no character; remove it."
        )
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{_shown(condition)}, but numbers must be finite.")
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise ValueError(f"{_shown(condition)}, but integers must have 64 bits at most.")


def _shown(condition: MetadataFilter) -> str:
    operator, value = condition.operator.value, condition.value
    return f"The filter {condition.key!r} {operator!r} has the value {value!r}"


def refusal(condition: MetadataFilter, engine: str, reason: str) -> ValueError:
    """The error for a filter that an engine cannot do."""
    return ValueError(
        f"The filter {condition.key!r} {condition.operator.value!r} {condition.value!r} cannot be "
        f"put to {engine}: {reason}. Write a condition in the language of {engine} instead, and "
        'pass it by vector_store_kwargs={"filter": ...} of the retriever.'
    )
