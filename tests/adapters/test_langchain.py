import asyncio
import copy
import pickle

import numpy as np
import pytest
import torch
from langchain_classic.embeddings import CacheBackedEmbeddings
from langchain_classic.storage import LocalFileStore
from langchain_core.documents import Document
from langchain_tests.integration_tests import EmbeddingsIntegrationTests, RetrieversIntegrationTests
from langchain_tests.unit_tests import EmbeddingsUnitTests
from pydantic import ValidationError
from qdrant_edge import FieldCondition, Filter, MatchValue

from gte_core import GTEEmbedder
from gte_core.testing import random_checkpoint
from gte_integrations.langchain import (
    GTECompressor,
    GTECrossEncoder,
    GTEEmbeddings,
    GTEHybridRetriever,
)
from gte_integrations.qdrant import Linear, QdrantHybridIndex

TEXTS = ["Printing a brochure", "Rechtschreibung prüfen", "", "表格"]


class TestUnit(EmbeddingsUnitTests):
    @property
    def embeddings_class(self):
        return GTEEmbeddings

    @property
    def embedding_model_params(self):
        return {"model": "demo"}


class TestIntegration(EmbeddingsIntegrationTests):
    @property
    def embeddings_class(self):
        return GTEEmbeddings

    @property
    def embedding_model_params(self):
        return {"model": "demo", "dimensions": 64}


@pytest.fixture(scope="module")
def index(tmp_path_factory, demo):
    path = tmp_path_factory.mktemp("qdrant")
    with QdrantHybridIndex(path, "help", demo) as index:
        index.create()
        index.add((i, text or "empty", {"lang": "xx"}) for i, text in enumerate(TEXTS))
        yield index


class TestRetriever(RetrieversIntegrationTests):
    @pytest.fixture(autouse=True)
    def _index(self, index):
        type(self).index = index

    @property
    def retriever_constructor(self):
        return GTEHybridRetriever

    @property
    def retriever_constructor_params(self):
        return {"index": self.index}

    @property
    def retriever_query_example(self):
        return "spell checking"


@pytest.fixture(scope="module")
def embeddings():
    return GTEEmbeddings(model="demo", dtype="float32", on_truncation="ignore")


def test_vectors_are_those_of_the_embedder(embeddings, demo):
    np.testing.assert_allclose(
        embeddings.embed_documents(TEXTS), demo.encode(TEXTS).dense, atol=1e-6
    )
    np.testing.assert_allclose(
        np.linalg.norm(embeddings.embed_documents(TEXTS), axis=1), 1, atol=1e-6
    )


def test_smaller_vectors(demo):
    small = GTEEmbeddings(model="demo", dtype="float32", dimensions=64)
    expected = demo.encode(TEXTS, dimensions=64).dense
    np.testing.assert_allclose(small.embed_documents(TEXTS), expected, atol=1e-6)
    assert len(small.embed_query("x")) == 64


def test_nothing_in_nothing_out(embeddings):
    assert embeddings.embed_documents([]) == []


async def test_async_equals_sync(embeddings):
    documents = await embeddings.aembed_documents(TEXTS)
    np.testing.assert_allclose(documents, embeddings.embed_documents(TEXTS), atol=1e-6)
    query = await embeddings.aembed_query("drucken")
    np.testing.assert_allclose(query, embeddings.embed_query("drucken"), atol=1e-6)


async def test_concurrent_queries_share_passes(embeddings, encoded):
    embeddings.embed_query("warm up")
    encoded.clear()
    await asyncio.gather(*(embeddings.aembed_query(f"question {i}") for i in range(40)))
    assert len(encoded) <= 3
    assert [query for texts in encoded for query in texts] == [f"question {i}" for i in range(40)]


def test_pickles_are_settings(embeddings):
    data = pickle.dumps(embeddings)
    assert len(data) < 1024
    unpickled = pickle.loads(data)
    assert unpickled == embeddings
    assert unpickled.encoder is embeddings.encoder


def test_a_typo_is_an_error():
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        GTEEmbeddings(model="demo", dimension=64)


def test_copies_with_other_settings_have_another_encoder(embeddings, small_checkpoint):
    other = embeddings.model_copy(update={"model": str(small_checkpoint)})
    assert len(other.embed_query("w1")) == 64
    assert copy.deepcopy(embeddings).encoder is embeddings.encoder


def test_paths_devices_and_types_are_taken_by_name(small_checkpoint):
    embeddings = GTEEmbeddings(
        model=small_checkpoint, device=torch.device("cpu"), dtype=torch.float32
    )
    assert (embeddings.model, embeddings.device) == (str(small_checkpoint), "cpu")
    assert len(embeddings.embed_query("w1")) == 64
    for dimensions in (0, True, "64"):
        with pytest.raises(ValidationError, match="dimensions"):
            GTEEmbeddings(model="demo", dimensions=dimensions)


def test_nothing_is_loaded_by_the_constructor():
    assert GTEEmbeddings(model="/no/such/model").model == "/no/such/model"


def test_the_cache_namespace_changes_with_whatever_changes_vectors(tmp_path):
    other = random_checkpoint(tmp_path)
    variants = [
        GTEEmbeddings(model="demo"),
        GTEEmbeddings(model="demo", dimensions=64),
        GTEEmbeddings(model="demo", max_length=128),
        GTEEmbeddings(model="demo", query_prefix="query: "),
        GTEEmbeddings(model=str(other)),
    ]
    assert len({variant.cache_namespace for variant in variants}) == len(variants)
    same = GTEEmbeddings(model="demo", dimensions=256, dtype="bfloat16")
    assert same.cache_namespace == variants[0].cache_namespace
    assert variants[0].cache_namespace.replace("-", "").isalnum()


def test_cached_vectors_of_two_sizes_never_mix(tmp_path, encoded):
    def cached(dimensions):
        embeddings = GTEEmbeddings(model="demo", dimensions=dimensions, max_length=777)
        return CacheBackedEmbeddings.from_bytes_store(
            embeddings,
            LocalFileStore(tmp_path),
            namespace=embeddings.cache_namespace,
            key_encoder="sha256",
        )

    small, large = (cached(size).embed_documents(["page"]) for size in (64, 256))
    assert (len(small[0]), len(large[0])) == (64, 256)
    encoded.clear()
    assert cached(64).embed_documents(["page"]) == small
    assert encoded == []


def test_query_prefix_is_for_queries_only(embeddings):
    prefixed = GTEEmbeddings(
        model="demo", dtype="float32", query_prefix="query: ", on_truncation="ignore"
    )
    assert prefixed.embed_documents(["x"]) == embeddings.embed_documents(["x"])
    assert prefixed.embed_query("x") == embeddings.embed_query("query: x")


def test_a_model_without_sparse_head(tmp_path):
    dense_only = GTEEmbeddings(model=str(random_checkpoint(tmp_path, task=None)))
    assert len(dense_only.embed_query("w1")) == 64
    assert asyncio.run(dense_only.aembed_query("w1")) == dense_only.embed_query("w1")


async def test_the_retriever_takes_what_a_dense_only_model_has(tmp_path):
    model = GTEEmbedder.from_pretrained(random_checkpoint(tmp_path / "model", task=None))
    with QdrantHybridIndex(tmp_path / "index", "help", model) as index:
        index.create()
        index.add((number, f"w{number}") for number in range(120))
        retriever = GTEHybridRetriever(index=index, k=110)
        documents = retriever.invoke("w7")
        assert await retriever.ainvoke("w7") == documents
    assert (documents[0].page_content, len(documents)) == ("w7", 110)
    assert documents[0].metadata["sparse_score"] is None


async def test_the_retriever_gives_scores_and_takes_search_options(index):
    retriever = GTEHybridRetriever(
        index=index, k=2, search_options={"mode": "hybrid", "fusion": Linear(1.0, 0.02)}
    )
    documents = retriever.invoke("spell checking")
    assert documents[0].page_content == "Rechtschreibung prüfen"
    assert documents[0].metadata["lang"] == "xx"
    assert {"score", "dense_score", "sparse_score"} <= documents[0].metadata.keys()
    assert documents[0].id == "1"
    assert await retriever.ainvoke("spell checking") == documents
    assert len(retriever.invoke("spell checking", k=1)) == 1


def test_the_retriever_refuses_what_it_does_not_know(index):
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        GTEHybridRetriever(index=index, top_k=2)
    with pytest.raises(TypeError, match="index is a NoneType, but must be a QdrantHybridIndex"):
        GTEHybridRetriever(index=None)
    retriever = GTEHybridRetriever(index=index)
    with pytest.raises(ValueError, match="limit is set by k"):
        retriever.invoke("x", limit=3)
    with pytest.raises(TypeError, match="unexpected keyword argument 'modus'"):
        retriever.invoke("x", modus="dense")
    assert len(retriever.invoke("x", mode="dense", k=2)) == 2


def test_nothing_to_rerank_loads_nothing():
    assert GTECompressor().compress_documents([], "x") == []


def test_the_retriever_passes_filters_through(index):
    nobody = Filter(must=[FieldCondition(key="lang", match=MatchValue(value="zz"))])
    retriever = GTEHybridRetriever(index=index, search_options={"filter": nobody})
    assert retriever.invoke("spell checking") == []


async def test_the_retriever_cuts_and_groups(index):
    ranked = GTEHybridRetriever(index=index, k=2).invoke("spell checking")
    cut = GTEHybridRetriever(index=index, k=1, search_options={"offset": 1})
    assert cut.invoke("spell checking") == await cut.ainvoke("spell checking") == ranked[1:]
    assert len(cut.invoke("spell checking", k=4, offset=0, group_by="lang")) == 1
    assert cut.invoke("spell checking", score_threshold=9.0) == []


def test_the_reranker_as_cross_encoder_and_compressor(tmp_path):
    path = random_checkpoint(tmp_path, task="sequence_classification")
    cross_encoder = GTECrossEncoder(model=str(path))
    texts = ["w1 w2", "w3", "w4 w5"]
    scores = cross_encoder.score([("w1", text) for text in texts])
    assert all(type(score) is float for score in scores)
    compressor = GTECompressor(cross_encoder=cross_encoder, top_n=2)
    documents = [Document(page_content=text, metadata={"n": n}) for n, text in enumerate(texts)]
    kept = compressor.compress_documents(documents, "w1")
    assert [d.metadata["relevance_score"] for d in kept] == sorted(scores, reverse=True)[:2]
    assert "relevance_score" not in documents[0].metadata
    assert len(pickle.dumps(cross_encoder)) < 1024
