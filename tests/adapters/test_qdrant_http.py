"""The Qdrant index over HTTP, against a small server that speaks the protocol and fails on demand.

The server reads requests with qdrant-client's own models and answers from its local mode.
"""

import json
import socket
import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest
from qdrant_client import AsyncQdrantClient, QdrantClient, models
from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

from gte_core import CollectionMismatch
from gte_integrations.qdrant import RRF, QdrantHybridIndex

DOCUMENTS = [(number, f"text number {number}", {"even": number % 2 == 0}) for number in range(60)]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def setup(self):
        super().setup()
        self.server.fake.connections.append(self.connection)

    def do_GET(self):
        self._serve()

    do_PUT = do_POST = do_DELETE = do_GET  # noqa: N815

    def log_message(self, *_):
        pass

    def _serve(self):
        server = self.server.fake
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        path = self.path.split("?")[0].strip("/").split("/")
        call = (self.command, *path[2:])
        server.requests.append((call, len(body)))
        if server.faults.get(call):
            server.faults[call].pop(0)(self)
        elif len(body) > server.most_bytes:
            self.answer(413, {"status": {"error": "Payload error: larger than allowed"}})
        else:
            result = server.result(call, path[1], json.loads(body or b"{}"))
            self.answer(200, {"result": result, "status": "ok", "time": 0.0})

    def answer(self, status, content, headers=()):
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in (("Content-Length", len(body)), *headers):
            self.send_header(name, str(value))
        self.end_headers()
        self.wfile.write(body)


class FakeQdrant:
    """A server whose content outlives its restarts."""

    def __init__(self):
        self.local = QdrantClient(":memory:")
        self.lock = threading.Lock()
        self.connections = []
        self.requests = []
        self.faults = {}
        self.most_bytes = 32 * 2**20
        self.port = 0
        self.start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def start(self):
        ThreadingHTTPServer.allow_reuse_address = True
        self.http = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self.http.daemon_threads = True
        self.http.fake = self
        self.port = self.http.server_port
        self.thread = threading.Thread(target=self.http.serve_forever, args=(0.01,))
        self.thread.start()

    def stop(self):
        self.http.shutdown()
        self.http.server_close()
        for connection in self.connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self.thread.join()

    def result(self, call, collection, body):
        with self.lock:
            return json.loads(json.dumps(self._result(call, collection, body)))

    def _result(self, call, name, body):  # noqa: C901
        local = self.local
        match call:
            case ("GET", "exists"):
                return {"exists": local.collection_exists(name)}
            case ("GET",):
                return local.get_collection(name).model_dump(mode="json")
            case ("PUT",):
                config = models.CreateCollection.model_validate(body)
                return local.create_collection(
                    name,
                    vectors_config=config.vectors,
                    sparse_vectors_config=config.sparse_vectors,
                    metadata=config.metadata,
                )
            case ("PUT", "points"):
                points = models.PointsList.model_validate(body).points
                return local.upsert(name, points).model_dump(mode="json")
            case ("POST", "points"):
                wanted = models.PointRequest.model_validate(body)
                found = local.retrieve(
                    name, wanted.ids, wanted.with_payload, with_vectors=wanted.with_vector
                )
                return [point.model_dump(mode="json") for point in found]
            case ("POST", "points", "scroll"):
                wanted = models.ScrollRequest.model_validate(body)
                found, offset = local.scroll(
                    name,
                    wanted.filter,
                    limit=wanted.limit,
                    offset=wanted.offset,
                    with_payload=wanted.with_payload,
                    with_vectors=wanted.with_vector,
                )
                points = [point.model_dump(mode="json") for point in found]
                return {"points": points, "next_page_offset": offset}
            case ("POST", "points", "query", "batch"):
                searches = models.QueryRequestBatch.model_validate(body).searches
                found = local.query_batch_points(name, searches)
                return [response.model_dump(mode="json") for response in found]
            case ("POST", "points", "count"):
                return local.count(name).model_dump(mode="json")
            case ("DELETE",):
                return local.delete_collection(name)
            case ("POST", "points", "delete"):
                selected = models.PointIdsList.model_validate(body)
                return local.delete(name, selected).model_dump(mode="json")
        raise NotImplementedError(call)


UPSERT = ("PUT", "points")
RETRIEVE = ("POST", "points")
SCROLL = ("POST", "points", "scroll")
EXISTS, DESCRIBE, CREATE = ("GET", "exists"), ("GET",), ("PUT",)
SEARCH = ("POST", "points", "query", "batch")
PAST = "Wed, 21 Oct 2015 07:28:00 GMT"


def status(code, headers=()):
    return lambda handler: handler.answer(code, {"status": {"error": "on demand"}}, headers)


def page(code):
    """What a proxy shows in place of the server behind it."""
    return lambda handler: handler.answer(code, b"<html>down for maintenance</html>")


def reset(handler):
    handler.connection.shutdown(socket.SHUT_RDWR)
    handler.close_connection = True


def hang(handler):
    """Take the request and never answer, until the client hangs up."""
    handler.connection.recv(1)
    handler.close_connection = True


@pytest.fixture
def server():
    server = FakeQdrant()
    yield server
    server.stop()
    server.local.close()


@pytest.fixture
def index(server, encoder):
    with QdrantHybridIndex(server.url, "docs", encoder, retry_seconds=20) as index:
        index.create()
        yield index


def upserts(server):
    return [size for call, size in server.requests if call == UPSERT]


def test_everything_works_over_http(server, index, make_encoder):
    index.create()
    assert index.add(DOCUMENTS, batch_size=25).written == 60
    assert index.add(DOCUMENTS, batch_size=25).unchanged == 60
    assert index.search(DOCUMENTS[7][1], fusion=RRF())[0][0].id == 7
    even = models.FieldCondition(key="even", match=models.MatchValue(value=True))
    hits = index.search("text", filter=models.Filter(must=[even]))[0]
    assert {hit.payload["even"] for hit in hits} == {True}
    assert index.delete([0, 1, 99]) == 2
    assert index.count() == 58
    with pytest.raises(CollectionMismatch, match="dimensions: the collection has 32"):
        QdrantHybridIndex(server.url, "docs", make_encoder(), dimensions=8).create()


def test_both_searches_of_all_queries_are_one_request(server, index):
    index.add(DOCUMENTS)
    server.requests.clear()
    index.search(["text 1", "text 2", "text 3"])
    assert [call for call, _ in server.requests] == [("POST", "points", "query", "batch"), RETRIEVE]


MAY_PASS = {
    "503": status(503),
    "500": status(500),
    "408": status(408),
    "429": status(429),
    "429 Retry-After": status(429, [("Retry-After", 0)]),
    "429 until a date": status(429, [("Retry-After", PAST)]),
    "429 a fraction": status(429, [("Retry-After", 0.01)]),
    "429 nan": status(429, [("Retry-After", "nan")]),
    "503 Retry-After": status(503, [("Retry-After", 0)]),
    "reset": reset,
    "200 of a proxy": page(200),
    "502 of a proxy": page(502),
}


@pytest.mark.parametrize("fault", MAY_PASS.values(), ids=MAY_PASS.keys())
def test_what_may_pass_is_repeated(server, index, quick_retries, fault):
    server.faults = {UPSERT: [fault] * 3, RETRIEVE: [fault] * 2}
    report = index.add(DOCUMENTS, batch_size=30)
    assert (report.written, report.retries) == (60, 5)
    assert index.count() == 60


@pytest.mark.parametrize("fault", [status(503), page(200)], ids=["503", "proxy"])
def test_the_reads_of_verbs_that_write_are_repeated_too(server, encoder, quick_retries, fault):
    def faults():
        return dict.fromkeys([EXISTS, DESCRIBE, CREATE, RETRIEVE, SCROLL], [fault] * 2)

    server.faults = {call: list(some) for call, some in faults().items()}
    QdrantHybridIndex(server.url, "docs", encoder, retry_seconds=20).create()
    assert not server.faults[EXISTS] + server.faults[DESCRIBE] + server.faults[CREATE]
    for verb, result in (
        (lambda index: index.add(DOCUMENTS).written, 60),
        (lambda index: index.delete([0, 1]), 2),
        (lambda index: index.prune([2, 3]), 56),
    ):
        server.faults = {call: list(some) for call, some in faults().items()}
        with QdrantHybridIndex(server.url, "docs", encoder, retry_seconds=20) as fresh:
            assert verb(fresh) == result
        assert not server.faults[EXISTS] + server.faults[RETRIEVE]


def test_reading_all_keys_goes_on_at_the_page_that_failed(server, index, quick_retries):
    index.add((number, f"text {number % 9}") for number in range(1_100))
    offsets, answer = [], server.result

    def recorded(call, collection, body):
        if call == SCROLL:
            offsets.append(body.get("offset"))
            if len(offsets) == 1:  # the next page fails
                server.faults = {SCROLL: [status(503), reset]}
        return answer(call, collection, body)

    server.result = recorded
    assert index.prune(range(1_099)) == 1
    assert not server.faults[SCROLL]
    assert [offset is None for offset in offsets] == [True, False]


def test_documents_are_read_and_removed_over_http(server, index, quick_retries):
    index.add((number, f"text {number % 9}", {"n": number % 2}) for number in range(600))
    server.faults = {RETRIEVE: [status(503), reset], SCROLL: [reset, status(503)]}
    [document] = index.get([7], with_vectors=True)
    assert (document.text, document.dense.shape) == ("text 7", (32,))
    asked, answer = [], server.result

    def recorded(call, collection, body):
        asked.append(body.get("with_vector"))
        return answer(call, collection, body)

    server.result = recorded
    assert {document.id for document in index} == set(range(600))
    assert not any(asked)
    field = models.FieldCondition(key="n", match=models.MatchValue(value=1))
    assert index.delete(filter=models.Filter(must=[field])) == 300
    assert len(index) == 300
    index.drop()
    assert index.metadata() is None


def test_a_search_is_not_repeated_and_neither_is_its_look_at_the_collection(
    server, index, encoder, quick_retries
):
    for call in (EXISTS, DESCRIBE, SEARCH, RETRIEVE):
        index.add(DOCUMENTS)
        server.faults = {call: [status(503)]}
        server.requests.clear()
        fresh = QdrantHybridIndex(server.url, "docs", encoder, retry_seconds=20)
        with fresh, pytest.raises(UnexpectedResponse, match="503"):
            fresh.search("text")
        assert [one for one, _ in server.requests].count(call) == 1


def test_a_proxys_page_is_shown_as_what_it_is(server, index):
    index.add(DOCUMENTS)
    server.faults = {SEARCH: [page(200)]}
    with pytest.raises(ConnectionError, match=r"answered with '<html>down for m.* answers in JSON"):
        index.search("text")


@pytest.fixture
def impatient(server, index, encoder):
    client = QdrantClient(url=server.url, timeout=1, check_compatibility=False)
    yield QdrantHybridIndex(client, "docs", encoder, retry_seconds=20)
    client.close()


def test_a_server_that_never_answers_is_asked_again(server, impatient, quick_retries):
    server.faults = {UPSERT: [hang], RETRIEVE: [hang]}
    report = impatient.add(DOCUMENTS)
    assert server.faults == {UPSERT: [], RETRIEVE: []}
    assert report.written == impatient.count() == 60
    assert report.retries >= 2  # a busy server may be too slow once more


async def test_an_async_client_is_as_patient(server, encoder, quick_retries):
    client = AsyncQdrantClient(url=server.url, timeout=1, check_compatibility=False)
    index = QdrantHybridIndex(client, "docs", encoder, retry_seconds=20)
    await index.acreate()
    server.faults = {UPSERT: [hang, status(503)], RETRIEVE: [reset]}
    report = await index.aadd(DOCUMENTS)
    assert report.written == 60
    assert report.retries >= 3
    assert (await index.asearch(DOCUMENTS[7][1], fusion=RRF()))[0][0].id == 7
    server.faults = {("POST", "points", "query", "batch"): [hang]}
    with pytest.raises(ResponseHandlingException, match=r"^$") as caught:  # httpx says no more
        await index.asearch("text")
    assert isinstance(caught.value.source, httpx.ReadTimeout)
    await client.close()


def test_search_waits_for_an_answer_once(server, impatient):
    impatient.add(DOCUMENTS)
    hanging = [hang] * 2
    server.faults = {("POST", "points", "query", "batch"): hanging}
    with pytest.raises(ResponseHandlingException, match="timed out"):
        impatient.search("text")
    assert len(hanging) == 1


def test_it_gives_up_on_a_server_that_never_answers(server, index, encoder):
    client = QdrantClient(url=server.url, timeout=1, check_compatibility=False)
    server.faults = {UPSERT: [hang] * 100}
    impatient = QdrantHybridIndex(client, "docs", encoder, retry_seconds=2)
    with pytest.raises(ResponseHandlingException, match="timed out") as caught:
        impatient.add(DOCUMENTS)
    assert len(upserts(server)) <= 2
    assert "Gave up after" in caught.value.__notes__[0]
    client.close()


def test_the_servers_own_pause_is_kept(server, index, quick_retries):
    server.faults = {UPSERT: [status(429, [("Retry-After", 1)])]}
    started = time.perf_counter()
    assert index.add(DOCUMENTS).retries == 1
    assert time.perf_counter() - started >= 1.0


@pytest.mark.parametrize("code", [400, 401, 403, 404, 422])
def test_what_cannot_pass_is_raised_at_once(server, index, code):
    server.faults = {UPSERT: [status(code)]}
    with pytest.raises(UnexpectedResponse, match=str(code)):
        index.add(DOCUMENTS)
    assert len(upserts(server)) == 1


def test_it_gives_up_when_the_time_is_over(server, encoder, quick_retries):
    with QdrantHybridIndex(server.url, "docs", encoder, retry_seconds=0.1) as index:
        index.create()
        server.faults = {UPSERT: [status(503)] * 100}
        with pytest.raises(UnexpectedResponse, match="503") as caught:
            index.add(DOCUMENTS)
    assert "Gave up after" in caught.value.__notes__[0]


def test_a_request_that_is_too_large_is_halved(server, index):
    server.most_bytes = 10_000
    assert index.add(DOCUMENTS, batch_size=60).written == 60
    assert index.count() == 60
    assert sum(size <= 10_000 for size in upserts(server)) >= 4


def test_a_document_that_alone_is_too_large_is_an_error(server, index):
    server.most_bytes = 10_000
    with pytest.raises(UnexpectedResponse, match="413") as caught:
        index.add([*DOCUMENTS, ("large", "x" * 20_000)])
    [note] = caught.value.__notes__
    assert note == "Too large for the server by itself: document 'large'."


def test_requests_stay_below_what_a_server_takes(server, index):
    report = index.add(((number, "—\n" * 500_000) for number in range(16)), batch_size=16)
    assert report.written == 16
    assert len(upserts(server)) > 1
    assert max(upserts(server)) < 32 * 2**20


def test_a_server_that_is_restarted_loses_nothing(server, index, quick_retries, when_missed):
    def documents():
        for number, document in enumerate(DOCUMENTS):
            if number == 30:
                server.stop()
                when_missed(server.start)
            yield document

    report = index.add(documents(), batch_size=10)
    assert report.written == 60
    assert report.retries > 0
    assert index.count() == 60


def test_search_does_not_wait_for_a_server_that_is_away(server, index, caplog):
    index.add(DOCUMENTS)
    server.stop()
    with pytest.raises(ResponseHandlingException, match="Connection refused"):
        index.search("text")
    assert not caplog.records  # a repetition would be logged
    server.start()
    assert index.search("text")[0]
