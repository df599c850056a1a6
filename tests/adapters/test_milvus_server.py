"""The Milvus index against a server of its own process, killed and started again."""

import socket
import subprocess
import sys
import threading
import time

import pytest
from pymilvus import MilvusClient, MilvusException

from gte_integrations.milvus import MilvusHybridIndex

DOCUMENTS = [(number, f"text number {number}", {"even": number % 2 == 0}) for number in range(60)]


class Server:
    def __init__(self, directory):
        self.directory = directory
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.start()

    @property
    def uri(self):
        return f"http://127.0.0.1:{self.port}"

    def start(self):
        code = "import sys; from milvus_lite.cmdline import main; sys.exit(main())"
        options = ["--data-dir", self.directory, "--host", "127.0.0.1", "--port", str(self.port)]
        self.process = subprocess.Popen(
            [sys.executable, "-c", code, "server", *options],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.05)
        raise TimeoutError("milvus-lite server did not start")

    def kill(self):
        self.process.kill()
        self.process.wait()


@pytest.fixture
def server(tmp_path):
    server = Server(tmp_path)
    yield server
    server.kill()


def test_a_server_that_is_killed_and_restarted_loses_nothing(server, encoder):
    def documents():
        for number, document in enumerate(DOCUMENTS):
            if number == 30:
                server.kill()
                threading.Timer(0.5, server.start).start()
            yield document

    with MilvusHybridIndex(server.uri, "docs", encoder, retry_seconds=60) as index:
        index.create()
        report = index.add(documents(), batch_size=10)
        assert report.written == 60
        assert report.retries > 0
        assert index.count() == 60
        assert index.add(DOCUMENTS).unchanged == 60


def test_a_payload_is_replaced_as_a_whole(server, encoder):
    with MilvusHybridIndex(server.uri, "docs", encoder) as index:
        index.create()
        index.add([("a", "oak", {"old": 1})])
        index.add([("a", "oak", {"new": 2})])
        assert index.search("oak")[0][0].payload == {"new": 2}


def test_search_does_not_wait_for_a_server_that_is_away(server, encoder):
    with MilvusHybridIndex(server.uri, "docs", encoder) as index:
        index.create()
        index.add(DOCUMENTS)
        server.kill()
        started = time.perf_counter()
        with pytest.raises(MilvusException, match="Fail connecting to server"):
            index.search("text")
        assert time.perf_counter() - started < 2


def test_a_collection_that_the_server_has_released_is_loaded_again(server, encoder):
    client = MilvusClient(server.uri)
    with MilvusHybridIndex(client, "docs", encoder) as index:
        index.create()
        index.add(DOCUMENTS)
        for verb in (
            index.count,
            lambda: index.search("text"),
            lambda: index.prune([1]),
            lambda: index.delete([1]),
        ):
            client.release_collection("docs")
            assert verb()
    client.close()
