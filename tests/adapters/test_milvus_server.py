"""The Milvus index against a server of its own process, killed and started again."""

import time

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
