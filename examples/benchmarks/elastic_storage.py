"""What smaller vectors cost and save: bytes per document, recall and latency of dense search.

Every row is a collection of its own on qdrant-edge, with the example corpus and the demo model.
Queries are the titles of the passages. Recall@10 is the share of the ten best documents by the
full float32 vectors that a search finds; latency is that of ``search`` with vectors encoded before.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from gte_core import GTEEmbedder, HybridEmbeddings
from gte_integrations.qdrant import QdrantHybridIndex

CORPUS = Path(__file__).parent.parent / "corpus" / "passages.jsonl"
COLUMNS = ("vectors", "storage", "bytes of vectors", "recall@10", "median", "95th percentile")
SIZES = {"float32": 4, "float16": 2}
# Dimensions, those of the first stage, storage. Not int8: of so few documents the engine builds no
# int8 vectors, so the line would be that of float32.
KINDS: list[tuple[int, int | None, str]] = [
    (256, None, "float32"),
    (128, None, "float32"),
    (64, None, "float32"),
    (256, 128, "float32"),
    (256, 64, "float32"),
    (256, None, "float16"),
    (256, 64, "float16"),
]


class Remembering:
    """An encoder that encodes each text once, whatever the number of collections."""

    def __init__(self, encoder: GTEEmbedder, texts: list[str]) -> None:
        self._rows = {text: row for row, text in enumerate(dict.fromkeys(texts))}
        self._both = encoder.encode(list(self._rows))
        self.dimensions = encoder.dimensions
        self.has_sparse, self.query_prefix = encoder.has_sparse, encoder.query_prefix
        self.fingerprint = encoder.fingerprint

    def encode(self, texts: list[str], *, dimensions: int | None = None) -> HybridEmbeddings:
        """Both vectors, cut to size."""
        rows = HybridEmbeddings.concatenate([self._both[self._rows[text]] for text in texts])
        return rows.with_dimensions(dimensions or self.dimensions)

    def encode_dense(self, texts: list[str], *, dimensions: int | None = None) -> Any:
        """The dense vectors alone."""
        return self.encode(texts, dimensions=dimensions).dense


@dataclass
class Kind:
    """A way to keep the corpus, and what was measured of it."""

    dimensions: int
    coarse: int | None
    storage: str
    milliseconds: list[float] = field(default_factory=list)
    found: list[set[str]] = field(default_factory=list)

    def open(self, folder: str, encoder: Remembering) -> QdrantHybridIndex:
        """A new collection."""
        name = f"{self.dimensions}-{self.coarse}-{self.storage}"
        return QdrantHybridIndex(
            folder,
            name,
            encoder,
            dimensions=self.dimensions,
            coarse_dimensions=self.coarse,
            storage=self.storage,
        )

    @property
    def size(self) -> str:
        """Bytes that a document's dense vectors take."""
        return str((self.dimensions + (self.coarse or 0)) * SIZES[self.storage])

    def row(self, reference: list[set[str]]) -> list[str]:
        """A line of the table."""
        recall = statistics.mean(
            len(found & best) / len(best) for found, best in zip(self.found, reference, strict=True)
        )
        name = str(self.dimensions)
        if self.coarse:
            name = f"{self.coarse} gather, {self.dimensions} rank"
        median = f"{statistics.median(self.milliseconds):.2f} ms"
        slow = f"{statistics.quantiles(self.milliseconds, n=20)[-1]:.2f} ms"
        return [name, self.storage, self.size, f"{recall:.3f}", median, slow]


def main() -> None:
    """Fill the collections, search them in turn, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--queries", type=int, default=200, help="titles to search for")
    arguments = parser.parse_args()
    with CORPUS.open(encoding="utf-8") as lines:
        passages = [json.loads(line) for line in lines]
    titles = list(dict.fromkeys(passage["title"] for passage in passages))[: arguments.queries]
    documents = [(passage["id"], passage["text"]) for passage in passages]
    texts = [text for _, text in documents]
    encoder = Remembering(GTEEmbedder.from_pretrained("demo"), texts + titles)
    kinds = [Kind(*kind) for kind in KINDS]
    with tempfile.TemporaryDirectory() as folder:
        indexes = [kind.open(folder, encoder) for kind in kinds]
        for index in indexes:
            index.create()
            index.add(documents)
            index.optimize()
        for title in titles:
            for kind, index in zip(kinds, indexes, strict=True):
                search(kind, index, title)
        for index in indexes:
            index.close()
    report(kinds, len(documents), len(titles))


def search(kind: Kind, index: QdrantHybridIndex, title: str) -> None:
    """Search once and keep what was found and how long it took."""
    started = time.perf_counter()
    [hits] = index.search(title, mode="dense", limit=10)
    kind.milliseconds.append(1000 * (time.perf_counter() - started))
    kind.found.append({str(hit.id) for hit in hits})


def report(kinds: list[Kind], documents: int, queries: int) -> None:
    """Print the table, with what it was measured on."""
    console = Console()
    engine = f"qdrant-edge-py {version('qdrant-edge-py')}"
    load = f"{os.cpu_count()} cores, load average {os.getloadavg()[0]:.2f}"
    console.print(f"{documents} documents, {queries} queries, demo model, {engine}; {load}")
    table = Table(*COLUMNS)
    for kind in kinds:
        table.add_row(*kind.row(kinds[0].found))
    console.print(table)


if __name__ == "__main__":
    main()
