"""What sharing one encoder saves: hybrid ingestion through each framework and store.

``shared`` is how this package is meant to be used. ``separate`` gives dense and sparse encoders of
their own, as every other pair of objects has. Both run in turn, several times; the medians and
their ratio are printed. Frameworks that are not installed are left out and named.
"""

import argparse
import json
import logging
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from gte_core import GTEEmbedder, SharedEncoder, release_shared

CORPUS = Path(__file__).parent.parent / "corpus" / "passages.jsonl"
Ingest = Callable[[list[str], dict[str, object], dict[str, object], Path], None]


def langchain_qdrant(
    texts: list[str], dense: dict[str, object], sparse: dict[str, object], _: Path
) -> None:
    """LangChain's QdrantVectorStore in memory."""
    from langchain_qdrant import QdrantVectorStore, RetrievalMode

    from gte_integrations.langchain import GTEEmbeddings

    QdrantVectorStore.from_texts(
        texts,
        GTEEmbeddings(**dense),
        sparse_embedding=GTEEmbeddings(**sparse).qdrant_sparse(),
        retrieval_mode=RetrievalMode.HYBRID,
        location=":memory:",
    )


def langchain_milvus(
    texts: list[str], dense: dict[str, object], sparse: dict[str, object], folder: Path
) -> None:
    """LangChain's Milvus on Milvus Lite."""
    from langchain_milvus import Milvus

    from gte_integrations.langchain import GTEEmbeddings
    from gte_integrations.langchain_milvus import milvus_settings

    store = Milvus(
        [GTEEmbeddings(**dense), GTEEmbeddings(**sparse).milvus_sparse()],
        connection_args={"uri": str(folder / "store.db")},
        **milvus_settings(),
    )
    store.add_texts(texts, ids=[str(number) for number in range(len(texts))])


def llama_index_qdrant(
    texts: list[str], dense: dict[str, object], sparse: dict[str, object], _: Path
) -> None:
    """LlamaIndex's QdrantVectorStore in memory."""
    from llama_index.core import Document, StorageContext, VectorStoreIndex
    from llama_index.vector_stores.qdrant import QdrantVectorStore
    from qdrant_client import QdrantClient

    from gte_integrations.llama_index import GTEEmbedding
    from gte_integrations.llama_index_qdrant import qdrant_settings

    of_sparse = GTEEmbedding(model_name=sparse["model"], max_length=sparse["max_length"])
    store = QdrantVectorStore("docs", client=QdrantClient(":memory:"), **qdrant_settings(of_sparse))
    VectorStoreIndex.from_documents(
        [Document(text=text) for text in texts],
        storage_context=StorageContext.from_defaults(vector_store=store),
        embed_model=GTEEmbedding(model_name=dense["model"], max_length=dense["max_length"]),
    )


def llama_index_milvus(
    texts: list[str], dense: dict[str, object], sparse: dict[str, object], folder: Path
) -> None:
    """LlamaIndex's MilvusVectorStore on Milvus Lite."""
    from llama_index.core import Document, StorageContext, VectorStoreIndex

    from gte_integrations.llama_index import GTEEmbedding
    from gte_integrations.llama_index_milvus import GTEMilvusVectorStore

    of_sparse = GTEEmbedding(model_name=sparse["model"], max_length=sparse["max_length"])
    store = GTEMilvusVectorStore(of_sparse, uri=str(folder / "store.db"), use_async_client=False)
    VectorStoreIndex.from_documents(
        [Document(text=text) for text in texts],
        storage_context=StorageContext.from_defaults(vector_store=store),
        embed_model=GTEEmbedding(model_name=dense["model"], max_length=dense["max_length"]),
    )


PAIRS: dict[str, tuple[str, Ingest]] = {
    "LangChain, Qdrant": ("langchain_qdrant", langchain_qdrant),
    "LangChain, Milvus": ("langchain_milvus", langchain_milvus),
    "LlamaIndex, Qdrant": ("llama_index.vector_stores.qdrant", llama_index_qdrant),
    "LlamaIndex, Milvus": ("llama_index.vector_stores.milvus", llama_index_milvus),
}


class Stopwatch:
    """Adds up the seconds that the model spends encoding."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._encode = GTEEmbedder.compute_tokenized

    def __enter__(self) -> "Stopwatch":
        stopwatch = self

        def timed(self: GTEEmbedder, *args: object, **options: object) -> object:
            started = time.perf_counter()
            try:
                return stopwatch._encode(self, *args, **options)
            finally:
                stopwatch.seconds += time.perf_counter() - started

        GTEEmbedder.compute_tokenized = timed
        return self

    def __exit__(self, *exception: object) -> None:
        GTEEmbedder.compute_tokenized = self._encode


def measure(ingest: Ingest, texts: list[str], *, shared: bool, run: int) -> tuple[float, float]:
    """Seconds in all and seconds encoding of one ingestion, with nothing in the cache."""
    release_shared()  # what the run before has cached must not help this one
    # Another max_length is another encoder; both are far above the texts' length.
    dense: dict[str, object] = {"model": "demo", "max_length": 4000 + run}
    sparse = dense if shared else {"model": "demo", "max_length": 6000 + run}
    held = [warm(settings) for settings in (dense, sparse)]
    with tempfile.TemporaryDirectory() as folder, Stopwatch() as encoding:
        started = time.perf_counter()
        ingest(texts, dense, sparse, Path(folder))
        total = time.perf_counter() - started
    del held
    return total, encoding.seconds


def warm(settings: dict[str, object]) -> SharedEncoder:
    """Load an encoder before the clock starts, and keep it alive."""
    from gte_core import EncoderSettings, shared_encoder

    encoder = shared_encoder(EncoderSettings(**settings))
    encoder.encode("warm up")
    return encoder


def main() -> None:
    """Measure every pair that is installed and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--texts", type=int, default=300, help="documents of 100 tokens or more")
    parser.add_argument("--runs", type=int, default=3, help="of each kind, in turn")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    texts = long_passages(arguments.texts)
    table = Table(
        "framework, store",
        "encoding: shared",
        "separate",
        "ratio",
        "all: shared",
        "separate",
        "ratio",
    )
    for name, (package, ingest) in PAIRS.items():
        if not installed(package):
            table.add_row(name, "not installed")
            continue
        both = {True: [], False: []}
        for run in range(arguments.runs):
            for shared in (True, False):
                both[shared].append(measure(ingest, texts, shared=shared, run=run))
        table.add_row(name, *cells(both))
    console = Console()
    console.print(f"{len(texts)} documents, {torch.get_num_threads()} threads, demo model, float32")
    console.print(table)


def cells(both: dict[bool, list[tuple[float, float]]]) -> list[str]:
    """Medians and ratios of encoding and total seconds."""
    row = []
    for which in (1, 0):
        shared, separate = (
            statistics.median(run[which] for run in both[kind]) for kind in (True, False)
        )
        row += [f"{shared:.2f} s", f"{separate:.2f} s", f"{shared / separate:.2f}"]
    return row


def long_passages(count: int) -> list[str]:
    """Passages of the example corpus of 100 tokens or more."""
    tokenizer = GTEEmbedder.from_pretrained("demo").tokenizer
    with CORPUS.open(encoding="utf-8") as file:
        texts = [json.loads(line)["text"] for line in file]
    return [t for t in texts if len(tokenizer.tokenize([t], 8192)[0]) >= 100][:count]


def installed(package: str) -> bool:
    """Whether a framework can be imported."""
    try:
        return find_spec(package) is not None
    except ModuleNotFoundError:
        return False


if __name__ == "__main__":
    main()
