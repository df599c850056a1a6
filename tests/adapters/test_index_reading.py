"""What is in an index: documents looked up, listed, removed by a filter, and all of it dropped."""

import inspect
import pickle
import random

import numpy as np
import pytest

from gte_core import CollectionMismatch, CollectionNotFound
from gte_integrations._index.document import Document
from gte_integrations._index.records import StoredDocument

DOCUMENTS = [
    Document(
        number if number % 2 else f"doc/{number} é'\"\\%20",
        f"oak and pine {number}",
        {"lang": "en" if number % 3 else "de", "nested": {"n": [number, None, 0.5]}},
        "there" if number % 5 else None,
    )
    for number in range(40)
]


@pytest.fixture
def filled(index):
    index.add(DOCUMENTS)
    return index


@pytest.fixture
def many(index):
    """More than a page, of documents as well as of keys."""
    index.add((n, f"text {n}", {"lang": "de" if n % 4 else "en"}) for n in range(1100))
    return index


def as_stored(document):
    return StoredDocument(document.id, document.text, document.payload, document.origin)


def by_id(documents):
    return sorted(documents, key=lambda document: repr(document.id))


# ------------------------------------------------------------------ get


def test_documents_are_got_by_id_in_the_order_asked_each_once(filled):
    wanted = [DOCUMENTS[7], DOCUMENTS[2], DOCUMENTS[30]]
    ids = [wanted[0].id, "7", wanted[1].id, 99, wanted[0].id, wanted[2].id]
    assert filled.get(ids) == [as_stored(document) for document in wanted]
    assert filled.get(iter(ids[:1])) == [as_stored(wanted[0])]
    assert filled.get([]) == []


def test_an_integer_and_its_digits_are_two_ids(index):
    index.add([(1, "oak"), ("1", "elm"), ("int:1", "fir"), ("str:1", "ash")])
    assert [document.text for document in index.get(["1", 1, "str:1", "int:1"])] == [
        "elm",
        "oak",
        "ash",
        "fir",
    ]


def test_more_are_got_than_one_request_takes(many):
    ids = list(range(1200))
    random.Random(0).shuffle(ids)
    assert [document.id for document in many.get(ids)] == [n for n in ids if n < 1100]


def test_the_text_comes_as_it_is_stored(index):
    index.add([("a", "oak \ud800 elm", {"pair": (1, 2)})])
    [document] = index.get(["a"])
    assert (document.text, document.payload) == ("oak \ufffd elm", {"pair": [1, 2]})
    assert index.add([document]).unchanged == 1


@pytest.mark.parametrize("ids", ["a", 1])
def test_a_single_id_is_refused(filled, ids):
    with pytest.raises(TypeError, match=r"ids is .*, but must be an iterable of ids; wrap it"):
        filled.get(ids)
    with pytest.raises(TypeError, match=r"ids is .*, but must be an iterable of ids; wrap it"):
        filled.delete(ids)


# ------------------------------------------------------------------ vectors


def test_vectors_come_on_request_alone(filled, encoder):
    [without] = filled.get([1])
    assert (without.dense, without.token_ids, without.weights) == (None, None, None)
    expected = encoder.encode([document.text for document in DOCUMENTS])
    for documents in (
        filled.get([document.id for document in DOCUMENTS], with_vectors=True),
        by_id(filled.documents(with_vectors=True)),
    ):
        ids = [document.id for document in DOCUMENTS]
        for document in documents:
            row = ids.index(document.id)
            [(dense, token_ids, weights)] = list(expected[row].rows())
            np.testing.assert_allclose(document.dense, dense, atol=1e-6)
            np.testing.assert_array_equal(document.token_ids, token_ids)
            np.testing.assert_allclose(document.weights, weights, rtol=1e-6)
            assert [document.dense.dtype, document.token_ids.dtype, document.weights.dtype] == [
                np.float32,
                np.int64,
                np.float32,
            ]
            assert document == as_stored(DOCUMENTS[row])


def test_a_text_without_token_weights_has_none(index):
    index.add([("a", "!"), ("b", "oak")])
    bare, other = index.get(["a", "b"], with_vectors=True)
    assert bare.dense.shape == (32,)
    assert (len(bare.token_ids), len(bare.weights)) == (0, 0)
    assert (bare.token_ids.dtype, bare.weights.dtype) == (np.int64, np.float32)
    assert len(other.token_ids) == 1


def test_a_model_without_a_sparse_head_has_no_token_weights(place, make_encoder):
    index = place.open(make_encoder(has_sparse=False), coarse_dimensions=8)
    index.create()
    index.add([("a", "oak")])
    [document] = index.documents(with_vectors=True)
    assert document.dense.shape == (32,)
    assert len(document.token_ids) == len(document.weights) == 0


@pytest.mark.parametrize("place", ["edge", "memory"], indirect=True)
@pytest.mark.parametrize("storage", ["float16", "int8"])
def test_vectors_of_every_storage_come_as_float32(place, encoder, storage):
    index = place.open(encoder, storage=storage)
    index.create()
    index.add([("a", "oak")])
    [document] = index.get(["a"], with_vectors=True)
    assert document.dense.dtype == np.float32
    np.testing.assert_allclose(document.dense, encoder.encode_dense("oak")[0], atol=1e-3)


def test_a_stored_document_can_be_pickled(filled):
    [document] = filled.get([1], with_vectors=True)
    again = pickle.loads(pickle.dumps(document))
    assert again == document
    np.testing.assert_array_equal(again.dense, document.dense)


# ------------------------------------------------------------------ all of them


def test_every_document_comes_exactly_once(many):
    assert sorted(document.id for document in many) == list(range(1100))


def test_iterating_gives_what_was_added(place, filled):
    expected = by_id(map(as_stored, DOCUMENTS))
    assert by_id(filled) == by_id(filled.documents()) == expected
    german = by_id(filled.documents(filter=place.filter("lang", "de")))
    assert german == [document for document in expected if document.payload["lang"] == "de"]
    assert list(filled.documents(filter=place.filter("lang", "fr"))) == []


def test_an_empty_index_has_no_documents_and_is_true(index):
    assert (list(index), len(index), 1 in index) == ([], 0, False)
    assert index


def test_what_is_in_an_index(filled):
    assert len(filled) == len(DOCUMENTS)
    assert 1 in filled
    assert "1" not in filled
    assert DOCUMENTS[2].id in filled
    with pytest.raises(TypeError, match="An id is None, a NoneType, but must be a str or int"):
        assert None in filled


def test_documents_may_be_written_and_removed_while_they_are_listed(many):
    seen = []
    for document in many:
        if document.id >= 1100:
            continue
        seen.append(document.id)
        if len(seen) == 300:
            many.add([(n, f"changed {n}") for n in seen[:50]] + [(5000, "new")])
            many.delete([seen[10]])
    assert sorted(seen) == list(range(1100))
    assert len(many) == 1100


# ------------------------------------------------------------------ delete by filter


def test_documents_are_removed_by_filter(place, filled):
    german = sum(document.payload["lang"] == "de" for document in DOCUMENTS)
    assert filled.delete(filter=place.filter("lang", "fr")) == 0
    assert filled.delete(filter=place.filter("lang", "de")) == german
    assert filled.delete(filter=place.filter("lang", "de")) == 0
    assert len(filled) == len(DOCUMENTS) - german
    assert all(document.payload["lang"] == "en" for document in filled)


def test_more_than_one_page_is_removed(place, many):
    assert many.delete(filter=place.filter("lang", "de")) == 825
    assert many.count() == 275


@pytest.mark.parametrize("value", ["it's", "a (b) or c", "%22", "é, 鹿"])
def test_filters_match_what_is_stored(place, index, value):
    index.add([("a", "oak", {"lang": value}), ("b", "elm", {"lang": "en"})])
    condition = place.filter("lang", value)
    assert [document.id for document in index.documents(filter=condition)] == ["a"]
    assert index.delete(filter=condition) == 1
    assert [document.id for document in index] == ["b"]


@pytest.mark.parametrize("place", ["milvus"], indirect=True)
def test_an_expression_is_one_condition(index):
    index.add([(n, f"text {n}", {"lang": "it's", "n": n}) for n in range(600)])
    either = "n < 10 or lang == 'it\\'s'"
    assert len(list(index.documents(filter=either))) == 600
    assert index.delete(filter="n < 10 or n >= 590") == 20
    assert len(index) == 580


@pytest.mark.parametrize("place", ["edge"], indirect=True)
def test_a_directory_takes_both_kinds_of_filter(filled):
    from qdrant_client import models

    field = models.FieldCondition(key="lang", match=models.MatchValue(value="de"))
    both = models.Filter(must=[field, models.HasIdCondition(has_id=[3, 9, 11])])
    assert {document.id for document in filled.documents(filter=both)} == {3, 9}
    assert filled.delete(filter=both) == 2


def empty_filters(place):
    if place.engine.startswith("milvus"):
        return ["", "  \n"]
    from qdrant_client import models

    empty = [models.Filter(), models.Filter(must=[], should=[])]
    if place.engine == "edge":
        import qdrant_edge as edge

        empty += [edge.Filter(), edge.Filter(must=[])]
    return empty


def test_an_empty_filter_removes_nothing(place, filled):
    for condition in empty_filters(place):
        with pytest.raises(ValueError, match=r"filter is empty, .* drop\(\) removes the coll"):
            filled.delete(filter=condition)
        assert len(list(filled.documents(filter=condition))) == len(DOCUMENTS)


def test_delete_takes_exactly_one_of_ids_and_filter(place, filled):
    with pytest.raises(TypeError, match="was given neither of ids and filter, but takes exactly"):
        filled.delete()
    with pytest.raises(TypeError, match="was given both of ids and filter, but takes exactly one"):
        filled.delete([1], filter=place.filter("lang", "de"))
    assert len(filled) == len(DOCUMENTS)


def test_another_engines_filter_is_refused(filled):
    for verb in (filled.delete, lambda **options: list(filled.documents(**options))):
        with pytest.raises(TypeError, match="filter is a dict, but must be a"):
            verb(filter={"lang": "de"})
    assert len(filled) == len(DOCUMENTS)


# ------------------------------------------------------------------ drop


def test_a_dropped_collection_is_gone_and_can_be_made_anew(place, encoder, filled):
    kept = place.open(encoder, "kept")
    kept.create()
    kept.add(DOCUMENTS)
    filled.drop()
    with pytest.raises(CollectionNotFound, match=r"does not exist; call create\(\) first"):
        filled.count()
    assert filled.metadata() is None
    filled.drop()
    filled.create()
    assert len(filled) == 0
    assert filled.add(DOCUMENTS).written == len(DOCUMENTS) == len(kept)
    filled.close()
    assert len(place.open(encoder)) == len(DOCUMENTS)


def test_a_collection_that_never_was_is_dropped(place, encoder):
    place.open(encoder).drop()


def test_a_collection_of_another_model_can_be_dropped(place, filled, encoder):
    filled.close()
    other = place.open(encoder, dimensions=16)
    with pytest.raises(CollectionMismatch, match="dimensions"):
        other.create()
    other.drop()
    other.create()
    assert other.add(DOCUMENTS).written == len(DOCUMENTS)


@pytest.mark.parametrize("place", ["memory"], indirect=True)
def test_a_collection_of_somebody_else_is_not_dropped(place, encoder):
    from qdrant_client import models

    size = models.VectorParams(size=4, distance=models.Distance.DOT)
    place.location.create_collection("docs", vectors_config=size)
    with pytest.raises(CollectionMismatch, match="holds no record of the model that filled it"):
        place.open(encoder).drop()
    assert place.location.collection_exists("docs")


@pytest.mark.parametrize("place", ["edge"], indirect=True)
def test_a_directory_that_holds_no_collection_stays(place, encoder):
    mine = place.directory / "qdrant" / "docs" / "letter.txt"
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    place.open(encoder).drop()
    assert mine.read_text() == "mine"


@pytest.mark.parametrize("place", ["edge"], indirect=True)
def test_nothing_is_left_of_a_dropped_directory_nor_of_a_drop_that_was_killed(place, filled):
    left = place.directory / "qdrant" / ".gte-dropped-x" / "shard"
    left.mkdir(parents=True)
    filled.drop()
    assert list((place.directory / "qdrant").iterdir()) == []


@pytest.mark.parametrize("place", ["edge"], indirect=True)
def test_a_directory_that_is_open_elsewhere_is_not_dropped(place, encoder, filled):
    with pytest.raises(BlockingIOError, match="is open elsewhere"):
        place.open(encoder).drop()
    assert len(filled) == len(DOCUMENTS)


# ------------------------------------------------------------------ awaited


async def test_reading_can_be_awaited(place, filled):
    condition = place.filter("lang", "de")
    assert await filled.aget([1, 3]) == filled.get([1, 3])
    assert [document async for document in filled.adocuments()] == list(filled)
    [first, *others] = [
        document async for document in filled.adocuments(filter=condition, with_vectors=True)
    ]
    assert [first, *others] == list(filled.documents(filter=condition))
    assert first.dense.shape == (32,)
    assert await filled.adelete(filter=condition) == 1 + len(others)
    assert inspect.signature(filled.adocuments).parameters == (
        inspect.signature(filled.documents).parameters
    )
    await filled.adrop()
    assert await filled.ametadata() is None
