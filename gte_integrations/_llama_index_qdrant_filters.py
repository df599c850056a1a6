"""LlamaIndex' ``MetadataFilters`` as a Qdrant filter.

A condition on a list holds where one of its items meets it, as everywhere in Qdrant, and ``<`` and
its like compare numbers as floats of 64 bits.
"""

from __future__ import annotations

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
from gte_integrations._index.qdrant.client import models
from gte_integrations._llama_index_filters import NEGATED, refusal, value_of
from gte_integrations._vector_store import payload_key

_PLAIN_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_EXACT_AS_FLOAT = 2**53
_BOUNDS = {
    FilterOperator.GT: "gt",
    FilterOperator.GTE: "gte",
    FilterOperator.LT: "lt",
    FilterOperator.LTE: "lte",
}


def qdrant_filter(
    filters: MetadataFilters | None,
    ids: Iterable[DocumentId] | None = None,
    given: models.Filter | None = None,
) -> models.Filter | None:
    """All of these together; None for no condition.

    Args:
        filters: LlamaIndex' own.
        ids: of which a document's must be one.
        given: a condition in Qdrant's own language.
    """
    must: list[Any] = [_group(filters)] if filters and filters.filters else []
    if ids is not None:
        must.append(models.HasIdCondition(has_id=list(ids)))
    if not must:
        return given
    if not (given is None or isinstance(given, models.Filter)):
        raise TypeError(
            f"filter is a {type(given).__name__}, but beside filters, node ids or document ids it "
            "must be a qdrant_client.models.Filter, which a directory takes too."
        )
    return models.Filter(must=must if given is None else [*must, given])


def _group(filters: MetadataFilters) -> models.Filter:
    parts: list[Any] = [
        _group(part) if isinstance(part, MetadataFilters) else _condition(part)
        for part in filters.filters
    ]
    if filters.condition == FilterCondition.NOT:
        return models.Filter(must_not=parts)
    if filters.condition == FilterCondition.OR:
        return models.Filter(should=parts)
    return models.Filter(must=parts)


def _condition(condition: MetadataFilter) -> models.Filter:
    value, operator = value_of(condition), condition.operator
    if operator in NEGATED:
        positive = condition.model_copy(update={"operator": NEGATED[operator]})
        return models.Filter(must_not=[_condition(positive)])
    key = _path(condition)
    if operator in _BOUNDS:
        return models.Filter(must=[_bound(condition, key)])
    if operator == FilterOperator.IS_EMPTY:
        missing = models.IsEmptyCondition(is_empty=models.PayloadField(key=key))
        return models.Filter(should=[missing, _equal(key, "")])
    if operator in {FilterOperator.EQ, FilterOperator.CONTAINS}:
        return models.Filter(must=[_equal(key, value)])
    if operator in {FilterOperator.IN, FilterOperator.ANY}:
        return models.Filter(should=_one_of(key, value))
    if operator == FilterOperator.ALL:
        return models.Filter(must=[_equal(key, part) for part in value])
    raise refusal(condition, "Qdrant", "it finds words, and not any part of a text")


def _path(condition: MetadataFilter) -> str:
    key = payload_key(condition.key)
    if '"' in key:
        raise refusal(condition, "Qdrant", "it finds no key with a quotation mark")
    return key if _PLAIN_KEY.fullmatch(key) else f'"{key}"'  # or a dot would lead into it


def _bound(condition: MetadataFilter, key: str) -> models.FieldCondition:
    if isinstance(condition.value, str):
        raise refusal(condition, "Qdrant", "it orders numbers alone")
    bound = {_BOUNDS[condition.operator]: condition.value}
    return models.FieldCondition(key=key, range=models.Range.model_validate(bound))


def _equal(key: str, value: Any) -> models.FieldCondition:
    if isinstance(value, str) or (isinstance(value, int) and abs(value) >= _EXACT_AS_FLOAT):
        return models.FieldCondition(key=key, match=models.MatchValue(value=value))
    # 3 and 3.0 are equal, but a match takes neither for the other.
    return models.FieldCondition(key=key, range=models.Range(gte=value, lte=value))


def _one_of(key: str, values: list[Any]) -> list[Any]:
    texts = [value for value in values if isinstance(value, str)]
    numbers = [_equal(key, value) for value in values if not isinstance(value, str)]
    # Of no texts it holds nowhere, where no condition at all would hold everywhere.
    return [models.FieldCondition(key=key, match=models.MatchAny(any=texts)), *numbers]
