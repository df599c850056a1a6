"""The command line: what it prints, where to, and how it ends."""

import inspect
import json
import logging
import os
import re
import signal
import subprocess
import sys
from dataclasses import fields
from functools import cache
from pathlib import Path
from shutil import copytree
from types import SimpleNamespace

import numpy as np
import pytest
from qdrant_client import QdrantClient
from rich.cells import cell_len
from typer.main import get_command
from typer.testing import CliRunner

from gte_core import Fingerprint, GTEEmbedder, OnTruncation, PairedEncoder, __version__
from gte_core.network.device import has_onednn
from gte_core.testing import random_checkpoint
from gte_integrations import qdrant
from gte_integrations._index import index as _indexing
from gte_integrations._index.vectorizer import Mode
from gte_integrations.cli import commands as cli
from gte_integrations.cli import main
from gte_integrations.cli.messages import ARGUMENTS, in_options
from gte_integrations.cli.options import ModelOptions
from gte_integrations.cli.stores import StoreLocation
from gte_integrations.milvus import MilvusHybridIndex
from gte_integrations.qdrant import QdrantHybridIndex

README = Path(__file__).parents[2] / "README.md"
ROWS = [
    {"id": "en", "text": "You can merge two cells of a table into one.", "lang": "en"},
    {"id": "ja", "text": "表のセルを結合できます。", "lang": "ja"},
    {"id": "ar", "text": "يمكنك طباعة المستند على الورق.", "lang": "ar"},
    {"id": "hi", "text": "दस्तावेज़ को पीडीएफ में सहेजें।", "lang": "hi"},
    {"id": 5, "text": "[bold]Print[/bold] the\x1b[31m document\r\non paper.", "lang": "en"},
]


@pytest.fixture(autouse=True)
def _models_load_once(monkeypatch):
    monkeypatch.setattr(GTEEmbedder, "from_pretrained", _loaded)


_load = GTEEmbedder.from_pretrained


@cache
def _loaded(model, **options):
    return _load(model, **options)


def gte(*arguments, columns=120, **options):
    environment = {"COLUMNS": str(columns), "TERM": "dumb"}
    return CliRunner(env=environment).invoke(cli.app, list(map(str, arguments)), **options)


def lines_of_json(result):
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


def recorded_loading(monkeypatch):
    """What models are asked for; none is loaded."""
    asked = []

    def from_pretrained(model, **options):
        asked.append({"model": model, **options})
        raise ValueError("seen")

    monkeypatch.setattr(GTEEmbedder, "from_pretrained", from_pretrained)
    return asked


def write(folder, files):
    """Files by name, made with their folders; the folder."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


def unwrapped_error(result):
    """What a box of typer says, whatever lines it is broken into."""
    return " ".join(result.stderr.replace("│", " ").split())


def unwrapped(result):
    """What a table says, whatever lines it is broken into."""
    return " ".join(result.stdout.split())


@pytest.fixture
def passages(tmp_path):
    path = tmp_path / "passages.jsonl"
    path.write_text("\n".join(map(json.dumps, ROWS)), encoding="utf-8")
    return path


@pytest.fixture(scope="module", params=["qdrant", "milvus"])
def store(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    passages = folder / "passages.jsonl"
    passages.write_text("\n".join(map(json.dumps, ROWS)), encoding="utf-8")
    store = f"{request.param}:{folder / 'index.db'}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(GTEEmbedder, "from_pretrained", _loaded)
        result = gte("index", passages, "--to", store, "-c", "docs", "-m", "demo")
    assert result.exit_code == 0, result.output
    return store


def search(store, *arguments, **options):
    return gte("search", *arguments, "--from", store, "-c", "docs", "-m", "demo", **options)


class TestStoreLocation:
    @pytest.mark.parametrize(
        ("text", "engine", "location"),
        [
            ("qdrant:./index", "qdrant", "./index"),
            ("milvus:/data/index.db", "milvus", "/data/index.db"),
            ("qdrant+https://host/qdrant", "qdrant", "https://host/qdrant"),
            ("milvus+http://host:8080", "milvus", "http://host:8080"),
            ("milvus:http://host:8080", "milvus", "http://host:8080"),
            ("http://localhost:6333", "qdrant", "http://localhost:6333"),
            ("https://localhost:19530/db", "milvus", "https://localhost:19530/db"),
        ],
    )
    def test_forms(self, text, engine, location):
        assert StoreLocation.parse(text) == StoreLocation(engine, location)

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("index", r"'index' does not say which engine; write qdrant:DIR, milvus:FILE"),
            ("qdrant:", r"does not say which engine"),
            ("qdrant+index", r"does not say which engine"),
            ("http://host:8080", r"neither 6333 .*write qdrant\+http://host:8080 or milvus\+http"),
            ("https://host", r"neither 6333"),
            ("http://host:port", r"neither 6333"),
            ("milvus:./index", r"'milvus:\./index' names a file .*; write milvus:\./index\.db\."),
        ],
    )
    def test_what_is_unclear_says_how_to_write_it(self, text, message):
        with pytest.raises(ValueError, match=message):
            StoreLocation.parse(text)

    @pytest.mark.parametrize("text", ["qdrant:index", "milvus+http://host:1"])
    def test_it_is_shown_as_it_is_written(self, text):
        assert str(StoreLocation.parse(text)) == text


class TestIndex:
    @pytest.mark.parametrize("store", ["qdrant:{}", "milvus:{}.db"])
    def test_what_is_there_unchanged_is_left_alone(self, passages, tmp_path, store):
        arguments = ["index", passages, "--to", store.format(tmp_path / "index"), "-c", "docs"]
        [first] = lines_of_json(gte(*arguments, "-m", "demo", "-d", "64", "--json"))
        [again] = lines_of_json(gte(*arguments, "-m", "demo", "-d", "64", "--json"))
        assert (first["written"], first["unchanged"], first["count"]) == (5, 0, 5)
        assert (again["written"], again["unchanged"], again["count"]) == (0, 5, 5)
        assert first["model"] == "demo model"

    def test_the_report_names_the_place_and_the_demo_model(self, passages, tmp_path):
        result = gte("index", passages, "--to", f"qdrant:{tmp_path}", "-c", "docs", "-m", "demo")
        assert "5 new · 5 in all" in result.stdout
        assert f"docs in qdrant:{tmp_path}" in result.stdout.replace("\n", "")
        assert "demo model" in result.stdout
        assert result.stderr == ""

    def test_skipped_documents_are_named(self, tmp_path):
        path = tmp_path / "rows.jsonl"
        path.write_text('{"id": "a", "text": "x", "dense": 1}\n{"id": "b", "text": "y"}')
        arguments = ["index", path, "--to", f"qdrant:{tmp_path}", "-c", "docs", "-m", "demo"]
        stopped = gte(*arguments)
        assert stopped.exit_code == 1
        assert "document 'a' has the key 'dense'" in stopped.stderr
        result = gte(*arguments, "--on-error", "skip")
        assert result.exit_code == 0
        assert "1 new, 1 skipped · 1 in all" in result.stdout
        assert "a: The payload of document 'a' has the key 'dense'" in result.stdout

    def test_a_bad_path_is_told_before_the_model_is_loaded(self, passages, monkeypatch):
        monkeypatch.delattr(GTEEmbedder, "from_pretrained")
        result = gte("index", f"{passages}x", "--to", "qdrant:x", "-c", "docs")
        assert result.exit_code == 1
        assert result.stdout == ""
        assert result.stderr == (f"error: {passages}x does not exist; did you mean {passages}?\n")

    def test_paths_with_nothing_to_read_are_skipped_like_bad_files(self, passages, tmp_path):
        (tmp_path / "empty").mkdir()
        (tmp_path / "link.md").symlink_to("gone.md")
        bad = [tmp_path / name for name in ("empty", "link.md", "typo")]
        place = ["--to", f"qdrant:{tmp_path / 'index'}", "-c", "docs", "-m", "demo", "--json"]
        stopped = gte("index", passages, *bad, *place)
        assert (stopped.exit_code, stopped.stdout) == (1, "")
        assert stopped.stderr.startswith(f"error: {bad[0]}: nothing to read in this folder")
        [report] = lines_of_json(gte("index", *bad, passages, *place, "--on-error", "skip"))
        assert (report["written"], len(report["skipped"])) == (5, 3)
        for path, (document_id, reason) in zip(bad, report["skipped"], strict=True):
            assert document_id is None
            assert reason.startswith(str(path))
        assert "a symbolic link to gone.md, where no file is" in report["skipped"][1][1]
        assert gte("index", *bad, *place, "--on-error", "skip").exit_code == 1

    def test_a_run_goes_on_with_the_model_and_sizes_of_the_collection(
        self, passages, tmp_path, small_checkpoint
    ):
        place = ["--to", f"qdrant:{tmp_path}", "-c", "docs", "--json"]
        options = ["-m", small_checkpoint, "-d", "32", "--max-length", "32"]
        [first] = lines_of_json(gte("index", passages, *place, *options))
        [again] = lines_of_json(gte("index", passages, *place))
        assert (first["written"], again["unchanged"]) == (5, 5)
        assert again["model"] == first["model"] == str(small_checkpoint)

    def test_bad_rows_and_files_are_skipped_and_named_with_their_places(self, tmp_path):
        folder = write(
            tmp_path / "notes",
            {
                "a.jsonl": '{"id": "ok", "text": "one"}\n{"text": \n{"id": 1.5, "text": "x"}\n'
                '{"id": "ok2", "text": "two"}\n',
                "binary.txt": b"\x00\xff\xfe",
                "latin.md": "caf\xe9".encode("latin-1"),
                "no_text.csv": "id,body\n1,x\n",
                "sound.md": "three",
            },
        )
        (folder / "gone.md").symlink_to(tmp_path / "nowhere.md")
        arguments = ["index", folder, "-c", "docs", "-m", "demo", "--on-error", "skip", "--to"]
        [report] = lines_of_json(gte(*arguments, f"qdrant:{tmp_path / 'a'}", "--json"))
        assert (report["written"], report["count"], len(report["skipped"])) == (3, 3, 6)
        result = gte(*arguments, f"qdrant:{tmp_path / 'b'}")
        assert "3 new, 6 skipped · 3 in all" in unwrapped(result)
        reasons = [reason for document_id, reason in report["skipped"] if document_id is None]
        for place in (
            "a.jsonl, line 2",
            "a.jsonl, line 3",
            "binary.txt, line 1",
            "gone.md",
            "latin.md, line 1",
            "no_text.csv, line 1",
        ):
            assert sum(str(folder / place) in reason for reason in reasons) == 1
            assert "".join(f"{folder / place}".split()) in "".join(result.stdout.split())

    def test_of_very_many_skipped_documents_the_first_are_named(self, tmp_path):
        rows = write(tmp_path, {"rows.jsonl": "nothing\n" * 30}) / "rows.jsonl"
        place = ["--to", f"qdrant:{tmp_path / 'index'}", "-c", "docs", "-m", "demo"]
        result = gte("index", rows, *place, "--on-error", "skip")
        assert result.stdout.count("not JSON") == 20
        assert "… and 10 more; --json names all" in result.stdout

    def test_an_error_says_how_far_the_run_came(self, tmp_path):
        rows = write(tmp_path, {"rows.jsonl": '{"text": "one"}\n{"text": "two"}\nnothing\n'})
        place = ["--to", f"qdrant:{tmp_path / 'index'}", "-c", "docs", "-m", "demo"]
        result = gte("index", rows / "rows.jsonl", *place)
        assert (result.exit_code, result.stdout) == (1, "")
        assert result.stderr.count("\n") == 1
        message = (
            r"error: .*rows\.jsonl, line 3: not JSON .* Before this, 2 documents were written, .*\n"
        )
        assert re.fullmatch(message, result.stderr)

    def test_ctrl_c_says_how_far_the_run_came(self, passages, tmp_path, monkeypatch):
        encode, calls = GTEEmbedder.encode, []

        def interrupted(embedder, texts, **options):
            calls.append(texts)
            if len(calls) == 3:
                raise KeyboardInterrupt
            return encode(embedder, texts, **options)

        monkeypatch.setattr(GTEEmbedder, "encode", interrupted)
        place = ["--to", f"qdrant:{tmp_path / 'index'}", "-c", "docs", "-m", "demo"]
        result = gte("index", passages, *place, "--batch-size", "1")
        assert (result.exit_code, result.stdout) == (130, "")
        assert re.fullmatch(
            r"Interrupted\. Before this, [12] documents were written, .* from there\.\n",
            result.stderr,
        )

    def test_the_report_shows_what_is_empty_deleted_and_cut_short(self, tmp_path, small_checkpoint):
        rows = [{"id": f"long{number}", "text": "many words " * 9} for number in range(7)]
        rows += [{"id": "bare", "text": "x"}, {"id": "\x1b[31mnone", "text": " "}]
        path = tmp_path / "rows.jsonl"
        path.write_text("\n".join(map(json.dumps, rows)))
        place = ["--to", f"qdrant:{tmp_path / 'index'}", "-c", "docs"]
        first = gte("index", path, *place, "-m", small_checkpoint, "--max-length", "8")
        path.write_text(path.read_text().replace('"x"', '""'))
        again = gte("index", path, *place, columns=60)
        assert "8 new, 1 empty · 8 in all" in unwrapped(first)
        assert "7 unchanged, 2 empty · 1 deleted · 7 in all" in unwrapped(again)
        for result in (first, again):
            assert "Cut short 7: long0, long1, long2, long3, long4, …" in unwrapped(result)
            assert "\x1b" not in result.stdout
        assert "Empty 2: bare, [31mnone" in unwrapped(again)
        assert max(map(cell_len, again.stdout.splitlines())) <= 60
        [report] = lines_of_json(gte("index", path, *place, "--json"))
        assert {field.name for field in fields(_indexing.IndexReport)} <= report.keys()
        assert report["empty_ids"] == ["bare", "\x1b[31mnone"]
        assert report["truncated_ids"] == [f"long{number}" for number in range(7)]


class TestReading:
    """Files as others wrote them, and documents that come by stdin."""

    def test_columns_encoding_and_delimiter(self, tmp_path):
        write(tmp_path, {"rows.csv": "url\tbody\tid\n/a\tGröße\t1\n".encode("cp1252")})
        place = ["--to", f"qdrant:{tmp_path / 'index'}", "-c", "docs", "-m", "demo"]
        columns = ["--text-column", "body", "--id-column", "url"]
        written = ["--encoding", "cp1252", "--delimiter", r"\t"]
        lines_of_json(gte("index", tmp_path / "rows.csv", *place, *columns, *written, "--json"))
        [found] = lines_of_json(gte("search", "Größe", *place, "--json"))
        hit = found["hits"][0]
        assert (hit["id"], hit["text"], hit["payload"]) == ("/a", "Größe", {"column_id": "1"})

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (["--text-column", "body"], r"line 1: no 'body' among .*one of those as --text-column"),
            (["--encoding", "latin-99"], "encoding is 'latin-99', which Python does not know"),
            (["--delimiter", ";;"], "delimiter is ';;', but must be one character"),
        ],
    )
    def test_what_cannot_be_is_one_line(self, tmp_path, options, message):
        rows = write(tmp_path, {"rows.csv": "id,text\n1,a\n"}) / "rows.csv"
        place = ["--to", f"qdrant:{tmp_path / 'index'}", "-c", "docs", "-m", "demo"]
        result = gte("index", rows, *place, *options)
        assert (result.exit_code, result.stdout) == (1, "")
        assert re.match(f"error: .*{message}", result.stderr)
        assert result.stderr.count("\n") == 1

    def test_a_json_file_is_an_array(self, tmp_path):
        path = write(tmp_path, {"rows.json": json.dumps(ROWS)}) / "rows.json"
        place = ["--to", f"qdrant:{tmp_path / 'index'}", "-c", "docs", "-m", "demo", "--json"]
        [report] = lines_of_json(gte("index", path, *place))
        assert report["written"] == 5

    def test_documents_of_stdin_are_json_lines_with_ids(self, passages, tmp_path):
        place = ["--to", f"qdrant:{tmp_path / 'index'}", "-c", "docs", "-m", "demo"]
        given = passages.read_bytes()
        [report] = lines_of_json(gte("index", "-", *place, "--json", input=given))
        assert report["written"] == 5
        result = gte("index", "-", *place, input=b'{"text": "no id"}\n')
        assert result.stderr.startswith("error: stdin, line 1: no 'id', which rows that come from")


class TestFolders:
    """Ids are paths below the folder that was given: two folders can have one in common."""

    @pytest.fixture
    def folders(self, tmp_path):
        write(tmp_path / "one", {"readme.md": "the first folder"})
        write(tmp_path / "two", {"readme.md": "the second folder"})
        return tmp_path / "one", tmp_path / "two"

    @pytest.fixture
    def index(self, tmp_path, folders):
        def index(folder, *options):
            place = ["--to", f"qdrant:{tmp_path / 'index'}", "-c", "docs", "-m", "demo"]
            return gte("index", folder, *place, "--json", *options)

        lines_of_json(index(folders[0]))
        return index

    def test_a_second_folder_with_the_same_name_is_refused_and_both_are_named(self, folders, index):
        result = index(folders[1])
        assert (result.exit_code, result.stdout) == (1, "")
        assert result.stderr.startswith(
            f"error: The document 'readme.md' from {folders[1]} would replace the one from "
            f"{folders[0]}."
        )
        assert "--id-prefix" in result.stderr
        assert f"pass --moved-from {folders[0]}.\n" in result.stderr
        assert "moved_from" not in result.stderr
        skipped = index(folders[1], "--on-error", "skip")
        assert f"pass --moved-from {folders[0]}." in skipped.stdout
        [again] = lines_of_json(index(folders[0]))
        assert again["unchanged"] == 1

    def test_with_a_prefix_both_are_there(self, folders, index):
        [second] = lines_of_json(index(folders[1], "--id-prefix", "two/"))
        assert (second["written"], second["count"]) == (1, 2)
        [again] = lines_of_json(index(folders[1], "--id-prefix", "two/"))
        assert again["unchanged"] == 1

    def test_a_folder_that_moved_takes_its_documents_over(self, folders, index, monkeypatch):
        moved = folders[0].rename(folders[0].with_name("moved"))
        assert index(moved).exit_code == 1
        monkeypatch.chdir(moved.parent)
        [taken] = lines_of_json(index(moved, "--moved-from", "one"))
        assert (taken["replaced"], taken["count"]) == (1, 1)  # its payload names the new path
        [again] = lines_of_json(index(moved))
        assert again["unchanged"] == 1


class TestSearch:
    def test_hits_as_json(self, store):
        queries = ["merge cells", "طباعة المستند"]
        first, second = lines_of_json(search(store, *queries, "--json", "-n", "2"))
        assert [first["query"], second["query"]] == queries
        assert first["model"] == "demo model"
        assert [len(first["hits"]), len(second["hits"])] == [2, 2]
        best = first["hits"][0]
        assert (best["id"], best["text"]) == ("en", ROWS[0]["text"])
        assert best["payload"] == {"lang": "en"}
        assert best["score"] == pytest.approx(best["dense_score"] + 0.01 * best["sparse_score"])
        assert second["hits"][0]["id"] == "ar"
        assert "tokens" not in best

    def test_one_mode_alone(self, store):
        [dense] = lines_of_json(search(store, "merge cells", "--mode", "dense", "--json"))
        [sparse] = lines_of_json(search(store, "merge cells", "--mode", "sparse", "--json"))
        assert {hit["sparse_score"] for hit in dense["hits"]} == {None}
        assert {hit["dense_score"] for hit in sparse["hits"]} == {None}

    def test_explain_adds_the_shared_tokens(self, store):
        [found] = lines_of_json(search(store, "merge cells", "--explain", "--json"))
        best = found["hits"][0]
        assert sum(token["contribution"] for token in best["tokens"]) == pytest.approx(
            best["sparse_score"], rel=1e-4
        )

    def test_explain_encodes_each_query_once_more_and_no_document(self, store, encoded):
        lines_of_json(search(store, "merge cells", "print", "--explain", "--json"))
        assert encoded == [["merge cells", "print"], ["merge cells"], ["print"]]

    @pytest.mark.parametrize("columns", [80, 120])
    def test_a_table_fits_its_terminal(self, store, columns):
        queries = ["merge cells", "セルを結合", "दस्तावेज़ सहेजें"]
        result = search(store, *queries, "--explain", columns=columns)
        assert result.exit_code == 0, result.output
        assert max(map(cell_len, result.stdout.splitlines())) <= columns
        for expected in [*queries, "hybrid · demo model", "You can merge two cells", "shared  "]:
            assert expected in result.stdout

    def test_a_document_cannot_steer_the_terminal(self, store):
        result = search(store, "print the document on paper")
        assert "[bold]Print[/bold] the [31m document on paper." in result.stdout
        assert "\x1b" not in result.stdout

    def test_queries_from_stdin(self, store):
        found = lines_of_json(search(store, "-", "--json", input="merge cells\r\nprint"))
        assert [line["query"] for line in found] == ["merge cells", "print"]

    def test_nothing_found(self, store):
        result = search(store, "zzz", "--mode", "sparse")
        assert "Nothing found." in result.stdout

    def test_a_collection_whose_name_is_near(self, store, monkeypatch):
        monkeypatch.delattr(GTEEmbedder, "from_pretrained")
        result = gte("search", "x", "--from", store, "-c", "dosc")
        assert (result.exit_code, result.stdout) == (1, "")
        assert result.stderr == f"error: {store} has no collection 'dosc'; did you mean 'docs'?\n"

    def test_a_collection_that_is_not_there(self, store, monkeypatch):
        monkeypatch.delattr(GTEEmbedder, "from_pretrained")
        result = gte("search", "x", "--from", store, "-c", "other")
        assert result.exit_code == 1
        assert result.stderr == (
            f"error: {store} has no collection 'other'; fill it first, with gte index.\n"
        )

    def test_other_dimensions_are_one_line(self, store):
        result = search(store, "x", "--dimensions", "64")
        assert result.exit_code == 1
        assert result.stderr.count("\n") == 1
        assert "the collection has 256, this index needs 64; Use the encoder" in result.stderr

    @pytest.mark.parametrize("engine", ["qdrant", "milvus"])
    def test_a_place_that_is_not_there_is_named_and_not_made(self, engine, tmp_path, monkeypatch):
        monkeypatch.delattr(GTEEmbedder, "from_pretrained")
        store = f"{engine}:{tmp_path / 'typo.db'}"
        result = gte("search", "x", "--from", store, "-c", "docs")
        assert (result.exit_code, result.stdout) == (1, "")
        assert result.stderr == (
            f"error: {store} does not exist, so it has no collection 'docs'; fill it first, with "
            "gte index.\n"
        )
        assert not list(tmp_path.iterdir())


class TestTables:
    def test_a_narrow_one_gives_its_room_to_the_text(self, store):
        result = search(store, "merge cells", "--limit", "1", columns=60)
        assert "You can merge two cells of a table into" in result.stdout
        assert re.search(r"dense 0\.\d{4} · sparse \d", result.stdout)
        assert max(map(cell_len, result.stdout.splitlines())) <= 60

    def test_a_pipe_gets_no_spaces_at_the_ends(self, store):
        for result in (search(store, "merge cells"), gte("info", "--from", store)):
            assert not re.search(r" $", result.stdout, re.MULTILINE)


class TestFilter:
    def test_only_documents_that_meet_it_are_found(self, store):
        written = {
            "qdrant": '{"must": [{"key": "lang", "match": {"value": "hi"}}]}',
            "milvus": 'lang == "hi"',
        }[store.partition(":")[0]]
        [found] = lines_of_json(search(store, "cells", "--filter", written, "--json"))
        assert [hit["id"] for hit in found["hits"]] == ["hi"]

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("lang == 'hi'", r"\(Invalid JSON: .*\); write JSON with must, should, must_not"),
            ('{"most": []}', r"\(most: Extra inputs are not permitted\)"),
            ('{"must": [{"key": 7}]}', r"such as \{\"must\": \[\{\"key\": \"lang\""),
            ('{"must": [{"key": 7}]}', r"\(must\.0: fits no kind of condition\)"),
            ('{"must": {"key": "a", "is": 1}}', r"\(must: fits no kind of condition\)"),
            ('{"min_should": {"min_count": 1}}', r"\(min_should.conditions: Field required\)"),
        ],
    )
    def test_what_is_no_filter_of_qdrant_is_told_before_all_else(self, text, message):
        result = gte("search", "x", "--from", "qdrant:no/where", "-c", "docs", "--filter", text)
        assert (result.exit_code, result.stdout) == (1, "")
        assert re.search(message, result.stderr)
        assert result.stderr.count("\n") == 1

    @pytest.mark.parametrize("text", ['lang = = "en"', "lang == 'en", "no_such(lang)"])
    def test_what_milvus_cannot_read_is_quoted_as_it_was_typed(self, text, store):
        if store.startswith("qdrant"):
            pytest.skip("Qdrant's filters are read before the collection is opened.")
        for command in (["search", "x", "-m", "demo"], ["delete", "--dry-run"]):
            result = gte(*command, "--from", store, "-c", "docs", "--filter", text)
            assert (result.exit_code, result.stdout) == (1, "")
            said = f"error: --filter is {text!r}, which cannot be read: {store}: un"
            assert result.stderr.startswith(said)
            assert not re.search(r"\^|at column|; \(", result.stderr)


@pytest.fixture
def notes(request, tmp_path, monkeypatch):
    """A folder of two files and rows with ids of their own, indexed; then no model is there."""
    write(
        tmp_path / "notes",
        {
            "a.md": "the first note",
            "sub/b.md": "the second note",
            "rows.jsonl": '{"id": 5, "text": "five", "lang": "en"}\n{"id": "5", "text": "V"}\n',
        },
    )
    place = [f"{getattr(request, 'param', 'qdrant')}:{tmp_path / 'index.db'}", "-c", "notes"]
    lines_of_json(gte("index", tmp_path / "notes", "--to", *place, "-m", "demo", "--json"))
    monkeypatch.delattr(GTEEmbedder, "from_pretrained")
    return SimpleNamespace(folder=tmp_path / "notes", place=["--from", *place], store=place[0])


def ids_in(notes):
    """The ids of all documents: of those that would be pruned if none were kept."""
    [left] = lines_of_json(gte("prune", "-", *notes.place, "--dry-run", "--json", input="none"))
    return {*left["would_delete"]}


on_both = pytest.mark.parametrize("notes", ["qdrant", "milvus"], indirect=True)


class TestInfo:
    @on_both
    def test_what_a_collection_is(self, notes):
        [found] = lines_of_json(gte("info", *notes.place, "--json"))
        assert (found["name"], found["dimensions"], found["count"]) == ("demo", 256, 4)
        origins = {each["origin"]: each["count"] for each in found["origins"]}
        assert origins == {str(notes.folder): 2, None: 2}
        shown = unwrapped(gte("info", *notes.place))
        assert "Documents 4" in shown
        assert "demo model · reads 8,192 tokens · float" in shown
        assert "dense 256 and sparse · kept as float32" in shown
        assert "2 ids that were given" in shown

    def test_the_collections_of_a_store(self, notes):
        [found] = lines_of_json(gte("info", "--from", notes.store, "--json"))
        assert (found["collection"], found["count"], found["name"]) == ("notes", 4, "demo")
        assert "4 notes demo model" in unwrapped(gte("info", "--from", notes.store))

    @pytest.mark.parametrize("store", ["qdrant:{}/no", "milvus:{}/no.db"])
    def test_a_store_that_is_not_there_is_not_made(self, store, tmp_path):
        result = gte("info", "--from", store.format(tmp_path), columns=200)
        assert f"No collections in {store.format(tmp_path)}." in result.stdout
        assert not any(tmp_path.iterdir())

    def test_a_name_that_is_near(self, notes):
        result = gte("info", "--from", notes.store, "-c", "note")
        assert (result.exit_code, result.stdout) == (1, "")
        assert result.stderr.endswith("has no collection 'note'; did you mean 'notes'?\n")

    def test_what_a_model_is(self):
        result = gte("info", "demo", columns=60)
        assert (result.exit_code, result.stderr) == (0, "")
        assert max(map(cell_len, result.stdout.splitlines())) <= 60
        assert "Gives dense and sparse vectors" in unwrapped(result)
        assert "Dense 256 · or any size from 1 on" in unwrapped(result)
        [found] = lines_of_json(gte("info", "demo", "--json"))
        assert (found["model"], found["dimensions"], found["sparse"]) == ("demo", 256, "tokens")

    def test_what_a_reranker_is_and_what_is_no_model_of_ours(self, tmp_path):
        reranker = random_checkpoint(tmp_path / "reranker", task="sequence_classification")
        shown = unwrapped(gte("info", reranker))
        assert "Gives a score for a pair of texts, through GTEReranker; no vectors" in shown
        (tmp_path / "config.json").write_text('{"model_type": "bert"}')
        shown = unwrapped(gte("info", tmp_path, columns=200))
        assert "Gives no vectors here" in shown
        assert "model_type is 'bert'; supported are ['gte', 'new']" in shown

    @pytest.mark.parametrize("given", [[], ["demo", "--from", "qdrant:./index"]])
    def test_a_model_or_a_store(self, given):
        result = gte("info", *given)
        assert (result.exit_code, result.stdout) == (2, "")
        assert "Give a MODEL, or a store with --from" in result.stderr

    def test_a_collection_that_others_made(self, tmp_path):
        QdrantClient(path=tmp_path).close()
        result = gte("info", "--from", f"qdrant:{tmp_path}")
        assert (result.exit_code, result.stderr) == (0, "")


class TestDelete:
    @on_both
    def test_by_ids_of_both_kinds(self, notes):
        [report] = lines_of_json(gte("delete", "a.md", "int:5", *notes.place, "--json"))
        assert (report["deleted"], report["count"]) == (2, 2)
        assert ids_in(notes) == {"sub/b.md", "5"}

    def test_ids_that_are_not_there_are_named(self, notes):
        assert gte("delete", "5", *notes.place).exit_code == 0
        result = gte("delete", "-", *notes.place, input="5\nsub/b.md\n")
        assert "1 removed · 2 left" in unwrapped(result)
        assert result.stderr == "5 is not there; the integer is written int:5.\n"

    @on_both
    def test_a_filter_says_what_goes_and_needs_a_yes(self, notes):
        written = {
            "qdrant": '{"must": [{"key": "lang", "match": {"value": "en"}}]}',
            "milvus": 'lang == "en"',
        }[notes.store.partition(":")[0]]
        given = ["delete", *notes.place, "--filter", written]
        refused = gte(*given)
        assert (refused.exit_code, refused.stdout) == (1, "")
        assert refused.stderr.startswith("error: 1 document would go: 5. Nothing was removed, for")
        [shown] = lines_of_json(gte(*given, "--dry-run", "--json"))
        assert shown["would_delete"] == [5]
        [report] = lines_of_json(gte(*given, "--yes", "--json"))
        assert (report["deleted"], report["count"]) == (1, 3)

    def test_a_filter_that_says_nothing_is_refused(self, notes):
        empty = "{}" if notes.store.startswith("qdrant") else ""
        result = gte("delete", *notes.place, "--filter", empty, "--yes")
        assert result.exit_code == 1
        assert "which says nothing; write a condition" in result.stderr

    @pytest.mark.parametrize("given", [[], ["a", "--filter", "x"]])
    def test_ids_and_filter_are_one_of_both(self, given):
        result = gte("delete", *given, "--from", "qdrant:x", "-c", "docs")
        assert result.exit_code == 2
        assert "Give ids or --filter, one of both." in unwrapped_error(result)


class TestPrune:
    def test_what_is_in_no_file_any_more_goes(self, notes):
        (notes.folder / "a.md").unlink()
        write(notes.folder, {"rows.jsonl": '{"id": "5", "text": "V"}\n'})
        shown = gte("prune", notes.folder, *notes.place, "--dry-run")
        assert "2 documents of notes in" in unwrapped(shown)
        assert f"1 from {notes.folder}" in shown.stdout.replace("\n", "")
        [report] = lines_of_json(gte("prune", notes.folder, *notes.place, "--yes", "--json"))
        assert (report["deleted"], report["count"]) == (2, 2)
        assert ids_in(notes) == {"sub/b.md", "5"}

    def test_ids_of_stdin_are_kept(self, notes):
        result = gte("prune", "-", *notes.place, "--yes", input="int:5\na.md\n")
        assert "2 removed · 2 left" in unwrapped(result)
        assert ids_in(notes) == {"a.md", 5}

    def test_nothing_is_removed_without_a_yes(self, notes):
        result = gte("prune", notes.folder / "a.md", *notes.place)
        assert (result.exit_code, result.stdout) == (1, "")
        assert "3 documents would go: " in result.stderr
        assert "give --yes to remove them" in result.stderr
        assert len(ids_in(notes)) == 4

    def test_a_file_that_cannot_be_read_keeps_everything(self, notes):
        write(notes.folder, {"a.md": b"\xff"})
        result = gte("prune", notes.folder, *notes.place, "--yes")
        assert (result.exit_code, result.stdout) == (1, "")
        assert "a.md, line 1: byte 0xff is not UTF-8" in result.stderr
        assert len(ids_in(notes)) == 4

    def test_nothing_to_keep_is_refused(self, notes):
        result = gte("prune", "-", *notes.place, "--yes", input="\n")
        assert "Nothing was given to keep, so every document would be removed" in result.stderr
        assert len(ids_in(notes)) == 4


class TestReindex:
    @pytest.mark.parametrize("to", ["qdrant:{}/new", "milvus:{}/new.db"])
    def test_another_size_of_the_model_that_is_recorded(self, store, tmp_path, to):
        place = ["--from", store, "-c", "docs", "--to", to.format(tmp_path)]
        [first] = lines_of_json(gte("reindex", *place, "-d", "64", "--json"))
        [again] = lines_of_json(gte("reindex", *place, "--json"))
        assert (first["written"], again["unchanged"], again["count"]) == (5, 5, 5)
        assert (again["collection"], again["model"]) == ("docs", "demo model")
        [found] = lines_of_json(gte("info", "--from", to.format(tmp_path), "-c", "docs", "--json"))
        assert (found["dimensions"], found["name"]) == (64, "demo")

    def test_another_model_beside_the_old_one(self, notes, monkeypatch, small_checkpoint):
        monkeypatch.setattr(GTEEmbedder, "from_pretrained", _loaded, raising=False)
        options = ["--to", notes.store, "--to-collection", "other", "-m", small_checkpoint]
        result = gte("reindex", *notes.place, *options)
        assert "4 new · 4 in all" in unwrapped(result)
        assert f"other in {notes.store}" in result.stdout.replace("\n", "")
        [found] = lines_of_json(gte("info", *notes.place[:3], "other", "--json"))
        assert found["name"] == str(small_checkpoint)
        origins = {each["origin"]: each["count"] for each in found["origins"]}
        assert origins == {str(notes.folder): 2, None: 2}

    def test_old_and_new_are_two(self, notes):
        result = gte("reindex", *notes.place, "--to", notes.store)
        assert (result.exit_code, result.stdout) == (1, "")
        assert "is both old and new; give --to-collection" in result.stderr

    def test_a_collection_that_is_not_there_is_told_before_the_model_is_loaded(self, notes):
        place = ["--from", notes.store, "-c", "note", "--to", notes.store]
        result = gte("reindex", *place, "--to-collection", "other")
        assert result.stderr.endswith("no collection 'note'; did you mean 'notes'?\n")


class TestCompletion:
    """What a shell offers; no model is loaded, and no server is asked."""

    def complete(self, text, shell="zsh"):
        environment = {"_GTE_COMPLETE": f"complete_{shell}", "_TYPER_COMPLETE_ARGS": text}
        return CliRunner(env=environment).invoke(cli.app, prog_name="gte").stdout.replace("\\", "")

    def test_stores(self, tmp_path, monkeypatch):
        (tmp_path / "index").mkdir()
        (tmp_path / "file").touch()
        monkeypatch.chdir(tmp_path)
        assert "milvus:" in self.complete("gte search x --from mil")
        found = self.complete("gte search x --from qdrant:./")
        assert "qdrant:./index" in found
        assert "file" not in found
        assert "index" in self.complete(f"gte search x --from qdrant:{tmp_path}/")

    def test_collections(self, store):
        assert "docs" in self.complete(f"gte search x --from {store} -c d")
        assert "docs" not in self.complete("gte search x --from qdrant:no/where -c d")
        assert "docs" not in self.complete("gte search x --from qdrant+http://localhost:1 -c d")

    def test_models(self, monkeypatch):
        assert "demo" in self.complete("gte encode x -m de")
        assert "Alibaba-NLP/gte-multilingual-base" in self.complete("gte encode x -m Ali")

    @pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
    def test_the_script_of_a_shell(self, shell):
        environment = {"_GTE_COMPLETE": f"source_{shell}"}
        result = CliRunner(env=environment).invoke(cli.app, prog_name="gte")
        assert result.exit_code == 0
        assert f"_GTE_COMPLETE=complete_{shell}" in result.stdout


class TestTheModelOfTheCollection:
    """Without --model, a collection is opened with the model, sizes and types that it records."""

    @pytest.fixture
    def fill(self, tmp_path):
        def fill(embedder, **options):
            with QdrantHybridIndex(tmp_path / "index", "docs", embedder, **options) as index:
                index.create()
                index.add([(row["id"], row["text"]) for row in ROWS])
            return [f"qdrant:{tmp_path / 'index'}", "-c", "docs"]

        return fill

    def test_the_demo_model(self, store):
        [found] = lines_of_json(
            gte("search", "merge cells", "--from", store, "-c", "docs", "--json")
        )
        assert found["model"] == "demo model"
        assert found["hits"][0]["id"] == "en"

    def test_a_directory_with_all_its_settings(self, small_checkpoint, fill):
        embedder = _load(small_checkpoint, dtype="float32", max_length=20)
        options = {"dimensions": 32, "coarse_dimensions": 8, "storage": "float16"}
        place = fill(embedder, **options)
        [found] = lines_of_json(gte("search", "cells", "--from", *place, "--json"))
        assert (found["model"], len(found["hits"])) == (str(small_checkpoint), 5)
        refused = gte("search", "x", "--from", *place, "--max-length", "30", "-d", "16")
        assert refused.exit_code == 1
        assert "dimensions: the collection has 32, this index needs 16" in refused.stderr
        assert "max_length: the collection has 20, this index needs 30" in refused.stderr
        other = gte("search", "x", "--from", *place, "--model", "demo")
        assert "model: the collection has 'sha256:" in other.stderr
        assert "dimensions" not in other.stderr

    def test_a_model_that_is_smaller_than_the_collection_is_a_mismatch(
        self, small_checkpoint, fill
    ):
        place = fill(_loaded("demo"), coarse_dimensions=64)
        result = gte("search", "x", "--from", *place, "--model", small_checkpoint)
        assert (result.exit_code, result.stderr.count("\n")) == (1, 1)
        for size in (
            "dimensions: the collection has 256, this index needs 64",
            "coarse_dimensions: the collection has 64, this index needs None",
        ):
            assert size in result.stderr

    def test_a_directory_that_is_gone(self, small_checkpoint, fill, tmp_path):
        moved = tmp_path / "model"
        copytree(small_checkpoint, moved)
        place = fill(_load(moved, dtype="float32"))
        there = moved.rename(tmp_path / "elsewhere")
        result = gte("search", "x", "--from", *place)
        assert (result.exit_code, result.stdout) == (1, "")
        assert result.stderr == (
            f"error: The collection was filled with the model in {str(moved)!r}, but that "
            "directory is gone; pass the one where the model is now as --model.\n"
        )
        [found] = lines_of_json(gte("search", "x", "--from", *place, "--model", there, "--json"))
        assert found["hits"]

    def test_a_model_of_the_hub_at_its_commit(self, fill, make_encoder, monkeypatch):
        encoder = make_encoder(fingerprint=Fingerprint("org/model", "f" * 40, 64, "fp8"))
        place = fill(encoder)
        loading = recorded_loading(monkeypatch)
        gte("search", "x", "--from", *place)
        gte("search", "x", "--from", *place, "--model", "org/other", "--dtype", "float32")
        gte("index", README, "--to", *place)
        recorded = {"max_length": 64, "dtype": "float8"}
        own = {"model": "org/model", "revision": "f" * 40, **recorded}
        other = {"model": "org/other", **recorded, "dtype": "float32"}
        assert loading == [own, other, own]

    def test_a_directory_with_the_name_of_the_model_on_the_hub(
        self, fill, make_encoder, monkeypatch, tmp_path
    ):
        place = fill(make_encoder(fingerprint=Fingerprint("org/model", "f" * 40, 64, "float")))
        loading = recorded_loading(monkeypatch)
        (tmp_path / "org" / "model").mkdir(parents=True)
        monkeypatch.chdir(tmp_path)
        refused = gte("search", "x", "--from", *place)
        assert (refused.exit_code, loading) == (1, [])
        assert "filled with 'org/model' of the hub, but the directory 'org/model'" in refused.stderr
        gte("search", "x", "--from", *place, "--model", "org/model")
        assert loading == [{"model": "org/model", "max_length": 64}]

    def test_a_model_without_sparse_head_is_searched_densely(self, fill, tmp_path):
        dense = random_checkpoint(tmp_path / "dense", task=None)
        place = fill(_load(dense, dtype="float32"))
        [found] = lines_of_json(gte("search", "cells", "--from", *place, "--json", "--explain"))
        assert {hit["sparse_score"] for hit in found["hits"]} == {None}
        assert "dense · " in gte("search", "cells", "--from", *place).stdout
        refused = gte("search", "x", "--from", *place, "--mode", "hybrid").stderr
        assert "--mode hybrid needs sparse vectors" in refused
        assert "search with --mode dense" in refused
        explained = gte("explain", "x", "y", "-m", tmp_path / "dense")
        assert explained.exit_code == 1
        assert "no tokens explain its scores; choose a --model with" in explained.stderr

    def test_a_collection_of_something_else(self, fill, tmp_path, make_encoder, monkeypatch):
        place = fill(make_encoder())
        (tmp_path / "index" / "docs" / "gte.json").unlink()
        monkeypatch.delattr(GTEEmbedder, "from_pretrained")
        for command in (["search", "x", "--from"], ["index", README, "--to"]):
            result = gte(*command, *place)
            assert result.exit_code == 1
            assert "holds no record of the model that filled it" in result.stderr

    def test_a_pair_of_models(self, fill, small_checkpoint, passages):
        sparse = _load(small_checkpoint, dtype="float32", query_prefix="w1 ", max_length=20)
        pair = PairedEncoder(dense=_load("demo", dtype="float32"), sparse=sparse)
        place = fill(pair)
        precise = ("--dtype", "float32", "--json")
        [found] = lines_of_json(gte("search", "merge cells", "--from", *place, *precise))
        with QdrantHybridIndex(place[0].removeprefix("qdrant:"), "docs", pair) as index:
            assert [hit["score"] for hit in found["hits"]] == pytest.approx(
                [hit.score for hit in index.search("merge cells")[0]], abs=1e-5
            )
        [report] = lines_of_json(gte("index", passages, "--to", *place, "--json"))
        assert (report["replaced"], report["count"]) == (5, 5)  # which have a payload
        shown = unwrapped(gte("info", "--from", *place, columns=200))
        assert "Model demo model · reads 8,192 tokens · float" in shown
        assert f"Sparse model {small_checkpoint} · reads 20 tokens · float" in shown
        other = gte("search", "x", "--from", *place, "--model", "demo")
        assert "sparse_model: the collection has 'sha256:" in other.stderr

    def test_a_pair_is_reindexed_as_one(self, fill, small_checkpoint):
        place = fill(PairedEncoder(dense=_loaded("demo"), sparse=_loaded(str(small_checkpoint))))
        [report] = lines_of_json(
            gte("reindex", "--from", *place, "--to", place[0], "--to-collection", "new", "--json")
        )
        assert report["written"] == 5
        assert "Sparse model" in gte("info", "--from", place[0], "-c", "new").stdout


class TestWithoutDenseVectors:
    @pytest.mark.parametrize("location", ["qdrant:{}", "milvus:{}.db"])
    def test_a_collection_is_filled_and_searched_by_words(
        self, sparse_checkpoint, passages, tmp_path, location
    ):
        place = location.format(tmp_path / "words"), "-c", "docs"
        for model, key in ((("-m", sparse_checkpoint), "written"), ((), "unchanged")):
            [report] = lines_of_json(gte("index", passages, "--to", *place, *model, "--json"))
            assert (report[key], report["count"]) == (5, 5)
        [found] = lines_of_json(gte("search", "merge", "--from", *place, "--explain", "--json"))
        best = found["hits"][0]
        assert best["dense_score"] is None
        assert (
            best["score"]
            == best["sparse_score"]
            == pytest.approx(sum(token["contribution"] for token in best["tokens"]), rel=1e-4)
        )
        shown = gte("search", "merge", "--from", *place, columns=200).stdout
        assert f"sparse · {sparse_checkpoint}" in shown
        refused = gte("search", "merge", "--from", *place, "--mode", "dense")
        assert "--mode dense needs dense vectors, but sha256:" in refused.stderr
        assert "Vectors sparse" in unwrapped(gte("info", "--from", *place))
        [shown] = lines_of_json(gte("info", "--from", *place, "--json"))
        assert (shown["dimensions"], shown["sparse"]) == (None, True)

    def test_a_text_is_encoded_to_words_alone(self, sparse_checkpoint):
        model = ("-m", sparse_checkpoint)
        texts = [str(number) for number in range(70)]
        found = lines_of_json(gte("encode", "-", *model, "--json", input="\n".join(texts)))
        assert [line["text"] for line in found] == texts
        assert found[0]["dense"] is None
        assert found[0]["sparse"]["ids"]
        shown = unwrapped(gte("encode", "x", *model, columns=200))
        assert " tokens: " in shown
        assert "Dense" not in shown

    def test_it_is_the_sparse_half_of_a_pair(self, sparse_checkpoint, tmp_path):
        pair = PairedEncoder(dense=_loaded("demo"), sparse=_loaded(str(sparse_checkpoint)))
        place = f"qdrant:{tmp_path}", "-c", "docs"
        with QdrantHybridIndex(tmp_path, "docs", pair) as index:
            index.create()
            index.add([(row["id"], row["text"]) for row in ROWS])
        [found] = lines_of_json(gte("search", "merge cells", "--from", *place, "--json"))
        best = found["hits"][0]
        assert best["score"] == pytest.approx(best["dense_score"] + 0.01 * best["sparse_score"])


class TestQueryPrefix:
    def test_it_is_recorded_and_put_before_queries_alone(
        self, passages, tmp_path, small_checkpoint, encoded
    ):
        place = [f"qdrant:{tmp_path}", "-c", "docs"]
        index = ["index", passages, "-m", small_checkpoint, "--to", *place]
        assert gte(*index, "--query-prefix", "query: ").stderr == ""
        assert encoded.pop() == [row["text"] for row in ROWS]
        lines_of_json(gte("search", "one", "--from", *place, "--json"))
        lines_of_json(gte("search", "two", "--from", *place, "--json", "--query-prefix", "q: "))
        lines_of_json(gte("search", "three", "--from", *place, "--json", "--query-prefix", ""))
        assert encoded == [["query: one"], ["q: two"], ["three"]]
        other = gte(*index, "--query-prefix", "q: ")
        assert other.exit_code == 0
        assert "made with the query prefix 'query: ', which is kept" in other.stderr

    def test_explain_has_it_too(self, small_checkpoint, encoded):
        gte("explain", "one", "two", "-m", small_checkpoint, "--query-prefix", "query: ")
        assert encoded == [["query: one", "two"]]


class TestSecrets:
    """Passwords and keys in a URL are never shown."""

    @pytest.mark.parametrize("scheme", ["qdrant", "milvus"])
    @pytest.mark.parametrize(
        "url", ["http://user:secret@localhost:1", "http://secret@localhost:1?token=secret"]
    )
    def test_a_server_that_does_not_answer(self, scheme, url):
        result = gte("search", "x", "--from", f"{scheme}+{url}", "-c", "docs")
        assert result.exit_code == 1
        assert "***@localhost:1" in result.stderr
        assert "secret" not in result.output

    @pytest.mark.parametrize(
        "text",
        [
            "http://user:secret@host",
            "https://host?api_key=secret",
            "user:secret@host:6333",
            "qdrant+http://user:secret@host:port",
            "milvus+http://user:se/cret@host",
            "qdrant+http://user:se#cret@host:6333",
        ],
    )
    def test_wrong_usage(self, text):
        result = gte("search", "x", "--from", text, "-c", "docs")
        assert result.exit_code == 2
        assert "***" in result.stderr
        assert not re.search("cret|se/|se#", result.stderr)

    def test_what_the_engine_says(self, monkeypatch):
        error = Exception("no answer from http://user:secret@host:6333/")
        monkeypatch.setattr(qdrant.QdrantHybridIndex, "read_metadata", _raising(error))
        result = gte("search", "x", "--from", "qdrant+http://user:secret@host", "-c", "docs")
        assert result.stderr == (
            "error: qdrant+http://user:***@host: no answer from http://user:***@host:6333/\n"
        )

    def test_a_location_is_shown_without_them(self):
        shown = str(StoreLocation.parse("http://user:secret@host:6333?key=secret"))
        assert shown == "qdrant+http://user:***@host:6333?key=***"


class TestEncode:
    def test_json_is_what_the_embedder_gives(self):
        texts = ["merge two cells", "表のセル", ""]
        found = lines_of_json(gte("encode", *texts, "-m", "demo", "-d", "32", "--json"))
        both = _loaded("demo").encode(texts, dimensions=32)
        for line, text, (dense, ids, weights) in zip(found, texts, both.rows(), strict=True):
            assert line["text"] == text
            assert line["truncated"] is False
            np.testing.assert_allclose(line["dense"], dense, atol=1e-6)
            assert line["sparse"]["ids"] == ids.tolist()
            np.testing.assert_allclose(line["sparse"]["weights"], weights, atol=1e-5)
            assert line["sparse"]["tokens"] == [both.decode_token(i) for i in ids.tolist()]

    def test_a_table_shows_the_beginning_of_each_vector(self):
        result = gte("encode", "merge two cells", "-m", "demo", columns=80)
        assert "merge two cells" in result.stdout
        assert "demo model" in result.stdout
        assert "256 dimensions: " in result.stdout
        assert "tokens: merge" in result.stdout

    def test_stdin_is_one_text_a_line(self):
        given = "\ufeffone\r\n\n  two \nthree".encode()
        found = lines_of_json(gte("encode", "-", "-m", "demo", "--json", input=given))
        assert [line["text"] for line in found] == ["one", "", "  two ", "three"]

    def test_empty_stdin_gives_nothing(self):
        assert lines_of_json(gte("encode", "-", "-m", "demo", "--json", input=b"")) == []

    def test_stdin_in_another_encoding_is_one_error(self):
        result = gte("encode", "-", "-m", "demo", input=b"one\ncaf\xe9\n")
        assert result.exit_code == 1
        assert result.stderr.startswith("error: stdin, line 2: byte 0xe9 is not UTF-8; save it")

    def test_a_lone_surrogate_stays_valid_json(self):
        [line] = lines_of_json(gte("encode", "caf\udce9", "-m", "demo", "--json"))
        assert line["text"] == "caf\udce9"

    def test_a_model_without_sparse_head_gives_dense_vectors(self, monkeypatch):
        model = SimpleNamespace(
            has_sparse=False,
            model="org/dense",
            revision="f" * 40,
            encode_dense=lambda texts: np.ones((len(texts), 2), np.float32),
        )
        monkeypatch.setattr(GTEEmbedder, "from_pretrained", lambda *args, **kwargs: model)
        texts = [str(number) for number in range(70)]
        found = lines_of_json(gte("encode", "-", "--json", input="\n".join(texts)))
        assert [line["text"] for line in found] == texts
        assert found[0] == {
            "model": "org/dense@ffffffffffff",
            "text": "0",
            "n_tokens": None,
            "truncated": None,
            "dense": [1.0, 1.0],
            "sparse": None,
        }
        assert "2 dimensions: +1.0000 +1.0000" in gte("encode", "x").stdout


class TestExplain:
    def test_parts_add_up(self):
        [found] = lines_of_json(gte("explain", "merge", "merge cells", "-m", "demo", "--json"))
        assert found["model"] == "demo model"
        assert found["score"] == pytest.approx(
            found["dense_weight"] * found["dense_score"]
            + found["sparse_weight"] * found["sparse_score"]
        )
        assert sum(token["contribution"] for token in found["tokens"]) == pytest.approx(
            found["sparse_score"]
        )

    def test_a_table_of_shared_tokens(self):
        result = gte("explain", "セルを結合", "表のセルを結合できます", "-m", "demo", columns=80)
        assert "= 1 × dense 0." in result.stdout
        assert "demo model" in result.stdout
        assert "セル" in result.stdout

    def test_texts_of_stdin(self):
        given = "merge cells\nprint\n"
        found = lines_of_json(gte("explain", "merge", "-", "-m", "demo", "--json", input=given))
        assert len(found) == 2
        assert found[0]["score"] > found[1]["score"]

    def test_texts_with_nothing_in_common(self):
        assert "No token in common." in gte("explain", "a", "壊", "-m", "demo").stdout


class TestModelOptions:
    @pytest.mark.parametrize(
        "command",
        [
            ["index", README, "--to", "{store}", "-c", "docs"],
            ["search", "x", "--from", "{store}", "-c", "docs"],
            ["encode", "x"],
            ["explain", "x", "x"],
        ],
        ids=lambda command: command[0],
    )
    def test_every_command_hands_all_of_them_on(self, store, monkeypatch, command):
        given = {}

        def from_pretrained(model, **options):
            given.update(options, model=model)
            raise ValueError("seen")

        monkeypatch.setattr(GTEEmbedder, "from_pretrained", from_pretrained)
        options = ["-m", "demo", "--revision", "r", "--device", "cuda:1", "--dtype", "float16"]
        command = [str(argument).format(store=store) for argument in command]
        options += ["--on-truncation", "ignore"]
        result = gte(*command, *options, "--max-length", "9", "-d", "8")
        assert result.stderr == "error: seen\n"
        assert given == {
            "model": "demo",
            "revision": "r",
            "device": "cuda:1",
            "dtype": "float16",
            "max_length": 9,
            "on_truncation": "ignore",
            "dimensions": 8,
        }

    @pytest.mark.parametrize(
        ("option", "value", "message"),
        [
            ("--dtype", "int9", r"--dtype is 'int9'; allowed are 'float32', .*'auto'\."),
            ("--dtype", "float8", r"dtype 'float8' needs a Hopper GPU or newer, not cpu"),
            ("--device", "tape", r"--device is 'tape'; allowed are 'cpu', 'cuda'"),
            ("--device", "cuda", r"--device is 'cuda', but this machine .* has none"),
            ("--dimensions", "257", r"--dimensions is 257, but must be from 1 to 256"),
        ],
    )
    def test_what_cannot_be_is_one_line(self, monkeypatch, option, value, message):
        monkeypatch.setattr("torch.cuda.is_available", lambda: False)
        result = gte("encode", "x", "-m", "demo", option, value)
        assert (result.exit_code, result.stdout) == (1, "")
        assert re.fullmatch(rf"error: {message}.*\n", result.stderr)

    @pytest.mark.skipif(not has_onednn(), reason="int8 needs oneDNN on x86")
    @pytest.mark.parametrize("engine", ["qdrant", "milvus"])
    def test_int8_and_floats_do_not_share_a_collection(self, passages, tmp_path, engine):
        place = [f"{engine}:{tmp_path / 'int8.db'}", "-c", "docs", "-m", "demo", "--device", "cpu"]
        lines_of_json(gte("index", passages, "--to", *place, "--dtype", "int8", "--json"))
        [found] = lines_of_json(gte("search", "merge cells", "--from", *place, "--json"))
        assert found["hits"][0]["id"] == "en"
        [again] = lines_of_json(gte("index", passages, "--to", *place, "--json"))
        assert again["unchanged"] == 5
        for refused in (
            gte("search", "x", "--from", *place, "--dtype", "float32"),
            gte("index", passages, "--to", *place, "--dtype", "float32"),
        ):
            assert (refused.exit_code, refused.stdout) == (1, "")
            assert re.fullmatch(
                r"error: .*numeric: the collection has 'int8', this index needs 'float'; .*\n",
                refused.stderr,
            )


class TestMessages:
    """What the library says of its arguments is said of the options that stand for them."""

    @pytest.mark.parametrize(
        ("said", "shown"),
        [
            ("longer than max_length=16 tokens", "longer than --max-length 16 tokens"),
            ("lower max_length.", "lower --max-length."),
            ("choose on_truncation='warn'.", "choose --on-truncation warn."),
            ('search with mode="dense", or', "search with --mode dense, or"),
            ("pass moved_from='/my notes'.", "pass --moved-from '/my notes'."),
            ("a model of this mode", "a model of this mode"),
            ("max_length: the collection has 20", "max_length: the collection has 20"),
            ("the fields 'max_length', 'on_error'", "the fields 'max_length', 'on_error'"),
            ("a/max_length.md and max_length.md", "a/max_length.md and max_length.md"),
            ("http://host?limit=5&mode=x", "http://host?limit=5&mode=x"),
            ("delimiter is ';;', but", "--delimiter is ';;', but"),
            ("The limit is 5.", "The limit is 5."),
            ("pass delimiter='\\t'; the", "pass --delimiter '\\t'; the"),
        ],
    )
    def test_arguments_become_options(self, said, shown):
        assert in_options(said) == shown

    def test_each_of_them_is_an_option(self):
        options = {
            option
            for command in get_command(cli.app).commands.values()
            for parameter in command.params
            for option in parameter.opts
        }
        for name in ARGUMENTS.split("|"):
            assert f"--{name.replace('_', '-')}" in options

    def test_a_model_that_is_not_there_is_advised_in_options(self, monkeypatch, tmp_path):
        monkeypatch.setattr(GTEEmbedder, "from_pretrained", _load)
        monkeypatch.setattr("huggingface_hub.HfApi.model_info", _raising(OSError("offline")))
        result = gte("encode", "x", "-m", "no/model")
        assert "or give --model a local directory with a copy of it, or 'demo'" in result.stderr
        assert "cache_dir" not in result.stderr

    def test_what_is_written_otherwise_names_the_option(self, tmp_path):
        place = ["--to", f"qdrant:{tmp_path / 'index'}", "-c", "docs", "-m", "demo"]
        write(tmp_path, {"a.txt": b"caf\xe9", "b.csv": "id;text\n1;a\n"})
        assert "such as --encoding cp1252" in gte("index", tmp_path / "a.txt", *place).stderr
        assert (
            "pass for instance --delimiter ';'" in gte("index", tmp_path / "b.csv", *place).stderr
        )
        stdin = gte("encode", "-", "-m", "demo", input=b"caf\xe9")  # which has no such option
        assert "--encoding" not in stdin.stderr

    def test_warnings_are_told_in_options_too(self, small_checkpoint, monkeypatch):
        monkeypatch.setattr(logging.root, "handlers", [])  # those of pytest
        options = ["-m", small_checkpoint, "--max-length", "8"]
        warned = gte("encode", "many words " * 9, *options)
        assert warned.stderr.startswith("1 text(s) were longer than --max-length 8 tokens")
        assert warned.stderr.endswith("or pass --on-truncation ignore.\n")
        assert gte("encode", "many words " * 9, *options, "--on-truncation", "ignore").stderr == ""


class TestEnding:
    def test_version(self):
        result = gte("--version")
        assert (result.exit_code, result.stdout) == (0, f"gte-integrations {__version__}\n")

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["index", "a.txt", "-c", "docs"], "--to"),
            (["index", "a.txt", "--to", "place", "-c", "docs"], "qdrant:DIR"),
            (["search", "x", "--from", "http://host:1", "-c", "docs"], "qdrant+http://host:1"),
            (["search", "x", "--from", "qdrant:x", "-c", "docs", "--mode", "both"], "hybrid"),
            (["search", "x", "--from", "qdrant:x", "-c", "docs", "--limit", "0"], "--limit"),
            (["encode"], "TEXT"),
            (["explain", "query"], "TEXT"),
            (["find"], "find"),
            (["--nothing"], "--nothing"),
        ],
    )
    def test_wrong_usage_is_status_2(self, arguments, message):
        result = gte(*arguments)
        assert result.exit_code == 2
        assert message in result.stderr
        assert result.stdout == ""

    @pytest.mark.parametrize(
        "error",
        [ValueError("of\n  several\nlines"), OSError(28, "No space left"), ImportError("pip")],
    )
    def test_an_expected_error_is_one_line(self, monkeypatch, error):
        monkeypatch.setattr(GTEEmbedder, "from_pretrained", _raising(error))
        result = gte("encode", "x")
        assert result.exit_code == 1
        assert result.stderr.startswith("error: ")
        assert result.stderr.count("\n") == 1
        assert result.stdout == ""

    def test_a_fault_of_the_program_is_not_hidden(self, monkeypatch):
        monkeypatch.setattr(GTEEmbedder, "from_pretrained", _raising(KeyError("fault")))
        assert isinstance(gte("encode", "x").exception, KeyError)

    def test_traceback_shows_where_an_error_came_from(self, monkeypatch):
        monkeypatch.setattr(GTEEmbedder, "from_pretrained", _raising(ValueError("wrong")))
        assert isinstance(gte("--traceback", "encode", "x").exception, ValueError)

    def test_ctrl_c_is_status_130(self, monkeypatch):
        monkeypatch.setattr(GTEEmbedder, "from_pretrained", _raising(KeyboardInterrupt()))
        result = gte("encode", "x")
        assert (result.exit_code, result.stdout, result.stderr) == (130, "", "Interrupted.\n")

    def test_what_the_system_says_names_the_path(self, tmp_path):
        store = f"qdrant:{write(tmp_path, {'file': ''}) / 'file' / 'index'}"
        result = gte("index", tmp_path / "file", "--to", store, "-c", "docs", "-m", "demo")
        assert "Errno" not in result.stderr
        missing = gte("info", "--from", "qdrant+https://host", "--api-key-file", tmp_path / "key")
        assert missing.stderr == f"error: {tmp_path / 'key'}: No such file or directory.\n"

    def test_ctrl_c_while_the_program_is_imported_is_status_130(self, monkeypatch, capsys):
        interrupted = SimpleNamespace(find_spec=_raising(KeyboardInterrupt()))
        monkeypatch.delitem(sys.modules, "gte_integrations.cli.commands")
        monkeypatch.setattr(sys, "meta_path", [interrupted])
        with pytest.raises(SystemExit, match="130"):
            main()
        assert capsys.readouterr() == ("", "Interrupted.\n")

    @pytest.mark.parametrize("scheme", ["qdrant", "milvus"])
    def test_an_engine_that_does_not_answer_is_one_line(self, scheme):
        store = f"{scheme}+http://localhost:1"
        result = gte("search", "x", "--from", store, "-c", "docs", "-m", "demo")
        assert result.exit_code == 1
        assert result.stderr.startswith(f"error: {store}: ")
        assert result.stderr.count("\n") == 1

    def test_plain_exceptions_of_an_engine_name_the_store_and_keep_their_notes(self, monkeypatch):
        error = Exception("service error")
        error.add_note("Gave up after 3 attempts.")
        monkeypatch.setattr(qdrant.QdrantHybridIndex, "read_metadata", _raising(error))
        result = gte("search", "x", "--from", "qdrant:x", "-c", "docs")
        assert result.exit_code == 1
        assert result.stderr == "error: qdrant:x: service error; Gave up after 3 attempts.\n"


def _raising(error):
    def raise_it(*args, **kwargs):
        raise error

    return raise_it


class TestOneRuleOnePlace:
    """Defaults and choices are written again in the options, as those must not import torch."""

    def test_what_is_not_given_is_left_to_the_library(self, monkeypatch):
        library = inspect.signature(_load).parameters
        loading = recorded_loading(monkeypatch)
        for command in (["encode", "x"], ["explain", "x", "x"]):
            assert gte(*command).stderr == "error: seen\n"
        assert loading == [{"model": library["model"].default}] * 2

    @pytest.mark.parametrize("command", ["index", "search", "encode", "explain"])
    def test_help_names_the_defaults_of_the_library(self, command):
        shown = gte(command, "--help", columns=200).stdout
        assert "else as the model says" in " ".join(shown.split())
        for name in ("model", "dtype", "on_truncation"):
            assert str(inspect.signature(_load).parameters[name].default) in shown

    def test_help_names_every_type(self):
        with pytest.raises(ValueError, match="allowed are") as error:
            _load("demo", dtype="int9")
        shown = gte("encode", "--help", columns=200).stdout
        for name in re.findall(r"'(\w+)'", str(error.value).partition("allowed")[2]):
            assert re.search(rf"\b{name}\b", shown)

    def test_index_and_search_have_the_defaults_and_choices_of_the_indexes(self):
        for command, method, names in [
            (cli.index, _indexing.HybridIndex.add, ["batch_size", "on_error"]),
            (cli.search, _indexing.HybridIndex.search, ["limit", "mode"]),
        ]:
            options = inspect.signature(command).parameters
            library = inspect.signature(method).parameters
            for name in names:
                assert options[name].default == library[name].default
        choices = {
            name: inspect.signature(command).parameters[name].annotation.__origin__
            for command, name in [(cli.index, "on_error"), (cli.search, "mode")]
        }
        assert choices == {"on_error": _indexing.OnError, "mode": Mode | None}
        given = inspect.signature(ModelOptions).parameters["on_truncation"].annotation.__origin__
        assert given == OnTruncation | None


LONGEST = 120  # seconds that a program is waited for; it takes a few on an idle machine


class TestProcess:
    @pytest.fixture
    def run(self, start):
        def run(*arguments):
            command = [sys.executable, "-P", "-m", "gte_integrations.cli", *arguments]
            pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
            return start(command, **pipes)

        return run

    @pytest.fixture
    def notes_of_two(self, tmp_path):
        write(tmp_path, {"a.md": "one", "b.md": "two"})
        files = [tmp_path / "a.md", tmp_path / "b.md"]
        assert gte("index", *files, "--to", f"qdrant:{tmp_path}", "-c", "docs", "-m", "demo")
        return f"qdrant:{tmp_path}"

    def test_help_loads_neither_torch_nor_an_engine(self):
        program = (
            "import sys; from gte_integrations import cli\n"
            "try: cli.app(['--help'])\n"
            "except SystemExit as end: assert end.code == 0\n"
            "heavy = {'torch', 'numpy', 'scipy', 'qdrant_client', 'pymilvus', 'pyarrow', 'tqdm'}\n"
            "assert not heavy & sys.modules.keys(), heavy & sys.modules.keys()"
        )
        subprocess.run([sys.executable, "-P", "-c", program], check=True, capture_output=True)

    def test_an_error_is_status_1_without_traceback(self, run):
        process = run("index", "no/such/file", "--to", "qdrant:x", "-c", "docs")
        stdout, stderr = process.communicate(timeout=LONGEST)
        assert (process.returncode, stdout) == (1, b"")
        assert stderr.startswith(b"error: no/such/file does not exist")
        assert stderr.count(b"\n") == 1

    def test_ctrl_c(self, run):
        process = run("search", "-", "--from", "qdrant:x", "-c", "docs")
        process.stdin.write(b"x" * 300_000)  # more than a pipe holds: it is being read
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=LONGEST) == (b"", b"Interrupted.\n")
        assert process.returncode == 130

    @pytest.mark.parametrize(("answer", "left"), [(b"n\n", 2), (b"y\n", 1)])
    def test_a_terminal_is_asked(self, start, notes_of_two, answer, left):
        place = ["--from", notes_of_two, "-c", "docs"]
        kept = Path(notes_of_two.partition(":")[2]) / "a.md"
        command = [sys.executable, "-P", "-m", "gte_integrations.cli", "prune", kept, *place]
        terminal, end = os.openpty()
        process = start(command, stdin=end, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        os.write(terminal, answer)
        _, stderr = process.communicate(timeout=LONGEST)
        os.close(terminal)
        os.close(end)
        assert process.returncode == 0
        assert b"1 document of docs" in stderr
        assert (b"Nothing was removed." in stderr) is (left == 2)
        [found] = lines_of_json(gte("info", *place, "--json"))
        assert found["count"] == left

    def test_ctrl_c_at_a_question(self, start, notes_of_two, tmp_path):
        command = [sys.executable, "-P", "-m", "gte_integrations.cli", "prune", tmp_path / "a.md"]
        place = ["--from", notes_of_two, "-c", "docs"]
        terminal, end = os.openpty()
        process = start(
            [*command, *place], stdin=end, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        said = b""
        while not said.endswith(b"[y/N]:") and (byte := process.stderr.read(1)):
            said += byte
        process.send_signal(signal.SIGINT)
        _, rest = process.communicate(timeout=LONGEST)
        os.close(terminal)
        os.close(end)
        assert process.returncode == 130
        assert rest.replace(b"\r", b"") == b"\nNothing was removed.\nInterrupted.\n"

    def test_a_reader_that_leaves_is_no_error(self, run):
        process = run("encode", "-", "-m", "demo", "--json")
        process.stdin.write(b"a line of text\n" * 500)
        process.stdin.close()
        assert json.loads(process.stdout.readline())["text"] == "a line of text"
        process.stdout.close()
        assert process.wait(timeout=LONGEST) == 1
        assert process.stderr.read() == b""

    @pytest.mark.parametrize("store", ["qdrant:{}", "milvus:{}.db"])
    def test_one_process_indexes_and_another_searches(self, run, passages, tmp_path, store):
        place = [store.format(tmp_path / "index"), "-c", "docs", "-m", "demo", "--json"]
        index = gte("index", passages, "--to", *place)  # in this process
        assert json.loads(index.stdout)["written"] == 5
        search = run("search", "merge cells", "--from", *place)
        stdout, stderr = search.communicate(timeout=LONGEST)
        assert stderr == b""
        assert json.loads(stdout)["hits"][0]["id"] == "en"


class TestTrial:
    """What a trial of the command line found."""

    @pytest.mark.parametrize("store", ["qdrant:./index", "milvus:./notes.db"])
    def test_a_store_in_the_folder_is_not_read(self, store, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        (tmp_path / "n1.md").write_text("one")
        for written in (1, 0):
            report = lines_of_json(
                gte("index", ".", "--to", store, "-c", "c", "-m", "demo", "--json")
            )[0]
            assert (report["written"], report["skipped"], report["count"]) == (written, [], 1)
        pruned = gte("prune", ".", "--from", store, "-c", "c", "--dry-run")
        assert pruned.exit_code == 0

    @pytest.mark.parametrize(
        ("store", "condition"),
        [("milvus:./m.db", " "), ("qdrant:./q", "{}"), ("qdrant:./q", '{"must": []}')],
    )
    def test_a_filter_that_says_nothing_is_refused_before_anything_is_shown(
        self, store, condition, tmp_path, monkeypatch
    ):
        monkeypatch.chdir(tmp_path)
        result = gte("delete", "--from", store, "-c", "c", "--filter", condition, "--dry-run")
        assert result.exit_code == 1
        assert "which says nothing; write a condition" in result.stderr

    def test_what_is_no_integer_id_is_told(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        result = gte("delete", "int:x", "--from", "qdrant:./q", "-c", "c")
        assert "'int:x' is no integer id; the string is written str:int:x." in result.stderr

    def test_stdin_stands_beside_others(self, notes):
        given = gte("delete", "5", "-", *notes.place, "--json", input="\na.md\n\nint:5\n")
        assert (lines_of_json(given)[0]["deleted"], given.stderr) == (3, "")

    def test_stdin_stands_beside_files(self, tmp_path):
        write(tmp_path, {"a.md": "one", "b.md": "two"})
        place = [f"qdrant:{tmp_path / 'index'}", "-c", "docs"]
        options = ["--to", *place, "-m", "demo", "--json"]
        rows = '{"id": "row", "text": "three"}'
        files = [tmp_path / "a.md", "-", tmp_path / "b.md"]
        assert lines_of_json(gte("index", *files, *options, input=rows))[0]["written"] == 3
        pruned = gte("prune", "-", files[0], "--from", *place, "-y", "--json", input="row\n")
        assert lines_of_json(pruned)[0]["deleted"] == 1
        texts = gte("search", "one", "-", "two", "--from", *place, "--json", input="\n")
        assert [each["query"] for each in lines_of_json(texts)] == ["one", "", "two"]

    def test_a_folder_is_the_same_however_it_is_typed(self, tmp_path, monkeypatch):
        write(tmp_path / "notes", {"a.md": "one", "sub/b.md": "two"})
        monkeypatch.chdir(tmp_path)

        def index(*paths):
            place = ["--to", "qdrant:index", "-c", "docs", "-m", "demo", "--json"]
            [report] = lines_of_json(gte("index", *paths, *place))
            return report["written"], report["replaced"], report["unchanged"]

        assert index("notes") == (2, 0, 0)
        for typed in ("./notes", "notes/", tmp_path / "notes", "notes/../notes"):
            assert index(typed) == (0, 0, 2)
        assert index("notes", "./notes", "notes/sub") == (0, 0, 2)
        assert index("notes/sub") == (1, 0, 0)  # in a run of its own, as b.md
        Path("notes").rename("moved")
        assert index("moved", "--moved-from", "./notes") == (0, 2, 0)
        assert index(tmp_path / "moved") == (0, 0, 2)

    def test_a_file_of_two_nested_folders_is_one_document(self, tmp_path):
        write(tmp_path / "a", {"b/x.md": "one", "y.md": "two"})
        place = ["--to", f"qdrant:{tmp_path / 'index'}", "-c", "docs", "-m", "demo", "--json"]
        [report] = lines_of_json(gte("index", tmp_path / "a", tmp_path / "a" / "b", *place))
        assert (report["written"], report["count"]) == (2, 2)

    @pytest.mark.parametrize(
        ("stores", "files", "keys"),
        [
            (["qdrant+https://a", "qdrant:q"], ["one"], ["1", None]),
            (["qdrant:q", "milvus+https://b"], ["one"], [None, "1"]),
            (["qdrant+https://a", "qdrant+https://a"], ["one"], ["1", "1"]),
            (["qdrant+https://a", "qdrant+https://b"], ["one"], ["1", None]),
            (["qdrant+https://a", "milvus+https://b"], ["one", "two"], ["1", "2"]),
        ],
    )
    def test_reindex_sends_each_server_its_own_key(
        self, stores, files, keys, tmp_path, monkeypatch
    ):
        monkeypatch.delenv("QDRANT_API_KEY", raising=False)
        monkeypatch.delenv("MILVUS_TOKEN", raising=False)
        write(tmp_path, {"one": "1\n", "two": "2\n"})
        seen = []

        def read_metadata(location, collection, *, api_key=None, token=None):
            seen.append(api_key or token)
            if len(seen) == 2:
                raise ValueError("both were asked")
            return {"model": "demo"}

        for index in (QdrantHybridIndex, MilvusHybridIndex):
            monkeypatch.setattr(index, "read_metadata", read_metadata)
        options = zip(("--api-key-file", "--to-api-key-file"), files, strict=False)
        given = [part for option, file in options for part in (option, tmp_path / file)]
        place = ["--from", stores[0], "--to", stores[1], "-c", "c", "--to-collection", "d"]
        assert gte("reindex", *place, *given).stderr == "error: both were asked\n"
        assert seen == keys

    def test_a_terminal_without_width_has_tables(self, notes, monkeypatch, capsys):
        monkeypatch.setenv("COLUMNS", "0")
        monkeypatch.setattr(sys, "argv", ["gte", "info", *notes.place[:2]])
        with pytest.raises(SystemExit, match="0"):
            main()
        assert re.search(r"4 +notes +demo model", capsys.readouterr().out)

    def test_an_alias_is_refused_before_anything_is_encoded(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        stores = ["--from", "qdrant:./q", "-c", "c", "--to", "qdrant:./q", "--to-collection", "d"]
        result = gte("reindex", *stores, "--alias", "current")
        assert "a Qdrant directory has no aliases" in result.stderr
