import asyncio
import pickle

import numpy as np
import pytest
from llama_index.core import Document
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.ingestion import IngestionPipeline
from llama_index.core.ingestion.pipeline import get_transformation_hash
from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.schema import NodeWithScore, TextNode
from pydantic import ValidationError

from gte_core import GTEEmbedder
from gte_core.testing import random_checkpoint
from gte_integrations.llama_index import GTEEmbedding, GTEHybridRetriever, GTERerank
from gte_integrations.qdrant import QdrantHybridIndex

TEXTS = ["Printing a brochure", "Rechtschreibung prüfen", "", "表格"]


@pytest.fixture(scope="module")
def embedding():
    return GTEEmbedding(model_name="demo", dtype="float32", on_truncation="ignore")


def test_vectors_are_those_of_the_embedder(embedding, demo):
    expected = demo.encode(TEXTS).dense
    np.testing.assert_allclose(embedding.get_text_embedding_batch(TEXTS), expected, atol=1e-6)
    np.testing.assert_allclose(embedding.get_text_embedding(TEXTS[0]), expected[0], atol=1e-6)
    np.testing.assert_allclose(embedding.get_query_embedding(TEXTS[1]), expected[1], atol=1e-6)
    small = GTEEmbedding(model_name="demo", dimensions=64)
    assert len(small.get_query_embedding("x")) == 64


async def test_async_equals_sync(embedding):
    batch = await embedding.aget_text_embedding_batch(TEXTS)
    np.testing.assert_allclose(batch, embedding.get_text_embedding_batch(TEXTS), atol=1e-6)
    query = await embedding.aget_query_embedding("drucken")
    np.testing.assert_allclose(query, embedding.get_query_embedding("drucken"), atol=1e-6)
    text = await embedding.aget_text_embedding("drucken")
    np.testing.assert_allclose(text, query, atol=1e-6)


async def test_concurrent_queries_share_passes(embedding, encoded):
    embedding.get_query_embedding("warm up")
    encoded.clear()
    await asyncio.gather(*(embedding.aget_query_embedding(f"question {i}") for i in range(40)))
    assert len(encoded) <= 3


def test_nothing_in_nothing_out(embedding):
    assert embedding.get_text_embedding_batch([]) == []


def test_the_serialised_form_holds_what_changes_vectors_and_nothing_else():
    embedding = GTEEmbedding(
        model_name="demo",
        dimensions=64,
        max_length=99,
        query_prefix="q: ",
        device="cpu",
        dtype="float32",
        embed_batch_size=7,
    )
    serialised = embedding.to_dict()
    assert serialised == {
        "model_name": "demo",
        "revision": None,
        "dimensions": 64,
        "max_length": 99,
        "query_prefix": "q: ",
        "class_name": "GTEEmbedding",
    }
    copy = GTEEmbedding.from_dict(serialised)
    assert copy.to_dict() == serialised
    np.testing.assert_allclose(
        copy.get_query_embedding("x"), embedding.get_query_embedding("x"), atol=0.01
    )


def test_pipeline_cache_keys_change_with_whatever_changes_vectors(tmp_path):
    nodes = [TextNode(text="x")]
    variants = [
        {"model_name": "demo"},
        {"model_name": "demo", "dimensions": 64},
        {"model_name": "demo", "max_length": 99},
        {"model_name": str(tmp_path)},
    ]
    hashes = {get_transformation_hash(nodes, GTEEmbedding(**variant)) for variant in variants}
    assert len(hashes) == len(variants)
    same = GTEEmbedding(model_name="demo", embed_batch_size=7, dtype="bfloat16")
    assert get_transformation_hash(nodes, same) in hashes


def test_pickles_are_settings(embedding):
    data = pickle.dumps(embedding)
    assert len(data) < 1024
    copy = pickle.loads(data)
    assert copy.to_dict() == embedding.to_dict()
    assert copy.encoder is embedding.encoder


def test_a_pipeline_in_two_spawned_workers(embedding):
    documents = [Document(text=f"page {number}") for number in range(8)]
    nodes = IngestionPipeline(transformations=[embedding], disable_cache=True).run(
        documents=documents, num_workers=2
    )
    expected = embedding.get_text_embedding_batch([document.text for document in documents])
    np.testing.assert_allclose([node.embedding for node in nodes], expected, atol=1e-5)


def test_a_field_that_is_set_changes_the_vectors(small_checkpoint):
    embedding = GTEEmbedding(model_name="demo")
    assert len(embedding.get_query_embedding("x")) == 256
    embedding.model_name = str(small_checkpoint)
    assert len(embedding.get_query_embedding("x")) == 64
    embedding.dimensions = 16
    assert len(embedding.get_query_embedding("x")) == 16
    with pytest.raises(ValidationError, match="dimensions"):
        embedding.dimensions = "32"


def test_a_typo_is_an_error():
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        GTEEmbedding(model_name="demo", dimension=64)


def test_events_and_names(embedding):
    seen = []

    class Handler(BaseEventHandler):
        def handle(self, event, **kwargs):
            seen.append(event.class_name())

    handler = Handler()
    get_dispatcher().add_event_handler(handler)
    try:
        embedding.get_text_embedding_batch(["a", "b"])
    finally:
        get_dispatcher().event_handlers.remove(handler)
    assert {"EmbeddingStartEvent", "EmbeddingEndEvent"} <= set(seen)
    assert GTEEmbedding.class_name() == "GTEEmbedding"
    assert BaseEmbedding.__name__ in [base.__name__ for base in GTEEmbedding.__mro__]


async def test_the_retriever_gives_scores(tmp_path, demo):
    with QdrantHybridIndex(tmp_path, "help", demo) as index:
        index.create()
        index.add((i, text or "empty", {"lang": "xx"}) for i, text in enumerate(TEXTS))
        retriever = GTEHybridRetriever(index, similarity_top_k=2)
        found = retriever.retrieve("spell checking")
        again = await retriever.aretrieve("spell checking")
        options = {"group_by": "lang", "score_threshold": 0.0, "offset": 0}
        cut = GTEHybridRetriever(index, search_options=options)
        [best] = cut.retrieve("spell checking")
        assert await cut.aretrieve("spell checking") == [best]
    assert best.node_id == found[0].node_id
    assert [node.node_id for node in found] == [node.node_id for node in again]
    assert found[0].text == "Rechtschreibung prüfen"
    assert found[0].metadata["lang"] == "xx"
    assert found[0].score == pytest.approx(
        found[0].metadata["dense_score"] + 0.01 * (found[0].metadata["sparse_score"] or 0)
    )


def test_the_retriever_refuses_what_cannot_be_searched(embedding):
    with pytest.raises(TypeError, match="index is a GTEEmbedding, but must be a QdrantHybridIndex"):
        GTEHybridRetriever(embedding)


async def test_the_retriever_takes_what_a_dense_only_model_has(tmp_path):
    model = GTEEmbedder.from_pretrained(random_checkpoint(tmp_path / "model", task=None))
    with QdrantHybridIndex(tmp_path / "index", "help", model) as index:
        index.create()
        index.add((number, f"w{number}") for number in range(120))
        retriever = GTEHybridRetriever(index, similarity_top_k=110)
        found = retriever.retrieve("w7")
        again = await retriever.aretrieve("w7")
    assert [node.node_id for node in found] == [node.node_id for node in again]
    assert (found[0].text, len(found)) == ("w7", 110)
    assert found[0].metadata["sparse_score"] is None


def test_the_reranker(tmp_path):
    path = random_checkpoint(tmp_path, task="sequence_classification")
    rerank = GTERerank(model_name=str(path), top_n=2, keep_retrieval_score=True)
    nodes = [NodeWithScore(node=TextNode(text=t), score=0.5) for t in ("w1 w2", "w3", "w4")]
    ranked = rerank.postprocess_nodes(nodes, query_str="w1")
    assert len(ranked) == 2
    assert ranked[0].score >= ranked[1].score
    assert ranked[0].metadata["retrieval_score"] == 0.5
    assert ranked[0].get_content("embed") in ("w1 w2", "w3", "w4")
    assert not any(node.metadata for node in nodes)
    again = rerank.postprocess_nodes(nodes, query_str="w1")
    assert [node.score for node in again] == [node.score for node in ranked]
    assert GTERerank().postprocess_nodes([], query_str="w1") == []
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        GTERerank(topn=9)
    assert "device" not in rerank.to_dict()
    with pytest.raises(ValueError, match="pass query_bundle or query_str"):
        rerank.postprocess_nodes(nodes)
