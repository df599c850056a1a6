"""``gte search --rerank``: the best hits ranked anew."""

import json

import pytest
from rich.cells import cell_len
from typer.testing import CliRunner

from gte_core import RerankerSettings
from gte_core.testing import HashReranker, random_checkpoint
from gte_integrations import cli
from gte_integrations.qdrant import QdrantHybridIndex

TEXTS = ["Printing a booklet", "How to print a booklet on both sides", "Merge the cells"]


def search(*arguments, columns=120):
    place = ["--from", "qdrant:./index", "--collection", "docs", "--model", "demo"]
    return CliRunner(env={"COLUMNS": str(columns), "TERM": "dumb"}).invoke(
        cli.app, ["search", "Merge a booklet", *map(str, arguments), *place]
    )


@pytest.fixture(autouse=True)
def collection(tmp_path, monkeypatch, demo):
    monkeypatch.chdir(tmp_path)
    with QdrantHybridIndex("./index", "docs", demo) as index:
        index.create()
        index.add(enumerate(TEXTS))


@pytest.fixture
def asked(monkeypatch):
    """The settings of the rerankers that were asked for, in whose place words are compared."""
    asked = []

    class Named(HashReranker):
        def __init__(self, settings):
            self.model = settings.model
            asked.append(settings)

    monkeypatch.setattr("gte_core.shared_reranker", Named)
    return asked


def test_hits_go_by_the_score_of_the_reranker(asked):
    found = search("--rerank", "--json", "--limit", "2", "--device", "cpu")
    assert found.exit_code == 0, found.output
    hits = json.loads(found.stdout)["hits"]
    assert [hit["text"] for hit in hits] == TEXTS[:2]
    assert [hit["rerank_score"] for hit in hits] == pytest.approx([1 / 2, 2 / 9])
    assert asked == [RerankerSettings(device="cpu")]


@pytest.mark.parametrize("columns", [60, 120])
def test_the_table_shows_both_scores(asked, columns):
    shown = search("--reranker", "org/reranker", columns=columns).stdout
    assert "Rerank" in shown
    assert "0.5000" in shown
    assert "reranked by org/reranker" in shown
    assert max(map(cell_len, shown.splitlines())) <= columns
    assert asked == [RerankerSettings(model="org/reranker")]
    assert "Rerank" not in search().stdout


def test_a_directory_is_loaded(tmp_path):
    path = random_checkpoint(tmp_path / "reranker", task="sequence_classification")
    found = search("--reranker", path, "--json", "--device", "cpu")
    assert found.exit_code == 0, found.output
    scores = [hit["rerank_score"] for hit in json.loads(found.stdout)["hits"]]
    assert scores == sorted(scores, reverse=True)


def test_a_depth_that_does_not_fit_is_refused(asked):
    alone = search("--rerank-depth", "5")
    assert alone.exit_code != 0
    assert "--rerank-depth goes with --rerank or --reranker" in alone.stderr
    short = search("--rerank", "--rerank-depth", "5")
    assert "--rerank-depth is 5, but must be at least offset + limit, 10" in short.stderr
