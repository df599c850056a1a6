"""An index that stays open while its collection is dropped, or made anew for another model."""

import shutil
from functools import partial
from unittest.mock import Mock

import pytest

from gte_core import CollectionMismatch, CollectionNotFound, Fingerprint

OTHER = Fingerprint("other", "1" * 40, 512)
DOCUMENTS = [("a", "oak"), ("b", "elm")]
VERBS = {
    "search": lambda index: index.search("oak"),
    "count": lambda index: index.count(),
    "get": lambda index: index.get(["a"]),
    "contains": lambda index: "a" in index,
    "documents": list,
    "explain": lambda index: index.explain("oak", "a"),
    "delete": lambda index: index.delete(["a"]),
    "prune": lambda index: index.prune(["b"]),
    "add": lambda index: index.add([("c", "yew")]),
    "switch_alias": lambda index: index.switch_alias("other"),
}
WRITES = ("add", "delete", "prune")


@pytest.fixture(params=["memory", "milvus"])
def shared(request, tmp_path, make_place):
    """A place where two indexes can have one collection open."""
    place = make_place(request.param, tmp_path)
    yield place
    place.close()


@pytest.fixture
def opened(shared, encoder):
    index = shared.open(encoder, dimensions=encoder.dimensions)
    index.create()
    index.add(DOCUMENTS)
    return index


@pytest.mark.parametrize("verb", VERBS)
def test_a_dropped_collection_is_not_found(shared, opened, make_encoder, verb):
    shared.open(make_encoder()).drop()
    with pytest.raises(CollectionNotFound, match=r"does not exist; call create\(\) first"):
        VERBS[verb](opened)


@pytest.mark.parametrize("verb", ["search", "explain", *WRITES])
def test_a_collection_of_another_size_is_a_mismatch(shared, opened, make_encoder, verb):
    other = shared.open(make_encoder(dimensions=16))
    other.drop()
    other.create()
    other.add(DOCUMENTS)
    with pytest.raises(CollectionMismatch, match="dimensions: the collection has 16"):
        VERBS[verb](opened)
    assert other.count() == 2


@pytest.mark.parametrize("verb", WRITES)
def test_nothing_is_written_to_a_collection_of_another_model(shared, opened, make_encoder, verb):
    other = shared.open(make_encoder(query_prefix="find: ", fingerprint=OTHER))
    other.drop()
    other.create()
    other.add(DOCUMENTS)
    with pytest.raises(CollectionMismatch, match="model: the collection has 'other'"):
        VERBS[verb](opened)
    assert {document.id for document in other} == {"a", "b"}
    with pytest.raises(CollectionMismatch, match="model: the collection has 'other'"):
        opened.search("oak")


def test_a_collection_that_goes_while_it_is_written_is_not_found(shared, opened, make_encoder):
    def documents():
        yield ("c", "yew")
        shared.open(make_encoder()).drop()
        yield ("d", "ash")

    with pytest.raises(CollectionNotFound, match="does not exist"):
        opened.add(documents(), batch_size=1)


def test_an_index_that_takes_any_size_goes_on_in_the_new_one(shared, encoder):
    index = shared.open(encoder)
    index.create()
    index.add(DOCUMENTS)
    other = shared.open(encoder, dimensions=16)
    other.drop()
    other.create()
    other.add([("c", "yew")])
    with pytest.raises(CollectionMismatch, match=r"was dropped and made anew .* call again"):
        index.search("oak")
    assert index.add(DOCUMENTS).written == 2
    assert index.search("oak", limit=1)[0][0].id == "a"


def test_a_call_that_writes_looks_once(tmp_path, encoder, make_place, monkeypatch):
    place = make_place("memory", tmp_path)
    index = place.open(encoder)
    index.create()
    looked = Mock(wraps=place.client.get_collection)
    monkeypatch.setattr(place.client, "get_collection", looked)
    index.add([(str(number), f"text {number}") for number in range(5)], batch_size=1)
    assert looked.call_count == 1
    index.search("text")
    assert looked.call_count == 1
    place.close()


def test_an_error_of_ones_own_stays_what_it_is(opened):
    with pytest.raises(ZeroDivisionError, match="division"):
        opened.add(1 / 0 for _ in range(1))
    assert opened.count() == 2


def test_a_directory_that_was_removed_is_not_written_to(tmp_path, encoder, make_place):
    place = make_place("edge", tmp_path)
    index = place.open(encoder)
    index.create()
    index.add(DOCUMENTS)
    shutil.rmtree(place.location / "docs")
    for write in (partial(index.add, [("c", "yew")]), partial(index.delete, ["a"])):
        with pytest.raises(CollectionNotFound, match="does not exist"):
            write()
