"""What a trial of the indexes found: filters that say too much, keys that get lost, odd tuples."""

from collections import namedtuple
from functools import partial

import numpy as np
import pytest
from pymilvus import DataType, MilvusClient
from qdrant_client import QdrantClient, models

from gte_core import CollectionMismatch
from gte_core.testing import HashEncoder
from gte_integrations.milvus import MilvusHybridIndex, MilvusVectorizer
from gte_integrations.qdrant import QdrantHybridIndex, QdrantVectorizer


@pytest.fixture
def milvus(tmp_path):
    with MilvusHybridIndex(tmp_path / "index.db", "docs", HashEncoder()) as index:
        index.create()
        index.add([("a", "oak", {"n": 1}), ("b", "elm", {"n": 2})])
        yield index


@pytest.mark.parametrize(
    "condition", ["n == 1) or (n == 2", "(n == 1", "n == 1)", 'n == 1) or n in ("']
)
def test_an_expression_must_close_what_it_opens(milvus, condition):
    for verb in (milvus.documents, partial(milvus.search, "oak"), milvus.delete):
        with pytest.raises(ValueError, match="whose parentheses do not match"):
            list(verb(filter=condition))
    assert milvus.count() == 2


def test_a_parenthesis_in_a_text_is_none(milvus):
    milvus.add([("c", "yew", {"mark": "a) or (b"})])
    [found] = milvus.documents(filter='mark == "a) or (b"')
    assert found.id == "c"


@pytest.mark.parametrize("condition", [{}, [], (), b"", 0, False, 5])
def test_what_is_no_expression_is_not_taken_for_none(milvus, condition):
    with pytest.raises(TypeError, match="but must be a str, an expression of Milvus"):
        milvus.search("oak", filter=condition)


@pytest.mark.parametrize("key", ["_seq", "_partition"])
def test_a_payload_key_that_the_engine_drops_is_refused(milvus, key):
    with pytest.raises(ValueError, match=f"'{key}', which this engine would drop"):
        milvus.add([("c", "yew", {key: 3})])


def test_fields_of_ones_own_are_payload(tmp_path):
    encoder = HashEncoder()
    vectorizer = MilvusVectorizer(encoder)
    schema = vectorizer.schema()
    schema.add_field("year", DataType.INT64, nullable=True)
    client = MilvusClient(str(tmp_path / "own.db"))
    client.create_collection("help", schema=schema, index_params=vectorizer.index_params())
    client.insert("help", vectorizer.rows([{"id": "a", "text": "oak", "year": 2024, "lang": "en"}]))
    index = MilvusHybridIndex(client, "help", encoder)
    index.adopt()
    index.add([("b", "elm")])
    assert index.get(["a"])[0].payload == {"year": 2024, "lang": "en"}
    assert index.get(["b"])[0].payload == {}
    assert index.search("oak", limit=1)[0][0].payload == {"year": 2024, "lang": "en"}
    with QdrantHybridIndex(tmp_path / "qdrant", "help", encoder) as other:
        other.create()
        index.reindex(to=other)
        assert other.get(["a"])[0].payload == {"year": 2024, "lang": "en"}
    client.close()


def test_a_document_without_its_tenant_is_told_also_where_the_index_was_not(tmp_path):
    place = tmp_path / "index.db"
    with MilvusHybridIndex(place, "docs", HashEncoder(), tenant_key="customer") as index:
        index.create()
    with MilvusHybridIndex(place, "docs", HashEncoder()) as index:
        report = index.add([("a", "oak"), ("b", "elm", {"customer": "one"})], on_error="skip")
        assert report.written == 1
        assert [document_id for document_id, _ in report.skipped] == ["a"]


def test_every_document_of_a_collection_is_looked_at_before_it_is_adopted():
    client, vectorizer = QdrantClient(":memory:"), QdrantVectorizer(HashEncoder())
    client.create_collection(
        "docs",
        vectors_config=vectorizer.vectors_config(),
        sparse_vectors_config=vectorizer.sparse_vectors_config(),
    )
    client.upsert("docs", vectorizer.points((f"a{n}", "oak elm") for n in range(300)))
    foreign = {"dense": np.ones(64).tolist()}
    last = "ffffffff-ffff-ffff-ffff-ffffffffffff"
    client.upsert("docs", [models.PointStruct(id=last, vector=foreign, payload={})])
    with pytest.raises(CollectionMismatch, match="lacks '_gte_id', 'text', '_gte_hash'"):
        QdrantHybridIndex(client, "docs", HashEncoder()).adopt()


@pytest.mark.parametrize(
    "nothing",
    [
        models.Filter(must=[models.Filter()]),
        models.Filter(should=[models.Filter(must=[])]),
        models.Filter(must=models.Filter(must=[models.Filter()])),
    ],
)
def test_a_filter_of_empty_filters_removes_nothing(tmp_path, nothing):
    with QdrantHybridIndex(tmp_path, "docs", HashEncoder()) as index:
        index.create()
        index.add([("a", "oak")])
        with pytest.raises(ValueError, match=r"drop\(\)"):
            index.delete(filter=nothing)
        assert index.count() == 1


def test_a_named_tuple_is_read_by_its_names(milvus):
    row = namedtuple("Pandas", ["Index", "text", "id", "lang"])(0, "a long text", "doc-1", "en")
    milvus.add([row])
    [found] = milvus.get(["doc-1"])
    assert (found.text, found.payload) == ("a long text", {"lang": "en"})
