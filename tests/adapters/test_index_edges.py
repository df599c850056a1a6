"""What a trial of the indexes found: filters that say too much, keys that get lost, odd tuples."""

import copy
import pickle
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


FOREIGN = {
    "show_progress_bar": "pass show_progress",
    "model_kwargs": "by name where the model is loaded",
    "top_k": r"pass limit \(of a search\) or top_n",
    "normalize_embeddings": "always have length 1",
}


@pytest.mark.parametrize(("name", "advice"), FOREIGN.items())
async def test_verbs_say_what_stands_for_a_foreign_argument(index, name, advice):
    message = f"'{name}' is no argument here, .*{advice}"
    given = {name: 1}
    for verb in (index.search, index.search_vectors, index.add):
        with pytest.raises(TypeError, match=message):
            verb("oak", **given)
    for verb in (index.asearch, index.aadd):
        with pytest.raises(TypeError, match=message):
            await verb("oak", **given)


@pytest.mark.parametrize("kind", [QdrantVectorizer, MilvusVectorizer])
def test_vectorizers_say_what_stands_for_a_foreign_argument(kind):
    with pytest.raises(TypeError, match="'batch_size' is no argument here, leave it out"):
        kind(HashEncoder(), batch_size=3)


@pytest.mark.parametrize("kind", [QdrantHybridIndex, MilvusHybridIndex])
def test_indexes_say_what_stands_for_a_foreign_argument(kind, tmp_path):
    with pytest.raises(TypeError, match=f"{kind.__name__}.__init__: 'model_name' is .* encoder"):
        kind(tmp_path / "index.db", "docs", HashEncoder(), model_name="demo")
    with pytest.raises(TypeError, match="got an unexpected keyword argument 'dimension'"):
        kind(tmp_path / "index.db", "docs", HashEncoder(), dimension=3)


def test_half_of_a_surrogate_pair_is_no_id(index):
    message = r"The id 'a\\ud800' holds half of a surrogate pair"
    for verb in (index.get, index.delete, index.prune):
        with pytest.raises(ValueError, match=message):
            verb(["a\ud800"])
    with pytest.raises(ValueError, match=message):
        index.__contains__("a\ud800")
    with pytest.raises(ValueError, match=message):
        index.add([("a\ud800", "oak")])


def test_an_index_is_not_copied(index):
    with pytest.raises(TypeError, match=r"HybridIndex on .* cannot be copied or sent to another"):
        pickle.dumps(index)
    with pytest.raises(TypeError, match="cannot be copied"):
        copy.deepcopy(index)


@pytest.mark.parametrize("depth", [300, 800])
@pytest.mark.parametrize("place", ["edge", "memory"], indirect=True)
def test_a_filter_that_nests_too_deep_is_refused(index, depth):
    condition = models.Filter(must=[models.HasIdCondition(has_id=[1])])
    for _ in range(depth):
        condition = models.Filter.model_construct(must=[condition])
    for verb in (partial(index.search, "oak"), index.documents, index.delete):
        with pytest.raises(ValueError, match="within one another, more than 100 deep"):
            list(verb(filter=condition))


@pytest.mark.parametrize("key", ["text", "id"])
def test_what_no_payload_has_groups_nothing(index, key):
    with pytest.raises(ValueError, match=f"group_by is '{key}', which the index uses itself"):
        index.search("oak", group_by=key)


@pytest.mark.parametrize("integer", [np.int64, np.int32, np.uint8])
def test_sizes_may_be_integers_of_numpy(place, encoder, integer):
    sizes = {"dimensions": integer(16), "coarse_dimensions": integer(8)}
    index = place.open(encoder, **sizes)
    index.create()
    assert index.add([("a", "oak")]).written == 1
    metadata = index.metadata()
    assert (metadata["dimensions"], metadata["coarse_dimensions"]) == (16, 8)
    assert type(metadata["dimensions"]) is type(metadata["coarse_dimensions"]) is int
    assert place.open(encoder, dimensions=16, coarse_dimensions=8).metadata() == metadata
    assert index.search("oak")[0][0].id == "a"
