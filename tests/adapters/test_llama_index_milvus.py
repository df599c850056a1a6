"""Run in an environment of its own: this store wants another pymilvus than LangChain's."""

import pytest

pytest.importorskip("llama_index.vector_stores.milvus", reason="make test runs it on its own")

from llama_index.core import Document, StorageContext, VectorStoreIndex
from llama_index.core.vector_stores.types import VectorStoreQuery, VectorStoreQueryMode

from gte_core import GTEEmbedder, MissingHeadError
from gte_core.testing import random_checkpoint
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


def test_the_sparse_function_alone():
    function = GTESparseFunction(GTEEmbedding(model_name="demo").encoder)
    [row] = function.encode_documents(["print"])
    assert all(weight > 0 for weight in row.values())
    assert function.encode_queries([""]) == [{}]
    assert len(function.encode_documents([""])[0]) == 1


def test_a_model_without_a_sparse_head_is_refused_at_once(tmp_path):
    embedding = GTEEmbedding(model_name=str(random_checkpoint(tmp_path / "model", task=None)))
    with pytest.raises(MissingHeadError, match="no sparse head"):
        GTEMilvusVectorStore(embedding, uri=str(tmp_path / "store.db"))
