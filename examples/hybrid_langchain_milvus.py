"""LangChain on Milvus: hybrid search, one forward pass a text."""

import tempfile
from pathlib import Path

from langchain_milvus import Milvus
from pymilvus import Function, FunctionType

from gte_integrations.langchain import GTEEmbeddings

TEXTS = [
    "Printing a brochure: the pages are arranged so that they can be folded.",
    "Rechtschreibung prüfen: Fehler werden rot unterstrichen.",
    "Insérer une note de bas de page dans un document.",
    "表を挿入するには、メニューから「表」を選びます。",
]
BY_RANK = Function(
    name="rrf",
    input_field_names=[],
    function_type=FunctionType.RERANK,
    params={"reranker": "rrf", "k": 60},
)

embeddings = GTEEmbeddings(model="demo", dimensions=128)  # or the real model, which is the default
with tempfile.TemporaryDirectory() as folder:
    store = Milvus(
        **embeddings.milvus_options(), connection_args={"uri": str(Path(folder) / "store.db")}
    )
    store.add_texts(TEXTS, ids=[str(number) for number in range(len(TEXTS))])
    for query in ("spell checking", "how do I add a footnote?"):
        for document in store.similarity_search(query, k=2, fetch_k=20, reranker=BY_RANK):
            print(f"{query!r}: {document.page_content}")
