"""Index help passages in 16 languages into Qdrant and Milvus, both embedded, and search them.

The small bundled demo model does the work, so nothing is downloaded. Run it twice: the second
time, unchanged passages are recognised and not embedded again.
"""

import json
from pathlib import Path

from rich.console import Console
from rich.table import Table

from gte_core import Explanation, GTEEmbedder
from gte_integrations.milvus import Document, Hit, MilvusHybridIndex
from gte_integrations.qdrant import QdrantHybridIndex

CORPUS = Path(__file__).parent / "corpus"
STORES = Path("demo-index")
COLLECTION = "help"
SHOWN = (
    "¿Cómo inserto una nota al pie de página?",
    "Hoe druk ik een brochure af?",
    "CSVファイルの読み込みと書き出し",
    "두 문서의 차이점 비교하기",
    "怎样给文档加上数字签名?",
    "keep a backup copy of the previous version of a file",
    "QR-Code in ein Dokument einfügen",
    "klavye ile fare kullanmadan çalışmak",
)

console = Console()
Index = QdrantHybridIndex | MilvusHybridIndex


def main() -> None:
    """Build or update both indexes, then show what they find."""
    STORES.mkdir(exist_ok=True)
    embedder = GTEEmbedder.from_pretrained("demo")
    console.print("[bold]Demo model[/]: small, for trying things out; not gte-multilingual-base.")
    with (
        QdrantHybridIndex(STORES / "qdrant", COLLECTION, embedder) as qdrant,
        MilvusHybridIndex(STORES / "milvus.db", COLLECTION, embedder) as milvus,
    ):
        for index in (qdrant, milvus):
            fill(index)
        queries = read("queries.jsonl")
        found = qdrant.search([query["query"] for query in queries], limit=5)
        for query, hits in zip(queries, found, strict=True):
            if query["query"] in SHOWN:
                console.print(ranking(query, hits, embedder))
        summarise(queries, found, milvus)


def read(name: str) -> list[dict[str, str]]:
    """All lines of a file of the corpus."""
    with (CORPUS / name).open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def fill(index: Index) -> None:
    """Create the collection and add the passages."""
    index.create()
    passages = (
        Document(p["id"], f"{p['title']}\n{p['text']}", {"lang": p["lang"], "topic": p["topic"]})
        for p in read("passages.jsonl")
    )
    report = index.add(passages, show_progress=console.is_terminal)
    console.print(
        f"{type(index).__name__}: {report.written} written, {report.unchanged} unchanged, "
        f"{report.n_tokens:,} tokens in {report.seconds_encoding:.1f} s, "
        f"writing {report.seconds_writing:.1f} s"
    )


def ranking(query: dict[str, str], hits: list[Hit], embedder: GTEEmbedder) -> Table:
    """The first hits of one query with the tokens that matched; ✓ marks the topic asked for."""
    table = Table(title=f"[bold]{query['query']}[/] ({query['lang']})", title_justify="left")
    for column in ("", "score", "dense", "sparse", "lang", "title", "matching tokens"):
        table.add_column(column)
    for hit in hits[:3]:
        parts = (hit.dense_score, hit.sparse_score)
        table.add_row(
            "✓" if hit.payload["topic"] == query["topic"] else "",
            f"{hit.score:.3f}",
            *("-" if part is None else f"{part:.3f}" for part in parts),
            str(hit.payload["lang"]),
            hit.text.splitlines()[0],
            matching_tokens(embedder.explain(query["query"], hit.text)),
        )
    return table


def matching_tokens(explanation: Explanation) -> str:
    """The shared tokens that add most to the sparse score, with what they add."""
    shared = [token for token in explanation.tokens if token.contribution >= 0.05]
    return "  ".join(f"{t.token.lstrip('▁')} {t.contribution:.1f}" for t in shared[:4])


def summarise(
    queries: list[dict[str, str]], found: list[list[Hit]], milvus: MilvusHybridIndex
) -> None:
    """How often the topic asked for is among the hits, and whether the engines agree."""
    right = sum(
        any(hit.payload["topic"] == query["topic"] for hit in hits)
        for query, hits in zip(queries, found, strict=True)
    )
    others = milvus.search([query["query"] for query in queries], limit=5)
    same = sum(
        [hit.id for hit in one] == [hit.id for hit in other]
        for one, other in zip(found, others, strict=True)
    )
    console.print(
        f"The topic asked for is among the first 5 hits of {right} of {len(queries)} queries; "
        f"Qdrant and Milvus rank {same} of {len(queries)} alike."
    )


if __name__ == "__main__":
    main()
