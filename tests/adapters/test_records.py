"""Documents, ids, hashes and vectors; no engine."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
import scipy.sparse as sp

from gte_core import MissingHeadError, NonFiniteError
from gte_integrations._index.document import Document, as_document
from gte_integrations._index.ids import id_to_key, key_to_id
from gte_integrations._index.preparation import Limits, prepare
from gte_integrations._index.vectorizer import Vectorizer


@dataclass
class Page:
    id: int
    text: str


@dataclass
class PageWithPayload(Page):
    payload: dict


@pytest.mark.parametrize(
    "given",
    [
        Document(1, "t", {"lang": "en"}),
        PageWithPayload(1, "t", {"lang": "en"}),
        {"id": 1, "text": "t", "lang": "en"},
        (1, "t", {"lang": "en"}),
    ],
    ids=["Document", "dataclass", "dict", "tuple"],
)
def test_every_form_of_a_document_reads_the_same(given):
    assert as_document(given) == Document(1, "t", {"lang": "en"})


def test_payload_may_be_left_out():
    forms = [Document("a", "t"), {"id": "a", "text": "t"}, ("a", "t")]
    assert [as_document(form) for form in forms] == [Document("a", "t", {})] * 3
    assert as_document(Page(1, "t")) == Document(1, "t", {})


@pytest.mark.parametrize("given", ["text", 3, None, ("a",), ("a", "b", {}, 1), Page, ["a", "b"]])
def test_anything_else_is_refused(given):
    with pytest.raises(TypeError, match="but must be a Document, a dataclass"):
        as_document(given)


def test_a_dict_says_which_key_it_lacks():
    with pytest.raises(TypeError, match=r"has the keys \['body', 'id'\], but lacks text"):
        as_document({"id": 1, "body": "t"})


@pytest.mark.parametrize(
    "document_id", ["a", "", "1", "int:1", "str:int:1", "str:", 1, -1, 0, 2**63 - 1, -(2**63), "é"]
)
def test_keys_give_their_ids_back(document_id):
    back = key_to_id(id_to_key(document_id))
    assert (back, type(back)) == (document_id, type(document_id))


def test_no_two_ids_share_a_key():
    ids = ["1", 1, "int:1", "str:int:1", "str:1", "str:str:1"]
    assert len({id_to_key(document_id) for document_id in ids}) == len(ids)


@pytest.mark.parametrize("document_id", [1.0, True, None, b"a", (1,)])
def test_other_ids_are_refused(document_id):
    with pytest.raises(TypeError, match="must be a str or int"):
        prepare(Document(document_id, "t"), Limits())


def test_an_integer_id_must_fit_in_64_bits():
    with pytest.raises(ValueError, match="does not fit in 64 bits; use the string"):
        prepare(Document(2**63, "t"), Limits())


def test_an_id_is_measured_in_bytes():
    prepare(Document("é" * 2048, "t"), Limits())
    with pytest.raises(ValueError, match=r"has 4,098 UTF-8 bytes, but at most 4,096"):
        prepare(Document("é" * 2049, "t"), Limits())


def test_text_and_payload_are_measured_in_bytes():
    limits = Limits(text_bytes=10, payload_bytes=13)
    prepare(Document(1, "é" * 5, {"k": "éé"}), limits)
    with pytest.raises(ValueError, match="The text of document 1 has 12 UTF-8 bytes"):
        prepare(Document(1, "é" * 6), limits)
    with pytest.raises(ValueError, match="The payload of document 1 has 15 UTF-8 bytes"):
        prepare(Document(1, "", {"k": "ééé"}), limits)


def test_a_lone_surrogate_is_replaced_in_a_text_and_refused_elsewhere():
    prepared = prepare(Document(1, "a\ud800b"), Limits())
    assert (prepared.text, prepared.source) == ("a\ufffdb", "a\ud800b")
    with pytest.raises(ValueError, match="half of a surrogate pair"):
        prepare(Document("a\ud800", "t"), Limits())
    with pytest.raises(ValueError, match="half of a surrogate pair"):
        prepare(Document(1, "t", {"k": "\ud800"}), Limits())


def test_text_must_be_a_string():
    with pytest.raises(TypeError, match="The text of document 'a' must be a str, got bytes"):
        prepare(Document("a", b"t"), Limits())


@pytest.mark.parametrize("key", ["id", "text", "dense", "sparse", "$meta", "_gte_hash", "_gte_x"])
def test_reserved_payload_keys_are_refused(key):
    with pytest.raises(ValueError, match="which the index uses itself; rename it"):
        prepare(Document(1, "t", {key: 1}), Limits())


@pytest.mark.parametrize("value", [float("nan"), float("inf"), b"x", {1, 2}, object()])
def test_payload_must_be_json(value):
    with pytest.raises((TypeError, ValueError), match="payload of document 1 cannot be stored"):
        prepare(Document(1, "t", {"k": [value]}), Limits())


def test_payload_must_be_a_dict_with_string_keys():
    with pytest.raises(TypeError, match="payload of document 1 is a list"):
        prepare(Document(1, "t", ["k"]), Limits())
    with pytest.raises(TypeError, match="has the key 7, a int, but keys must be strings"):
        prepare(Document(1, "t", {7: 1}), Limits())


def test_the_content_hash_covers_id_text_and_payload_but_not_the_order_of_keys():
    def content_hash(*parts):
        return prepare(Document(*parts), Limits()).content_hash

    one = content_hash("a", "t", {"x": 1, "y": [2]})
    assert one == content_hash("a", "t", {"y": [2], "x": 1})
    others = [("b", "t", {"x": 1, "y": [2]}), ("a", "u", {"x": 1, "y": [2]}), ("a", "t", {"x": 1})]
    assert one not in {content_hash(*other) for other in others}
    assert content_hash("a", "tb", {}) != content_hash("at", "b", {})


@pytest.mark.parametrize("dimensions", [0, -1, 33])
def test_dimensions_must_be_within_the_encoders(encoder, dimensions):
    with pytest.raises(ValueError, match=f"dimensions is {dimensions}, but must be from 1 to 32"):
        Vectorizer(encoder, dimensions=dimensions)


@pytest.mark.parametrize("dimensions", [True, 8.0, "8"])
def test_dimensions_must_be_an_integer(encoder, dimensions):
    with pytest.raises(TypeError, match="dimensions must be an integer"):
        Vectorizer(encoder, dimensions=dimensions)


def test_records_hold_both_vectors_of_one_call(encoder):
    both = encoder.encode(["one two", ""])
    encoder.calls.clear()
    records = Vectorizer(encoder).records([("a", "one two"), ("b", "")])
    assert encoder.calls == {"encode": 1}
    np.testing.assert_array_equal([record.dense for record in records], both.dense)
    assert records[0].token_ids.tolist() == both.sparse.indices.tolist()
    assert records[0].weights.tolist() == both.sparse.data.tolist()
    assert len(records[1].token_ids) == 0


def test_without_a_sparse_head_only_dense_vectors_are_made(make_encoder):
    encoder = make_encoder(has_sparse=False)
    vectorizer = Vectorizer(encoder, dimensions=8)
    assert vectorizer.records([("a", "one")])[0].dense.shape == (8,)
    assert encoder.calls == {"encode_available": 1}
    with pytest.raises(MissingHeadError, match="mode='hybrid' needs sparse vectors, but"):
        vectorizer.query_vectors("one", "hybrid")


def test_without_dense_vectors_only_sparse_ones_are_made(make_encoder):
    encoder = make_encoder(has_dense=False)
    vectorizer = Vectorizer(encoder)
    [record] = vectorizer.records([("a", "one two")])
    assert (record.dense.shape, record.dense_size, len(record.weights)) == ((0,), 0, 2)
    assert encoder.calls == {"encode_available": 1}
    with pytest.raises(MissingHeadError, match="mode='hybrid' needs dense vectors, but"):
        vectorizer.query_vectors("one", "hybrid")


def giving(encoder, **vectors):
    """An ``encode`` that gives these in place of some of its vectors."""
    encode = encoder.encode
    return lambda texts, **options: replace(encode(texts, **options), **vectors)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_vector_that_is_not_finite_is_not_written(encoder, monkeypatch, bad):
    dense = np.ones((2, 32), np.float32)
    dense[1, 3] = bad
    monkeypatch.setattr(encoder, "encode", giving(encoder, dense=dense))
    with pytest.raises(NonFiniteError, match="gave document 'b' a vector with NaN"):
        Vectorizer(encoder).records([("a", "one"), ("b", "two")])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -1.0, 0.0])
def test_a_weight_that_is_not_positive_is_not_written(encoder, monkeypatch, bad):
    sparse = sp.csr_array(
        (np.float32([1, 1, bad]), np.array([3, 4, 5]), np.array([0, 0, 2, 3])), shape=(3, 500)
    )
    monkeypatch.setattr(encoder, "encode", giving(encoder, sparse=sparse))
    with pytest.raises(NonFiniteError, match="gave document 'c' a vector"):
        Vectorizer(encoder).records([("a", ""), ("b", "two"), ("c", "three")])


def test_an_encoder_that_loses_rows_is_noticed(encoder, monkeypatch):
    one = np.ones((1, 32), np.float32)
    monkeypatch.setattr(encoder, "encode", giving(encoder, dense=one))
    with pytest.raises(ValueError, match=r"2 documents need \(2, 32\)"):
        Vectorizer(encoder).records([("a", "one"), ("b", "two")])


def test_the_former_name_of_what_is_compared_warns(encoder):
    vectorizer = Vectorizer(encoder)
    with pytest.warns(DeprecationWarning, match=r"called comparable_metadata\(\) now"):
        assert vectorizer.facts() == vectorizer.comparable_metadata()
    assert vectorizer.metadata().items() > vectorizer.comparable_metadata().items()


def test_the_former_name_of_what_a_model_must_give_warns(make_encoder):
    vectorizer = Vectorizer(make_encoder(has_sparse=False))
    with (
        pytest.warns(DeprecationWarning, match=r"called need\('sparse', what\) now"),
        pytest.raises(MissingHeadError, match="This needs sparse vectors, but hash gives none"),
    ):
        vectorizer.need_sparse("This")
