import hashlib
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from gte_core import GTEEmbedder, HubError
from gte_core import hub as gte_hub
from gte_core.hub import DEFAULT_MODEL, PINS, Pin, find_model

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


def test_only_data_files_are_downloaded(monkeypatch, tmp_path, small_checkpoint):
    asked = []

    def snapshot_download(model, **options):
        asked.append((model, options))
        return cached(tmp_path, model, options["revision"], small_checkpoint)

    info = SimpleNamespace(sha="b" * 40)
    monkeypatch.setattr("huggingface_hub.HfApi.model_info", lambda *a, **k: info)
    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    assert find_model("someone/new").revision == "b" * 40
    [(model, options)] = asked
    assert (model, options["revision"]) == ("someone/new", "b" * 40)
    assert sorted(options["allow_patterns"]) == [
        "config.json",
        "model-*.safetensors",
        "model.safetensors",
        "model.safetensors.index.json",
        "special_tokens_map.json",
        "tokenizer.json",
        "tokenizer_config.json",
    ]


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
from gte_core.hub import find_model
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
