"""LlamaIndex' ``MetadataFilters`` as a Milvus expression."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any

from llama_index.core.vector_stores.types import (
    FilterCondition,
    FilterOperator,
    MetadataFilter,
    MetadataFilters,
)

from gte_integrations._index.fusion import DocumentId
from gte_integrations._index.ids import id_to_key, primary_key
from gte_integrations._llama_index_filters import NEGATED, refusal, value_of
from gte_integrations._vector_store import payload_key

_EVERYTHING = 'id >= ""'
_NOTHING = f"(not ({_EVERYTHING}))"
# Milvus Lite knows no other escapes, and needs none.
_ESCAPED = str.maketrans(
    {char: f"\\{name}" for char, name in zip('"\\\n\r\t', '"\\nrt', strict=True)}
)
_PLAIN_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_COMPARED = {
    FilterOperator.EQ: "==",
    FilterOperator.GT: ">",
    FilterOperator.GTE: ">=",
    FilterOperator.LT: "<",
    FilterOperator.LTE: "<=",
}
_OF_LISTS = {
    FilterOperator.CONTAINS: "json_contains_any",
    FilterOperator.ANY: "json_contains_any",
    FilterOperator.ALL: "json_contains_all",
}


def milvus_filter(
    filters: MetadataFilters | None,
    ids: Iterable[DocumentId] | None = None,
    given: str | None = None,
) -> str | None:
    """All of these together; None for no condition.

    Args:
        filters: LlamaIndex' own.
        ids: of which a document's must be one.
        given: a condition in Milvus' own language.
    """
    parts = [_group(filters)] if filters and filters.filters else []
    if ids is not None:
        parts.append(f"id in {_literal([primary_key(id_to_key(found)) for found in ids])}")
    if given is not None and not isinstance(given, str):
        raise TypeError(
            f"filter is a {type(given).__name__}, but must be a str, an expression of Milvus such "
            "as 'lang == \"en\"'."
        )
    if given:
        parts.append(f"({given})")
    return " and ".join(parts) or None


def _group(filters: MetadataFilters) -> str:
    parts = [
        _group(part) if isinstance(part, MetadataFilters) else _condition(part)
        for part in filters.filters
    ]
    if not parts:
        return _EVERYTHING
    either = " or ".join(parts)
    if filters.condition == FilterCondition.NOT:
        return f"(not ({either}))"
    return f"({either})" if filters.condition == FilterCondition.OR else f"({' and '.join(parts)})"


def _condition(condition: MetadataFilter) -> str:
    value, operator = value_of(condition), condition.operator
    if operator in NEGATED:
        positive = condition.model_copy(update={"operator": NEGATED[operator]})
        return f"(not {_condition(positive)})"
    key = payload_key(condition.key)
    field = f"$meta[{_literal(key)}]"
    if operator == FilterOperator.IS_EMPTY:
        return f'(not (exists {field}) or {field} == "")'
    if operator in _COMPARED:
        held = f"{field} {_COMPARED[operator]} {_literal(value)}"
    elif operator == FilterOperator.IN:
        # Before "in", Milvus Lite takes a plain name alone, and no document with a list there.
        held = " or ".join(f"{field} == {_literal(one)}" for one in value) or _NOTHING
        held = f"({held})"
    elif operator in _OF_LISTS:
        # Inside of a function, Milvus Lite takes nothing but a name.
        name = key if _PLAIN_KEY.fullmatch(key) else field
        wanted = value if isinstance(value, list) else [value]
        held = f"{_OF_LISTS[operator]}({name}, {_literal(wanted)})"
    else:
        held = f"{field} like {_literal(_pattern(condition))}"
    # Without it, a condition on what is missing is neither true nor false, and so is its negation.
    return f"(exists {field} and {held})"


def _pattern(condition: MetadataFilter) -> str:
    if condition.operator != FilterOperator.TEXT_MATCH:
        raise refusal(condition, "Milvus", "it does not ignore case")
    text = str(condition.value)
    if re.search(r"[%_\\]", text):
        raise refusal(
            condition, "Milvus", "%, _ and a backslash are no plain characters in its patterns"
        )
    return f"%{text}%"


def _literal(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_literal, value))}]"
    return f'"{value.translate(_ESCAPED)}"' if isinstance(value, str) else json.dumps(value)
