"""LangChain on Qdrant: hybrid search, one forward pass a text."""

from langchain_qdrant import QdrantVectorStore
from qdrant_client import models

from gte_integrations.langchain import GTEEmbeddings

TEXTS = [
    "Printing a brochure: the pages are arranged so that they can be folded.",
    "Rechtschreibung prüfen: Fehler werden rot unterstrichen.",
    "Insérer une note de bas de page dans un document.",
    "表を挿入するには、メニューから「表」を選びます。",
]

embeddings = GTEEmbeddings(model="demo", dimensions=128)  # or the real model, which is the default
store = QdrantVectorStore.from_texts(TEXTS, **embeddings.qdrant_options(), location=":memory:")
# Qdrant's own default of k = 2 lets the best hit of one list beat what both agree on.
by_rank = models.RrfQuery(rrf=models.Rrf(k=61))

for query in ("spell checking", "how do I add a footnote?"):
    for document, score in store.similarity_search_with_score(query, k=2, hybrid_fusion=by_rank):
        print(f"{query!r}: {score:.4f} {document.page_content}")
