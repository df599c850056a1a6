import pytest
from llama_index.core import Document, StorageContext, VectorStoreIndex
from llama_index.core.schema import TextNode
from llama_index.core.vector_stores.types import VectorStoreQueryResult
from llama_index.vector_stores.qdrant import QdrantVectorStore
from qdrant_client import QdrantClient

from gte_core import PairedEncoder
from gte_integrations.llama_index import GTEEmbedding
from gte_integrations.llama_index_qdrant import reciprocal_rank_fusion


@pytest.mark.filterwarnings("ignore:Payload indexes have no effect")
@pytest.mark.parametrize(
    ("batch_size", "expected"), [(64, [64, 64, 2]), (32, [32] * 4 + [2]), (130, [130])]
)
def test_a_hybrid_store_costs_one_pass(encoded, batch_size, expected):
    embedding = GTEEmbedding(
        model_name="demo", max_length=2000 + batch_size, embed_batch_size=batch_size
    )
    store = QdrantVectorStore("docs", client=QdrantClient(":memory:"), **embedding.qdrant_options())
    documents = [Document(text=f"Help page {n}", metadata={"page": n}) for n in range(129)]
    documents.append(Document(text="Rechtschreibung prüfen"))
    index = VectorStoreIndex.from_documents(
        documents,
        storage_context=StorageContext.from_defaults(vector_store=store),
        embed_model=embedding,
    )
    assert [len(texts) for texts in encoded] == expected
    encoded.clear()
    retriever = index.as_retriever(
        similarity_top_k=3, sparse_top_k=20, hybrid_top_k=1, vector_store_query_mode="hybrid"
    )
    [found] = retriever.retrieve("spell checking")
    assert encoded == [["spell checking"]]
    assert found.text == "Rechtschreibung prüfen"


def result(*hits):
    nodes = [TextNode(id_=name, text=name) for name, _ in hits]
    return VectorStoreQueryResult(
        nodes=nodes, similarities=[score for _, score in hits], ids=[name for name, _ in hits]
    )


def test_a_single_hit_does_not_win_by_its_scale():
    dense = result(("a", 0.9), ("b", 0.8))
    fused = reciprocal_rank_fusion(dense, result(("c", 37.5)), alpha=0.9, top_k=3)
    assert fused.ids == ["a", "b", "c"]
    assert fused.similarities[0] == pytest.approx(0.9 / 61)


@pytest.mark.parametrize(("alpha", "expected"), [(0.0, ["c"]), (1.0, ["a", "b"])])
def test_the_ends_of_alpha(alpha, expected):
    dense, sparse = result(("a", 0.9), ("b", 0.8)), result(("c", 37.5))
    assert reciprocal_rank_fusion(dense, sparse, alpha=alpha, top_k=3).ids == expected


def test_agreement_beats_either_alone():
    dense, sparse = result(("a", 0.9), ("b", 0.8)), result(("c", 5.0), ("b", 4.0))
    fused = reciprocal_rank_fusion(dense, sparse, alpha=0.5, top_k=1)
    assert fused.ids == ["b"]
    assert fused.nodes[0].text == "b"


def test_empty_results():
    assert reciprocal_rank_fusion(result(), result(), alpha=0.5, top_k=3).ids == []
    nothing = VectorStoreQueryResult(nodes=None, similarities=None, ids=None)
    assert reciprocal_rank_fusion(nothing, result(("a", 1.0)), top_k=1).ids == ["a"]
    unscored = result(("b", 0.5), ("a", 0.9))
    unscored.similarities = None
    assert reciprocal_rank_fusion(unscored, nothing, alpha=None, top_k=2).ids == ["b", "a"]


def test_alpha_out_of_range():
    with pytest.raises(ValueError, match=r"alpha is 1\.5, but must be from 0"):
        reciprocal_rank_fusion(result(), result(), alpha=1.5)


@pytest.mark.filterwarnings("ignore:Payload indexes have no effect")
def test_a_pair_gives_both_vectors_of_a_store(make_encoder):
    dense, sparse = make_encoder(has_sparse=False), make_encoder(has_dense=False)
    embedding = GTEEmbedding(encoder=PairedEncoder(dense=dense, sparse=sparse))
    store = QdrantVectorStore("docs", client=QdrantClient(":memory:"), **embedding.qdrant_options())
    index = VectorStoreIndex.from_documents(
        [Document(text="oak and pine"), Document(text="elm and yew")],
        storage_context=StorageContext.from_defaults(vector_store=store),
        embed_model=embedding,
    )
    assert (dense.calls.total(), sparse.calls.total()) == (1, 1)
    retriever = index.as_retriever(similarity_top_k=1, vector_store_query_mode="hybrid")
    assert [found.text for found in retriever.retrieve("a yew")] == ["elm and yew"]
    assert (dense.calls.total(), sparse.calls.total()) == (2, 2)
