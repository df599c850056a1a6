"""Rerankers behind HTTP, against a server here that follows the published schemas."""

import asyncio
import json
import logging
import os
import pickle
import threading
import traceback
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from gte_core import GTEReranker, MissingHeadError, NonFiniteError, as_reranker
from gte_core.testing import HashEncoder, HashReranker, random_checkpoint
from gte_integrations.langchain import GTECrossEncoder
from gte_integrations.qdrant import QdrantHybridIndex
from gte_integrations.remote import DashScopeReranker, RemoteError, TEIReranker

KEY = "sk-do-not-show-me"
DASHSCOPE = "/api/v1/services/rerank/text-rerank/text-rerank"
PAIRS = [
    ("oak elm", "yew fir"),
    ("oak", "oak"),
    ("oak elm", "elm oak"),
    ("oak elm", ""),
    ("oak", "oak \ud800 ash"),
]


class Server(ThreadingHTTPServer):
    """Answers as text-embeddings-inference and as DashScope do, with a reranker's scores."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.reranker = HashReranker()
        self.model_type = {"reranker": {"id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}}}
        self.max_client_batch_size = 32
        self.asked = []  # path, body
        self.failures = []  # status, headers, content: before any other answer
        self.changed = lambda results: results
        self.reached = threading.Event()
        self.wait = threading.Event()
        self.wait.set()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}"

    @property
    def requests(self):
        return [body for path, body in self.asked if path != "/info"]

    def scores(self, query, documents):
        scores = self.reranker.score([(query, document) for document in documents])
        return sorted(enumerate(scores.tolist()), key=lambda one: -one[1])

    def answer(self, path, body):
        if path == "/info":
            return 200, {
                "model_id": "org/reranker",
                "model_sha": None,
                "model_type": self.model_type,
                "max_client_batch_size": self.max_client_batch_size,
            }
        if path == "/rerank":
            texts = body["texts"]
            if len(texts) > self.max_client_batch_size:
                message = f"batch size {len(texts)} > maximum allowed batch size"
                return 422, {"error": message, "error_type": "Validation"}
            found = self.scores(body["query"], texts)
            return 200, self.changed([{"index": i, "score": score} for i, score in found])
        if path == DASHSCOPE:
            found = self.scores(body["input"]["query"], body["input"]["documents"])
            results = [{"index": i, "relevance_score": score} for i, score in found]
            output = {"results": self.changed(results)}
            return 200, {"output": output, "usage": {"total_tokens": 3}, "request_id": "r"}
        return 404, {"error": "no such path"}


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.do_POST()

    def do_POST(self):
        length = int(self.headers.get("Content-Length", 0))
        body = json.loads(self.rfile.read(length)) if length else None
        self.server.asked.append((self.path, body))
        if self.headers.get("Authorization") != f"Bearer {KEY}":
            return self.give(401, {}, b"")
        if self.path != "/info" and self.server.failures:
            return self.give(*self.server.failures.pop(0))
        self.server.reached.set()
        self.server.wait.wait(30)
        status, answer = self.server.answer(self.path, body)
        return self.give(status, {}, json.dumps(answer).encode())

    def give(self, status, headers, content):
        with suppress(OSError):  # whoever asked has gone
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(content))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    server = Server()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield server
    server.wait.set()
    server.shutdown()
    server.server_close()


def tei(server, **options):
    return TEIReranker(server.url, **{"api_key": KEY, **options})


def dashscope(server, **options):
    return DashScopeReranker(base_url=f"{server.url}/api/v1", **{"api_key": KEY, **options})


@pytest.fixture(params=[tei, dashscope])
def make(request, server):
    """Makes a reranker; the connections of those that were made are closed in the end."""
    made = []

    def one(**options):
        made.append(request.param(server, **options))
        return made[-1]

    yield one
    for reranker in made:
        reranker.close()


async def test_scores_are_those_of_the_server_in_the_order_of_the_pairs(make, server):
    reranker = make()
    scores = reranker.score(iter(PAIRS))
    expected = HashReranker().score(PAIRS)
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, expected, atol=1e-6)
    np.testing.assert_allclose(await reranker.ascore(PAIRS), expected, atol=1e-6)
    documents = ["yew", "oak elm", "oak"]
    ranked = HashReranker().rank("oak elm", documents, top_n=2)
    assert reranker.rank("oak elm", documents, top_n=2) == ranked
    assert await reranker.arank("oak elm", documents, top_n=2) == ranked
    assert as_reranker(reranker) is reranker


async def test_nothing_is_not_sent(make, server):
    reranker = make()
    assert reranker.score([]).shape == (0,)
    assert (await reranker.ascore([])).shape == (0,)
    assert reranker.rank("oak", []) == []
    assert server.asked == []


def test_each_query_goes_once(make, server):
    make().score(PAIRS)
    assert len(server.requests) == 2


def test_what_tei_is_asked(server):
    reranker = tei(server, truncation_side="left")
    reranker.score([("oak", "elm"), ("oak", "")])
    assert server.asked[0] == ("/info", None)
    assert server.requests == [
        {
            "query": "oak",
            "texts": ["elm", " "],
            "raw_scores": True,
            "return_text": False,
            "truncate": True,
            "truncation_direction": "Left",
        }
    ]
    reranker.score([("oak", "ash")])
    assert [path for path, _ in server.asked].count("/info") == 1
    reranker.close()
    with pytest.raises(ValueError, match="truncation_side is 'end'; allowed are"):
        tei(server, truncation_side="end")


def test_what_dashscope_is_asked(server):
    reranker = dashscope(server, model="qwen3-rerank")
    reranker.score([("oak", "elm"), ("oak", "")])
    assert server.asked == [
        (
            DASHSCOPE,
            {
                "model": "qwen3-rerank",
                "input": {"query": "oak", "documents": ["elm", " "]},
                "parameters": {"return_documents": False},
            },
        )
    ]
    reranker.close()


def test_requests_keep_to_the_limits_of_tei(server):
    server.max_client_batch_size = 3
    reranker = tei(server)
    pairs = [("oak elm", f"oak w{n}" if n % 2 else f"w{n}") for n in range(8)]
    np.testing.assert_allclose(reranker.score(pairs), HashReranker().score(pairs), atol=1e-6)
    assert sorted(len(body["texts"]) for body in server.requests) == [2, 3, 3]
    server.max_client_batch_size = 1  # since it was started anew
    np.testing.assert_allclose(reranker.score(pairs), HashReranker().score(pairs), atol=1e-6)
    reranker.close()


def test_requests_keep_to_the_tokens_of_dashscope(server):
    reranker = dashscope(server)
    pairs = [("oak elm", "oak " * 5_000) for _ in range(6)]
    reranker.score(pairs)
    assert [len(body["input"]["documents"]) for body in server.requests] == [2, 2, 2]
    reranker.close()


def test_a_busy_server_is_asked_again(make, server, quick_retries):
    server.failures = [(429, {"Retry-After": "0"}, b"{}"), (503, {}, b"busy")]
    np.testing.assert_allclose(make().score(PAIRS), HashReranker().score(PAIRS), atol=1e-6)


def test_what_is_too_large_goes_in_halves(make, server):
    server.failures = [(413, {}, b"Payload too large")]
    pairs = [("oak", f"w{n}") for n in range(5)]
    make().score(pairs)
    assert len(server.requests) == 3
    server.failures = [(413, {}, b"Payload too large")]
    with pytest.raises(RemoteError, match="answered 413") as caught:
        make().score([("oak", "elm")])
    assert caught.value.__notes__ == ["Too large for the server by itself: pairs[0]."]


@pytest.mark.parametrize(
    "change",
    [
        lambda results: results[:-1],
        lambda results: [*results, results[0]],
        lambda results: [{**one, "index": 0} for one in results],
        lambda results: [{"index": one["index"]} for one in results],
        lambda results: None,
        lambda results: 5,
    ],
)
def test_an_answer_that_does_not_fit_is_refused(make, server, change):
    server.changed = change
    with pytest.raises(RemoteError, match=r"must give index and (relevance_)?score of each of 3"):
        make().score([("oak", "elm")] * 3)


def test_a_score_that_is_not_finite_is_named(make, server):
    def changed(results):
        [name] = results[0].keys() - {"index"}
        return [one | ({name: float("nan")} if one["index"] == 1 else {}) for one in results]

    server.changed = changed
    with pytest.raises(NonFiniteError, match=r"pairs\[1\]: http://.* gave no finite score"):
        make().score([("oak", "elm")] * 3)


def test_an_error_that_comes_with_200(server):
    reranker = dashscope(server)
    answer = {"code": "InvalidParameter", "message": f"no {KEY}", "request_id": "r"}
    server.failures = [(200, {}, json.dumps(answer).encode())]
    with pytest.raises(RemoteError, match=r"no \*\*\* \(InvalidParameter\)"):
        reranker.score(PAIRS)
    reranker.close()


def test_a_server_of_embeddings_is_no_reranker(server):
    server.model_type = {"embedding": {"pooling": "cls"}}
    reranker = tei(server)
    with pytest.raises(MissingHeadError, match="'org/reranker', which is no reranker but embeddin"):
        reranker.score(PAIRS)
    server.model_type = None
    with pytest.raises(RemoteError, match="does not say what kind of model it serves"):
        reranker.score(PAIRS)
    reranker.close()


async def test_cancelled_it_closes_its_request(make, server):
    server.wait.clear()
    reranker = make()
    asking = asyncio.create_task(reranker.ascore(PAIRS))
    assert await asyncio.to_thread(server.reached.wait, 30)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    server.wait.set()
    assert (await asyncio.wait_for(reranker.ascore(PAIRS), 30)).shape == (len(PAIRS),)


def test_a_key_is_shown_nowhere(make, server, caplog):
    with caplog.at_level(logging.DEBUG):
        reranker = make()
        reranker.score(PAIRS)
        shown = [repr(reranker), str(vars(reranker)), str(pickle.dumps(reranker))]
        server.failures = [(400, {}, f"what is {KEY}?".encode())] * 4
        with pytest.raises(RemoteError, match="answered 400") as caught:
            reranker.score(PAIRS)
        shown += traceback.format_exception(caught.value)
    assert KEY not in " ".join([*shown, caplog.text])


def test_a_pickle_reads_the_key_of_the_environment(make, server, monkeypatch):
    for variable in ("TEI_API_KEY", "DASHSCOPE_API_KEY"):
        monkeypatch.delenv(variable, raising=False)
    again = pickle.loads(pickle.dumps(make()))
    with pytest.raises(RemoteError, match=r"answered 401.*Pass api_key, or set \w+; it is not giv"):
        again.score(PAIRS)
    monkeypatch.setenv("TEI_API_KEY", KEY)
    monkeypatch.setenv("DASHSCOPE_API_KEY", KEY)
    assert again.score(PAIRS).shape == (len(PAIRS),)
    again.close()


def test_indexes_and_frameworks_take_them(make, server, tmp_path):
    reranker = make()
    texts = ["yew fir", "oak elm ash", "elm oak"]
    with QdrantHybridIndex(tmp_path, "docs", HashEncoder()) as index:
        index.create()
        index.add(enumerate(texts))
        [hits] = index.search("oak elm", limit=2, rerank=reranker)
    assert [hit.id for hit in hits] == [2, 1]
    pairs = [("oak elm", text) for text in texts]
    scores = GTECrossEncoder(reranker=reranker).score(pairs)
    np.testing.assert_allclose(scores, HashReranker().score(pairs), atol=1e-6)


def test_a_model_behind_tei_scores_as_it_does_here(server, tmp_path):
    path = random_checkpoint(tmp_path, task="sequence_classification")
    server.reranker = GTEReranker.from_pretrained(path, dtype="float32")
    reranker = tei(server)
    pairs = [("w1 w2", "w3 w4"), ("w1 w2", "w5"), ("w6", "w7 w8")]
    np.testing.assert_allclose(reranker.score(pairs), server.reranker.score(pairs), atol=1e-5)
    reranker.close()


@pytest.mark.server
@pytest.mark.skipif("TEI_RERANKER_URL" not in os.environ, reason="TEI_RERANKER_URL is not set")
def test_a_real_tei():
    ranked = TEIReranker(os.environ["TEI_RERANKER_URL"]).rank(
        "What is a booklet?", ["The weather is fine", "A booklet is a small book"]
    )
    assert ranked[0].index == 1


@pytest.mark.server
@pytest.mark.skipif("DASHSCOPE_API_KEY" not in os.environ, reason="DASHSCOPE_API_KEY is not set")
def test_the_real_dashscope():
    ranked = DashScopeReranker().rank(
        "What is a booklet?", ["The weather is fine", "A booklet is a small book"]
    )
    assert ranked[0].index == 1
