"""Every door takes a reranker: a name, a loaded one, and any object that satisfies it."""

import asyncio
import json
import pickle

import pytest
from langchain_core.documents import Document
from llama_index.core.schema import NodeWithScore, TextNode
from llama_index.core.vector_stores.types import VectorStoreQuery
from pydantic import ValidationError

from gte_core import GTEReranker, RerankerSettings, shared_reranker
from gte_core.testing import HashEncoder, HashReranker, random_checkpoint
from gte_integrations import langchain, llama_index
from gte_integrations.langchain import GTECompressor, GTECrossEncoder
from gte_integrations.llama_index import GTERerank
from gte_integrations.qdrant import QdrantHybridIndex

TEXTS = ["yew fir", "oak elm ash", "oak", "elm oak"]


@pytest.fixture
def reranker():
    return HashReranker()


@pytest.fixture
def index(tmp_path):
    with QdrantHybridIndex(tmp_path, "docs", HashEncoder()) as index:
        index.create()
        index.add(enumerate(TEXTS))
        yield index


def ranked_by(door, query="oak elm"):
    """The texts as an object of either framework orders them, best first, with scores."""
    if isinstance(door, GTECompressor):
        found = door.compress_documents([Document(page_content=text) for text in TEXTS], query)
        return [(one.page_content, one.metadata["relevance_score"]) for one in found]
    nodes = [NodeWithScore(node=TextNode(text=text)) for text in TEXTS]
    return [(one.text, one.score) for one in door.postprocess_nodes(nodes, query_str=query)]


@pytest.mark.parametrize("door", [GTECompressor, GTERerank])
def test_any_object_ranks(door, reranker):
    expected = [(one.document, one.score) for one in reranker.rank("oak elm", TEXTS, top_n=3)]
    assert ranked_by(door(reranker=reranker, top_n=3)) == expected
    again = pickle.loads(pickle.dumps(door(reranker=reranker, top_n=3)))
    assert ranked_by(again) == expected


@pytest.mark.parametrize("door", [GTECompressor, GTERerank])
def test_a_loaded_model_and_its_name_rank_alike(door, tmp_path):
    path = random_checkpoint(tmp_path, task="sequence_classification")
    loaded = GTEReranker.from_pretrained(path)
    expected = [(one.document, one.score) for one in loaded.rank("w1", TEXTS, top_n=2)]
    for given in (loaded, path, str(path)):
        assert ranked_by(door(reranker=given, top_n=2), "w1") == expected


@pytest.mark.parametrize("door", [GTECompressor, GTERerank])
@pytest.mark.parametrize(
    ("scores", "given"), [([1.0], r"scores of shape \(1,\)"), ([float("nan")] * 4, r"4 score\(s\)")]
)
def test_scores_that_do_not_fit_are_refused(door, reranker, monkeypatch, scores, given):
    monkeypatch.setattr(reranker, "score", lambda pairs: scores)
    with pytest.raises(ValueError, match=f"The reranker gave {given}.* for 4 pairs"):
        ranked_by(door(reranker=reranker))


@pytest.mark.parametrize("door", [GTECrossEncoder, GTERerank])
def test_an_object_that_is_empty_is_used_all_the_same(door):
    class Empty(HashReranker):
        def __len__(self):
            return 0

    empty = Empty()
    assert door(reranker=empty).reranker is empty


@pytest.mark.parametrize("door", [GTECrossEncoder, GTERerank])
def test_a_name_is_shared_and_loads_nothing(door):
    shared = shared_reranker(RerankerSettings(model="org/reranker"))
    assert door(reranker="org/reranker").reranker is shared
    name = "model_name" if door is GTERerank else "model"
    assert door(**{name: "org/reranker"}).reranker is shared
    assert getattr(door(reranker="org/reranker"), name) == "org/reranker"
    assert "reranker=SharedReranker(" in repr(door(reranker="org/reranker"))


@pytest.mark.parametrize("door", [GTECrossEncoder, GTERerank])
@pytest.mark.parametrize("setting", [{"max_length": 9}, {"dtype": "float32"}])
def test_settings_beside_a_reranker_are_refused(door, reranker, setting):
    [name] = setting
    message = f"reranker was given, and so was {name}; a reranker has its own settings"
    with pytest.raises(ValidationError, match=message):
        door(reranker=reranker, **setting)


def test_a_setting_is_not_put_beside_a_reranker_later(reranker):
    rerank = GTERerank(reranker=reranker)
    rerank.top_n = 1
    with pytest.raises(ValueError, match="reranker was given, and so was max_length"):
        rerank.max_length = 9
    assert len(ranked_by(rerank)) == 1


def test_a_cross_encoder_beside_a_reranker_is_refused(reranker):
    with pytest.raises(ValidationError, match="reranker was given, and so was cross_encoder"):
        GTECompressor(reranker=reranker, cross_encoder=GTECrossEncoder())


@pytest.mark.parametrize("door", [GTECrossEncoder, GTECompressor, GTERerank])
def test_what_is_no_reranker_is_refused(door):
    with pytest.raises(TypeError, match="reranker is a int without rank, score, arank, ascore"):
        door(reranker=5)


def test_llama_index_serialises_settings_and_the_name_of_an_object(reranker):
    settings = RerankerSettings(model="org/reranker", max_length=99, revision="v1")
    kept = json.loads(json.dumps(GTERerank(reranker=shared_reranker(settings)).to_dict()))
    assert (kept["model_name"], kept["max_length"], kept["revision"]) == ("org/reranker", 99, "v1")
    assert GTERerank.from_dict(kept).reranker is shared_reranker(settings)
    kept = GTERerank(reranker=reranker, top_n=3).to_dict()
    assert (kept["model_name"], kept["top_n"]) == ("hash", 3)
    assert GTERerank.from_dict(kept, reranker=reranker).reranker is reranker


@pytest.mark.parametrize("awaited", [False, True])
def test_the_retrievers_of_both_pass_it_on(index, reranker, awaited):
    options = {"rerank": reranker, "rerank_depth": 4, "mode": "dense"}
    [hits] = index.search("oak elm", limit=2, **options)
    theirs = langchain.GTEHybridRetriever(index=index, k=2, search_options=options)
    found = asyncio.run(theirs.ainvoke("oak elm")) if awaited else theirs.invoke("oak elm")
    assert [(one.id, one.metadata["rerank_score"], one.metadata["score"]) for one in found] == [
        (str(hit.id), hit.rerank_score, hit.score) for hit in hits
    ]
    theirs = llama_index.GTEHybridRetriever(index, similarity_top_k=2, search_options=options)
    found = asyncio.run(theirs.aretrieve("oak elm")) if awaited else theirs.retrieve("oak elm")
    assert [(one.node_id, one.score, one.metadata["retrieval_score"]) for one in found] == [
        (str(hit.id), hit.rerank_score, hit.score) for hit in hits
    ]


def test_the_stores_of_both_give_the_score_of_the_ranking(tmp_path, reranker):
    embeddings = langchain.GTEEmbeddings(encoder=HashEncoder())
    place = {"location": tmp_path, "collection": "lc"}
    store = langchain.GTEVectorStore.from_texts(TEXTS, embeddings, **place)
    expected = [(one.document, one.score) for one in reranker.rank("oak elm", TEXTS, top_n=2)]
    found = store.similarity_search_with_score("oak elm", k=2, rerank=reranker)
    assert [(document.page_content, score) for document, score in found] == expected
    [best] = store.similarity_search("oak elm", k=1, rerank=reranker)
    assert best.page_content == "elm oak"
    with pytest.raises(ValueError, match=r"rerank is .*; leave rerank out, or use similarity_sear"):
        store.similarity_search_with_relevance_scores("oak elm", rerank=reranker)
    store.index.close()
    with QdrantHybridIndex(tmp_path, "li", HashEncoder()) as index:
        index.create()
        store = llama_index.GTEVectorStore(index=index)
        store.add([TextNode(text=text) for text in TEXTS])
        query = VectorStoreQuery(query_str="oak elm", similarity_top_k=2)
        found = store.query(query, rerank=reranker)
    assert [node.text for node in found.nodes] == [text for text, _ in expected]
    assert found.similarities == [score for _, score in expected]
