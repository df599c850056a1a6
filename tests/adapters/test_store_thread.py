"""The thread in which ``add`` talks to a store: waited for, but never for ever."""

import subprocess
import sys
import threading
from functools import partial

import pytest

from gte_integrations._index.ingest import ingest
from gte_integrations._index.store_thread import StoreThread
from gte_integrations._retry import PERMANENT
from gte_integrations.milvus import MilvusVectorizer


class Sink:
    """A store in memory that records which thread calls it, and can be held."""

    request_bytes = 2**20

    def __init__(self):
        self.rows = {}
        self.threads = set()
        self.go_on = threading.Event()
        self.go_on.set()

    def stored(self, keys):
        self.threads.add(threading.current_thread())
        return {key: self.rows[key] for key in keys if key in self.rows}

    def pack(self, records):
        return [(record.document.key, record.stored) for record in records]

    def write(self, packed):
        self.threads.add(threading.current_thread())
        self.go_on.wait()
        self.rows.update(packed)

    def size_of(self, record):
        return 100

    def classify(self, error):
        return PERMANENT


@pytest.fixture
def sink():
    sink = Sink()
    yield sink
    sink.go_on.set()


@pytest.fixture
def add(sink, encoder):
    def add(documents):
        vectorizer = MilvusVectorizer(encoder)
        options = {"show_progress": False, "on_error": "raise", "retry_seconds": 0}
        return ingest(vectorizer, sink, documents, batch_size=2, **options)

    return add


@pytest.fixture
def interrupt(add, encoder):
    """Add two batches, with an error in the model while the first is being written."""

    def interrupt(error):
        encoder.failures["yew"] = error
        add([(1, "oak"), (2, "elm"), (3, "yew")])

    return interrupt


@pytest.fixture
def patience(monkeypatch):
    """Sets for how many seconds Ctrl-C waits; five of them would be long for a test."""
    return partial(monkeypatch.setattr, "gte_integrations._index.store_thread._PATIENCE")


def test_ctrl_c_does_not_wait_for_a_write_that_never_ends(sink, interrupt, patience):
    patience(0.05)
    sink.go_on.clear()
    with pytest.raises(KeyboardInterrupt, match="pressed"):
        interrupt(KeyboardInterrupt("pressed"))
    assert sink.rows == {}


def test_ctrl_c_waits_for_a_write_that_ends(sink, interrupt):
    sink.go_on.clear()
    threading.Timer(0.1, sink.go_on.set).start()
    with pytest.raises(KeyboardInterrupt, match="pressed"):
        interrupt(KeyboardInterrupt("pressed"))
    assert len(sink.rows) == 2


def test_any_other_error_waits_for_what_is_being_written(sink, interrupt, patience):
    patience(0)
    sink.go_on.clear()
    threading.Timer(0.1, sink.go_on.set).start()
    with pytest.raises(LookupError, match="gone"):
        interrupt(LookupError("gone"))
    assert len(sink.rows) == 2


def test_ctrl_c_cannot_hit_a_client_for_the_main_thread_calls_none(sink, add):
    assert add([(number, f"text {number}") for number in range(7)]).written == 7
    [thread] = sink.threads
    assert thread is not threading.main_thread()
    assert thread.daemon


def test_calls_are_made_one_after_another_and_their_errors_come_back():
    made = []
    with StoreThread() as store:
        futures = [store.submit(lambda n=n: made.append(n) or 1 // n) for n in (3, 0, 1)]
        assert [futures[0].result(), futures[2].result()] == [0, 1]
        with pytest.raises(ZeroDivisionError, match="division"):
            futures[1].result()
    assert made == [3, 0, 1]


def test_a_write_that_never_ends_does_not_keep_the_process_from_ending():
    code = (
        "import threading; from gte_integrations._index import store_thread\n"
        "store_thread._PATIENCE = 0.05\n"
        "with store_thread.StoreThread() as store:\n"
        "    store.submit(threading.Event().wait)\n"
        "    raise KeyboardInterrupt"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], check=False, capture_output=True, text=True, timeout=60
    )
    assert "KeyboardInterrupt" in result.stderr
