import asyncio

import pytest
from langchain_milvus import Milvus

from gte_integrations.langchain import GTEEmbeddings
from gte_integrations.langchain_milvus import GTEMilvusSparse

TEXTS = [f"Help page {number} on printing and spelling" for number in range(129)] + ["☃"]


@pytest.mark.filterwarnings("ignore::DeprecationWarning:langchain_milvus")
def test_a_hybrid_store_costs_one_pass(encoded, tmp_path):
    embeddings = GTEEmbeddings(model="demo", max_length=999)  # nothing in the cache yet
    store = Milvus(
        **embeddings.milvus_options(), connection_args={"uri": str(tmp_path / "store.db")}
    )
    store.add_texts(TEXTS, ids=[str(number) for number in range(130)])
    assert [len(texts) for texts in encoded] == [130]
    encoded.clear()
    [found] = store.similarity_search("page 77 on spelling", k=1, fetch_k=20)
    assert encoded == [["page 77 on spelling"]]
    assert "77" in found.page_content


def test_documents_are_never_empty_and_queries_may_be(demo):
    options = GTEEmbeddings(model="demo", dtype="float32").milvus_options()
    _, sparse = options["embedding_function"]
    width = demo.encode_sparse("").shape[1]
    assert sparse.embed_documents([""]) == [{width: 1e-6}]
    assert sparse.embed_query("") == {}
    assert asyncio.run(sparse.aembed_query("")) == {}
    _, ids, weights = next(demo.encode("print").rows())
    assert asyncio.run(sparse.aembed_documents(["print"])) == [
        pytest.approx(dict(zip(ids.tolist(), weights.tolist(), strict=True)), rel=1e-5)
    ]


@pytest.mark.filterwarnings("ignore::DeprecationWarning:langchain_milvus")
def test_a_sparse_store_of_a_model_without_dense_vectors(tmp_path, make_encoder):
    store = Milvus(
        GTEMilvusSparse(encoder=make_encoder(has_dense=False)),
        vector_field="sparse",
        index_params={"metric_type": "IP", "index_type": "SPARSE_INVERTED_INDEX", "params": {}},
        search_params={"metric_type": "IP", "params": {}},
        connection_args={"uri": str(tmp_path / "store.db")},
    )
    store.add_texts(["oak and pine", "elm and yew"], ids=["a", "b"])
    assert [found.page_content for found in store.similarity_search("a yew", k=1)] == [
        "elm and yew"
    ]
