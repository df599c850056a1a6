"""A hub model in a directory of its own: what is there, what it is known as, what is refused."""

import errno
import hashlib
import json
import shutil
from pathlib import Path

import pytest

from gte_core import ConfigError, GTEEmbedder, HubError, download_model
from gte_core.checkpoint import download
from gte_core.checkpoint import hub as gte_hub
from gte_core.checkpoint.hub import Pin, find_model
from gte_core.checkpoint.naming import DEFAULT_MODEL

RECORD = "gte_download.json"
NAMES = {"config.json", "model.safetensors", "modules.json", "sentence_bert_config.json"}
NAMES |= {"tokenizer.json", "tokenizer_config.json", "1_Pooling/config.json"}


def names_in(directory):
    return {
        path.relative_to(directory).as_posix() for path in directory.rglob("*") if path.is_file()
    }


def origin(directory):
    return find_model(directory).origin


@pytest.fixture
def downloaded(published, tmp_path):
    return download_model(DEFAULT_MODEL, tmp_path / "new" / "model")


def test_it_holds_what_is_needed_and_no_code(downloaded):
    commit = gte_hub.PINS[DEFAULT_MODEL].revision
    assert names_in(downloaded.directory) == NAMES | {RECORD}
    assert (downloaded.model, downloaded.revision) == (DEFAULT_MODEL, commit)
    assert downloaded.size == sum(
        (downloaded.directory / name).stat().st_size for name in NAMES
    )  # without the record


def test_it_is_known_as_the_hub_model_wherever_it_is(downloaded, tmp_path):
    moved = tmp_path / "carried"
    downloaded.directory.rename(moved)
    embedder = GTEEmbedder.from_pretrained(moved)
    assert embedder.fingerprint == GTEEmbedder.from_pretrained(DEFAULT_MODEL).fingerprint
    assert (embedder.model, embedder.revision) == (str(moved), None)


@pytest.mark.parametrize("name", ["config.json", "1_Pooling/config.json", "router_config.json"])
def test_a_changed_directory_is_known_by_its_content(downloaded, caplog, name):
    with (downloaded.directory / name).open("a") as file:
        file.write(" ")
    found = origin(downloaded.directory)
    assert found.revision is None
    assert found.model.startswith("sha256:")
    assert f"was downloaded as {DEFAULT_MODEL!r}, but {name} changed since" in caplog.text


def test_a_missing_file_is_a_change(downloaded):
    (downloaded.directory / "modules.json").unlink()
    assert origin(downloaded.directory).revision is None


def test_other_files_beside_it_change_nothing(downloaded):
    (downloaded.directory / "README.md").write_text("mine")
    assert origin(downloaded.directory).model == DEFAULT_MODEL


def test_a_record_does_not_outdo_a_pin(downloaded, monkeypatch):
    pin = Pin(downloaded.revision, {"config.json": "0" * 64})
    monkeypatch.setattr(gte_hub, "PINS", {DEFAULT_MODEL: pin})
    assert origin(downloaded.directory).revision is None


@pytest.mark.parametrize("record", ["{}", '{"model": 5}', "[]", "no JSON"])
def test_a_malformed_record(downloaded, record):
    (downloaded.directory / RECORD).write_text(record)
    with pytest.raises(ConfigError, match=r"gte_download\.json (must hold|is not valid JSON)"):
        origin(downloaded.directory)


def test_an_interrupted_copy_goes_on(published, tmp_path, monkeypatch):
    copied, copyfile = [], shutil.copyfile

    def interrupted(source, target):
        if len(copied) == 2:
            target.write_text("half of it")
            raise KeyboardInterrupt
        copied.append(target.name)
        return copyfile(source, target)

    monkeypatch.setattr(shutil, "copyfile", interrupted)
    with pytest.raises(KeyboardInterrupt):
        download_model(DEFAULT_MODEL, tmp_path / "model")
    monkeypatch.setattr(shutil, "copyfile", lambda *given: copied.append("") or copyfile(*given))
    downloaded = download_model(DEFAULT_MODEL, tmp_path / "model")
    assert len(copied) == len(NAMES)
    assert names_in(downloaded.directory) == NAMES | {RECORD}
    assert origin(downloaded.directory).model == DEFAULT_MODEL


@pytest.mark.parametrize("file", [RECORD, "model.safetensors"])
def test_what_a_full_disk_does_not_hold_is_named_and_leaves_nothing(
    published, tmp_path, monkeypatch, file
):
    """Whatever is being written, the next try goes on."""
    replace = Path.replace

    def to_full_disk(path, target):
        if target.name == file:
            raise OSError(errno.ENOSPC, "No space left on device")
        return replace(path, target)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", to_full_disk)
        with pytest.raises(OSError, match=rf"No space left on device: '.*model/{file}'"):
            download_model(DEFAULT_MODEL, tmp_path / "model")
    assert not list(tmp_path.rglob("model/*.part"))
    assert download_model(DEFAULT_MODEL, tmp_path / "model").model == DEFAULT_MODEL


def test_a_kill_while_the_record_is_written(published, tmp_path):
    (tmp_path / f"{RECORD}.part").write_text("{")
    assert names_in(download_model(DEFAULT_MODEL, tmp_path).directory) >= NAMES | {RECORD}
    assert not (tmp_path / f"{RECORD}.part").exists()


def test_what_an_old_cache_lacked_is_added(published, tmp_path, monkeypatch):
    def without_modules(directory, patterns):
        return {name: path for name, path in found(directory, patterns).items() if "mod" in name}

    found = download.files_like
    monkeypatch.setattr(download, "files_like", without_modules)
    target = download_model(DEFAULT_MODEL, tmp_path / "model").directory
    monkeypatch.setattr(download, "files_like", found)
    assert names_in(download_model(DEFAULT_MODEL, target).directory) == NAMES | {RECORD}


def test_a_damaged_file_is_replaced(downloaded):
    (downloaded.directory / "tokenizer.json").write_text("{}")
    download_model(DEFAULT_MODEL, downloaded.directory)
    assert origin(downloaded.directory).model == DEFAULT_MODEL


def test_pinned_files_are_verified(published, tmp_path, monkeypatch):
    commit = gte_hub.PINS[DEFAULT_MODEL].revision
    wrong = Pin(commit, {"config.json": hashlib.sha256(b"other").hexdigest()})
    monkeypatch.setattr(gte_hub, "PINS", {DEFAULT_MODEL: wrong})
    with pytest.raises(HubError, match=r"config\.json has SHA-256 .* the pinned revision has"):
        download_model(DEFAULT_MODEL, tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_what_is_not_in_the_cache(published, tmp_path):
    with pytest.raises(HubError, match="local_files_only forbids a download"):
        download_model("someone/else", tmp_path / "model", local_files_only=True)
    with pytest.raises(HubError, match="could not be downloaded"):
        download_model("someone/else", tmp_path / "model")
    (tmp_path / "empty").mkdir()
    assert download_model(DEFAULT_MODEL, tmp_path / "empty").model == DEFAULT_MODEL
    assert not (tmp_path / "model").exists()


def test_something_else_in_the_directory_stays(published, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    for target in (tmp_path, tmp_path / "notes.txt"):
        with pytest.raises(ValueError, match="which holds something without gte_download"):
            download_model("not/asked-for", target)
    assert names_in(tmp_path) == {"notes.txt"}


def test_another_commit_in_the_directory_stays(downloaded):
    file = downloaded.directory / RECORD
    file.write_text(json.dumps(json.loads(file.read_text()) | {"revision": "a" * 40}))
    with pytest.raises(ValueError, match=f"holds {DEFAULT_MODEL} at {'a' * 40}, not"):
        download_model(DEFAULT_MODEL, downloaded.directory)


def test_what_is_on_this_machine_already(small_checkpoint, tmp_path):
    for model in ("demo", str(small_checkpoint)):
        with pytest.raises(ValueError, match="which is on this machine already: use or copy"):
            download_model(model, tmp_path / "model")
