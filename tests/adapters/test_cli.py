"""The command line: what it prints, where to, and how it ends."""

import inspect
import json
import re
import signal
import subprocess
import sys
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from rich.cells import cell_len
from typer.testing import CliRunner

from gte_core import GTEEmbedder, __version__
from gte_core.device import has_onednn
from gte_integrations import _cli_stores, _indexing, cli
from gte_integrations._cli_stores import StoreLocation

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

    def test_a_collection_that_is_not_there(self, store):
        result = gte("search", "x", "--from", store, "-c", "other", "-m", "demo")
        assert result.exit_code == 1
        assert result.stderr == (
            f"error: {store} has no collection 'other'; fill it first, with gte index.\n"
        )

    def test_other_dimensions_are_one_line(self, store):
        result = search(store, "x", "--dimensions", "64")
        assert result.exit_code == 1
        assert result.stderr.count("\n") == 1
        assert "the collection has 256, this index needs 64; Use the encoder" in result.stderr


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

    def test_texts_with_nothing_in_common(self):
        assert "No token in common." in gte("explain", "a", "壊", "-m", "demo").stdout


class TestModelOptions:
    @pytest.mark.parametrize(
        "command",
        [
            ["index", README, "--to", "qdrant:x", "-c", "docs"],
            ["search", "x", "--from", "qdrant:x", "-c", "docs"],
            ["encode", "x"],
            ["explain", "x", "x"],
        ],
        ids=lambda command: command[0],
    )
    def test_every_command_hands_all_of_them_on(self, monkeypatch, command):
        given = {}

        def from_pretrained(model, **options):
            given.update(options, model=model)
            raise ValueError("seen")

        monkeypatch.setattr(GTEEmbedder, "from_pretrained", from_pretrained)
        options = ["-m", "demo", "--revision", "r", "--device", "cuda:1", "--dtype", "float16"]
        result = gte(*command, *options, "--max-length", "9", "-d", "8")
        assert result.stderr == "error: seen\n"
        assert given == {
            "model": "demo",
            "revision": "r",
            "device": "cuda:1",
            "dtype": "float16",
            "max_length": 9,
            "dimensions": 8,
        }

    @pytest.mark.parametrize(
        ("option", "value", "message"),
        [
            ("--dtype", "int9", r"dtype is 'int9'; allowed are 'float32', .*'auto'\."),
            ("--dtype", "float8", r"dtype 'float8' needs a Hopper GPU or newer, not cpu"),
            ("--device", "tape", r"device is 'tape'; allowed are 'cpu', 'cuda'"),
            ("--device", "cuda", r"device is 'cuda', but this machine .* has none"),
            ("--dimensions", "257", r"dimensions is 257, but must be from 1 to 256"),
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
        [found] = lines_of_json(
            gte("search", "merge cells", "--from", *place, "--dtype", "int8", "--json")
        )
        assert found["hits"][0]["id"] == "en"
        for refused in (
            gte("search", "x", "--from", *place),
            gte("index", passages, "--to", *place),
        ):
            assert (refused.exit_code, refused.stdout) == (1, "")
            assert re.fullmatch(
                r"error: .*numeric: the collection has 'int8', this index needs 'float'; .*\n",
                refused.stderr,
            )


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

    @pytest.mark.parametrize("scheme", ["qdrant", "milvus"])
    def test_an_engine_that_does_not_answer_is_one_line(self, scheme):
        store = f"{scheme}+http://localhost:1"
        result = gte("search", "x", "--from", store, "-c", "docs", "-m", "demo")
        assert result.exit_code == 1
        assert result.stderr.startswith(f"error: {store}: ")
        assert result.stderr.count("\n") == 1

    def test_plain_exceptions_of_an_engine_name_the_store(self, monkeypatch):
        monkeypatch.setattr(_cli_stores, "_index_class", _raising(Exception("service error")))
        with (
            pytest.raises(_cli_stores.StoreError, match="qdrant:x: service error"),
            _cli_stores.open_index(StoreLocation("qdrant", "x"), "docs", None),
        ):
            pass


def _raising(error):
    def raise_it(*args, **kwargs):
        raise error

    return raise_it


class TestOneRuleOnePlace:
    """Defaults and choices are written again in the options, as those must not import torch."""

    @pytest.mark.parametrize("command", [cli.index, cli.search, cli.encode, cli.explain])
    def test_options_have_the_defaults_of_the_library(self, command):
        options = inspect.signature(command).parameters
        library = inspect.signature(_load).parameters
        for name in ("model", "revision", "device", "dtype", "max_length", "dimensions"):
            assert options[name].default == library[name].default

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
        search = inspect.signature(_indexing.HybridIndex.search).parameters
        assert search["candidates"].default == cli.DEFAULT_CANDIDATES
        choices = {
            name: inspect.signature(command).parameters[name].annotation.__origin__
            for command, name in [(cli.index, "on_error"), (cli.search, "mode")]
        }
        assert choices == {"on_error": _indexing.OnError, "mode": _indexing.Mode}


LONGEST = 120  # seconds that a program is waited for; it takes a few on an idle machine


class TestProcess:
    @pytest.fixture
    def run(self, start):
        def run(*arguments):
            command = [sys.executable, "-P", "-m", "gte_integrations.cli", *arguments]
            pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
            return start(command, **pipes)

        return run

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
        index = run("index", str(passages), "--to", *place)
        assert json.loads(index.communicate(timeout=LONGEST)[0])["written"] == 5
        search = run("search", "merge cells", "--from", *place)
        stdout, stderr = search.communicate(timeout=LONGEST)
        assert stderr == b""
        assert json.loads(stdout)["hits"][0]["id"] == "en"
