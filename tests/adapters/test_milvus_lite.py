"""Milvus Lite in this process: who starts its server, who stops it, and what a fork makes of it."""

import fcntl
import logging
import shutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from pymilvus import AsyncMilvusClient, MilvusClient
from pymilvus.milvus_client.index import IndexParams

from gte_integrations.milvus import MilvusHybridIndex

DOCUMENTS = [(number, f"text number {number}") for number in range(10)]
OTHER_PROCESS = """
import sys
from milvus_lite.db import MilvusLite
print(MilvusLite(sys.argv[1]).get_collection("docs").num_entities)
"""


@pytest.fixture
def file(tmp_path):
    return tmp_path / "index.db"


def filled(file, encoder, collection="docs"):
    index = MilvusHybridIndex(file, collection, encoder)
    index.create()
    index.add(DOCUMENTS)
    return index


def test_a_deleted_database_is_really_gone(file, encoder):
    filled(file, encoder).close()
    shutil.rmtree(file)
    with MilvusHybridIndex(file, "docs", encoder) as index:
        index.create()
        assert index.add(DOCUMENTS).written == 10
        assert (file / "collections" / "docs").is_dir()


def test_a_closed_database_can_be_opened_by_another_process(file, encoder):
    filled(file, encoder).close()
    command = [sys.executable, "-c", OTHER_PROCESS, file]
    result = subprocess.run(command, check=False, capture_output=True, text=True)
    assert result.stdout == "10\n", result.stderr


def test_a_database_that_may_not_be_written_to_says_so(file, encoder, monkeypatch):
    file.mkdir()
    monkeypatch.setattr("os.access", lambda place, mode: place.name != "LOCK")
    with (file / "LOCK").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # as a permission that lacks, it hinders the server
        with pytest.raises(PermissionError, match=r"this user may not write to '.*LOCK'\. It"):
            MilvusHybridIndex(file, "docs", encoder).create()


def test_a_database_that_another_process_has_open_is_an_error_that_says_so(file, encoder):
    file.mkdir()
    with (file / "LOCK").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(OSError, match=r"could not open '.*index\.db'.*One process at a time"):
            MilvusHybridIndex(file, "docs", encoder).create()


def test_closing_one_index_leaves_the_others_on_its_path(file, encoder):
    first, second = filled(file, encoder), filled(file, encoder, "others")
    first.close()
    assert second.count() == 10
    assert first.count() == 10  # opens again
    first.close()
    second.close()
    shutil.rmtree(file)
    with MilvusHybridIndex(file, "docs", encoder) as index:
        index.create()
        assert index.count() == 0


def test_a_database_may_be_made_by_many_threads_at_once(file, encoder):
    indexes = [MilvusHybridIndex(file, "docs", encoder) for _ in range(2)]
    start = threading.Barrier(4)

    def create(index):
        start.wait(60)
        index.create()

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(create, indexes * 2))
    assert indexes[0].add(DOCUMENTS).written == 10
    for index in indexes:
        index.close()


def test_a_close_ends_the_add_that_is_under_way(file, encoder):
    def documents():
        yield from DOCUMENTS
        index.close()
        yield from [(number, f"more {number}") for number in range(100, 110)]

    index = MilvusHybridIndex(file, "docs", encoder)
    index.create()
    with pytest.raises(RuntimeError, match=r"index\.db' was closed .*while it was in use"):
        index.add(documents(), batch_size=5)
    command = [sys.executable, "-c", OTHER_PROCESS, file]
    result = subprocess.run(command, check=False, capture_output=True, text=True)
    assert result.stdout == "5\n", result.stderr
    assert index.count() == 5  # another verb opens it again
    index.close()


@pytest.mark.parametrize("float_index", ["FLAT", "AUTOINDEX"])
def test_a_reopened_database_gives_as_many_hits_as_before(file, encoder, monkeypatch, float_index):
    """AUTOINDEX is what 0.1.0 asked Milvus for."""
    add_index = IndexParams.add_index

    def as_that_version_did(self, field, *, index_type, **options):
        asked = float_index if index_type == "FLAT" else index_type
        add_index(self, field, index_type=asked, **options)

    monkeypatch.setattr(IndexParams, "add_index", as_that_version_did)
    documents = [(number, f"text number {number} v{number % 3}") for number in range(400)]
    with MilvusHybridIndex(file, "docs", encoder) as index:
        index.create()
        index.add(documents)
    with MilvusHybridIndex(file, "docs", encoder) as index:
        for limit in (300, 400):
            assert len(index.search("text", mode="dense", limit=limit)[0]) == limit


def test_a_client_of_the_users_own_keeps_its_server(file, encoder):
    client = MilvusClient(str(file))
    filled(file, encoder).close()
    assert client.has_collection("docs")
    client.close()
    filled(file, encoder).close()  # the last user now
    shutil.rmtree(file)
    with MilvusHybridIndex(file, "docs", encoder) as index:
        index.create()
        assert index.count() == 0


async def test_an_async_client_of_the_users_own_keeps_its_server(file, encoder):
    client = AsyncMilvusClient(str(file))
    assert await client.list_collections() == []
    filled(file, encoder).close()
    assert await client.has_collection("docs")
    await client.close()


def test_an_index_that_is_first_used_by_many_threads_is_opened_once(file, encoder):
    filled(file, encoder).close()
    index = MilvusHybridIndex(file, "docs", encoder)
    together = threading.Barrier(8)
    counts = []

    def count():
        together.wait()
        counts.append(index.count())

    threads = [threading.Thread(target=count) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    index.close()
    assert counts == [10] * 8
    shutil.rmtree(file)
    with MilvusHybridIndex(file, "docs", encoder) as again:
        again.create()
        assert again.count() == 0


def test_nothing_is_logged_as_an_error_when_a_database_is_opened_again(file, encoder, caplog):
    caplog.set_level(logging.WARNING)
    filled(file, encoder).close()
    for verb in (
        lambda index: index.count(),
        lambda index: index.search("text"),
        lambda index: index.create(),
        lambda index: index.add(DOCUMENTS),
        lambda index: index.delete([1]),
    ):
        with MilvusHybridIndex(file, "docs", encoder) as index:
            verb(index)
    assert caplog.messages == []


def test_a_killed_flush_leaves_no_row_twice(file, encoder, tmp_path):
    index = filled(file, encoder)
    logs = file / "collections" / "docs" / "wal"
    shutil.copytree(logs, tmp_path / "logs")  # as they are when the flush has but to remove them
    index.close()
    assert not list(logs.iterdir())
    shutil.copytree(tmp_path / "logs", logs, dirs_exist_ok=True)
    assert index.count() == 10
    assert [hit.id for hit in index.search("text number 3", limit=20)[0]].count(3) == 1
    index.close()


def test_a_log_that_is_not_stored_yet_is_read(file, encoder, tmp_path):
    index = filled(file, encoder)
    shutil.copytree(file, tmp_path / "killed.db")
    index.close()
    with MilvusHybridIndex(tmp_path / "killed.db", "docs", encoder) as killed:
        assert killed.count() == 10


def test_the_remains_of_a_killed_create_are_removed(file, encoder):
    directory = file / "collections" / "docs"
    directory.mkdir(parents=True)
    (directory / "schema.json.tmp").write_text("{")
    with filled(file, encoder) as index:
        assert index.count() == 10


def test_a_directory_that_holds_anything_else_is_left_alone(file, encoder):
    directory = file / "collections" / "docs"
    directory.mkdir(parents=True)
    (directory / "manifest.json").write_text("{}")
    with pytest.raises(FileExistsError, match=r"no collection is in the way: .*docs'"):
        filled(file, encoder)
    assert (directory / "manifest.json").exists()


def test_remains_that_a_client_cannot_remove_are_an_error_that_says_how(file, encoder):
    (file / "collections" / "docs").mkdir(parents=True)
    client = MilvusClient(str(file))
    with pytest.raises(FileExistsError, match=r"no collection is in the way: .*docs'"):
        filled(client, encoder)
    client.close()
    filled(file, encoder).close()


FORK = """
import importlib.util, multiprocessing, os, sys, threading
spec = importlib.util.spec_from_file_location("conftest_of_tests", sys.argv[1])
module = sys.modules["conftest_of_tests"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
from gte_integrations.milvus import MilvusHybridIndex

index = MilvusHybridIndex(sys.argv[2], "docs", module.RecordingEncoder())
index.create()
index.add([(1, "oak")])

def child():
    watchdog = threading.Timer(30, os._exit, [9])  # a hang is an answer, too
    watchdog.daemon = True
    watchdog.start()
    for verb in (
        lambda: index.search("oak"),
        lambda: index.add([(2, "elm")]),
        lambda: MilvusHybridIndex(sys.argv[2], "docs", module.RecordingEncoder()).count(),
        lambda: MilvusHybridIndex(sys.argv[2] + "2.db", "docs", module.RecordingEncoder()).count(),
    ):
        try:
            verb()
        except RuntimeError as error:
            print("spawn" in str(error), flush=True)
    index.close()

if (process := os.fork()) == 0:
    child()
    sys.exit(0)  # runs what is registered for the end, as os._exit would not
print(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]))
index.add([(3, "yew")])
index.close()
with MilvusHybridIndex(sys.argv[2], "docs", module.RecordingEncoder()) as again:
    print(again.count())
"""


def test_a_forked_child_is_told_to_spawn_and_harms_nothing(file, request):
    conftest = request.path.with_name("conftest.py")
    result = subprocess.run(
        [sys.executable, "-c", FORK, conftest, file],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.stdout.split() == ["True"] * 4 + ["0", "2"], result.stderr
