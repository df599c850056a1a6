import asyncio

import pytest
from langchain_qdrant import QdrantVectorStore, RetrievalMode

from gte_integrations.langchain import GTEEmbeddings
from gte_integrations.langchain_qdrant import GTEQdrantSparse

TEXTS = [f"Help page {number} on printing and spelling" for number in range(130)]


@pytest.mark.parametrize(
    ("batch_size", "expected"), [(64, [64, 64, 2]), (32, [32] * 4 + [2]), (130, [130])]
)
def test_a_hybrid_store_costs_one_pass(encoded, batch_size, expected):
    settings = {"model": "demo", "max_length": 1000 + batch_size}  # nothing in the cache yet
    store = QdrantVectorStore.from_texts(
        ["first"],
        GTEEmbeddings(**settings),
        sparse_embedding=GTEQdrantSparse(**settings),
        retrieval_mode=RetrievalMode.HYBRID,
        location=":memory:",
    )
    encoded.clear()
    store.add_texts(TEXTS, batch_size=batch_size)
    assert [len(texts) for texts in encoded] == expected
    encoded.clear()
    [found] = store.similarity_search("page 77 on spelling", k=1)
    assert encoded == [["page 77 on spelling"]]
    assert "77" in found.page_content


def test_the_sparse_half_of_embeddings_shares_their_encoder(demo):
    embeddings = GTEEmbeddings(model="demo", dtype="float32", dimensions=64)
    sparse = embeddings.qdrant_options()["sparse_embedding"]
    assert sparse.encoder is embeddings.encoder
    vectors = sparse.embed_documents(["print a page", ""])
    for vector, (_, ids, weights) in zip(
        vectors, demo.encode(["print a page", ""]).rows(), strict=True
    ):
        assert vector.indices == ids.tolist()
        assert vector.values == pytest.approx(weights.tolist(), rel=1e-5)
    assert sparse.embed_query("print a page") == vectors[0]
    assert asyncio.run(sparse.aembed_query("print a page")) == vectors[0]
    assert asyncio.run(sparse.aembed_documents(["print a page", ""])) == vectors


def test_a_sparse_store_of_a_model_without_dense_vectors(make_encoder):
    store = QdrantVectorStore.from_texts(
        ["oak and pine", "elm and yew"],
        sparse_embedding=GTEQdrantSparse(encoder=make_encoder(has_dense=False)),
        retrieval_mode=RetrievalMode.SPARSE,
        location=":memory:",
    )
    assert [found.page_content for found in store.similarity_search("a yew", k=1)] == [
        "elm and yew"
    ]
