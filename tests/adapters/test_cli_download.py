"""``gte download``, and the collections that a hub model and its carried copy share."""

import json
import shutil

import pytest
from typer.testing import CliRunner

from gte_core import release_shared
from gte_integrations import cli

MODEL = "Alibaba-NLP/gte-multilingual-base"
SEARCH = ["search", "booklet", "--collection", "notes", "--json", "--from"]


def gte(*arguments, succeeds=True):
    ran = CliRunner(env={"COLUMNS": "120", "TERM": "dumb"}).invoke(
        cli.app, list(map(str, arguments))
    )
    assert (ran.exit_code == 0) is succeeds, ran.output
    return ran.stdout if succeeds else ran.stderr


def ids(found):
    return [hit["id"] for hit in json.loads(found)["hits"]]


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.md").write_text("How to print a booklet")
    return "qdrant:./index"


def test_it_says_what_is_there_and_what_to_do(published, tmp_path):
    shown = gte("download", MODEL, tmp_path / "model", "--local-files-only")
    assert f"{MODEL}@9bbca17d9273" in shown
    assert "MB" in shown
    assert "give its path as --model" in shown
    found = json.loads(gte("download", MODEL, tmp_path / "model", "--json"))
    assert found == {
        "model": MODEL,
        "revision": "9bbca17d9273fd0d03d5725c7a4b0f6b45142062",
        "directory": str(tmp_path / "model"),
        "size": found["size"],
    }


def test_errors_name_the_options(published, tmp_path):
    error = gte(
        "download", "a/b", tmp_path / "x", "--cache-dir", tmp_path, "--local-files-only",
        succeeds=False,
    )  # fmt: skip
    assert error.startswith(
        f"error: 'a/b' at revision main is not complete in the cache {tmp_path}"
    )
    assert "--local-files-only forbids a download" in error


def test_a_collection_of_the_hub_model_is_searched_with_the_carried_one(published, store):
    gte("index", "notes", "--to", store, "--collection", "notes", "--model", MODEL)
    gte("download", MODEL, "carried")
    release_shared()
    assert ids(gte(*SEARCH, store, "--model", "carried")) == ["a.md"]


def test_a_collection_of_the_carried_model_is_searched_with_that_of_the_hub(published, store):
    gte("download", MODEL, "carried")
    gte("index", "notes", "--to", store, "--collection", "notes", "--model", "carried")
    assert ids(gte(*SEARCH, store)) == ["a.md"]
    shown = gte("info", "--from", store, "--collection", "notes")
    assert f"{MODEL}@9bbca17d9273" in shown
    shutil.move("carried", "moved")
    assert "pass the one where the model is now as --model" in gte(*SEARCH, store, succeeds=False)
    assert ids(gte(*SEARCH, store, "--model", "moved")) == ["a.md"]
    assert ids(gte(*SEARCH, store, "--model", MODEL)) == ["a.md"]
