"""The Milvus index against a server of its own process, killed and started again."""

import base64
import time
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from pymilvus import MilvusClient, MilvusException

from gte_integrations.milvus import MilvusHybridIndex

DOCUMENTS = [(number, f"text number {number}", {"even": number % 2 == 0}) for number in range(60)]


def test_a_server_that_is_killed_and_restarted_loses_nothing(milvus_process, encoder, when_missed):
    def documents():
        for number, document in enumerate(DOCUMENTS):
            if number == 30:
                milvus_process.kill()
                when_missed(milvus_process.start)
            yield document

    with MilvusHybridIndex(milvus_process.uri, "docs", encoder, retry_seconds=60) as index:
        index.create()
        report = index.add(documents(), batch_size=10)
        assert report.written == 60
        assert report.retries > 0
        assert index.count() == 60
        assert index.add(DOCUMENTS).unchanged == 60


def test_add_waits_for_a_server_that_is_away_when_it_begins(milvus_process, encoder, when_missed):
    with MilvusHybridIndex(milvus_process.uri, "docs", encoder) as index:
        index.create()
    milvus_process.kill()
    when_missed(milvus_process.start)
    with MilvusHybridIndex(milvus_process.uri, "docs", encoder, retry_seconds=60) as index:
        assert index.add(DOCUMENTS).written == 60


@pytest.mark.slow
def test_a_server_that_was_away_for_long_is_found_as_soon_as_it_is_back(milvus_process, encoder):
    with MilvusHybridIndex(milvus_process.uri, "docs", encoder) as index:
        index.create()
        milvus_process.kill()
        deadline = time.monotonic() + 20  # by now gRPC would look for it every 10 seconds or so
        while time.monotonic() < deadline:
            with pytest.raises(MilvusException, match="Fail connecting"):
                index.count()
            time.sleep(0.2)
        milvus_process.start()
        time.sleep(1)
        assert index.count() == 0


def test_a_payload_is_replaced_as_a_whole(milvus_process, encoder):
    with MilvusHybridIndex(milvus_process.uri, "docs", encoder) as index:
        index.create()
        index.add([("a", "oak", {"old": 1})])
        index.add([("a", "oak", {"new": 2})])
        assert index.search("oak")[0][0].payload == {"new": 2}


def test_search_does_not_wait_for_a_server_that_is_away(milvus_process, encoder, caplog):
    with MilvusHybridIndex(milvus_process.uri, "docs", encoder) as index:
        index.create()
        index.add(DOCUMENTS)
        milvus_process.kill()
        started = time.perf_counter()
        with pytest.raises(MilvusException, match="Fail connecting to server"):
            index.search("text")
        assert time.perf_counter() - started < 10  # which pymilvus waits for a new connection
        # We would log a repetition.
        assert not any(record.name.startswith("gte_") for record in caplog.records)


def test_a_collection_that_the_server_has_released_is_loaded_again(milvus_process, encoder):
    client = MilvusClient(milvus_process.uri)
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


class Proxy(grpc.GenericRpcHandler):
    """Passes every call on to a server, and keeps what came as authorization."""

    def __init__(self, port):
        self.channel = grpc.insecure_channel(f"127.0.0.1:{port}")
        self.tokens = set()

    def service(self, call):
        metadata = dict(call.invocation_metadata)
        self.tokens.add(base64.b64decode(metadata.get("authorization", "")).decode())
        forward = self.channel.unary_unary(call.method)
        return grpc.unary_unary_rpc_method_handler(lambda request, _: forward(request))


@pytest.fixture
def proxy(milvus_process):
    proxy = Proxy(milvus_process.port)
    server = grpc.server(ThreadPoolExecutor(4), handlers=[proxy])
    proxy.uri = f"http://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    yield proxy
    server.stop(None)
    proxy.channel.close()


def test_the_token_arrives_with_every_call_and_is_shown_nowhere(proxy, encoder, caplog):
    token = "root:very-secret"
    with MilvusHybridIndex(proxy.uri, "docs", encoder, token=token) as index:
        index.create(alias="current")
        index.add(DOCUMENTS)
        with pytest.raises(MilvusException, match="nope") as caught:
            index.search("text", filter="nope ==")
        shown = (repr(index), repr(vars(index)), str(caught.value), repr(caught.value), caplog.text)
    assert MilvusHybridIndex.read_metadata(proxy.uri, "docs", token=token)
    options = {"user": "root", "password": "very-secret", "timeout": 20}
    with MilvusHybridIndex(proxy.uri, "current", encoder, client_options=options) as index:
        assert index.count() == 60
    assert proxy.tokens == {token}
    assert not any("very-secret" in text for text in shown)
