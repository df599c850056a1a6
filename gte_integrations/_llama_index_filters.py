"""What the filters of both engines have in common: which values LlamaIndex' operators take.

``MetadataFilters`` mean what LlamaIndex' own in-memory store makes of them: metadata that is not
there meets ``!=``, ``nin`` and ``is_empty`` alone. What an engine cannot do is a ``ValueError``.
"""

from __future__ import annotations

from typing import Any

from llama_index.core.vector_stores.types import FilterOperator, MetadataFilter

_OF_LISTS = {FilterOperator.IN, FilterOperator.NIN, FilterOperator.ANY, FilterOperator.ALL}
NEGATED = {FilterOperator.NE: FilterOperator.EQ, FilterOperator.NIN: FilterOperator.IN}
"""Operators that hold where another does not."""


def value_of(condition: MetadataFilter) -> Any:
    """The value; ``ValueError`` unless it is of the form that the operator takes."""
    operator, value = condition.operator, condition.value
    if operator == FilterOperator.IS_EMPTY:
        return value
    if operator == FilterOperator.ALL and value == []:
        allowed = "a list of at least one"
    else:
        allowed = "a list" if operator in _OF_LISTS else "a single str, int or float"
        if value is not None and isinstance(value, list) is (operator in _OF_LISTS):
            return value
    raise ValueError(
        f"The filter {condition.key!r} {operator.value!r} has the value {value!r}, but needs "
        f"{allowed}."
    )


def refusal(condition: MetadataFilter, engine: str, reason: str) -> ValueError:
    """The error for a filter that an engine cannot do."""
    return ValueError(
        f"The filter {condition.key!r} {condition.operator.value!r} {condition.value!r} cannot be "
        f"put to {engine}: {reason}. Write a condition in the language of {engine} instead, and "
        'pass it by vector_store_kwargs={"filter": ...} of the retriever.'
    )
