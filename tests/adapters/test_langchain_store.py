import asyncio
from datetime import date
from itertools import combinations

import numpy as np
import pytest
from langchain_core.documents import Document
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_core.indexing import InMemoryRecordManager
from langchain_core.indexing import index as langchain_index
from langchain_tests.integration_tests import VectorStoreIntegrationTests
from qdrant_client import AsyncQdrantClient

from gte_core import MissingHeadError
from gte_core.testing import HashEncoder
from gte_integrations.langchain import GTEEmbeddings, GTEVectorStore
from gte_integrations.qdrant import QdrantHybridIndex

on_one_engine = pytest.mark.parametrize("place", ["memory"], indirect=True)
TEXTS = ["wind and rain", "rain and snow", "snow and ice", "ice and fire"]


@pytest.fixture
def store(index):
    return GTEVectorStore(index=index)


@pytest.fixture
def filled(store):
    store.add_texts(TEXTS, [{"lang": "en", "n": n} for n in range(4)], ids=["a", "b", "c", "d"])
    return store


class TestStandard(VectorStoreIntegrationTests):
    @pytest.fixture
    def vectorstore(self, store):
        return store


@on_one_engine
def test_ids_are_made_up_where_there_are_none(store):
    ids = store.add_texts((text for text in TEXTS[:3]), ids=["a", None, "c"])
    assert (ids[0], ids[2]) == ("a", "c")
    assert [document.page_content for document in store.get_by_ids(ids)] == TEXTS[:3]
    [other] = store.add_documents([Document(page_content="x", id="a")], ids=["e"])
    assert other == "e"
    assert store.add_texts(["sleet"], ids=[""]) == [""]  # an id like any other
    assert store.get_by_ids([""])[0].page_content == "sleet"


@on_one_engine
def test_a_string_of_the_index_is_never_taken_for_an_integer(index, store):
    names = {7: "int:7", "int:7": "str:int:7", "str:int:7": "str:str:int:7", "str:x": "str:x"}
    index.add([(document_id, f"the {name}") for document_id, name in names.items()])
    found = store.get_by_ids(list(names.values()))
    assert [document.id for document in found] == list(names.values())
    assert [document.page_content for document in found] == [f"the {n}" for n in names.values()]
    store.delete(["str:int:7"])
    assert {document.id for document in index} == names.keys() - {"int:7"}


@on_one_engine
async def test_what_is_not_one_for_each_text_is_refused(store):
    with pytest.raises(ValueError, match="There are 1 ids for 4 texts; give one for each"):
        store.add_texts(TEXTS, ids=["a"])
    with pytest.raises(ValueError, match="There are 1 metadatas for 4 texts"):
        await store.aadd_texts(TEXTS, [{}])
    with pytest.raises(TypeError, match="batch"):
        store.add_texts(TEXTS, batch=2)
    with pytest.raises(TypeError, match="texts is 'wind', a single str; wrap it in a list"):
        await store.aadd_texts("wind")
    with pytest.raises(TypeError, match="metadata of a text is None, a NoneType, but must be a"):
        store.add_texts(TEXTS[:2], [{}, None])
    assert store.index.count() == 0


@on_one_engine
@pytest.mark.parametrize("wrong", [1, None, b"a"])
def test_an_id_is_a_string(filled, wrong):
    message = "but must be a str; the integer 1 of an index is"
    for verb in (filled.get_by_ids, filled.delete):
        with pytest.raises(TypeError, match=message):
            verb([wrong])
    if wrong is not None:
        with pytest.raises(TypeError, match=message):
            filled.add_texts(["x"], ids=[wrong])


@on_one_engine
async def test_documents_may_come_one_by_one(store):
    documents = [Document(page_content=text, metadata={"n": 1}, id=text) for text in TEXTS]
    assert store.add_documents(document for document in documents[:2]) == TEXTS[:2]
    assert await store.aadd_documents(document for document in documents[2:]) == TEXTS[2:]
    assert store.get_by_ids(TEXTS) == documents
    with pytest.raises(TypeError, match="a tuple, but must be a list of Documents"):
        store.add_documents(documents[0])
    with pytest.raises(TypeError, match="documents holds 'wind', a str, but must be a list of Doc"):
        await store.aadd_documents(["wind"])
    with pytest.raises(TypeError, match="ids is 'abcd', a single str"):
        store.add_texts(TEXTS, ids="abcd")


@on_one_engine
def test_metadata_becomes_what_json_has(store):
    metadata = {"day": date(2026, 1, 2), "score": float("nan"), "n": np.int64(3), "at": (1, 2)}
    store.add_documents([Document(page_content="x", metadata=metadata, id="a")])
    [document] = store.get_by_ids(["a"])
    assert document.metadata == {"day": "2026-01-02", "score": None, "n": 3, "at": [1, 2]}


@on_one_engine
def test_its_repr_says_where_it_is(store, index):
    assert repr(store) == f"GTEVectorStore({index!r})"
    assert "QdrantHybridIndex on the Qdrant collection 'docs'" in repr(store)


def test_an_index_is_what_it_is_over():
    with pytest.raises(TypeError, match="index is a GTEEmbeddings, but must be a QdrantHybridInd"):
        GTEVectorStore(GTEEmbeddings(encoder=HashEncoder()))


@on_one_engine
def test_an_integer_id_of_the_index_has_a_name(index, store):
    index.add([(1, "one"), ("1", "the text one"), (-7, "minus seven")])
    found = store.get_by_ids(["int:-7", "int:1", "1", "int:01", "gone"])
    assert [document.id for document in found] == ["int:-7", "int:1", "1"]
    store.delete(["int:1"])
    assert [document.id for document in store.similarity_search("one", k=9)].count("1") == 1
    assert index.count() == 2


def test_metadata_may_have_keys_that_the_index_takes(place, filled):
    keys = ["id", "metadata_id", "metadata_metadata_id", "text", "dense", "_gte_hash", "x"]
    metadata = {key: key.upper() for key in keys} | {"$meta": 1, "sparse": None}
    filled.add_texts(["mist"], [metadata], ids=["m"])
    [document] = filled.get_by_ids(["m"])
    assert document.metadata == metadata
    [found] = filled.similarity_search("snow", k=9, filter=place.filter("metadata_id", "ID"))
    assert found.id == "m"


def test_the_options_of_a_search_are_those_of_the_index(place, filled):
    [document] = filled.similarity_search("snow and ice", k=1, mode="sparse")
    assert document.id == "c"
    assert filled.similarity_search("snow", filter=place.filter("lang", "de")) == []
    with pytest.raises(TypeError, match="where"):
        filled.similarity_search("snow", where={"lang": "en"})
    with pytest.raises(ValueError, match="limit is 0"):
        filled.similarity_search("snow", k=0)
    with pytest.raises(ValueError, match="limit is set by k; pass k instead"):
        filled.similarity_search("snow", limit=3)


@on_one_engine
async def test_scores(filled):
    scored = filled.similarity_search_with_score("snow and ice", k=4)
    assert [score for _, score in scored] == sorted((s for _, s in scored), reverse=True)
    assert await filled.asimilarity_search_with_score("snow and ice", k=4) == scored
    relevant = filled.similarity_search_with_relevance_scores("snow and ice", k=4)
    assert relevant[0][1] == pytest.approx(1)
    assert all(0 <= score <= 1 for _, score in relevant)
    assert await filled.asimilarity_search_with_relevance_scores("snow and ice", k=4) == relevant
    [(only, _)] = filled.similarity_search_with_relevance_scores("snow and ice", score_threshold=1)
    assert only.id == "c"
    with pytest.raises(ValueError, match="mode is 'hybrid', but this search goes by the cosine"):
        filled.similarity_search_with_relevance_scores("snow", mode="hybrid")


def maximal_marginal_relevance(query, vectors, k, lambda_mult):
    """The rule, one step after another."""
    chosen = []
    while len(chosen) < k:
        best = max(
            (row for row in range(len(vectors)) if row not in chosen),
            key=lambda row: (
                lambda_mult * (query @ vectors[row])
                - (1 - lambda_mult)
                * max((vectors[row] @ vectors[other] for other in chosen), default=0)
            ),
        )
        chosen.append(best)
    return chosen


async def test_maximal_marginal_relevance(index, store, encoder):
    texts = list(map(" ".join, combinations(["wind", "rain", "snow", "ice", "fog"], 2)))
    store.add_texts(texts, ids=texts)
    [query] = encoder.hashes.encode_dense(["wind"])
    vectors = encoder.hashes.encode_dense(texts)
    nearest = np.argsort(-vectors @ query, kind="stable")
    for lambda_mult in (1.0, 0.5, 0.1):
        found = store.max_marginal_relevance_search("wind", 5, 12, lambda_mult)
        rows = maximal_marginal_relevance(query, vectors[nearest], 5, lambda_mult)
        assert [document.id for document in found] == [texts[nearest[row]] for row in rows]
        again = await store.amax_marginal_relevance_search("wind", 5, 12, lambda_mult)
        assert again == found
    assert len(store.max_marginal_relevance_search("wind", k=20, fetch_k=1)) == len(texts)
    with pytest.raises(ValueError, match="k is 0, but must be at least 1"):
        store.max_marginal_relevance_search("wind", k=0)
    with pytest.raises(ValueError, match=r"lambda_mult is 7, but must be from 0 \(diversity"):
        await store.amax_marginal_relevance_search("wind", lambda_mult=7)
    with pytest.raises(TypeError, match="lambda_mult is '1', but must be a number"):
        store.max_marginal_relevance_search("wind", lambda_mult="1")
    index.delete(texts)
    assert store.max_marginal_relevance_search("wind") == []


async def test_deleting(place, filled):
    assert filled.delete(filter=place.filter("lang", "de"))
    assert await filled.adelete(["a", "gone"])
    assert [document.id for document in filled.get_by_ids(["a", "b"])] == ["b"]
    with pytest.raises(TypeError, match="a single str"):
        filled.delete("b")
    with pytest.raises(TypeError, match="neither of ids and filter"):
        filled.delete()
    assert filled.delete(filter=place.filter("lang", "en"))
    assert filled.similarity_search("snow") == []


@on_one_engine
async def test_as_a_retriever(place, filled):
    german = place.filter("lang", "de")
    retriever = filled.as_retriever(search_kwargs={"k": 2})
    assert retriever.invoke("snow and ice")[0].id == "c"
    assert await retriever.ainvoke("snow and ice") == retriever.invoke("snow and ice")
    assert filled.as_retriever(search_kwargs={"filter": german}).invoke("snow") == []
    diverse = filled.as_retriever(search_type="mmr", search_kwargs={"k": 2})
    assert len(await diverse.ainvoke("snow and ice")) == 2


@on_one_engine
async def test_the_event_loop_goes_on(filled, encoder, monkeypatch):
    running, ticks = True, 0

    async def tick():
        nonlocal ticks
        while running:
            ticks += 1
            await asyncio.sleep(0.001)

    def slow(*arguments, **options):
        seen = ticks
        while ticks < seen + 3:
            pass
        return encode(*arguments, **options)

    encode = encoder.encode
    monkeypatch.setattr(encoder, "encode", slow)
    beside = asyncio.create_task(tick())
    await filled.aadd_texts(["sleet"])
    await filled.asimilarity_search("sleet")
    running = False
    await beside


@pytest.mark.parametrize("engine", ["qdrant", "milvus"])
async def test_from_texts_makes_the_collection(engine, tmp_path):
    embeddings = GTEEmbeddings(encoder=HashEncoder(), dimensions=16)
    place = {"location": tmp_path / "place.db", "collection": "docs", "engine": engine}
    store = GTEVectorStore.from_texts(TEXTS, embeddings, ids=["a", "b", "c", "d"], **place)
    assert store.similarity_search("snow and ice", k=1)[0].id == "c"
    assert store.embeddings.encoder is embeddings.encoder
    assert len(store.embeddings.embed_query("x")) == 16
    store.index.close()
    documents = [Document(page_content="sleet", id="e", metadata={"n": 1})]
    more = await GTEVectorStore.afrom_documents(iter(documents), embeddings, **place)
    assert more.index.count() == 5
    assert await more.aget_by_ids(["e"]) == documents
    more.index.close()
    again = GTEVectorStore.from_documents(iter(documents), embeddings, **place)
    assert again.get_by_ids(["e"]) == documents
    again.index.close()


def test_from_texts_says_what_it_takes(tmp_path):
    place = {"location": tmp_path, "collection": "docs"}
    with pytest.raises(TypeError, match="DeterministicFakeEmbedding, but must be a GTEEmbeddings"):
        GTEVectorStore.from_texts(TEXTS, DeterministicFakeEmbedding(size=3), **place)
    embeddings = GTEEmbeddings(encoder=HashEncoder())
    with pytest.raises(ValueError, match="engine is 'faiss', but must be 'qdrant' or 'milvus'"):
        GTEVectorStore.from_texts(TEXTS, embeddings, engine="faiss", **place)
    with pytest.raises(TypeError, match="dimension"):
        GTEVectorStore.from_texts(TEXTS, embeddings, dimension=16, **place)


async def test_from_texts_leaves_nothing_open_when_it_fails(tmp_path):
    embeddings, place = GTEEmbeddings(encoder=HashEncoder()), {"location": tmp_path}
    with pytest.raises(ValueError, match="There are 1 ids for 4 texts") as failed:
        GTEVectorStore.from_texts(TEXTS, embeddings, ids=["a"], collection="docs", **place)
    with pytest.raises(TypeError, match="cannot be stored as JSON"):
        await GTEVectorStore.afrom_texts(
            TEXTS, embeddings, [{"x": {1, 2}}] * 4, collection="docs", **place
        )
    assert failed.value  # which holds on to the store
    with QdrantHybridIndex(tmp_path, "docs", embeddings.encoder) as index:
        assert index.count() == 0


async def test_over_an_async_client(encoder):
    client = AsyncQdrantClient(":memory:")
    store = GTEVectorStore(QdrantHybridIndex(client, "docs", encoder))
    await store.index.acreate()
    await store.aadd_texts(TEXTS, ids=["a", "b", "c", "d"])
    await store.adelete(["d"])
    [document] = await store.asimilarity_search("snow and ice", k=1)
    assert [document] == await store.aget_by_ids(["c", "d"])
    assert len(await store.amax_marginal_relevance_search("snow")) == 3
    await client.close()


@on_one_engine
def test_langchains_indexing_writes_and_removes(filled):
    records = InMemoryRecordManager("docs")
    records.create_schema()
    filled.delete(["a", "b", "c", "d"])

    def index(texts):
        documents = [Document(page_content=text, metadata={"source": "x"}) for text in texts]
        found = langchain_index(
            documents,
            records,
            filled,
            cleanup="full",
            source_id_key="source",
            key_encoder="sha256",
        )
        return found["num_added"], found["num_skipped"], found["num_deleted"]

    assert index(TEXTS[:2]) == (2, 0, 0)
    assert index(TEXTS[1:3]) == (1, 1, 1)
    found = filled.similarity_search("rain", k=9)
    assert {document.page_content for document in found} == set(TEXTS[1:3])


def test_a_text_costs_one_pass(encoded, tmp_path):
    embeddings = GTEEmbeddings(model="demo")
    with QdrantHybridIndex(tmp_path, "docs", "demo") as index:
        index.create()
        store = GTEVectorStore(index)
        store.add_texts(TEXTS)
        store.max_marginal_relevance_search("frost")
        store.similarity_search("frost")
        embeddings.embed_documents(TEXTS)
    assert sorted(text for texts in encoded for text in texts) == sorted([*TEXTS, "frost"])


async def test_of_a_model_without_dense_vectors(place, make_encoder):
    embeddings = GTEEmbeddings(encoder=make_encoder(has_dense=False))
    store = GTEVectorStore.from_texts(
        TEXTS,
        embeddings,
        location=place.location,
        collection=f"{place.prefix}docs",
        engine="milvus" if place.engine.startswith("milvus") else "qdrant",
        ids=list("abcd"),
        **place.credentials,
    )
    place.opened.append(store.index)
    retriever = store.as_retriever(search_kwargs={"k": 1})
    assert [found.id for found in retriever.invoke("snow ice")] == ["c"]
    assert [found.id for found in await retriever.ainvoke("snow ice")] == ["c"]
    assert store.embeddings.encoder is store.index.vectorizer.encoder
    for search in (
        store.similarity_search_with_relevance_scores,
        store.max_marginal_relevance_search,
    ):
        with pytest.raises(MissingHeadError, match="mode='dense' needs dense vectors, but hash"):
            search("snow")
    for call in (lambda: embeddings.embed_query("snow"), lambda: embeddings.embed_documents(["s"])):
        with pytest.raises(MissingHeadError, match=r"'hash' has no dense vectors.* use encode_sp"):
            call()


async def test_it_searches_by_a_vector_of_the_right_size(filled):
    vector = filled.embeddings.embed_query("oak")
    expected = filled.similarity_search("oak", k=2, mode="dense")
    assert filled.similarity_search_by_vector(vector, k=2) == expected
    assert await filled.asimilarity_search_by_vector(vector, k=2) == expected
    diverse = filled.max_marginal_relevance_search("oak", k=2)
    assert filled.max_marginal_relevance_search_by_vector(vector, k=2) == diverse
    assert await filled.amax_marginal_relevance_search_by_vector(vector, k=2) == diverse
    with pytest.raises(ValueError, match="of 2 components, but the collection has 32"):
        filled.similarity_search_by_vector(vector[:2])
    with pytest.raises(ValueError, match=r"embedding has the shape \(1, 32\), but must be one"):
        filled.similarity_search_by_vector([vector])
    with pytest.raises(ValueError, match="k is 0, but must be at least 1"):
        filled.max_marginal_relevance_search_by_vector(vector, k=0)
    with pytest.raises(ValueError, match=r"lambda_mult is 7, but must be from 0 \(diversity"):
        await filled.amax_marginal_relevance_search_by_vector(vector, lambda_mult=7)
    with pytest.raises(ValueError, match="limit is set by k"):
        await filled.asimilarity_search_by_vector(vector, limit=3)
