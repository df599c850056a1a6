"""Run in an environment of its own: this store wants another pymilvus than LangChain's."""

import pytest

pytest.importorskip("llama_index.vector_stores.milvus", reason="make test runs it on its own")

from llama_index.core import Document, StorageContext, VectorStoreIndex
from llama_index.core.schema import TextNode
from llama_index.core.vector_stores.types import VectorStoreQuery, VectorStoreQueryMode
from llama_index.vector_stores.milvus import MilvusVectorStore

from gte_core import GTEEmbedder, MissingHeadError
from gte_core.testing import HashEncoder, random_checkpoint
from gte_integrations.llama_index import GTEEmbedding
from gte_integrations.llama_index_milvus import GTEMilvusVectorStore, GTESparseFunction


def filled(tmp_path, embedding, **options):
    store = GTEMilvusVectorStore(embedding, uri=str(tmp_path / "store.db"), **options)
    documents = [Document(text=f"Help page {n}", metadata={"page": n}) for n in range(129)]
    index = VectorStoreIndex.from_documents(
        [*documents, Document(text="Rechtschreibung prüfen")],
        storage_context=StorageContext.from_defaults(vector_store=store),
        embed_model=embedding,
    )
    return store, index


@pytest.mark.parametrize(
    ("batch_size", "expected"), [(64, [64, 64, 2]), (32, [32] * 4 + [2]), (130, [130])]
)
def test_a_hybrid_store_costs_one_pass(encoded, tmp_path, batch_size, expected):
    embedding = GTEEmbedding(
        model_name="demo", max_length=3000 + batch_size, embed_batch_size=batch_size
    )
    _, index = filled(tmp_path, embedding, use_async_client=False)
    assert [len(texts) for texts in encoded] == expected
    encoded.clear()
    retriever = index.as_retriever(similarity_top_k=10, vector_store_query_mode="hybrid")
    found = retriever.retrieve("Rechtschreibung")
    assert encoded == [["Rechtschreibung"]]
    assert found[0].text == "Rechtschreibung prüfen"


def test_sparse_is_of_the_text_that_dense_sees(tmp_path):
    embedding = GTEEmbedding(model_name="demo", on_truncation="ignore")
    store, _ = filled(tmp_path, embedding, use_async_client=False)
    query = VectorStoreQuery(query_str="page", similarity_top_k=1, mode=VectorStoreQueryMode.SPARSE)
    found = store.query(query)
    demo = GTEEmbedder.from_pretrained("demo")
    both = demo.encode(["page", found.nodes[0].get_content("embed")])
    assert found.nodes[0].get_content("embed").startswith("page: ")
    assert found.similarities[0] == pytest.approx(
        both[0].scores(both[1], dense_weight=0.0, sparse_weight=1.0).item(), rel=1e-4
    )


async def test_async_queries_and_adds(encoded, tmp_path):
    embedding = GTEEmbedding(model_name="demo", max_length=3500)
    store, index = filled(tmp_path, embedding)
    nodes = [node.node for node in index.as_retriever(similarity_top_k=2).retrieve("help page 5")]
    for number, node in enumerate(nodes):
        node.id_ = f"copy {number}"
        node.embedding = embedding.get_text_embedding(node.get_content("embed"))
    encoded.clear()
    assert await store.async_add(nodes) == ["copy 0", "copy 1"]
    assert encoded == []
    for mode in ("hybrid", "sparse"):
        retriever = index.as_retriever(similarity_top_k=5, vector_store_query_mode=mode)
        assert (await retriever.aretrieve("Rechtschreibung"))[0].text == "Rechtschreibung prüfen"


def reordered(nodes):
    """Every second node, from the last to the first."""
    return nodes[::-2]


def passing_other_nodes(monkeypatch, change):
    """The store of LlamaIndex, as it would be if it added other nodes than it was given."""
    add, async_add = MilvusVectorStore.add, MilvusVectorStore.async_add

    def add_others(self, nodes, **options):
        return add(self, change(nodes), **options)

    async def async_add_others(self, nodes, **options):
        return await async_add(self, change(nodes), **options)

    monkeypatch.setattr(MilvusVectorStore, "add", add_others)
    monkeypatch.setattr(MilvusVectorStore, "async_add", async_add_others)


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_sparse_vectors_follow_the_texts_of_their_nodes(tmp_path, monkeypatch, asynchronous):
    embedding = GTEEmbedding(model_name="demo")
    store = GTEMilvusVectorStore(embedding, uri=str(tmp_path / "store.db"))
    texts = ["oak", "elm", "oak", "pine", "yew", "elm"]
    nodes = [TextNode(text=text, id_=str(n), metadata={"n": 1}) for n, text in enumerate(texts)]
    for node in nodes:
        node.embedding = [1.0] + [0.0] * 255
    passing_other_nodes(monkeypatch, reordered)
    added = await store.async_add(nodes) if asynchronous else store.add(nodes)
    assert added == ["5", "3", "1"]
    rows = store.client.get(store.collection_name, added, output_fields=["sparse_embedding"])
    sparse = {row["id"]: row["sparse_embedding"] for row in rows}
    for node in reordered(nodes):
        expected = embedding.encoder.encode_sparse(node.get_content("embed"))
        found = dict(zip(expected.indices.tolist(), expected.data.tolist(), strict=True))
        assert sparse[node.node_id] == pytest.approx(found)


def test_a_text_that_no_node_has_is_an_error(tmp_path, monkeypatch):
    embedding = GTEEmbedding(model_name="demo")
    store = GTEMilvusVectorStore(embedding, uri=str(tmp_path / "store.db"), use_async_client=False)
    passing_other_nodes(monkeypatch, lambda nodes: [TextNode(text="yew")])
    with pytest.raises(ValueError, match="sparse vector of 'yew', which is the text of none of"):
        store.add([TextNode(text="oak")])


def test_the_sparse_function_alone():
    function = GTESparseFunction(GTEEmbedding(model_name="demo").encoder)
    [row] = function.encode_documents(["print"])
    assert all(weight > 0 for weight in row.values())
    assert function.encode_queries([""]) == [{}]
    assert len(function.encode_documents([""])[0]) == 1


def test_nodes_may_come_one_by_one(tmp_path):
    embedding = GTEEmbedding(model_name="demo")
    store = GTEMilvusVectorStore(embedding, uri=str(tmp_path / "store.db"), use_async_client=False)
    vector = embedding.get_text_embedding("oak")
    nodes = (TextNode(text="oak", id_=name, embedding=vector) for name in "ab")
    assert store.add(nodes) == ["a", "b"]


def test_the_embedding_is_ours(tmp_path):
    with pytest.raises(TypeError, match="embedding is a str, but must be a GTEEmbedding, whose"):
        GTEMilvusVectorStore("demo", uri=str(tmp_path / "store.db"))


def test_a_model_without_a_sparse_head_is_refused_at_once(tmp_path):
    embedding = GTEEmbedding(model_name=str(random_checkpoint(tmp_path / "model", task=None)))
    with pytest.raises(MissingHeadError, match="no sparse head"):
        GTEMilvusVectorStore(embedding, uri=str(tmp_path / "store.db"))


def test_a_model_without_dense_vectors_is_refused_at_once(tmp_path):
    embedding = GTEEmbedding(encoder=HashEncoder(has_dense=False))
    with pytest.raises(MissingHeadError, match="'hash' has no dense vectors"):
        GTEMilvusVectorStore(embedding, uri=str(tmp_path / "store.db"))
