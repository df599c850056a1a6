"""``_index.ingest``: how ``add`` treats a store; what it stores is in test_index_contract.py."""

import threading
import tracemalloc
from collections import deque

import pytest

from gte_integrations._index.index import HybridIndex
from gte_integrations._index.vectorizer import Vectorizer
from gte_integrations._retry import PERMANENT, TRANSIENT


class DictStore:
    """A store that keeps what is asked for again, and fails when told to."""

    name = "The test collection"
    bridge = None
    request_bytes = 1 << 20

    def __init__(self, metadata):
        self.metadata = metadata
        self.kept = {}
        self.writes = []
        self.failures = []
        self.before_write = lambda: None

    def describe(self, *, reopen=True):
        return self.metadata

    def create(self, metadata):
        self.metadata = metadata

    def stored(self, keys):
        self._fail("stored")
        return {key: self.kept[key] for key in keys if key in self.kept}

    def pack(self, records):
        return records

    def write(self, records):
        self._fail("write")
        self.before_write()
        self.writes.append([record.document.key for record in records])
        self.kept |= {record.document.key: record.stored for record in records}

    def delete(self, keys):
        self._fail("delete")
        for key in keys:
            self.kept.pop(key, None)

    def key_page(self, after, condition):
        return list(self.kept), None

    def count(self):
        return len(self.kept)

    def size_of(self, record):
        return 4 * len(record.dense) + record.document.size

    def classify(self, error):
        return TRANSIENT if isinstance(error, ConnectionError) else PERMANENT

    def close(self):
        pass

    def _fail(self, verb):
        if self.failures and self.failures[0][0] == verb:
            raise self.failures.pop(0)[1]


@pytest.fixture
def store(encoder):
    return DictStore(Vectorizer(encoder).comparable_metadata())


@pytest.fixture
def index(store, encoder):
    return HybridIndex(Vectorizer(encoder), store, retry_seconds=60)


def documents(count):
    return ((number, f"text {number}") for number in range(count))


def test_writing_and_encoding_overlap(index, store, encoder):
    both = threading.Barrier(2, timeout=60)
    encode = encoder.encode

    def meeting_encode(texts, *, role, dimensions):
        if texts[0] == "text 10":
            both.wait()
        return encode(texts, role=role, dimensions=dimensions)

    encoder.encode = meeting_encode
    store.before_write = lambda: both.wait() if not store.writes else None
    index.add(documents(20), batch_size=10)
    assert store.count() == 20


def test_batches_are_written_in_order(index, store):
    index.add(documents(50), batch_size=7)
    written = [key for keys in store.writes for key in keys]
    assert written == [f"int:{number}" for number in range(50)]


def test_no_more_is_read_than_can_be_written(index, store):
    read = []
    ahead = []

    def reading():
        for number, text in documents(100):
            read.append(number)
            yield number, text

    store.before_write = lambda: ahead.append(len(read) - sum(map(len, store.writes)))
    index.add(reading(), batch_size=10)
    assert max(ahead) == 2 * 10


def test_memory_does_not_grow_with_the_corpus(index, store, encoder):
    peaks = []
    store.before_write = lambda: [kept.clear() for kept in (store.kept, store.writes)]
    encoder.texts = deque(maxlen=0)
    for count in (500, 4000):
        tracemalloc.start()
        index.add(documents(count), batch_size=50)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0]


def test_requests_are_split_by_bytes(index, store):
    store.request_bytes = 1000
    index.add(((number, "x" * 172) for number in range(10)), batch_size=10)
    assert [len(keys) for keys in store.writes] == [3, 3, 3, 1]


def test_what_may_pass_is_repeated_and_counted(index, store, quick_retries):
    away = ConnectionRefusedError("away")
    store.failures = [("stored", away), ("stored", away), ("write", away)]
    report = index.add(documents(10))
    assert (report.written, report.retries) == (10, 3)
    store.failures = [("stored", away), ("delete", away)]
    assert index.delete([1, 2]) == 2


def test_what_cannot_pass_is_raised_at_once_also_when_skipping(index, store):
    for on_error in ("raise", "skip"):
        store.failures = [("write", RuntimeError("bad request"))]
        with pytest.raises(RuntimeError, match="bad request"):
            index.add(documents(10), on_error=on_error)


def test_a_failed_write_ends_the_run_soon(index, store, encoder):
    store.failures = [("write", RuntimeError("disk full"))]
    with pytest.raises(RuntimeError, match="disk full"):
        index.add(documents(1000), batch_size=10)
    assert encoder.calls["encode"] <= 2


@pytest.mark.parametrize("seconds", [-1, float("nan")])
def test_retry_seconds_must_not_be_negative(store, encoder, seconds):
    with pytest.raises(ValueError, match=r"retry_seconds is .*, but must be at least 0"):
        HybridIndex(Vectorizer(encoder), store, retry_seconds=seconds)
