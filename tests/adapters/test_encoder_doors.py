"""Every door takes an encoder: a name, a loaded embedder, and any object that satisfies it."""

import asyncio
import pickle

import numpy as np
import pytest

from gte_core import EncoderSettings, GTEEmbedder, as_encoder, shared_encoder
from gte_core.testing import HashEncoder
from gte_integrations.langchain import GTEEmbeddings
from gte_integrations.langchain_milvus import GTEMilvusSparse
from gte_integrations.langchain_qdrant import GTEQdrantSparse
from gte_integrations.llama_index import GTEEmbedding
from gte_integrations.milvus import GTEEmbeddingFunction, MilvusHybridIndex, MilvusVectorizer
from gte_integrations.qdrant import QdrantHybridIndex, QdrantVectorizer

PYDANTIC = [GTEEmbeddings, GTEQdrantSparse, GTEMilvusSparse, GTEEmbedding]


@pytest.fixture(scope="module")
def embedder():
    return GTEEmbedder.from_pretrained("demo", dtype="float32")


@pytest.fixture
def hashes():
    return HashEncoder(query_prefix="query: ")


@pytest.mark.parametrize("door", PYDANTIC)
def test_a_loaded_embedder_is_used_as_it_is(door, embedder, monkeypatch):
    monkeypatch.delattr(GTEEmbedder, "from_pretrained")
    given = door(encoder=embedder)
    assert given.encoder is shared_encoder(embedder)
    assert given.encoder.dimensions == embedder.dimensions


@pytest.mark.parametrize("door", PYDANTIC)
def test_the_name_of_a_model_is_taken_too(door):
    assert door(encoder="demo").encoder is as_encoder("demo")


@pytest.mark.parametrize("door", PYDANTIC)
@pytest.mark.parametrize("setting", [{"max_length": 9}, {"dtype": "float32"}, {"query_prefix": ""}])
def test_settings_beside_an_encoder_are_refused(door, hashes, setting):
    [name] = setting
    with pytest.raises(ValueError, match=f"encoder was given, and so was {name}"):
        door(encoder=hashes, **setting)


@pytest.mark.parametrize("door", PYDANTIC)
def test_what_is_no_encoder_is_refused(door):
    with pytest.raises(TypeError, match="encoder is a int without dimensions"):
        door(encoder=5)


def test_langchains_halves_share_the_passes_of_one_encoder(hashes):
    embeddings = GTEEmbeddings(encoder=hashes, dimensions=8)
    sparse = embeddings.qdrant_options()["sparse_embedding"]
    assert sparse.encoder is embeddings.encoder
    assert GTEMilvusSparse(encoder=hashes).encoder is embeddings.encoder
    np.testing.assert_allclose(
        embeddings.embed_query("oak"), hashes.encode_dense("oak", role="query", dimensions=8)[0]
    )
    expected = hashes.encode_sparse("oak", role="query")
    assert sparse.embed_query("oak").indices == expected.indices.tolist()
    assert asyncio.run(sparse.aembed_query("oak")).indices == expected.indices.tolist()
    vector = asyncio.run(embeddings.aembed_query("oak"))
    assert vector == embeddings.embed_query("oak")


@pytest.mark.parametrize("door", [GTEEmbeddings, GTEQdrantSparse, GTEMilvusSparse])
@pytest.mark.parametrize("query", [["oak", "elm"], [], None])
def test_langchains_queries_are_one_text(door, hashes, query):
    message = f"A query is a {type(query).__name__}, but must be a str; embed one at a time"
    with pytest.raises(TypeError, match=message):
        door(encoder=hashes).embed_query(query)
    with pytest.raises(TypeError, match=message):
        asyncio.run(door(encoder=hashes).aembed_query(query))


def test_llama_indexs_embedding_gives_the_vectors_of_the_encoder(hashes):
    embedding = GTEEmbedding(encoder=hashes)
    assert embedding.model_name == "hash"
    dense = hashes.encode_dense(["oak", "elm"])
    np.testing.assert_allclose(embedding.get_text_embedding_batch(["oak", "elm"]), dense)
    query = asyncio.run(embedding.aget_query_embedding("oak"))
    np.testing.assert_allclose(query, hashes.encode_dense("oak", role="query")[0])
    options = embedding.qdrant_options()
    [ids], _ = options["sparse_query_fn"](["oak"])
    assert ids == hashes.encode_sparse("oak", role="query").indices.tolist()


def test_it_says_what_it_computes_with(hashes):
    embeddings = GTEEmbeddings(encoder=hashes, dimensions=8)
    assert embeddings.model == "hash"
    assert repr(embeddings) == f"GTEEmbeddings(encoder=CachedEncoder({hashes!r}), dimensions=8)"
    shown = repr(GTEEmbedding(encoder="demo"))
    assert shown.startswith("GTEEmbedding(encoder=SharedEncoder(EncoderSettings(model='demo', ")
    assert "max_length=8192, query_prefix='', device=None" not in shown


def test_a_field_that_the_encoder_settles_cannot_be_set(hashes):
    embedding = GTEEmbedding(encoder=hashes)
    for name, value in {"max_length": 77, "model_name": "demo"}.items():
        with pytest.raises(ValueError, match=f"encoder was given, and so was {name}"):
            setattr(embedding, name, value)
    embedding.dimensions = 8
    assert len(embedding.get_query_embedding("oak")) == 8


def test_a_pipelines_cache_key_holds_what_changes_vectors(embedder, hashes):
    key = GTEEmbedding(encoder=hashes).to_dict()
    assert key["encoder"] == "hash max_length=512 float"
    assert key["query_prefix"] == "query: "
    other = GTEEmbedding(encoder=HashEncoder(query_prefix="query: ", max_length=9))
    assert other.to_dict() != key
    assert GTEEmbedding(encoder=embedder, dimensions=64).to_dict()["dimensions"] == 64
    assert GTEEmbedding(encoder=embedder).to_dict() == GTEEmbedding(
        model_name="demo", dimensions=embedder.dimensions
    ).to_dict() | {"dimensions": embedder.dimensions}


def test_a_dict_makes_an_embedding_again_where_the_encoder_has_settings(embedder, hashes):
    again = GTEEmbedding.from_dict(GTEEmbedding(encoder=embedder).to_dict())
    assert (again.model_name, again.encoder.dimensions) == ("demo", embedder.dimensions)
    key = GTEEmbedding(encoder=hashes, dimensions=8).to_dict()
    with pytest.raises(ValueError, match=r"an encoder \(hash .*\) that a dict cannot hold"):
        GTEEmbedding.from_dict(key)
    assert GTEEmbedding.from_dict(key, encoder=hashes).to_dict() == key
    with pytest.raises(ValueError, match="but this GTEEmbedding was made with hash max_length"):
        GTEEmbedding.from_dict(key, encoder=HashEncoder(name="elms"))


@pytest.mark.parametrize("door", PYDANTIC)
def test_pickles_as_its_encoder_does(door, embedder, hashes):
    again = pickle.loads(pickle.dumps(door(encoder=embedder)))
    assert again.encoder is shared_encoder(embedder)
    again = pickle.loads(pickle.dumps(door(encoder=hashes)))
    np.testing.assert_array_equal(again.encoder.encode_dense("oak"), hashes.encode_dense("oak"))
    hashes.lock = (part for part in "ab")
    with pytest.raises(TypeError, match="cannot pickle 'generator' object"):
        pickle.dumps(door(encoder=hashes))


@pytest.mark.parametrize("encoder", ["demo", EncoderSettings().model])
def test_producers_and_indexes_take_the_name_of_a_model(encoder, tmp_path, embedder):
    if encoder != "demo":  # nothing is loaded before it is needed, so the hub is not asked
        assert GTEEmbeddings(encoder=encoder).encoder.model == encoder
        return
    assert QdrantVectorizer(encoder).dimensions == embedder.dimensions
    assert MilvusVectorizer(encoder, dimensions=8).dimensions == 8
    assert GTEEmbeddingFunction(encoder).dim["dense"] == embedder.dimensions
    for index in (
        QdrantHybridIndex(tmp_path / "index", "docs", encoder),
        MilvusHybridIndex(tmp_path / "index.db", "docs", encoder),
    ):
        with index:
            index.create()
            index.add([("a", "Printing a brochure"), ("b", "Footnotes")])
            assert index.search("print", limit=1)[0][0].id == "a"


@pytest.mark.parametrize(
    ("former", "name"),
    [
        (lambda: GTEEmbeddings(model="demo").qdrant_sparse(), "qdrant_sparse"),
        (lambda: GTEEmbeddings(model="demo").milvus_sparse(), "milvus_sparse"),
    ],
)
def test_the_former_names_of_langchains_options_name_the_new_ones(former, name):
    with pytest.warns(DeprecationWarning, match=rf"{name} is deprecated; pass \*\*"):
        assert former().encoder is GTEEmbeddings(model="demo").encoder


def test_the_former_functions_for_options_name_the_new_ones():
    from gte_integrations.langchain_milvus import milvus_settings
    from gte_integrations.llama_index_qdrant import qdrant_settings

    embeddings, embedding = GTEEmbeddings(model="demo"), GTEEmbedding(model_name="demo")
    with pytest.warns(DeprecationWarning, match="milvus_settings is deprecated"):
        assert milvus_settings().items() < embeddings.milvus_options().items()
    with pytest.warns(DeprecationWarning, match="qdrant_settings is deprecated"):
        assert qdrant_settings(embedding).keys() == embedding.qdrant_options().keys()
