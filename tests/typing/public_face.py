"""What a type checker knows of the public face; checked by mypy in the gate, never run.

The first part says what calls give. The second holds calls that must not pass: were a signature
loosened, its ``type: ignore`` would be unused, which is an error, too.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, assert_type

import numpy as np
import scipy.sparse as sp
import torch
from langchain_core.documents import Document as LangChainDocument
from llama_index.core.schema import BaseNode, NodeWithScore
from llama_index.core.vector_stores.types import VectorStoreQuery, VectorStoreQueryResult
from numpy.typing import NDArray
from qdrant_client import AsyncQdrantClient, QdrantClient, models

from gte_core import (
    CachedEncoder,
    CachingEncoder,
    Capabilities,
    Encoder,
    EncoderSettings,
    Explanation,
    Fingerprint,
    GTEEmbedder,
    GTEModel,
    GTEModelOutput,
    GTEReranker,
    HybridEmbeddings,
    PairedEncoder,
    RankedDocument,
    Reranker,
    RerankerSettings,
    SharedEncoder,
    SharedReranker,
    TokenContribution,
    as_encoder,
    as_reranker,
    read_capabilities,
    shared_encoder,
    shared_reranker,
)
from gte_core.testing import HashEncoder, HashReranker
from gte_integrations import langchain, llama_index
from gte_integrations.gte_embedding import GTEEmbeddidng
from gte_integrations.langchain_milvus import GTEMilvusSparse
from gte_integrations.langchain_qdrant import GTEQdrantSparse
from gte_integrations.milvus import GTEEmbeddingFunction, MilvusHybridIndex, MilvusVectorizer
from gte_integrations.parquet import add_parquet, write_parquet
from gte_integrations.qdrant import (
    RRF,
    Document,
    Hit,
    IndexReport,
    Linear,
    QdrantHybridIndex,
    QdrantVectorizer,
    StoredDocument,
)
from gte_integrations.remote import (
    DashScopeEncoder,
    DashScopeReranker,
    OpenAIEncoder,
    TEIEncoder,
    TEIReranker,
)

Dense = NDArray[np.float32]
Sparse = sp.csr_array[np.float32]


# ------------------------------------------------------------------ what calls give


async def of_an_embedder(stream: Iterator[str]) -> None:
    embedder = GTEEmbedder.from_pretrained(
        Path("model"), device=torch.device("cpu"), dtype=torch.float32, on_truncation="error"
    )
    assert_type(embedder, GTEEmbedder)
    assert_type(embedder.encode("one"), HybridEmbeddings)
    assert_type(embedder.encode(stream, dimensions=256, show_progress=True), HybridEmbeddings)
    assert_type(embedder.encode_dense(["one"], dimensions=256), Dense)
    assert_type(embedder.encode_sparse(["one"]), Sparse)
    assert_type(embedder.encode_iter(stream, role="query"), Iterator[HybridEmbeddings])
    assert_type(embedder.encode_available(["one"], role="document"), HybridEmbeddings)
    assert_type(embedder.with_max_length(512), GTEEmbedder)
    assert_type(await embedder.aencode(["one"]), HybridEmbeddings)
    assert_type(embedder.compute_scores([("query", "document")], dense_weight=1.0), Dense)
    assert_type(embedder.explain("query", "document"), Explanation)
    assert_type(embedder.count_tokens(stream, role="query"), NDArray[np.int64])
    assert_type(embedder.fingerprint, Fingerprint)
    assert_type(embedder.revision, str | None)
    assert_type((embedder.dimensions, embedder.max_length), tuple[int, int])
    assert_type((embedder.query_prefix, embedder.document_prefix), tuple[str, str])
    assert_type((embedder.has_sparse, embedder.vocab_size), tuple[bool, int])
    assert_type(embedder.capabilities, Capabilities)
    assert_type(read_capabilities(Path("model"), revision="main"), Capabilities)


def of_embeddings(both: HybridEmbeddings) -> None:
    assert_type(both.dense, Dense)
    assert_type(both.sparse, Sparse)
    assert_type(both.n_tokens, NDArray[np.int64])
    assert_type(both.truncated, NDArray[np.bool_])
    assert_type(both[0], HybridEmbeddings)
    assert_type(both[1:3], HybridEmbeddings)
    assert_type(both[[3, 1]], HybridEmbeddings)
    assert_type(both[both.truncated], HybridEmbeddings)
    assert_type(both[np.argsort(both.n_tokens)], HybridEmbeddings)
    assert_type(next(iter(both)), HybridEmbeddings)
    assert_type(both.with_dimensions(128), HybridEmbeddings)
    assert_type(both.separate_sizes, tuple[int, ...])
    assert_type(both.token_weights(0), dict[str, float])
    assert_type(both.scores(both), Dense)
    assert_type(both.similarity(both), Dense)
    assert_type(next(both.rows()), tuple[Dense, NDArray[np.int64], Dense])
    assert_type(HybridEmbeddings.concatenate([both]), HybridEmbeddings)


def of_a_reranker_and_a_model(ids: torch.Tensor) -> None:
    reranker = GTEReranker.from_pretrained("model", device="cpu")
    assert_type(reranker.rank("query", ["document"], top_n=5), list[RankedDocument])
    assert_type(reranker.score([("query", "document")]), Dense)
    shared = shared_reranker(RerankerSettings())
    given: list[Reranker] = [HashReranker(), reranker, shared, as_reranker("model")]
    given += [TEIReranker("http://localhost:8080"), DashScopeReranker("gte-rerank-v2")]
    assert_type(given[0].rank("query", ["document"]), list[RankedDocument])
    assert_type(GTEModel.from_pretrained("model", dtype=torch.float32), GTEModel)
    output = GTEModelOutput(ids, None, None)
    assert_type(output.last_hidden_state, torch.Tensor)
    assert_type(output.logits, torch.Tensor | None)
    assert_type(output.pooler_output, torch.Tensor | None)


async def of_what_is_shared() -> None:
    encoder = shared_encoder(EncoderSettings(model="demo", max_length=512))
    assert_type(encoder, SharedEncoder)
    assert_type(encoder.embedder, GTEEmbedder)
    assert_type(encoder.encode("one"), HybridEmbeddings)
    assert_type(encoder.encode_dense("one"), Dense)
    assert_type(encoder.count_tokens("one"), NDArray[np.int64])
    assert_type(encoder.encode_sparse("one"), Sparse)
    assert_type(await encoder.aencode("one"), HybridEmbeddings)
    assert_type(await encoder.aencode_dense("one", role="query"), Dense)
    assert_type(await encoder.aencode_sparse("one"), Sparse)
    assert_type(shared_encoder(encoder.embedder), SharedEncoder)
    assert_type(shared_encoder(HashEncoder()), CachingEncoder)
    assert_type(shared_reranker(RerankerSettings()), SharedReranker)
    assert_type(shared_reranker(RerankerSettings()).score([("query", "document")]), Dense)


def of_the_published_script(model: GTEEmbeddidng) -> None:
    assert_type(model.encode("one")["dense_embeddings"], torch.Tensor)
    assert_type(model.encode(["one"])["token_weights"], list[dict[str, float]])
    assert_type(model.compute_scores([("query", "document")], sparse_weight=0.3), list[float])


def of_every_encoder(embedder: GTEEmbedder, shared: SharedEncoder, cached: CachedEncoder) -> None:
    pair = PairedEncoder(dense=embedder, sparse="demo")
    encoders: list[Encoder] = [embedder, shared, cached, pair, HashEncoder(), as_encoder("demo")]
    encoders += [TEIEncoder("http://localhost"), OpenAIEncoder("bge-m3", dimensions=256)]
    encoders += [DashScopeEncoder("text-embedding-v4")]
    for encoder in encoders:
        assert_type(as_encoder(encoder), Encoder)
        assert_type(encoder.encode(["one"], role="query", dimensions=8), HybridEmbeddings)
        assert_type(encoder.encode_available("one"), HybridEmbeddings)
        assert_type((encoder.vocab_size, encoder.has_dense), tuple[int | None, bool])
        assert_type(encoder.encode_dense(["one"]), Dense)
        assert_type(encoder.encode_sparse(["one"]), Sparse)
        assert_type(encoder.fingerprint, Fingerprint)
        assert_type(encoder.fingerprint.sparse, Fingerprint | None)


async def of_a_qdrant_index(encoder: Encoder, condition: models.Filter) -> None:
    QdrantHybridIndex(QdrantClient(":memory:"), "docs", encoder, dimensions=128, storage="int8")
    QdrantHybridIndex(AsyncQdrantClient(":memory:"), "docs", encoder, coarse_dimensions=64)
    keys = {"lang": "keyword", "new": models.PayloadSchemaType.BOOL}
    options = {"timeout": 30}
    QdrantHybridIndex("http://localhost", "docs", encoder, api_key="k", client_options=options)
    QdrantHybridIndex("directory", "docs", encoder, payload_indexes=keys, tenant_key="customer")
    with QdrantHybridIndex("directory", "docs", encoder) as index:
        assert_type(index, QdrantHybridIndex)
        assert_type(index.search("query"), list[list[Hit]])
        assert_type(index.search(["query"], mode="dense", filter=condition), list[list[Hit]])
        assert_type(await index.asearch("query", fusion=RRF(k=2)), list[list[Hit]])
        given = HybridEmbeddings.of_dense(np.ones((1, 8), np.float32))
        assert_type(await index.asearch_vectors(given, limit=1), list[list[Hit]])
        assert_type(index.search("query", offset=5, score_threshold=1), list[list[Hit]])
        assert_type(await index.asearch("query", group_by="source"), list[list[Hit]])
        assert_type(index.search("query", rerank="model", rerank_depth=9)[0], list[Hit])
        assert_type(await index.asearch("query", rerank=HashReranker()), list[list[Hit]])


async def of_a_milvus_index(encoder: Encoder) -> None:
    more = {"num_shards": 2}
    MilvusHybridIndex("http://localhost", "docs", encoder, token="t", collection_options=more)
    with MilvusHybridIndex(Path("index.db"), "docs", encoder, retry_seconds=0) as index:
        assert_type(index, MilvusHybridIndex)
        assert_type(index.search("query", fusion=Linear(1.0, 0.1)), list[list[Hit]])
        assert_type(await index.asearch("query", filter='lang == "en"'), list[list[Hit]])


async def of_every_index(index: QdrantHybridIndex | MilvusHybridIndex) -> None:
    documents = [Document("a", "text", {"lang": "en"}), ("b", "text"), {"id": 3, "text": "text"}]
    assert_type(index.add(documents, on_error="skip"), IndexReport)
    assert_type(await index.aadd(iter(documents), batch_size=7), IndexReport)
    assert_type(index.delete(["a", 3]), int)
    assert_type(index.reindex(to=index), IndexReport)
    assert_type(index.get(["a", 3]), list[StoredDocument])
    assert_type(list(index), list[StoredDocument])
    assert_type([one async for one in index.adocuments()], list[StoredDocument])
    assert_type(index.get([3], with_vectors=True)[0].dense, NDArray[np.float32] | None)
    assert_type(index.prune(iter(["b"])), int)
    assert_type(await index.adelete(["a"]), int)
    assert_type(index.create(alias="current"), None)
    assert_type(index.switch_alias("current"), str | None)
    assert_type(await index.aswitch_alias("current"), str | None)
    assert_type(index.count(), int)
    assert_type(index.explain("query", 3), Explanation)
    assert_type(index.explain_all("query", ["a", 3]), dict[str | int, Explanation])
    assert_type(await index.aexplain("query", "a", fusion=Linear()), Explanation)
    assert_type(index.explain("query", 3).tokens, tuple[TokenContribution, ...])
    assert_type(add_parquet(index, "file.parquet"), IndexReport)


def of_a_hit(hit: Hit) -> None:
    assert_type((hit.id, hit.text, hit.score), tuple[str | int, str, float])
    assert_type(hit.payload, Mapping[str, Any])
    assert_type((hit.dense_score, hit.sparse_score), tuple[float | None, float | None])


def of_the_vectorizers(encoder: Encoder) -> None:
    qdrant = QdrantVectorizer(encoder, dimensions=128)
    assert_type(qdrant.vectors_config(), dict[str, models.VectorParams])
    assert_type(qdrant.sparse_vectors_config(), dict[str, models.SparseVectorParams])
    assert_type(qdrant.points([("a", "text")]), list[models.PointStruct])
    assert_type(qdrant.prefetches("query"), list[list[models.Prefetch]])
    milvus = MilvusVectorizer(encoder)
    assert_type(milvus.rows([("a", "text")]), list[dict[str, Any]])
    assert_type(write_parquet(milvus, [("a", "text")], "file.parquet"), IndexReport)
    assert_type(GTEEmbeddingFunction(encoder).dim, dict[str, int])
    assert_type(GTEEmbeddingFunction("demo")(["text"]), dict[str, Any])


async def of_langchain(index: QdrantHybridIndex) -> None:
    embeddings = langchain.GTEEmbeddings(model="demo", dimensions=128)
    assert_type(embeddings.embed_documents(["text"]), list[list[float]])
    assert_type(embeddings.embed_query("query"), list[float])
    assert_type(await embeddings.aembed_query("query"), list[float])
    assert_type(embeddings.cache_namespace, str)
    assert_type(embeddings.qdrant_options(), dict[str, Any])
    assert_type(embeddings.milvus_options(), dict[str, Any])
    assert_type(langchain.GTEEmbeddings(encoder=HashEncoder()).encoder, CachingEncoder)
    assert_type(GTEQdrantSparse(encoder="demo").encoder, CachingEncoder)
    assert_type(GTEMilvusSparse(model="demo").embed_query("query"), dict[int, float])
    store = langchain.GTEVectorStore(index)
    assert_type(store.similarity_search("query", k=3, mode="dense"), list[LangChainDocument])
    scored = await store.asimilarity_search_with_score("query")
    assert_type(scored, list[tuple[LangChainDocument, float]])
    assert_type(store.embeddings, langchain.GTEEmbeddings)
    made = langchain.GTEVectorStore.from_texts(
        ["text"], embeddings, location="./store", collection="help", engine="milvus"
    )
    assert_type(made, langchain.GTEVectorStore)
    retriever = langchain.GTEHybridRetriever(index=index, k=3)
    assert_type(retriever.invoke("query"), list[LangChainDocument])
    assert_type(await retriever.ainvoke("query"), list[LangChainDocument])
    assert_type(langchain.GTECrossEncoder().score([("query", "document")]), list[float])


async def of_llama_index(index: MilvusHybridIndex) -> None:
    embedding = llama_index.GTEEmbedding(model_name="demo", dimensions=128)
    assert_type(embedding.get_text_embedding("text"), list[float])
    assert_type(llama_index.GTEEmbedding(encoder=HashEncoder()).encoder, CachingEncoder)
    assert_type(embedding.qdrant_options(), dict[str, Any])
    assert_type(await embedding.aget_query_embedding("query"), list[float])
    store = llama_index.GTEVectorStore(index=index)
    assert_type(store.get_nodes(["a"]), list[BaseNode])
    assert_type(await store.aquery(VectorStoreQuery(query_str="query")), VectorStoreQueryResult)
    retriever = llama_index.GTEHybridRetriever(index, similarity_top_k=3)
    nodes = retriever.retrieve("query")
    assert_type(nodes, list[NodeWithScore])
    assert_type(llama_index.GTERerank(top_n=2).postprocess_nodes(nodes), list[NodeWithScore])


# ------------------------------------------------------------------ what must not pass


def wrong_calls_of_the_core(embedder: GTEEmbedder, reranker: GTEReranker) -> None:
    embedder.encode(3)  # type: ignore[arg-type]
    embedder.encode(["one", 3])  # type: ignore[list-item]
    embedder.encode("one", dimension=256)  # type: ignore[call-arg]
    embedder.encode("one", role="querry")  # type: ignore[arg-type]
    as_encoder(object())  # type: ignore[arg-type]
    embedder.encode("one", batch_size=32)  # type: ignore[call-arg]
    embedder.encode_sparse("one", dimensions=256)  # type: ignore[call-arg]
    embedder.compute_scores(["query", "document"])  # type: ignore[list-item]
    embedder.dimensions = 256  # type: ignore[misc]
    reranker.rank("query", [("document", 1)])  # type: ignore[list-item]
    GTEEmbedder.from_pretrained("demo", on_truncation="raise")  # type: ignore[arg-type]
    GTEEmbedder.from_pretrained("demo", trust_remote_code=True)  # type: ignore[call-arg]
    EncoderSettings("demo")  # type: ignore[call-arg]
    EncoderSettings(max_lenght=512)  # type: ignore[call-arg]


def wrong_changes_of_results(output: GTEModelOutput, both: HybridEmbeddings, hit: Hit) -> None:
    output.logits = None  # type: ignore[misc]
    both["dense"]  # type: ignore[index]
    both.dense = np.zeros((1, 2), np.float32)  # type: ignore[misc]
    hit.payload["lang"] = "en"  # type: ignore[index]


def wrong_calls_of_an_index(qdrant: QdrantHybridIndex, milvus: MilvusHybridIndex) -> None:
    qdrant.add(3)  # type: ignore[arg-type]
    qdrant.add([], on_error="ignore")  # type: ignore[arg-type]
    qdrant.search("query", 5)  # type: ignore[call-arg]
    qdrant.search("query", mode="hybird")  # type: ignore[arg-type]
    qdrant.search("query", fusion="rrf")  # type: ignore[arg-type]
    qdrant.search("query", top_k=5)  # type: ignore[call-arg]
    qdrant.search("query", rerank=5)  # type: ignore[arg-type]
    qdrant.explain("query", "a", fusion=RRF())  # type: ignore[arg-type]
    milvus.search("query", filter={"lang": "en"})  # type: ignore[arg-type]
    milvus.delete([1.5])  # type: ignore[list-item]
    milvus.delete(filter={"lang": "en"})  # type: ignore[arg-type]
    QdrantHybridIndex("index", "docs", object())  # type: ignore[arg-type]


def wrong_settings_of_the_frameworks() -> None:
    langchain.GTEEmbeddings(model="demo", max_lenght=512)  # type: ignore[call-arg]
    langchain.GTEEmbeddings("demo")  # type: ignore[call-arg]
    langchain.GTEVectorStore.from_texts([], langchain.GTEEmbeddings())  # type: ignore[call-arg]
    llama_index.GTEEmbedding(model_name="demo", on_truncation="raise")  # type: ignore[arg-type]
