"""A Qdrant directory under bad luck: kills, threads, forks, full disks and strangers."""

import asyncio
import errno
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections import namedtuple
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest

from gte_core import CollectionMismatch
from gte_integrations._index.qdrant.client import AsyncQdrantClient, QdrantClient, edge, models
from gte_integrations.qdrant import QdrantHybridIndex

DOCUMENTS = [("a", "oak pine"), (2, "elm"), ("c", "ash")]
MIB = 2**20


@pytest.fixture
def index(tmp_path, encoder):
    with QdrantHybridIndex(tmp_path, "docs", encoder) as index:
        index.create()
        yield index


def run(code, *arguments, before=()):
    """Run a script beside the encoder of the tests."""
    start = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
    command = [*before, sys.executable, "-W", "error", "-c", start + code, *map(str, arguments)]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)


# ------------------------------------------------------------------ create that was killed


def empty(path, keep=()):
    for inner in path.iterdir():
        if inner.name not in keep:
            shutil.rmtree(inner) if inner.is_dir() else inner.unlink()


def only_the_folder(path):
    empty(path)


def only_an_empty_folder_for_segments(path):
    empty(path)
    (path / "segments").mkdir()


def only_a_log_begun(path):
    empty(path, keep={"wal"})
    empty(path / "wal")
    (path / "wal" / "tmp-open-1").touch()


def only_the_log(path):
    empty(path, keep={"wal"})


def no_segment_yet(path):
    empty(path, keep={"wal", "edge_config.json"})
    (path / "segments").mkdir()


def a_segment_begun(path):
    empty(path, keep={"wal", "edge_config.json", "segments"})
    [segment] = (path / "segments").iterdir()
    (segment / "version.info").unlink()
    (segment / "segment.json").unlink()


def all_but_the_record(path):
    (path / "gte.json").rename(path / "gte.partial")


def an_empty_record(path):
    (path / "gte.json").write_bytes(b"")


def half_a_record(path):
    whole = (path / "gte.json").read_bytes()
    (path / "gte.json").write_bytes(whole[: len(whole) // 2])


@pytest.mark.parametrize(
    "kill",
    [
        only_the_folder,
        only_an_empty_folder_for_segments,
        only_a_log_begun,
        only_the_log,
        no_segment_yet,
        a_segment_begun,
        all_but_the_record,
        an_empty_record,
        half_a_record,
    ],
)
def test_create_goes_on_wherever_it_was_killed(tmp_path, encoder, kill):
    with QdrantHybridIndex(tmp_path, "docs", encoder) as index:
        index.create()
    kill(tmp_path / "docs")
    with QdrantHybridIndex(tmp_path, "docs", encoder) as index:
        with pytest.raises(LookupError, match=r"does not exist; call create\(\) first"):
            index.count()
        index.create()
        assert index.add(DOCUMENTS).written == 3
    with QdrantHybridIndex(tmp_path, "docs", encoder) as index:
        assert index.count() == 3


def test_a_create_that_goes_on_for_other_vectors_says_so(tmp_path, encoder):
    with QdrantHybridIndex(tmp_path, "docs", encoder) as index:
        index.create()
    all_but_the_record(tmp_path / "docs")
    with (
        QdrantHybridIndex(tmp_path, "docs", encoder, dimensions=8) as other,
        pytest.raises(CollectionMismatch, match="begun for other vectors, and holds no documents"),
    ):
        other.create()
    with QdrantHybridIndex(tmp_path, "docs", encoder) as index:
        index.create()


def test_documents_in_the_log_alone_are_not_taken_over(tmp_path, encoder):
    with QdrantHybridIndex(tmp_path, "docs", encoder) as index:
        index.create()
        index.add(DOCUMENTS)
    only_the_log(tmp_path / "docs")
    with (
        QdrantHybridIndex(tmp_path, "docs", encoder) as index,
        pytest.raises(CollectionMismatch, match="holds documents, but no record of the model"),
    ):
        index.create()


@pytest.mark.parametrize("damage", [an_empty_record, half_a_record])
def test_a_damaged_record_beside_documents_is_named_and_nothing_is_lost(tmp_path, encoder, damage):
    with QdrantHybridIndex(tmp_path, "docs", encoder) as index:
        index.create()
        index.add(DOCUMENTS)
    record = tmp_path / "docs" / "gte.json"
    whole = record.read_bytes()
    damage(tmp_path / "docs")
    with QdrantHybridIndex(tmp_path, "docs", encoder) as index:
        for verb in (index.create, index.count):
            with pytest.raises(CollectionMismatch, match=r"3 documents, but '.*gte.json'.*damaged"):
                verb()
    record.write_bytes(whole)
    with QdrantHybridIndex(tmp_path, "docs", encoder) as index:
        assert index.count() == 3


def test_documents_without_their_segments_are_never_made_anew(tmp_path, encoder):
    with QdrantHybridIndex(tmp_path, "docs", encoder) as index:
        index.create()
        index.add(DOCUMENTS)
    [segment] = (tmp_path / "docs" / "segments").iterdir()
    (segment / "segment.json").unlink()
    kept = sorted((tmp_path / "docs").rglob("*"))
    with QdrantHybridIndex(tmp_path, "docs", encoder) as index:
        index.create()
        with pytest.raises(OSError, match=r"cannot be opened: .*Nothing was changed"):
            index.count()
    assert kept == sorted((tmp_path / "docs").rglob("*"))


KILLED_CREATES = """
import os, shutil, signal, time
from pathlib import Path
from conftest import RecordingEncoder
from gte_integrations.qdrant import QdrantHybridIndex


def create(place):
    with QdrantHybridIndex(place, "docs", RecordingEncoder()) as index:
        index.create()
        return index.add([("a", "oak"), ("b", "elm")]).written == 2 == index.count()


def begin(place):
    process = os.fork()
    if process == 0:
        create(place)
        os._exit(0)
    return process


started = time.perf_counter()
os.waitpid(begin(Path(sys.argv[1], "whole")), 0)
lasts = time.perf_counter() - started
early = 0
for number in range(100):
    place = Path(sys.argv[1], str(number))
    process = begin(place)
    time.sleep(lasts * number / 100)
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)
    if not (place / "docs" / "gte.json").exists():
        early += 1
        assert create(place), number
    shutil.rmtree(place)
print(early)
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_create_goes_on_after_a_hundred_kills(tmp_path):
    result = run(KILLED_CREATES, tmp_path)
    assert result.returncode == 0, result.stderr
    assert int(result.stdout) > 30


# ------------------------------------------------------------------ threads


class Watched:
    """A shard whose calls are seen, and may be held up."""

    def __init__(self, shard, see):
        self._shard = shard
        self._see = see

    def __getattr__(self, name):
        def call(*arguments):
            self._see(name)
            return getattr(self._shard, name)(*arguments)

        return call


@pytest.fixture
def watch(monkeypatch):
    """Make every shard that is opened from here on call ``see`` with the name of each call."""
    real = edge.EdgeShard

    def install(see):
        loads = []

        def load(*arguments):
            loads.append(arguments)
            return Watched(real.load(*arguments), see)

        watched = SimpleNamespace(
            load=load, create=lambda *given: Watched(real.create(*given), see)
        )
        monkeypatch.setattr(edge, "EdgeShard", watched)
        return loads

    return install


def test_the_first_use_may_come_from_many_threads_at_once(tmp_path, encoder, watch):
    with QdrantHybridIndex(tmp_path, "docs", encoder) as index:
        index.create()
        index.add(DOCUMENTS)
    loads = watch(lambda name: None)
    together = threading.Barrier(8)

    def count():
        together.wait()
        return index.count()

    with index, ThreadPoolExecutor(8) as pool:
        assert [done.result() for done in [pool.submit(count) for _ in range(8)]] == [3] * 8
    assert len(loads) == 1


def test_create_may_come_from_many_threads_at_once(tmp_path, encoder):
    together = threading.Barrier(8)

    def create():
        together.wait()
        index.create()
        return index.count()

    with QdrantHybridIndex(tmp_path, "docs", encoder) as index, ThreadPoolExecutor(8) as pool:
        assert [done.result() for done in [pool.submit(create) for _ in range(8)]] == [0] * 8


async def test_searches_may_be_gathered_on_an_index_just_made(tmp_path, encoder):
    with QdrantHybridIndex(tmp_path, "docs", encoder) as index:
        index.create()
        index.add(DOCUMENTS)
    with QdrantHybridIndex(tmp_path, "docs", encoder) as index:
        found = await asyncio.gather(*(index.asearch("oak", limit=1) for _ in range(3)))
    assert [[hits[0].id for hits in lists] for lists in found] == [["a"]] * 3


def test_searches_run_at_the_same_time(tmp_path, encoder, watch):
    both_inside = threading.Barrier(2, timeout=60)
    watch(lambda name: both_inside.wait() if name == "query_batch" else None)
    with QdrantHybridIndex(tmp_path, "docs", encoder) as index, ThreadPoolExecutor(2) as pool:
        index.create()
        index.add(DOCUMENTS)
        found = [pool.submit(index.search, "oak", limit=1) for _ in range(2)]
        assert [done.result()[0][0].id for done in found] == ["a", "a"]


def test_close_waits_for_the_call_that_runs(tmp_path, encoder, watch):
    inside, go_on, order = threading.Event(), threading.Event(), []

    def see(name):
        if name == "query_batch":
            inside.set()
            assert go_on.wait(60)
        order.append(name)

    def delete_until_refused():
        while True:
            index.delete(["nobody"])

    watch(see)
    index = QdrantHybridIndex(tmp_path, "docs", encoder)
    index.create()
    index.add(DOCUMENTS)
    with ThreadPoolExecutor(2) as pool:
        searched = pool.submit(index.search, "oak", limit=1, payload_keys=())
        assert inside.wait(60)
        closed = pool.submit(index.close)
        with pytest.raises(RuntimeError, match="was closed by another thread"):
            delete_until_refused()  # close() has begun
        assert not closed.done()
        go_on.set()
        closed.result()
        with pytest.raises(RuntimeError, match="was closed by another thread"):
            searched.result()  # it was to fetch the texts, too
    assert order[-3:] == ["query_batch", "flush", "close"]


def test_what_goes_on_after_close_is_refused_and_may_be_run_again(index):
    def documents():
        yield from [(number, f"text {number}") for number in range(40)]
        with ThreadPoolExecutor(1) as other:
            other.submit(index.close).result()
        yield from [(number, f"text {number}") for number in range(40, 80)]

    with pytest.raises(RuntimeError, match=r"was closed by another thread while it was in use"):
        index.add(documents(), batch_size=10)
    index.close()
    assert index.count() >= 20
    assert (
        index.add(((number, f"text {number}") for number in range(80)), batch_size=10).total == 80
    )
    assert index.count() == 80


def test_close_may_come_from_many_threads_at_once(index):
    index.add(DOCUMENTS)
    with ThreadPoolExecutor(8) as pool:
        for done in [pool.submit(index.close) for _ in range(8)]:
            done.result()
    assert index.count() == 3


# ------------------------------------------------------------------ forks

FORK = """
import os, signal, threading
from types import SimpleNamespace
import qdrant_edge as edge
from conftest import RecordingEncoder
from gte_integrations.qdrant import QdrantHybridIndex


def child(act):
    number = os.fork()
    if number == 0:
        signal.alarm(30)  # a hanging child ends with an error
        act()
        sys.exit(0)  # with all that Python tidies up at its end
    return number


def refused(*calls):
    for call in calls:
        try:
            call()
        except RuntimeError as error:
            assert "Start worker processes with the method 'spawn'" in str(error), error
        else:
            raise AssertionError(call)


def ended_well(number):
    assert os.waitpid(number, 0)[1] == 0, "the child failed"


def documents(start, stop):
    return [(n, f"text {n}") for n in range(start, stop)]


index = QdrantHybridIndex(sys.argv[1], "docs", RecordingEncoder())
index.create()
index.close()


def opens_it():
    with index:
        assert index.count() == 0

ended_well(child(opens_it))

index.add(documents(0, 20))
go, stop = os.pipe()


def uses_it():
    refused(lambda: index.search("text 3"), index.count, lambda: index.add(documents(90, 91)),
            index.optimize)
    index.close()
    refused(index.count)
    os.close(stop)
    os.read(go, 1)  # until the parent has written more

late = child(uses_it)
index.add(documents(20, 40))
index.delete(range(5))
index.close()
os.close(stop)
ended_well(late)

# A lock that another thread holds at the fork.
other = QdrantHybridIndex(sys.argv[1], "other", RecordingEncoder())
other.create()
other.close()
opening, go_on = threading.Event(), threading.Event()
load = edge.EdgeShard.load


def slow_load(path):
    opening.set()
    go_on.wait()
    return load(path)

edge.EdgeShard = SimpleNamespace(load=slow_load)
thread = threading.Thread(target=other.count)
thread.start()
opening.wait()
number = child(lambda: refused(other.count, other.optimize))
ended_well(number)
go_on.set()
thread.join()
os.kill(os.getpid(), signal.SIGKILL)  # nothing is flushed
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_forked_child_is_refused_and_harms_nothing(tmp_path, encoder):
    result = run(FORK, tmp_path)
    assert result.returncode == -signal.SIGKILL, result.stderr
    with QdrantHybridIndex(tmp_path, "docs", encoder) as index:
        assert index.count() == 35
        assert index.add((n, f"text {n}") for n in range(5, 40)).unchanged == 35


# ------------------------------------------------------------------ full disks

Usage = namedtuple("Usage", ["total", "used", "free"])


@pytest.fixture
def disk(monkeypatch):
    """The free bytes of the disk, as far as anyone who asks can tell."""
    state = SimpleNamespace(free=1000 * MIB)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10**12, 0, state.free))
    return state


def test_nothing_begins_that_a_full_disk_would_end(tmp_path, encoder, disk):
    index = QdrantHybridIndex(tmp_path, "docs", encoder)
    verbs = [
        (index.create, 63),
        (lambda: index.add(DOCUMENTS), 63),
        (index.optimize, 63),
        (lambda: index.delete(["a"]), 7),
    ]
    for verb, free in verbs:
        disk.free = free * MIB
        with pytest.raises(OSError, match=rf"needs \d+\.\d MiB .* has {free}.0 MiB.*same ag") as e:
            verb()
        assert e.value.errno == errno.ENOSPC
        disk.free = 1000 * MIB
        verb()
    index.close()
    disk.free = 39 * MIB
    with pytest.raises(OSError, match=r"the disk has 39\.0 MiB"):
        index.count()
    disk.free = 41 * MIB
    assert index.count() == 2
    index.close()


def test_what_is_written_counts(index, disk):
    disk.free = 66 * MIB
    assert index.add(DOCUMENTS).written == 3
    with pytest.raises(OSError, match=r"needs 70\.\d MiB"):
        index.add([("large", "oak", {"blob": "é" * 3 * 2**19})])
    assert index.count() == 3


FULL = """
import errno, os, subprocess
from pathlib import Path
from conftest import RecordingEncoder
from gte_integrations.qdrant import QdrantHybridIndex

place = Path(sys.argv[1])
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=150m", "tmpfs", place], check=True)
ballast = place / "ballast"


def leave(mib):
    ballast.unlink(missing_ok=True)
    state = os.statvfs(place)
    with ballast.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, state.f_bavail * state.f_frsize - mib * 2**20)


def full(verb):
    try:
        verb()
    except OSError as error:
        assert error.errno == errno.ENOSPC, error
    else:
        raise AssertionError("nothing was refused")


documents = [(n, f"text {n}", {"blob": os.urandom(100_000).hex()}) for n in range(100)]
index = QdrantHybridIndex(place, "docs", RecordingEncoder())
leave(10)
full(index.create)
ballast.unlink()
index.create()
leave(75)
full(lambda: index.add(documents, batch_size=5))
assert 0 < index.count() < 100, index.count()
full(index.optimize)
ballast.unlink()
report = index.add(documents, batch_size=5)
assert report.unchanged > 0, report
assert index.count() == 100
index.close()
assert index.search("text 7", limit=1)[0][0].id == 7
index.close()
"""


@pytest.mark.slow
def test_a_disk_that_is_full_indeed_ends_no_process(tmp_path):
    unshare = shutil.which("unshare")
    mount = tmp_path / "disk"
    mount.mkdir()
    if unshare is None or subprocess.run([unshare, "-m", "true"], check=False).returncode:
        pytest.skip("may not mount a small disk here")
    result = run(FULL, mount, before=[unshare, "-m"])
    assert result.returncode == 0, result.stderr


# ------------------------------------------------------------------ strangers


def make_with_client(path, name="docs"):
    client = QdrantClient(path=str(path))
    client.create_collection(
        name, vectors_config={"dense": models.VectorParams(size=32, distance="Dot")}
    )
    client.close()


def test_a_directory_of_the_client_is_recognised(tmp_path, encoder):
    make_with_client(tmp_path)
    for name in ("docs", "other"):
        index = QdrantHybridIndex(tmp_path, name, encoder)
        for verb in (index.create, index.count, lambda index=index: index.search("oak")):
            with pytest.raises(CollectionMismatch, match=r"the collections 'docs'; .*Pass Qdr"):
                verb()
    assert not (tmp_path / "docs").exists()


def test_a_client_on_a_directory_of_ours_says_so(tmp_path, encoder, index):
    index.add(DOCUMENTS)
    client = QdrantClient(path=str(tmp_path))
    for name in ("docs", "other"):
        other = QdrantHybridIndex(client, name, encoder)
        for verb in (other.create, other.count):
            with pytest.raises(CollectionMismatch, match=r"the collections 'docs'; .*itself as"):
                verb()
    client.close()
    index.close()
    assert index.count() == 3
    with QdrantHybridIndex(tmp_path, "more", encoder) as more:  # the client's meta.json is empty
        more.create()


async def test_an_async_client_on_a_directory_of_ours_says_so(tmp_path, encoder, index):
    client = AsyncQdrantClient(path=str(tmp_path))
    with pytest.raises(CollectionMismatch, match="is a directory of QdrantHybridIndex"):
        await QdrantHybridIndex(client, "docs", encoder).acreate()
    await client.close()


def test_a_client_of_its_own_directory_works(tmp_path, encoder):
    client = QdrantClient(path=str(tmp_path))
    with QdrantHybridIndex(client, "docs", encoder) as index:
        index.create()
        index.add(DOCUMENTS)
        assert index.count() == 3
    client.close()


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"name": "mine"}'])
def test_a_meta_json_of_someone_else_is_no_hindrance(tmp_path, encoder, content):
    (tmp_path / "meta.json").write_text(content)
    with QdrantHybridIndex(tmp_path, "docs", encoder) as index:
        index.create()


@pytest.mark.parametrize("name", ["é" * 200, "字" * 86])
def test_names_are_measured_in_bytes(tmp_path, encoder, name):
    with pytest.raises(ValueError, match=r"takes (400|258) bytes in UTF-8, but must .* most 255"):
        QdrantHybridIndex(tmp_path, name, encoder)
    with QdrantHybridIndex(tmp_path, name[:80], encoder) as index:
        index.create()
