"""A filter of qdrant-client means the same in a directory as behind a client."""

from datetime import UTC, date, datetime, timedelta, timezone
from typing import get_args
from uuid import UUID

import pytest

from gte_integrations._index.qdrant.client import QdrantClient, edge, models
from gte_integrations._index.qdrant.points import point_id
from gte_integrations.qdrant import QdrantHybridIndex

BERLIN = {"lon": 13.4, "lat": 52.5}
OFFERS = [{"kind": "a", "price": 1}, {"kind": "b", "price": 5}]
UUID_ID = "3d1f4f0e-9a3c-4a7e-8a55-1f1c5d1b2c3d"
PAYLOADS = {
    "a": {
        "title": "red apple pie",
        "n": 1,
        "x": 1.5,
        "new": True,
        "at": "2024-01-01T00:00:00Z",
        "place": BERLIN,
        "list": [1, 2, 3],
        "offers": OFFERS,
        "nothing": None,
    },
    1: {
        "title": "Apple",
        "n": 2,
        "x": 2.0,
        "new": False,
        "at": "2024-06-01T12:00:00+02:00",
        "place": {"lon": 2.35, "lat": 48.85},
        "list": ["x"],
        "offers": OFFERS[:1],
    },
    "int:1": {
        "title": "pie apple",
        "n": -3,
        "x": 0,
        "new": True,
        "at": "2025-01-01",
        "place": [{"lon": -74, "lat": 40.7}, BERLIN],
        "list": [],
        "nothing": [None],
    },
    UUID_ID: {},
    7: {"title": ["green", "red"], "n": [1, 7], "new": 1, "at": "no date", "list": None},
    "empty": {"title": "", "n": 0, "new": 0, "list": [[1, 2], 3], "nothing": 0},
}


def field(key, **condition):
    return models.FieldCondition(key=key, **condition)


def value(key, value):
    return field(key, match=models.MatchValue(value=value))


def line(*points):
    return models.GeoLineString(points=[models.GeoPoint(lon=lon, lat=lat) for lon, lat in points])


def nested(key, **clauses):
    return models.NestedCondition(nested=models.Nested(key=key, filter=models.Filter(**clauses)))


AROUND = line((10, 50), (15, 50), (15, 55), (10, 55), (10, 50))
HOLE = line((13, 52), (14, 52), (14, 53), (13, 53), (13, 52))
MATCHES = [
    ("title", models.MatchValue(value="Apple")),
    ("n", models.MatchValue(value=1)),
    ("n", models.MatchValue(value=0)),
    ("new", models.MatchValue(value=True)),
    ("new", models.MatchValue(value=False)),
    ("new", models.MatchValue(value=1)),
    ("title", models.MatchText(text="pie apple")),
    ("title", models.MatchText(text="app")),
    ("title", models.MatchTextAny(text_any="green apple")),
    ("title", models.MatchPhrase(phrase="apple pie")),
    ("title", models.MatchPrefix(prefix="re")),
    ("title", models.MatchSubstring(substring="pp")),
    ("title", models.MatchAny(any=["Apple", "red"])),
    ("n", models.MatchAny(any=[1, 2])),
    ("n", models.MatchAny(any=[])),
    ("title", models.MatchExcept(**{"except": ["Apple"]})),
    ("n", models.MatchExcept(**{"except": [1, 2]})),
]
RANGES = [
    ("n", models.Range(gte=1, lt=7)),
    ("x", models.Range(gt=0)),
    ("x", models.Range(lte=0)),
    ("at", models.DatetimeRange(gte=datetime(2024, 1, 1), lt=datetime(2024, 7, 1, tzinfo=UTC))),
    ("at", models.DatetimeRange(lte=datetime(2024, 6, 1, 12, tzinfo=timezone(timedelta(hours=2))))),
    ("at", models.DatetimeRange(lt="2024-06-01T10:00:00Z")),
    ("at", models.DatetimeRange(gt=date(2024, 1, 1))),
]
FIELDS = [
    *(field(key, match=match) for key, match in MATCHES),
    *(field(key, range=bounds) for key, bounds in RANGES),
    field(
        "place",
        geo_bounding_box=models.GeoBoundingBox(
            top_left=models.GeoPoint(lon=10, lat=55), bottom_right=models.GeoPoint(lon=15, lat=50)
        ),
    ),
    field("place", geo_radius=models.GeoRadius(center=models.GeoPoint(**BERLIN), radius=1000)),
    field("place", geo_polygon=models.GeoPolygon(exterior=AROUND)),
    field("place", geo_polygon=models.GeoPolygon(exterior=AROUND, interiors=[HOLE])),
    field("list", values_count=models.ValuesCount(gte=1)),
    field("list", values_count=models.ValuesCount(gt=2, lte=3)),
    field("list", values_count=models.ValuesCount(lt=2)),
    field("list", is_empty=True),
    field("list", is_empty=False),
    field("nothing", is_null=True),
    field("nothing", is_null=False),
    value("list[0]", 1),
    value("offers[].kind", "b"),
]
CONDITIONS = [
    *FIELDS,
    models.IsEmptyCondition(is_empty=models.PayloadField(key="list")),
    models.IsNullCondition(is_null=models.PayloadField(key="nothing")),
    models.HasIdCondition(has_id=["a", 1, UUID_ID]),
    models.HasIdCondition(has_id=[UUID(UUID_ID), "int:1"]),
    models.HasIdCondition(has_id=[]),
    models.HasIdCondition(has_id=[point_id("a")]),
    models.HasVectorCondition(has_vector="sparse"),
    models.HasVectorCondition(has_vector="other"),
    models.SliceCondition(slice=models.Slice(total=2, index=0)),
    nested("offers", must=[value("kind", "a"), field("price", range=models.Range(gte=1))]),
    nested("offers", must_not=[value("kind", "a")]),
    nested("offers", must=value("kind", "b")),
    models.Filter(should=[value("n", 1), value("n", 2)]),
    models.Filter(must=value("n", 1)),
    models.Filter(must=[], should=[], must_not=[]),
    models.Filter(must=[models.HasIdCondition(has_id=["a"])], must_not=[value("n", 2)]),
    models.Filter(
        min_should=models.MinShould(
            conditions=[value("n", 1), value("new", True), models.HasIdCondition(has_id=[7])],
            min_count=2,
        )
    ),
]


@pytest.fixture(scope="module")
def indexes(make_encoder, tmp_path_factory):
    client = QdrantClient(":memory:")
    places = [tmp_path_factory.mktemp("filters"), client]
    opened = [QdrantHybridIndex(place, "docs", make_encoder()) for place in places]
    for index in opened:
        index.create()
        texts = dict.fromkeys(PAYLOADS, "oak") | {"empty": "!"}
        index.add((key, texts[key], payload) for key, payload in PAYLOADS.items())
    yield opened
    for index in opened:
        index.close()
    client.close()


def found(index, condition):
    [hits] = index.search("oak", mode="dense", limit=10, filter=condition)
    return sorted((hit.id for hit in hits), key=str)


@pytest.mark.parametrize(
    "condition", CONDITIONS, ids=lambda c: c.model_dump_json(exclude_none=True)
)
def test_a_filter_finds_the_same_in_a_directory_and_behind_a_client(indexes, condition):
    for whole in (models.Filter(must=[condition]), models.Filter(must_not=[condition])):
        before = whole.model_copy(deep=True)
        in_directory, behind_client = (found(index, whole) for index in indexes)
        assert in_directory == behind_client
        assert whole == before


def test_every_kind_of_condition_is_tried():
    assert {type(condition) for condition in CONDITIONS} == set(get_args(models.Condition))
    assert {type(match) for _, match in MATCHES} == set(get_args(models.Match))
    assert {type(bounds) for _, bounds in RANGES} == set(get_args(models.RangeInterface))
    tried = {name for condition in FIELDS for name in condition.model_fields_set}
    assert tried == set(models.FieldCondition.model_fields)
    clauses = {
        name
        for condition in CONDITIONS
        if isinstance(condition, models.Filter)
        for name in condition.model_fields_set
    }
    assert clauses == set(models.Filter.model_fields)


def test_has_id_means_the_ids_of_documents(indexes):
    for index in indexes:
        for ids in (["a"], [1], ["int:1"], [1, "int:1", UUID_ID]):
            condition = models.Filter(must=[models.HasIdCondition(has_id=ids)])
            assert found(index, condition) == sorted(ids, key=str)


def test_a_filter_of_the_engine_stays_as_it_is(indexes):
    directory, _ = indexes
    point = edge.HasIdCondition({point_id("a")})
    assert found(directory, edge.Filter(must=[point])) == ["a"]
    assert found(directory, None) == sorted(PAYLOADS, key=str)


@pytest.mark.parametrize("wrong", [{"must": []}, "n = 1", value("n", 1), ["n"]])
def test_what_is_no_filter_is_refused(indexes, wrong):
    for index in indexes:
        with pytest.raises(TypeError, match=r"^filter is a .*must be a qdrant_client.models.Filte"):
            index.search("oak", filter=wrong)


def test_a_client_takes_no_filter_of_the_engine(indexes):
    _, client = indexes
    with pytest.raises(
        TypeError, match=r"^filter is a qdrant_edge.Filter, but must be a qdrant_cl"
    ):
        client.search("oak", filter=edge.Filter())


def test_an_unknown_kind_of_condition_is_named(indexes):
    class Newer(models.FieldCondition):
        """As a later qdrant-client might bring along."""

    directory, _ = indexes
    unknown = models.Filter(must=[Newer(key="n", is_empty=True)])
    with pytest.raises(TypeError, match=r"part of the filter is a .*Newer, .*use FieldCondition, "):
        directory.search("oak", filter=unknown)


def test_a_least_count_of_zero_is_refused(indexes):
    never = models.MinShould(conditions=[value("n", 1)], min_count=0)
    for index in indexes:
        with pytest.raises(ValueError, match="min_count"):
            index.search("oak", filter=models.Filter(min_should=never))
