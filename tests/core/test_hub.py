import hashlib
import json
import shutil
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from gte_core import (
    ConfigError,
    GTEEmbedder,
    GTEModel,
    GTEReranker,
    HubError,
    download_model,
    read_capabilities,
)
from gte_core.checkpoint import hub as gte_hub
from gte_core.checkpoint.hub import PINS, Pin, find_model
from gte_core.checkpoint.naming import DEFAULT_MODEL
from gte_core.testing import random_checkpoint

COMMIT = PINS[DEFAULT_MODEL].revision


def cached(cache, model, revision, source):
    """Lay a directory out as the Hugging Face cache does after a download."""
    repository = cache / f"models--{model.replace('/', '--')}"
    snapshot = repository / "snapshots" / revision
    shutil.copytree(source, snapshot)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(revision)
    return snapshot


def test_the_demo_is_always_the_bundle(tmp_path, monkeypatch):
    (tmp_path / "demo").mkdir()
    monkeypatch.chdir(tmp_path)
    files = find_model("demo")
    assert files.directory.parts[-3:] == ("gte_core", "data", "demo")
    assert (files.model, files.revision) == ("demo", None)
    assert find_model(Path("demo")).directory == tmp_path / "demo"


def test_a_directory_wins_over_a_hub_id(tmp_path, monkeypatch):
    directory = tmp_path / "Alibaba-NLP" / "gte-multilingual-base"
    directory.mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    files = find_model(DEFAULT_MODEL)
    assert (files.directory, files.model, files.revision) == (directory, str(directory), None)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("./no-such-model", "'./no-such-model' is no directory here and no hub id"),
        ("demoo", "is no directory here and no hub id.*'demo' for the bundled demo model"),
        ("", "'' is no directory here"),
        ("a/b/c", "'a/b/c' is no directory here"),
        ("a/b--c", "'a/b--c' is no directory here"),
        ("~nosuchuser/x/y", "is no directory here"),
        ("x" * 5000, "is no directory here"),
        (Path("Alibaba-NLP/gte-multilingual-base"), "is no directory here"),
    ],
)
def test_a_name_that_is_neither(tmp_path, monkeypatch, model, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(HubError, match=message):
        find_model(model)


def test_a_typo_in_a_path_is_answered_with_the_neighbour(tmp_path):
    (tmp_path / "my-model").mkdir()
    with pytest.raises(HubError, match=r"Did you mean '.*my-model'\?"):
        find_model(str(tmp_path / "my-modle"))


def test_a_file_is_not_a_directory(tmp_path):
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(HubError, match="is a file"):
        find_model(str(tmp_path / "model.safetensors"))


def test_known_models_are_pinned_to_commits():
    assert COMMIT == "9bbca17d9273fd0d03d5725c7a4b0f6b45142062"
    assert all(len(pin.revision) == 40 for pin in PINS.values())
    assert len(PINS[DEFAULT_MODEL].sha256) == 5


def test_a_pinned_model_comes_from_the_cache_without_asking(
    tmp_path, small_checkpoint, monkeypatch
):
    config = (small_checkpoint / "config.json").read_bytes()
    pin = Pin(COMMIT, {"config.json": hashlib.sha256(config).hexdigest()})
    monkeypatch.setattr(gte_hub, "PINS", {DEFAULT_MODEL: pin})
    snapshot = cached(tmp_path, DEFAULT_MODEL, COMMIT, small_checkpoint)
    monkeypatch.setattr("huggingface_hub.HfApi.model_info", forbidden)
    embedder = GTEEmbedder.from_pretrained(cache_dir=tmp_path)
    assert (embedder.model, embedder.revision) == (DEFAULT_MODEL, COMMIT)
    assert embedder.fingerprint.model == DEFAULT_MODEL

    with pytest.raises(HubError, match="could not be downloaded"):
        find_model(DEFAULT_MODEL, revision="another", cache_dir=tmp_path)
    with (snapshot / "config.json").open("a") as file:
        file.write(" ")
    with pytest.raises(HubError, match=r"config\.json has SHA-256 .* delete it and download"):
        GTEEmbedder.from_pretrained(cache_dir=tmp_path)


def forbidden(*args, **kwargs):
    raise AssertionError("the hub was asked")


def test_a_pinned_model_lacking_a_verified_file_is_not_used(
    tmp_path, small_checkpoint, monkeypatch
):
    pin = Pin(COMMIT, {"special_tokens_map.json": "0" * 64})
    monkeypatch.setattr(gte_hub, "PINS", {DEFAULT_MODEL: pin})
    cached(tmp_path, DEFAULT_MODEL, COMMIT, small_checkpoint)
    with pytest.raises(HubError, match="is not complete in the cache"):
        find_model(DEFAULT_MODEL, cache_dir=tmp_path, local_files_only=True)


class SmallHub:
    """A hub of one repository, spoken to over HTTP, and what it was asked for."""

    def __init__(self, directory):
        self.directory = directory
        self.asked = []
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *args):
                pass

            def do_HEAD(self):
                self.answer(with_body=False)

            def do_GET(self):
                self.answer(with_body=True)

            def answer(self, *, with_body):
                hub.asked.append(urlsplit(self.path).path)
                status, headers, body = hub.find(hub.asked[-1])
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if with_body:
                    self.wfile.write(body)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)

    @property
    def files(self):
        paths = [path for path in self.directory.rglob("*") if path.is_file()]
        return {path.relative_to(self.directory).as_posix(): path.read_bytes() for path in paths}

    @property
    def fetched(self):
        return {path.partition(f"/resolve/{NEWEST}/")[2] for path in self.asked} - {""}

    def find(self, path):
        headers = {"X-Repo-Commit": NEWEST}
        if path.startswith("/api/models/someone/new/tree/"):
            entries = [
                {"type": "file", "path": name, "size": len(body), "oid": sha1(body)}
                for name, body in self.files.items()
            ]
            return 200, headers, json.dumps(entries).encode()
        if path.startswith("/api/models/someone/new"):
            info = {"id": "someone/new", "sha": NEWEST, "siblings": []}
            return 200, headers, json.dumps(info).encode()
        body = self.files.get(path.partition(f"/resolve/{NEWEST}/")[2])
        if body is None:
            return 404, headers | {"X-Error-Code": "EntryNotFound"}, b""
        return 200, headers | {"ETag": f'"{sha1(body)}"'}, body


NEWEST = "b" * 40


def sha1(body):
    return hashlib.sha1(body).hexdigest()


@pytest.fixture
def repository(tmp_path, small_checkpoint):
    """What the hub holds: a checkpoint without modules.json, and files that nobody wants."""
    directory = tmp_path / "repository"
    shutil.copytree(small_checkpoint, directory)
    for name in ("modeling.py", "pytorch_model.bin", "README.md", "onnx/model.onnx"):
        (directory / name).parent.mkdir(exist_ok=True)
        (directory / name).write_text("x")
    return directory


@pytest.fixture
def hub(repository, monkeypatch):
    hub = SmallHub(repository)
    thread = threading.Thread(target=hub.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    endpoint = f"http://127.0.0.1:{hub.server.server_port}"
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", endpoint)
    monkeypatch.setattr(
        "huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE",
        endpoint + "/{repo_id}/resolve/{revision}/{filename}",
    )
    yield hub
    hub.server.shutdown()
    hub.server.server_close()
    thread.join()


def describe(directory, pooling="cls"):
    """Write what sentence-transformers says of a model."""
    kinds = {"": "Transformer", "1_Pooling": "Pooling", "2_Normalize": "Normalize"}
    modules = [{"path": path, "type": f"{ST}.{kind}"} for path, kind in kinds.items()]
    (directory / "modules.json").write_text(json.dumps(modules))
    (directory / "1_Pooling").mkdir(exist_ok=True)
    (directory / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode": pooling}))
    for name in ("config_sentence_transformers.json", "sentence_bert_config.json"):
        (directory / name).write_text("{}")


ST = "sentence_transformers.models"


def load(cache, **options):
    return GTEEmbedder.from_pretrained("someone/new", cache_dir=cache, **options)


def test_only_data_files_are_downloaded(hub, repository, tmp_path):
    describe(repository)
    for name in (
        "2_Dense_512/model.safetensors",
        "2_Dense_512/pytorch_model.bin",
        "3/model.safetensors",
    ):
        (repository / name).parent.mkdir(exist_ok=True)
        (repository / name).touch()
    files = find_model("someone/new", cache_dir=tmp_path / "cache")
    assert files.revision == NEWEST
    assert hub.fetched == {
        "1_Pooling/config.json",
        "2_Dense_512/model.safetensors",
        "config.json",
        "config_sentence_transformers.json",
        "model.safetensors",
        "modules.json",
        "sentence_bert_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
    }


def test_to_read_what_a_model_is_no_weights_are_downloaded(hub, repository, tmp_path):
    describe(repository)
    (repository / "README.md").write_text("---\nlicense: mit\n---\n")
    found = read_capabilities("someone/new", cache_dir=tmp_path / "cache")
    assert "model.safetensors" not in hub.fetched
    assert (found.revision, found.licence, found.n_parameters) == (NEWEST, "mit", None)
    assert (found.dimensions, found.sparse, found.refusal) == (64, "tokens", None)
    embedder = load(tmp_path / "cache")
    assert "model.safetensors" in hub.fetched
    assert embedder.capabilities.n_parameters > 0


def test_what_was_downloaded_of_main_is_there_when_the_hub_is_away(
    hub, repository, tmp_path, monkeypatch
):
    describe(repository)
    load(tmp_path)
    hub.asked.clear()
    assert load(tmp_path, local_files_only=True).revision == NEWEST
    assert hub.asked == []
    assert (tmp_path / "models--someone--new" / "refs" / "main").read_text() == NEWEST


def test_a_model_is_downloaded_into_a_directory(hub, repository, tmp_path):
    describe(repository)
    downloaded = download_model("someone/new", tmp_path / "model", cache_dir=tmp_path / "cache")
    assert (downloaded.model, downloaded.revision) == ("someone/new", NEWEST)
    copied = {
        path.relative_to(tmp_path / "model").as_posix(): path.read_bytes()
        for path in (tmp_path / "model").rglob("*")
        if path.is_file()
    }
    assert copied.pop("gte_download.json")
    assert copied == {name: hub.files[name] for name in hub.fetched}
    known = load(tmp_path / "cache", revision=NEWEST).fingerprint
    assert GTEEmbedder.from_pretrained(tmp_path / "model").fingerprint == known


def test_a_pinned_model_is_downloaded_with_its_description(
    hub, repository, tmp_path, small_checkpoint, monkeypatch
):
    monkeypatch.setattr(gte_hub, "PINS", {"someone/new": Pin(NEWEST)})
    cached(tmp_path / "cache", "someone/new", NEWEST, small_checkpoint)
    describe(repository)
    load(tmp_path / "cache")
    assert hub.asked == []
    download_model("someone/new", tmp_path / "model", cache_dir=tmp_path / "cache")
    assert (tmp_path / "model" / "1_Pooling" / "config.json").exists()


def test_a_commit_in_the_cache_is_loaded_without_asking(hub, repository, tmp_path):
    describe(repository)
    load(tmp_path / "cache")
    hub.asked.clear()
    assert load(tmp_path / "cache", revision=NEWEST).revision == NEWEST
    assert hub.asked == []


def test_a_repository_without_modules_json_is_asked_for_it_once(hub, tmp_path):
    load(tmp_path / "cache")
    assert "modules.json" in hub.fetched
    hub.asked.clear()
    load(tmp_path / "cache", revision=NEWEST)
    assert hub.asked == []


def test_a_cache_made_before_modules_json_was_kept_is_completed_once(
    hub, repository, tmp_path, small_checkpoint, caplog
):
    cached(tmp_path / "cache", "someone/new", NEWEST, small_checkpoint)
    describe(repository, pooling="max")
    load(tmp_path / "cache", revision=NEWEST, local_files_only=True)
    assert hub.asked == []
    assert "may lack modules.json, which says how vectors are made" in only_warning(caplog)
    with pytest.raises(ConfigError, match="pooling_mode is 'max'"):
        load(tmp_path / "cache", revision=NEWEST)
    assert {"modules.json", "1_Pooling/config.json"} <= hub.fetched
    assert "model.safetensors" not in hub.fetched


def test_a_cache_made_before_modules_json_was_kept_is_used_when_the_hub_is_away(
    tmp_path, small_checkpoint, monkeypatch, caplog
):
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    cached(tmp_path, "someone/new", NEWEST, small_checkpoint)
    assert load(tmp_path, revision=NEWEST).revision == NEWEST
    assert "could not be asked" in only_warning(caplog)
    assert "may lack modules.json" in only_warning(caplog)


@pytest.fixture
def pinned(monkeypatch):
    """The model of the hub is one that is known to have prompts."""
    monkeypatch.setattr(gte_hub, "PINS", {"someone/new": Pin(NEWEST, has_prompts=True)})


def test_a_pinned_model_that_was_cached_without_its_prompts_is_completed_once(
    hub, repository, tmp_path, small_checkpoint, pinned
):
    cached(tmp_path / "cache", "someone/new", NEWEST, small_checkpoint)
    describe(repository)
    prompts = {"prompts": {"query": "query: "}}
    (repository / "config_sentence_transformers.json").write_text(json.dumps(prompts))
    assert load(tmp_path / "cache").query_prefix == "query: "
    assert "model.safetensors" not in hub.fetched
    hub.asked.clear()
    assert load(tmp_path / "cache").query_prefix == "query: "
    assert hub.asked == []


@pytest.mark.parametrize("local_files_only", [False, True])
def test_a_pinned_model_without_its_prompts_says_so(
    tmp_path, small_checkpoint, monkeypatch, caplog, pinned, local_files_only
):
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    cached(tmp_path, "someone/new", NEWEST, small_checkpoint)
    assert load(tmp_path, local_files_only=local_files_only).query_prefix == ""
    assert "holds its prompts, so none goes before queries" in only_warning(caplog)


def only_warning(caplog):
    [warning] = [record for record in caplog.records if record.name.startswith("gte_core")]
    return warning.message


def test_a_reranker_needs_no_modules_json(hub, tmp_path, caplog):
    source = random_checkpoint(tmp_path / "reranker", task="sequence_classification")
    cached(tmp_path / "cache", "someone/new", NEWEST, source)
    GTEReranker.from_pretrained("someone/new", revision=NEWEST, cache_dir=tmp_path / "cache")
    assert (hub.asked, caplog.records) == ([], [])


def test_an_interrupted_download_of_the_description_is_completed(hub, repository, tmp_path):
    describe(repository)
    find_model("someone/new", cache_dir=tmp_path)
    snapshot = tmp_path / "models--someone--new" / "snapshots" / NEWEST
    (snapshot / "1_Pooling" / "config.json").unlink()
    hub.asked.clear()
    load(tmp_path, revision=NEWEST)
    assert (snapshot / "1_Pooling" / "config.json").exists()


def test_the_advice_fits_who_looks_for_a_model(tmp_path):
    options = {"cache_dir": tmp_path, "local_files_only": True}
    for kind in (GTEEmbedder, GTEModel):
        with pytest.raises(HubError, match="or 'demo' for the bundled demo model"):
            kind.from_pretrained("someone/new", **options)
    for model, advice in (
        ("someone/new", r"Allow it, or give a local directory\.$"),
        ("typo", "a hub id such as 'Alibaba-NLP/gte-multilingual-reranker-base'\\.$"),
    ):
        with pytest.raises(HubError, match=advice):
            GTEReranker.from_pretrained(model, **options)


@pytest.mark.parametrize("model", ["demo", "./here"])
def test_a_directory_has_no_revisions(tmp_path, monkeypatch, model):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"revision is 'main', but .* is a directory"):
        find_model(model, revision="main")


def test_main_is_resolved_to_its_commit_and_logged(tmp_path, small_checkpoint, caplog):
    cached(tmp_path, "someone/some-gte", "a" * 40, small_checkpoint)
    with caplog.at_level("INFO", logger="gte_core"):
        files = find_model("someone/some-gte", cache_dir=tmp_path, local_files_only=True)
    assert files.revision == "a" * 40
    assert f"someone/some-gte at revision {'a' * 40}" in caplog.text


def test_an_incomplete_cache_is_not_used_offline(tmp_path, small_checkpoint):
    snapshot = cached(tmp_path, "someone/some-gte", "a" * 40, small_checkpoint)
    (snapshot / "tokenizer.json").unlink()
    with pytest.raises(HubError, match="'someone/some-gte' at revision main is not complete in"):
        find_model("someone/some-gte", cache_dir=tmp_path, local_files_only=True)


def test_an_unreachable_hub_falls_back_to_the_cache(
    tmp_path, small_checkpoint, monkeypatch, caplog
):
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    cached(tmp_path, "someone/some-gte", "a" * 40, small_checkpoint)
    files = find_model("someone/some-gte", cache_dir=tmp_path)
    assert files.revision == "a" * 40
    assert "someone/some-gte comes from the cache, for the hub could not be asked" in caplog.text


def test_local_files_only_never_asks(tmp_path):
    with pytest.raises(HubError, match="local_files_only forbids a download"):
        find_model("someone/else", cache_dir=tmp_path, local_files_only=True)


@pytest.mark.parametrize("model", [DEFAULT_MODEL, "someone/else"])
def test_an_unreachable_hub_is_one_clear_error(tmp_path, model):
    script = f"""
from gte_core import HubError
from gte_core.checkpoint.hub import find_model
try:
    find_model({model!r}, cache_dir={str(tmp_path)!r})
except HubError as error:
    print(error)
"""
    environment = {"HF_ENDPOINT": "http://127.0.0.1:9", "PATH": "", "HOME": str(tmp_path)}
    out = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True
    )
    assert f"{model!r} at revision" in out.stdout
    assert "could not be downloaded" in out.stdout
    assert "local directory" in out.stdout
    assert "'demo'" in out.stdout
    assert len(out.stdout.splitlines()) == 1
