"""What the hybrid indexes cost beside the raw clients, with vectors that are there already.

Four parts: ``add`` to a new collection, a second run over a corpus that has not changed, hybrid
search, and (with ``--memory``) the memory of this process while a generator is added to a server
of its own process. The index and the raw client run in turn, the order changing; medians count.
"""

import argparse
import itertools
import json
import os
import random
import resource
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import qdrant_edge as edge
import scipy.sparse as sp
from pymilvus import DataType, MilvusClient
from rich.console import Console
from rich.table import Table

from gte_core import Fingerprint, GTEEmbedder, HybridEmbeddings
from gte_integrations.milvus import MilvusHybridIndex
from gte_integrations.qdrant import QdrantHybridIndex

CORPUS = Path(__file__).parent.parent / "corpus" / "passages.jsonl"
DIMENSIONS, WEIGHTS, VOCAB_SIZE, WORDS = 768, 60, 250_002, 100
CANDIDATES = 100
Index = QdrantHybridIndex | MilvusHybridIndex


@dataclass
class Corpus:
    """Texts and their vectors, row for row."""

    texts: list[str]
    both: HybridEmbeddings

    @classmethod
    def random(cls, size: int, seed: int = 0) -> "Corpus":
        """Texts of ``WORDS`` words, unit vectors, and token ids as frequent as words are."""
        chance, numbers = random.Random(seed), np.random.default_rng(seed)  # noqa: S311
        words = ["".join(chance.choices("abcdefghijklmnoprstuvw", k=5)) for _ in range(5000)]
        texts = [f"{row} " + " ".join(chance.choices(words, k=WORDS - 1)) for row in range(size)]
        dense = numbers.normal(size=(size, DIMENSIONS)).astype(np.float32)
        dense /= np.linalg.norm(dense, axis=1, keepdims=True)
        counts = np.full(size, WORDS + 2, np.int64)
        return cls(texts, HybridEmbeddings(dense, _sparse(numbers, size), counts, counts < 0, str))


def _sparse(numbers: np.random.Generator, size: int) -> sp.csr_array:
    ids = np.empty((size, WEIGHTS), np.int64)
    for row in range(size):
        drawn = np.unique(np.minimum(numbers.zipf(1.3, 40 * WEIGHTS), VOCAB_SIZE - 1))
        ids[row] = np.sort(numbers.permutation(drawn)[:WEIGHTS])
    weights = numbers.uniform(0.1, 3.0, ids.size).astype(np.float32)
    starts = np.arange(size + 1) * WEIGHTS
    return sp.csr_array((weights, ids.ravel(), starts), shape=(size, VOCAB_SIZE))


class Precomputed:
    """An ``Encoder`` that looks its vectors up: a text starts with the number of its row."""

    dimensions = DIMENSIONS
    has_sparse = True
    query_prefix = document_prefix = ""
    fingerprint = Fingerprint("precomputed", "0" * 40, 512)

    def __init__(self, both: HybridEmbeddings, batch: int) -> None:
        self._batch = batch
        self._parts = [both[row : row + batch] for row in range(0, len(both), batch)]

    def encode(self, texts: list[str], *, dimensions: int | None = None) -> HybridEmbeddings:
        """The batch that begins with the first text; again from the start after the last."""
        row = int(texts[0].split(" ", 1)[0])
        part = self._parts[row // self._batch % len(self._parts)]
        return part if len(part) == len(texts) else part[: len(texts)]


def add_to_index(index: Index, corpus: Corpus, batch: int) -> None:
    """What is measured: documents through ``add``."""
    report = index.add(enumerate(corpus.texts), batch_size=batch)
    assert report.written == len(corpus.texts), report


@contextmanager
def qdrant_index(folder: Path, corpus: Corpus, batch: int) -> Iterator[Index]:
    """An empty collection of the library on qdrant-edge."""
    with QdrantHybridIndex(folder, "docs", Precomputed(corpus.both, batch)) as index:
        index.create()
        yield index


@contextmanager
def milvus_index(folder: Path, corpus: Corpus, batch: int) -> Iterator[Index]:
    """An empty collection of the library on Milvus Lite."""
    with MilvusHybridIndex(folder / "index.db", "docs", Precomputed(corpus.both, batch)) as index:
        index.create()
        yield index


@contextmanager
def qdrant_raw(folder: Path, *_: object) -> Iterator[edge.EdgeShard]:
    """An empty shard of the same configuration."""
    (folder / "raw").mkdir()
    config = edge.EdgeConfig(
        vectors={"dense": edge.EdgeVectorParams(DIMENSIONS, edge.Distance.Dot)},
        sparse_vectors={"sparse": edge.EdgeSparseVectorParams()},
    )
    shard = edge.EdgeShard.create(str(folder / "raw"), config)
    yield shard
    shard.close()


@contextmanager
def milvus_raw(folder: Path, *_: object) -> Iterator[MilvusClient]:
    """An empty collection with the same kinds of fields and indexes."""
    client = MilvusClient(str(folder / "raw.db"))
    schema = MilvusClient.create_schema(auto_id=False, enable_dynamic_field=True)
    schema.add_field("id", DataType.VARCHAR, is_primary=True, max_length=4096)
    schema.add_field("text", DataType.VARCHAR, max_length=65_535)
    schema.add_field("dense", DataType.FLOAT_VECTOR, dim=DIMENSIONS)
    schema.add_field("sparse", DataType.SPARSE_FLOAT_VECTOR)
    params = MilvusClient.prepare_index_params()
    params.add_index("dense", index_type="AUTOINDEX", metric_type="IP")
    params.add_index("sparse", index_type="SPARSE_INVERTED_INDEX", metric_type="IP")
    client.create_collection("docs", schema=schema, consistency_level="Session")
    client.create_index("docs", params, sync=False)
    client.load_collection("docs")
    yield client
    client.close()


def raw_rows(corpus: Corpus) -> Iterator[tuple[int, str, Any, list[int], list[float]]]:
    """Number, text and vectors of each document, cut from the matrices."""
    sparse = corpus.both.sparse
    for row, (text, start, stop) in enumerate(
        zip(corpus.texts, sparse.indptr[:-1], sparse.indptr[1:], strict=True)
    ):
        ids, weights = sparse.indices[start:stop].tolist(), sparse.data[start:stop].tolist()
        yield row, text, corpus.both.dense[row], ids, weights


def add_to_shard(shard: edge.EdgeShard, corpus: Corpus, batch: int) -> None:
    """The baseline: points of the same arrays, written in batches of the same size."""
    rows = raw_rows(corpus)
    while part := list(itertools.islice(rows, batch)):
        points = [
            edge.Point(
                str(uuid.uuid5(uuid.NAMESPACE_OID, str(row))),
                {"dense": dense.tolist(), "sparse": edge.SparseVector(ids, weights)},
                {"id": row, "text": text},
            )
            for row, text, dense, ids, weights in part
        ]
        shard.update(edge.UpdateOperation.upsert_points(points))


def add_to_client(client: MilvusClient, corpus: Corpus, batch: int) -> None:
    """The baseline: rows of the same arrays, written in batches of the same size."""
    rows = raw_rows(corpus)
    while part := list(itertools.islice(rows, batch)):
        data = [
            {
                "id": str(row),
                "text": text,
                "dense": dense,
                "sparse": dict(zip(ids, weights, strict=True)),
            }
            for row, text, dense, ids, weights in part
        ]
        client.insert("docs", data)


Way = tuple[Callable[..., Any], Callable[..., None]]
ADDING: dict[str, tuple[Way, Way]] = {
    "qdrant-edge": ((qdrant_index, add_to_index), (qdrant_raw, add_to_shard)),
    "Milvus Lite": ((milvus_index, add_to_index), (milvus_raw, add_to_client)),
}


def seconds_of(way: Way, corpus: Corpus, batch: int) -> float:
    """Seconds to fill a new collection; making it and closing it do not count."""
    place, add = way
    with tempfile.TemporaryDirectory() as folder, place(Path(folder), corpus, batch) as opened:
        started = time.perf_counter()
        add(opened, corpus, batch)
        return time.perf_counter() - started


def compare_adding(documents: int, batch: int, runs: int) -> Table:
    """The first part: ``add`` beside the raw client."""
    corpus = Corpus.random(documents)
    title = f"(a) add, {documents:,} documents of {WORDS} words, batches of {batch}, {runs} runs"
    table = Table("engine", "index", "raw client", "ratio", "target", title=title)
    for engine, (index, raw) in ADDING.items():
        taken: dict[str, list[float]] = {"index": [], "raw": []}
        for run in range(runs):
            pair = [("index", index), ("raw", raw)]
            for name, way in pair if run % 2 else reversed(pair):
                taken[name].append(seconds_of(way, corpus, batch))
        ratios = [one / other for one, other in zip(*taken.values(), strict=True)]
        table.add_row(engine, *map(spread, taken.values()), spread(ratios, ""), "1.15 or less")
    return table


def compare_runs(runs: int) -> Table:
    """The second part: the same corpus again, with the demo model."""
    with CORPUS.open(encoding="utf-8") as lines:
        documents = [json.loads(line) for line in lines]
    embedder = GTEEmbedder.from_pretrained("demo")
    title = f"(b) {len(documents)} passages, demo model, {runs} runs"
    table = Table("engine", "first run", "unchanged", "times faster", "target", title=title)
    for engine, open_index in (
        ("qdrant-edge", lambda folder: QdrantHybridIndex(folder, "docs", embedder)),
        ("Milvus Lite", lambda folder: MilvusHybridIndex(folder / "i.db", "docs", embedder)),
    ):
        pairs = [first_and_second(open_index, documents) for _ in range(runs)]
        ratios = [first / second for first, second in pairs]
        first, second = zip(*pairs, strict=True)
        table.add_row(engine, spread(first), spread(second), spread(ratios, ""), "20 or more")
    return table


def first_and_second(
    open_index: Callable[[Path], Index], documents: list[dict[str, Any]]
) -> tuple[float, float]:
    """Seconds of adding documents to a new collection, and of adding them again."""
    with tempfile.TemporaryDirectory() as folder, open_index(Path(folder)) as index:
        index.create()
        taken = []
        for _ in range(2):
            started = time.perf_counter()
            report = index.add(documents)
            taken.append(time.perf_counter() - started)
        assert report.unchanged == len(documents), report
    return taken[0], taken[1]


def compare_search(documents: int, queries: int) -> Table:
    """The third part: hybrid search beside its two legs, on qdrant-edge."""
    corpus = Corpus.random(documents)
    asked = Corpus.random(queries, seed=1)
    with tempfile.TemporaryDirectory() as folder, qdrant_index(Path(folder), corpus, 250) as index:
        add_to_index(index, corpus, 250)
        index.vectorizer.encoder = Precomputed(asked.both, 1)
        raw = requests(asked)
        taken: dict[str, list[float]] = {"index": [], "raw": []}
        for row, text in enumerate(asked.texts):
            pair = [
                ("index", lambda text=text: index.search(text, candidates=CANDIDATES)),
                ("raw", lambda row=row: index._store._shard.query_batch(raw[row])),
            ]
            for name, call in pair if row % 2 else reversed(pair):
                started = time.perf_counter()
                call()
                taken[name].append(1000 * (time.perf_counter() - started))
    most = 1 + 1.1 * statistics.median(taken["raw"])
    title = f"(d) hybrid search, {documents:,} documents on qdrant-edge, {queries} queries"
    table = Table("index", "two legs, raw", "target", title=title)
    table.add_row(*(spread(values, " ms") for values in taken.values()), f"{most:.2f} ms or less")
    return table


def requests(asked: Corpus) -> list[edge.QueryBatchRequest]:
    """Both legs of each query in one request, each with the ids of its best."""
    dense = asked.both.dense.tolist()
    return [
        edge.QueryBatchRequest(
            [
                edge.QueryRequest(
                    limit=CANDIDATES,
                    query=edge.Query.Nearest(vector, using=name),
                    with_payload=["_gte_id"],
                )
                for name, vector in (
                    ("dense", dense[row]),
                    ("sparse", edge.SparseVector(ids, weights)),
                )
            ]
        )
        for row, _, _, ids, weights in raw_rows(asked)
    ]


@contextmanager
def milvus_server(folder: Path) -> Iterator[str]:
    """``milvus-lite server`` in a process of its own; its URI."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    code = "import sys; from milvus_lite.cmdline import main; sys.exit(main())"
    options = ["--data-dir", str(folder), "--host", "127.0.0.1", "--port", str(port)]
    server = subprocess.Popen(  # noqa: S603
        [sys.executable, "-c", code, "server", *options],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for(port)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.kill()
        server.wait()


def wait_for(port: int) -> None:
    """Return when something listens."""
    for _ in range(600):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise TimeoutError("milvus-lite server did not start")


def measure_memory(documents: int, first: int) -> Table:
    """The fourth part: resident memory while a generator is added to a server."""
    encoder = Precomputed(Corpus.random(2048).both, 256)
    texts = Corpus.random(2048).texts
    seen: list[tuple[int, float]] = []

    def generator() -> Iterator[tuple[int, str]]:
        for number in range(documents):
            if number % 1000 == 0:
                seen.append((number, resident()))
            yield number, f"{number} {texts[number % len(texts)]}"

    with (
        tempfile.TemporaryDirectory() as folder,
        milvus_server(Path(folder)) as uri,
        MilvusHybridIndex(uri, "docs", encoder) as index,
    ):
        index.create()
        report = index.add(generator())
        assert report.written == documents, report
        seen.append((documents, resident()))
    early = next(size for number, size in seen if number >= first)
    most = max(size for number, size in seen if number >= first)
    title = f"(c) resident memory, {documents:,} documents from a generator, Milvus in a server"
    table = Table("start", f"after {first:,}", "most since", "end", "growth", "target", title=title)
    sizes = (seen[0][1], early, most, seen[-1][1])
    table.add_row(*(f"{size:.0f} MiB" for size in sizes), f"{most / early - 1:+.1%}", "+10 %")
    return table


def resident() -> float:
    """Resident memory of this process in MiB (Linux only)."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize() / 2**20


def spread(values: Any, unit: str = " s") -> str:
    """Median, and in brackets the least and the most."""
    return f"{statistics.median(values):.2f}{unit} ({min(values):.2f}-{max(values):.2f})"


def main() -> None:
    """Measure what was asked for and print a table of each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--documents", type=int, default=10_000, help="for add and search")
    parser.add_argument("--batch", type=int, default=256, help="documents in one request")
    parser.add_argument("--runs", type=int, default=5, help="of the index and the client, in turn")
    parser.add_argument("--queries", type=int, default=200, help="searches")
    parser.add_argument("--parts", default="abd", help='some of "abd"')
    parser.add_argument("--memory", type=int, default=0, help="documents of part (c), 100000 say")
    arguments = parser.parse_args()
    parts: dict[str, Callable[[], Table]] = {
        "a": lambda: compare_adding(arguments.documents, arguments.batch, arguments.runs),
        "b": lambda: compare_runs(arguments.runs),
        "d": lambda: compare_search(arguments.documents, arguments.queries),
    }
    console = Console()
    console.print(f"{os.cpu_count()} cores; load average {os.getloadavg()[0]:.2f} at the start")
    for part in arguments.parts:
        console.print(parts[part]())
    if arguments.memory:
        console.print(measure_memory(arguments.memory, arguments.memory // 10))


if __name__ == "__main__":
    main()
