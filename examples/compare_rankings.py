"""How well dense, sparse and mixed rankings find the topic asked for, with the demo model.

Every query of the example corpus against all 720 passages, exactly, without an index.
"""

import json
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from gte_core import GTEEmbedder

CORPUS = Path(__file__).parent / "corpus"
RANKINGS = {
    "dense": (1.0, 0.0),
    "sparse": (0.0, 1.0),
    "dense + 0.003 sparse": (1.0, 0.003),
    "dense + 0.01 sparse": (1.0, 0.01),
    "dense + 0.03 sparse": (1.0, 0.03),
}


def main() -> None:
    """Print one line for each way of ranking."""
    passages, queries = read("passages.jsonl"), read("queries.jsonl")
    embedder = GTEEmbedder.from_pretrained("demo")
    documents = embedder.encode([f"{p['title']}\n{p['text']}" for p in passages])
    asked = embedder.encode([query["query"] for query in queries])
    topics = np.array([passage["topic"] for passage in passages])
    wanted = np.array([query["topic"] for query in queries])

    table = Table("ranking", "first", "among 5", "among 10", "mean reciprocal rank")
    for name, (dense_weight, sparse_weight) in RANKINGS.items():
        scores = asked.scores(documents, dense_weight=dense_weight, sparse_weight=sparse_weight)
        best_first = topics[np.argsort(-scores, axis=1, kind="stable")]
        ranks = 1 + (best_first == wanted[:, None]).argmax(axis=1)
        shares = [(ranks <= depth).mean() for depth in (1, 5, 10)] + [(1 / ranks).mean()]
        table.add_row(name, *(f"{share:.2f}" for share in shares))
    Console().print(table)


def read(name: str) -> list[dict[str, str]]:
    """All lines of a file of the corpus."""
    with (CORPUS / name).open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]


if __name__ == "__main__":
    main()
