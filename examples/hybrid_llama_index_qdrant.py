"""LlamaIndex on Qdrant: hybrid search, one forward pass a text."""

from llama_index.core import Document, StorageContext, VectorStoreIndex
from llama_index.vector_stores.qdrant import QdrantVectorStore
from qdrant_client import QdrantClient

from gte_integrations.llama_index import GTEEmbedding

TEXTS = [
    "Printing a brochure: the pages are arranged so that they can be folded.",
    "Rechtschreibung prüfen: Fehler werden rot unterstrichen.",
    "Insérer une note de bas de page dans un document.",
    "表を挿入するには、メニューから「表」を選びます。",
]

embedding = GTEEmbedding(model_name="demo", dimensions=128)  # or the real model, the default
store = QdrantVectorStore("help", client=QdrantClient(":memory:"), **embedding.qdrant_options())
index = VectorStoreIndex.from_documents(
    [Document(text=text) for text in TEXTS],
    storage_context=StorageContext.from_defaults(vector_store=store),
    embed_model=embedding,
)
retriever = index.as_retriever(
    similarity_top_k=10, sparse_top_k=10, hybrid_top_k=2, vector_store_query_mode="hybrid"
)

for query in ("spell checking", "how do I add a footnote?"):
    for node in retriever.retrieve(query):
        print(f"{query!r}: {node.score:.4f} {node.text}")
