"""One filter for every place: ``qdrant_client.models.Filter``, as the embedded engine takes it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar
from uuid import UUID

from gte_integrations._index.ids import id_to_key
from gte_integrations._index.qdrant.client import edge, models

T = TypeVar("T")
R = TypeVar("R")
PointIdOf = Callable[[str], str]
_DEEPEST = 100


def to_client_filter(condition: object, point_id: PointIdOf) -> models.Filter | None:
    """The filter with point ids in place of document ids, for a client or a server.

    Args:
        condition: what ``search`` was given; None for no filter.
        point_id: makes the id of a point of a document's key.
    """
    if condition is None:
        return None
    if isinstance(condition, models.Filter):
        return _with_point_ids(condition, point_id)
    raise TypeError(
        f"filter is a {_kind(condition)}, but must be a qdrant_client.models.Filter, which a "
        "directory takes too."
    )


def to_edge_filter(condition: object, point_id: PointIdOf) -> edge.Filter:
    """The filter in the embedded engine's own types.

    Args:
        condition: what ``search`` was given.
        point_id: makes the id of a point of a document's key.
    """
    if isinstance(condition, models.Filter):
        return _filter(_with_point_ids(condition, point_id))
    raise TypeError(
        f"filter is a {_kind(condition)}, but must be a qdrant_client.models.Filter or a "
        "qdrant_edge.Filter."
    )


def _kind(value: object) -> str:
    kind = type(value)
    module = "qdrant_edge" if kind in vars(edge).values() else kind.__module__
    return kind.__name__ if module == "builtins" else f"{module}.{kind.__name__}"


# ------------------------------------------------------------------ document ids


def _with_point_ids(condition: models.Filter, point_id: PointIdOf, depth: int = 1) -> models.Filter:
    """A copy whose ``has_id`` names points; what the user gave stays as it is."""
    if depth > _DEEPEST:
        raise ValueError(
            f"filter has filters within one another, more than {_DEEPEST} deep; put their "
            "conditions side by side, into one list."
        )

    def renamed(part: Any) -> Any:
        if isinstance(part, models.HasIdCondition):
            return models.HasIdCondition(has_id=[_point(id_, point_id) for id_ in part.has_id])
        if isinstance(part, models.Filter):
            return _with_point_ids(part, point_id, depth + 1)
        if isinstance(part, models.NestedCondition):
            inner = _with_point_ids(part.nested.filter, point_id, depth + 1)
            return models.NestedCondition(nested=models.Nested(key=part.nested.key, filter=inner))
        return part

    least = condition.min_should
    return models.Filter(
        must=_each(condition.must, renamed),
        should=_each(condition.should, renamed),
        must_not=_each(condition.must_not, renamed),
        min_should=least
        and least.model_copy(update={"conditions": _each(least.conditions, renamed)}),
    )


def _point(document_id: int | str | UUID, point_id: PointIdOf) -> str:
    return point_id(id_to_key(str(document_id) if isinstance(document_id, UUID) else document_id))


def _each(conditions: Any, change: Callable[[Any], Any]) -> list[Any] | None:
    """A clause is None, one condition or a list of them; an empty list is not None."""
    if conditions is None:
        return None
    return [change(part) for part in (conditions if isinstance(conditions, list) else [conditions])]


# ------------------------------------------------------------------ conditions


def _filter(condition: models.Filter) -> edge.Filter:
    return edge.Filter(
        must=_each(condition.must, _condition),
        should=_each(condition.should, _condition),
        must_not=_each(condition.must_not, _condition),
        min_should=_optional(condition.min_should, _min_should),
    )


def _min_should(least: models.MinShould) -> edge.MinShould:
    if least.min_count < 1:  # servers refuse it, the engine does not
        raise ValueError(f"min_should has min_count {least.min_count}, but it must be at least 1.")
    return edge.MinShould([_condition(part) for part in least.conditions], least.min_count)


def _condition(condition: object) -> Any:
    return _converted(condition, _CONDITIONS)


def _match(match: object) -> Any:
    return _converted(match, _MATCHES)


def _range(bounds: object) -> Any:
    return _converted(bounds, _RANGES)


def _converted(value: object, rules: dict[str, Callable[[Any], Any]]) -> Any:
    rule = rules.get(type(value).__name__)
    if rule is None:
        raise TypeError(
            f"A part of the filter is a {_kind(value)}, which a Qdrant directory does not take; "
            f"use {', '.join(rules)}."
        )
    return rule(value)


def _optional(value: T | None, rule: Callable[[T], R]) -> R | None:
    return None if value is None else rule(value)


def _field(condition: models.FieldCondition) -> edge.FieldCondition:
    return edge.FieldCondition(
        key=condition.key,
        match=_optional(condition.match, _match),
        range=_optional(condition.range, _range),
        geo_bounding_box=_optional(condition.geo_bounding_box, _box),
        geo_radius=_optional(condition.geo_radius, _radius),
        geo_polygon=_optional(condition.geo_polygon, _polygon),
        values_count=_optional(condition.values_count, _count),
        is_empty=condition.is_empty,
        is_null=condition.is_null,
    )


def _value(match: models.MatchValue) -> edge.MatchValue:
    # The engine reads Python's True as the integer 1, which no truth value matches.
    exact: Any = _Truth(match.value) if isinstance(match.value, bool) else match.value
    return edge.MatchValue(exact)


class _Truth:
    """A truth value that is no integer.

    The engine tries integers first, and of what is none takes numpy's truth values, which it knows
    by their name. Those of numpy 1 would pass for integers, too.
    """

    def __init__(self, value: bool) -> None:
        self._value = value

    def __bool__(self) -> bool:
        return self._value


_Truth.__module__, _Truth.__name__ = "numpy", "bool_"


def _numbers(given: models.Range) -> edge.RangeFloat:
    return edge.RangeFloat(**_bounds(given))


def _times(given: models.DatetimeRange) -> edge.RangeDateTime:
    bounds = _bounds(given).items()
    return edge.RangeDateTime(**{name: bound and bound.isoformat() for name, bound in bounds})


def _count(given: models.ValuesCount) -> edge.ValuesCount:
    return edge.ValuesCount(**_bounds(given))


def _bounds(given: models.Range | models.DatetimeRange | models.ValuesCount) -> dict[str, Any]:
    return {name: getattr(given, name) for name in ("lt", "gt", "lte", "gte")}


def _box(box: models.GeoBoundingBox) -> edge.GeoBoundingBox:
    return edge.GeoBoundingBox(_place(box.top_left), _place(box.bottom_right))


def _radius(circle: models.GeoRadius) -> edge.GeoRadius:
    return edge.GeoRadius(_place(circle.center), circle.radius)


def _polygon(polygon: models.GeoPolygon) -> edge.GeoPolygon:
    holes = [_line(hole) for hole in polygon.interiors or []]
    return edge.GeoPolygon(_line(polygon.exterior), holes or None)


def _line(line: models.GeoLineString) -> list[edge.GeoPoint]:
    return [_place(point) for point in line.points]


def _place(point: models.GeoPoint) -> edge.GeoPoint:
    return edge.GeoPoint(point.lon, point.lat)


# By name, for not every version of qdrant-client has all of them. The tests hold each table
# against the client's own list of kinds.
_CONDITIONS: dict[str, Callable[[Any], Any]] = {
    "FieldCondition": _field,
    "IsEmptyCondition": lambda given: edge.IsEmptyCondition(given.is_empty.key),
    "IsNullCondition": lambda given: edge.IsNullCondition(given.is_null.key),
    "HasIdCondition": lambda given: edge.HasIdCondition(set(given.has_id)),
    "HasVectorCondition": lambda given: edge.HasVectorCondition(given.has_vector),
    "SliceCondition": lambda given: edge.SliceCondition(  # type: ignore[attr-defined]
        given.slice.total, given.slice.index
    ),
    "NestedCondition": lambda given: edge.NestedCondition(
        given.nested.key, _filter(given.nested.filter)
    ),
    "Filter": _filter,
}
_MATCHES: dict[str, Callable[[Any], Any]] = {
    "MatchValue": _value,
    "MatchText": lambda given: edge.MatchText(given.text),
    "MatchTextAny": lambda given: edge.MatchTextAny(given.text_any),
    "MatchPhrase": lambda given: edge.MatchPhrase(given.phrase),
    "MatchPrefix": lambda given: edge.MatchPrefix(given.prefix),
    "MatchSubstring": lambda given: edge.MatchSubstring(given.substring),
    "MatchAny": lambda given: edge.MatchAny(given.any),
    "MatchExcept": lambda given: edge.MatchExcept(given.except_),
}
_RANGES: dict[str, Callable[[Any], Any]] = {"Range": _numbers, "DatetimeRange": _times}
