"""Encoders behind HTTP: what every encoder promises, and servers that fail as published ones do.

Each remote encoder talks to a server on loopback that follows the provider's schema, errors and
limits; its vectors are made of hashes. Real servers are named by ``TEI_URL``, by
``OPENAI_COMPATIBLE_URL`` with ``OPENAI_COMPATIBLE_MODEL``, and by ``DASHSCOPE_API_KEY``.
"""

import asyncio
import base64
import contextlib
import copy
import json
import logging
import os
import pickle
import signal
import socket
import threading
import time
import traceback
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from gte_core import (
    Fingerprint,
    GTEEmbedder,
    MissingHeadError,
    NonFiniteError,
    PairedEncoder,
    TruncationError,
    shared_encoder,
)
from gte_core.testing import HashEncoder
from gte_integrations.langchain import GTEEmbeddings
from gte_integrations.llama_index import GTEEmbedding
from gte_integrations.qdrant import QdrantHybridIndex
from gte_integrations.remote import DashScopeEncoder, OpenAIEncoder, RemoteError, TEIEncoder

SIZE, WIDTH, LONGEST = 32, 500, 64
COMMIT = "9bbca17d9273fd0d03d5725c7a4b0f6b45142062"
KEY = "sk-never-seen-3141592653"
TEXTS = ["oak and pine", "", "a lone \ud800 surrogate", "椎の木", "oak and pine"]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self):
        server = self.server.fake
        content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        server.requests.append((self.path, dict(self.headers), content))
        server.asked.set()
        with server.counting:
            server.in_flight += 1
            server.most_in_flight = max(server.most_in_flight, server.in_flight)
            faults = server.info_faults if self.path == "/info" else server.faults
            fault = faults.pop(0) if faults else None
        try:
            (fault or self._serve)(self, content) if fault else self._serve(content)
        except (BrokenPipeError, ConnectionResetError):
            server.hung_up.set()
        finally:
            with server.counting:
                server.in_flight -= 1

    do_POST = do_GET  # noqa: N815

    def log_message(self, *_):
        pass

    def _serve(self, content):
        server = self.server.fake
        if server.key is not None and self.headers.get("Authorization") != f"Bearer {server.key}":
            self.answer(401, b"")
        elif len(content) > server.most_bytes:
            self.answer(413, b"Failed to buffer the request body: length limit exceeded")
        else:
            time.sleep(server.pause)
            self.answer(*server.reply(self.path, json.loads(content or b"{}")))

    def answer(self, status, body, headers=()):
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"Content-Length": len(content), **dict(headers)}.items():
            self.send_header(name, str(value))
        self.end_headers()
        self.wfile.write(content)


class FakeServer:
    """A server on loopback; ``faults`` are answers that come before the right ones."""

    most_texts = 4

    def __init__(self, **kinds):
        settings = {"dimensions": SIZE, "vocab_size": WIDTH, "max_length": LONGEST}
        self.hashes = HashEncoder(**settings | kinds)
        self.requests, self.faults, self.info_faults = [], [], []
        self.key, self.most_bytes, self.pause = None, 2_000_000, 0.0
        self.counting, self.in_flight, self.most_in_flight = threading.Lock(), 0, 0
        self.asked, self.hung_up = threading.Event(), threading.Event()
        self.change = lambda body: body
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self._http.fake = self
        self.url = f"http://127.0.0.1:{self._http.server_port}"
        threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True).start()

    def stop(self):
        self._http.shutdown()
        self._http.server_close()

    def paths(self):
        return [path for path, _, _ in self.requests]


class FakeTEI(FakeServer):
    def __init__(self, pooling="cls"):
        super().__init__(has_dense=pooling != "splade", has_sparse=pooling == "splade")
        self.info = {
            "model_id": "Alibaba-NLP/gte-multilingual-base",
            "model_sha": COMMIT,
            "model_dtype": "float16",
            "served_model_name": "Alibaba-NLP/gte-multilingual-base",
            "model_type": {"embedding": {"pooling": pooling}},
            "max_concurrent_requests": 512,
            "max_input_length": LONGEST,
            "max_batch_tokens": 16384,
            "max_batch_requests": None,
            "max_client_batch_size": self.most_texts,
            "auto_truncate": True,
            "tokenization_workers": 2,
            "version": "1.9.3",
            "sha": None,
            "docker_label": None,
        }

    def reply(self, path, body):
        if path == "/info":
            return 200, self.info
        texts = body["inputs"]
        if not all(texts):
            return 400, {"error": "`inputs` cannot be empty", "error_type": "Empty"}
        if len(texts) > self.most_texts:
            said = f"batch size {len(texts)} > maximum allowed batch size {self.most_texts}"
            return 422, {"error": said, "error_type": "Validation"}
        if path == "/tokenize":
            return 200, [
                [{"id": 5, "text": w, "special": False} for w in self.words(t)] for t in texts
            ]
        both = self.hashes.encode_available(texts)
        headers = {"x-compute-tokens": int(both.n_tokens.sum())}
        if path == "/embed" and self.hashes.has_dense:
            dense = both.dense[:, : body.get("dimensions")] * 3  # whoever asks scales it
            return 200, self.change(dense.tolist()), headers
        if path == "/embed_sparse" and self.hashes.has_sparse:
            rows = [
                [{"index": int(i), "value": float(v)} for i, v in zip(ids, weights, strict=True)]
                for _, ids, weights in both.rows()
            ]
            return 200, self.change(rows), headers
        return 424, {
            "error": "Model is not an embedding model with SPLADE pooling",
            "error_type": "Backend",
        }

    def words(self, text):
        return ["[CLS]", *text.split(), "[SEP]"]


class FakeOpenAI(FakeServer):
    """As vLLM, with the number of texts as Alibaba Cloud's mode refuses it."""

    def __init__(self, floats=False):
        super().__init__(has_sparse=False)
        self.floats, self.served = floats, "bge-m3"

    def reply(self, path, body):
        if path != "/v1/embeddings":
            return 404, {"detail": "Not Found"}
        texts = body["input"]
        if body["model"] != "bge-m3":
            return self.refused(404, f"The model {body['model']} does not exist.")
        if not all(texts):
            return self.refused(400, "empty input")
        if len(texts) > self.most_texts:
            said = f"Value error, batch size is invalid, it should be {self.most_texts}.: input"
            return self.refused(400, said)
        both = self.hashes.encode_available(texts)
        rows = both.dense[:, : body.get("dimensions")]
        as_base64 = body.get("encoding_format") == "base64" and not self.floats
        data = [
            {
                "object": "embedding",
                "index": place,
                "embedding": base64.b64encode(row.astype("<f4").tobytes()).decode()
                if as_base64
                else row.tolist(),
            }
            for place, row in enumerate(rows)
        ]
        total = int(both.n_tokens.sum())
        usage = {"prompt_tokens": total, "total_tokens": total}
        answer = {"object": "list", "data": data, "model": self.served, "usage": usage}
        return 200, self.change(answer)

    def refused(self, status, said):
        return status, {
            "error": {"message": said, "type": "BadRequestError", "param": None, "code": status}
        }


def openai(url, **options):
    return OpenAIEncoder("bge-m3", base_url=f"{url}/v1", **options)


class FakeDashScope(FakeServer):
    """As Alibaba Cloud's text-embedding-v3 and v4."""

    most_texts = 10
    token = staticmethod("token{}".format)

    def reply(self, path, body):
        if path != "/api/v1/services/embeddings/text-embedding/text-embedding":
            return self.refused(400, "InvalidURL", "url error")
        texts, parameters = body["input"]["texts"], body["parameters"]
        if not all(texts):
            return self.refused(400, "BadRequest.EmptyInput", "Required input parameter missing")
        if len(texts) > self.most_texts:
            said = f"batch size is invalid, it should not be larger than {self.most_texts}."
            return self.refused(400, "InvalidParameter", f"{said}: payload.input.contents")
        both = self.hashes.encode([f"{parameters.get('instruct', '')}{text}" for text in texts])
        wants_sparse = parameters.get("output_type") == "dense&sparse"
        size = parameters.get("dimension")
        items = [
            {"text_index": place, "embedding": dense[:size].tolist()}
            | ({"sparse_embedding": self.sparse(ids, weights)} if wants_sparse else {})
            for place, (dense, ids, weights) in enumerate(both.rows())
        ]
        answer = {
            "output": {"embeddings": items},
            "usage": {"total_tokens": int(both.n_tokens.sum())},
            "request_id": "5a-1",
        }
        return 200, self.change(answer)

    def sparse(self, ids, weights):
        """In no order."""
        return [
            {"index": int(i), "value": float(v), "token": self.token(i)}
            for i, v in reversed(list(zip(ids, weights, strict=True)))
        ]

    def refused(self, status, code, said):
        return status, {"code": code, "message": said, "request_id": "5a-1"}


def dashscope(url, model="text-embedding-v4", **options):
    return DashScopeEncoder(model, base_url=f"{url}/api/v1", **options)


def refuse(status, body=b"", headers=()):
    return lambda handler, _: handler.answer(status, body, headers)


def drop(handler, _):
    handler.close_connection = True


def cut_off(handler, _):
    """A body that ends before its length says."""
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b"[[0.1, 0.2")
    handler.close_connection = True


def drip(handler, _):
    """A body that comes byte by byte, so that no single read is late."""
    handler.send_response(200)
    handler.send_header("Content-Length", "100000")
    handler.end_headers()
    for _ in range(1000):
        handler.wfile.write(b" ")
        time.sleep(0.02)


@pytest.fixture(autouse=True)
def no_keys(monkeypatch):
    for name in (
        "TEI_API_KEY",
        "OPENAI_API_KEY",
        "OPENAI_COMPATIBLE_API_KEY",
        "OPENAI_BASE_URL",
        "DASHSCOPE_API_KEY",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
def pauses(monkeypatch):
    """The pauses that are made, none of which takes time."""
    made, sleep = [], asyncio.sleep

    async def no_sleep(seconds):
        made.append(seconds)
        await sleep(0)

    monkeypatch.setattr(asyncio, "sleep", no_sleep)
    return made


@pytest.fixture
def serve():
    servers, encoders = [], []

    def start(server, make, **options):
        servers.append(server)
        encoders.append(make(server.url, **options))
        return server, encoders[-1]

    yield start
    for encoder in encoders:
        encoder.close()
    for server in servers:
        server.stop()


@pytest.fixture
def tei(serve):
    return serve(FakeTEI(), TEIEncoder)


# ---------------------------------------------------------------- what every encoder promises

REMOTE = {
    "tei": lambda serve: serve(FakeTEI(), TEIEncoder)[1],
    "tei-splade": lambda serve: serve(FakeTEI("splade"), TEIEncoder, vocab_size=WIDTH)[1],
    "openai": lambda serve: serve(FakeOpenAI(), openai)[1],
    "openai-floats": lambda serve: serve(FakeOpenAI(floats=True), openai)[1],
    "openai-size": lambda serve: serve(FakeOpenAI(), openai, dimensions=16)[1],
    "dashscope": lambda serve: serve(FakeDashScope(dimensions=1024), dashscope)[1],
    "dashscope-size": lambda serve: serve(FakeDashScope(dimensions=1024), dashscope, dimensions=64)[
        1
    ],
    "dashscope-v1": lambda serve: serve(
        FakeDashScope(dimensions=1536), dashscope, model="text-embedding-v1"
    )[1],
    "dashscope-unknown": lambda serve: serve(FakeDashScope(), dashscope, model="own")[1],
}
ALL = {
    "hash": lambda serve: HashEncoder(),
    "demo": lambda serve: shared_encoder(GTEEmbedder.from_pretrained("demo")),
    "cached-tei": lambda serve: shared_encoder(REMOTE["tei"](serve)),
    **REMOTE,
}


@pytest.fixture(params=ALL)
def any_encoder(request, serve):
    return ALL[request.param](serve)


def halves(encoder):
    return {"dense": encoder.has_dense, "sparse": encoder.has_sparse}


def test_dense_rows_have_length_1_at_every_size(any_encoder):
    if not any_encoder.has_dense:
        assert any_encoder.dimensions == 0
        with pytest.raises(MissingHeadError, match="use encode_sparse"):
            any_encoder.encode_dense(TEXTS)
        return
    for size in (None, 8):
        dense = any_encoder.encode_dense(TEXTS, dimensions=size)
        assert dense.dtype == np.float32
        assert dense.shape == (len(TEXTS), size or any_encoder.dimensions)
        np.testing.assert_allclose(np.linalg.norm(dense, axis=1), 1, atol=1e-6)
    with pytest.raises(ValueError, match="dimensions is 100000, but must be from 1 to"):
        any_encoder.encode_dense(TEXTS, dimensions=100_000)


def test_sparse_ids_are_sorted_and_unique_and_weights_positive(any_encoder):
    if not any_encoder.has_sparse:
        with pytest.raises(MissingHeadError, match="use encode_dense"):
            any_encoder.encode_sparse(TEXTS)
        return
    sparse = any_encoder.encode_sparse(TEXTS)
    assert sparse.dtype == np.float32
    assert sparse.shape[0] == len(TEXTS)
    assert sparse.shape[1] == (any_encoder.vocab_size or sparse.indices.max() + 1)
    for start, stop in zip(sparse.indptr, sparse.indptr[1:], strict=False):
        assert (np.diff(sparse.indices[start:stop]) > 0).all()
    assert (sparse.data > 0).all()


def test_encode_needs_both_and_encode_available_gives_what_there_is(any_encoder):
    both = any_encoder.encode_available(TEXTS)
    assert len(both) == len(both.n_tokens) == len(both.truncated) == len(TEXTS)
    assert bool(both.dimensions) == any_encoder.has_dense
    assert bool(both.sparse.nnz) == any_encoder.has_sparse
    if all(halves(any_encoder).values()):
        again = any_encoder.encode(TEXTS)
        np.testing.assert_allclose(again.dense, both.dense, atol=1e-6)
    else:
        with pytest.raises(MissingHeadError, match="use encode_"):
            any_encoder.encode(TEXTS)


def test_one_text_is_a_list_of_one_and_order_is_kept(any_encoder):
    texts = [f"word{number} and some more" for number in range(11)]
    whole = any_encoder.encode_available(iter(texts))
    for row, text in enumerate(texts):
        alone = any_encoder.encode_available(text)
        np.testing.assert_allclose(alone.dense, whole[row].dense, atol=1e-5)
        assert alone.sparse.indices.tolist() == whole[row].sparse.indices.tolist()


def test_no_texts_give_no_rows(any_encoder):
    none = any_encoder.encode_available([])
    assert none.dense.shape == (0, any_encoder.dimensions)
    assert none.sparse.shape[0] == len(none) == 0


def test_what_is_no_text_is_named(any_encoder):
    with pytest.raises(TypeError, match=r"texts\[1\] must be a str, got int"):
        any_encoder.encode_available(["a", 5])
    with pytest.raises(ValueError, match="role is 'both'"):
        any_encoder.encode_available(["a"], role="both")


def test_awaited_vectors_are_the_same(any_encoder):
    encode = any_encoder.encode_available
    expected = encode(TEXTS)
    if all(halves(any_encoder).values()):
        found = asyncio.run(any_encoder.aencode(TEXTS))
        np.testing.assert_allclose(found.dense, expected.dense, atol=1e-5)
    else:
        with pytest.raises(MissingHeadError, match="use encode_"):
            asyncio.run(any_encoder.aencode(TEXTS))


def test_a_pickle_is_the_same_encoder(any_encoder):
    again = pickle.loads(pickle.dumps(any_encoder))
    assert again.fingerprint == any_encoder.fingerprint
    expected = any_encoder.encode_available("oak").dense
    np.testing.assert_array_equal(again.encode_available("oak").dense, expected)
    if hasattr(again, "close"):
        again.close()


def test_threads_share_an_encoder(any_encoder):
    expected = any_encoder.encode_available(TEXTS).dense
    found = []
    work = lambda: found.append(any_encoder.encode_available(TEXTS).dense)  # noqa: E731
    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert len(found) == 8
    assert all(np.allclose(dense, expected, atol=1e-5) for dense in found)


@pytest.fixture(params=REMOTE)
def remote(request, serve):
    return REMOTE[request.param](serve)


def test_every_index_and_adapter_takes_it(remote, tmp_path):
    with QdrantHybridIndex(tmp_path / "index", "docs", remote) as index:
        index.create()
        index.add([("a", "oak and pine"), ("b", "elm and yew")])
        assert index.search("oak pine", limit=1)[0][0].id == "a"
        mode = index.default_mode if hasattr(index, "default_mode") else None
        assert mode in (None, "dense", "sparse", "hybrid")
    if remote.has_dense:
        assert len(GTEEmbeddings(encoder=remote).embed_query("oak")) == remote.dimensions
        assert len(GTEEmbedding(encoder=remote).get_query_embedding("oak")) == remote.dimensions


def test_prefixes_go_before_texts(serve):
    _, encoder = serve(FakeTEI(), TEIEncoder, query_prefix="find: ", document_prefix="doc: ")
    plain = serve(FakeTEI(), TEIEncoder)[1]
    for role, prefix in {"query": "find: ", "document": "doc: "}.items():
        np.testing.assert_array_equal(
            encoder.encode_dense("oak", role=role), plain.encode_dense(f"{prefix}oak")
        )
    assert encoder.fingerprint.document_prefix == "doc: "


# ---------------------------------------------------------------- what TEI says of itself


def test_a_model_of_the_hub_at_a_commit_has_the_local_fingerprint(tei):
    assert tei[1].fingerprint == Fingerprint("Alibaba-NLP/gte-multilingual-base", COMMIT, LONGEST)


@pytest.mark.parametrize(
    ("model", "commit"), [("/data/model", COMMIT), ("a/b", "main"), ("a/b", None), ("bert", COMMIT)]
)
def test_any_other_has_the_servers_name_for_it(serve, model, commit):
    server, encoder = serve(FakeTEI(), TEIEncoder)
    server.info |= {"model_id": model, "model_sha": commit}
    assert encoder.fingerprint == Fingerprint(f"tei:{model}", None, LONGEST)


def test_a_fingerprint_may_be_given(serve):
    given = Fingerprint("own", None, 8)
    assert serve(FakeTEI(), TEIEncoder, fingerprint=given)[1].fingerprint == given


def test_what_a_server_built_is_searched_by_the_local_model(serve, tmp_path):
    fingerprint = HashEncoder(dimensions=SIZE, has_sparse=False, name="a/b").fingerprint
    _, encoder = serve(FakeTEI(), TEIEncoder, fingerprint=fingerprint)
    with QdrantHybridIndex(tmp_path / "index", "docs", encoder) as index:
        index.create()
        index.add([("a", "oak and pine"), ("b", "elm and yew")])
    local = HashEncoder(dimensions=SIZE, has_sparse=False, name="a/b")
    with QdrantHybridIndex(tmp_path / "index", "docs", local) as index:
        assert index.search("oak", limit=1)[0][0].id == "a"


def test_dense_and_sparse_of_two_servers_are_a_pair(serve):
    dense = serve(FakeTEI(), TEIEncoder)[1]
    sparse = serve(FakeTEI("splade"), TEIEncoder)[1]
    both = PairedEncoder(dense=dense, sparse=sparse).encode(TEXTS)
    assert both.dimensions == SIZE
    assert both.sparse.nnz


@pytest.mark.parametrize("kind", [{"reranker": {"id2label": {}}}, {"classifier": {}}, None])
def test_what_is_no_embedding_model_is_refused(serve, kind):
    server, encoder = serve(FakeTEI(), TEIEncoder)
    server.info["model_type"] = kind
    with pytest.raises(MissingHeadError, match="which is no embedding model but"):
        encoder.encode_dense("oak")


def test_what_is_no_such_server_is_refused(serve):
    server, encoder = serve(FakeTEI(), TEIEncoder)
    server.info = {"detail": "hello"}
    with pytest.raises(RemoteError, match="names its model there; look at the address"):
        _ = encoder.dimensions


def test_a_size_is_asked_for_and_checked(serve):
    server, encoder = serve(FakeTEI(), TEIEncoder, dimensions=8)
    assert encoder.dimensions == encoder.encode_dense("oak").shape[1] == 8
    server.change = lambda rows: [[1.0] * SIZE for _ in rows]  # one that does not know the field
    for one in (encoder, TEIEncoder(server.url, dimensions=8)):
        with one, pytest.raises(RemoteError, match=f"of {SIZE} comp.* those of its model have 8"):
            one.encode_dense("oak")


def test_another_model_is_noticed_while_an_index_is_open(tei, tmp_path, monkeypatch):
    server, encoder = tei
    with QdrantHybridIndex(tmp_path / "index", "docs", encoder) as index:
        index.create()
        index.add([("a", "oak")])
        server.info["model_sha"] = "0" * 40
        clock = time.monotonic  # that of event loops
        monkeypatch.setattr(time, "monotonic", lambda: clock() + 60)
        with pytest.raises(RemoteError, match="serves another model now: model_sha '9bbca"):
            index.add([("b", "elm")])
        with pytest.raises(RemoteError, match="make a new encoder"):
            index.search("oak")


def test_a_server_that_did_not_say_what_it_serves_is_asked_again(tei, monkeypatch):
    server, encoder = tei
    assert encoder.encode_dense("oak").any()
    server.info["model_sha"] = "0" * 40
    server.info_faults = [refuse(404)]
    clock = time.monotonic  # that of event loops
    monkeypatch.setattr(time, "monotonic", lambda: clock() + 60)
    with pytest.raises(RemoteError, match="answered 404"):
        encoder.encode_dense("oak")
    with pytest.raises(RemoteError, match="serves another model now"):
        encoder.encode_dense("oak")


def test_a_text_that_was_cut_is_told(serve, caplog):
    long = " ".join(["word"] * (LONGEST + 5))
    server, encoder = serve(FakeTEI(), TEIEncoder)
    both = encoder.encode_available(["short", long, "x" * 500])
    assert both.truncated.tolist() == [False, True, False]
    assert both.n_tokens.tolist() == [0, LONGEST, 3]  # that of "short" was not said
    assert caplog.messages == [
        f"1 text(s) were longer than the {LONGEST} tokens that the server reads, and were cut; "
        "split them, or pass on_truncation='ignore'."
    ]
    assert encoder.encode_available("oak and pine").n_tokens.tolist() == [5]
    strict = TEIEncoder(server.url, on_truncation="error")
    with strict, pytest.raises(TruncationError, match=r"texts\[1\]: longer than the 64") as caught:
        strict.encode_dense(["short", long])
    assert caught.value.indices == (1,)
    server.requests.clear()
    with TEIEncoder(server.url, on_truncation="ignore") as careless:
        assert not careless.encode_available(long).truncated.any()
    assert "/tokenize" not in server.paths()


# ---------------------------------------------------------------- OpenAI's form


@pytest.mark.parametrize("change", [reversed, lambda data: data[1:] + data[:1]])
def test_swapped_vectors_are_put_in_order(serve, change):
    server, encoder = serve(FakeOpenAI(), openai)
    expected = encoder.encode_dense(TEXTS)
    server.change = lambda body: body | {"data": list(change(body["data"]))}
    np.testing.assert_array_equal(encoder.encode_dense(TEXTS), expected)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([], r"answered 2 texts with index \[\], but must give one"),
        ([{"index": 0}, {"index": 0}], r"with index \[0\], but"),
        ([{"index": i} for i in (0, 1, 0)], r"with index \[0, 1\], but .*; it gave 3"),
        ([{"index": 0}, {"index": 2}], r"with index \[0, 2\], but"),
        ("nothing", r"with index \[\], but"),
        ([{"index": 0}, {"index": 1}], "no lists of numbers of one length"),
        ([{"index": i, "embedding": [0.1] * (i + 1)} for i in (0, 1)], "numbers of one length"),
        ([{"index": i, "embedding": "&&&"} for i in (0, 1)], "no float32 in base64; pass enc"),
        ([{"index": i, "embedding": "AAAA"} for i in (0, 1)], "no float32 in base64; pass enc"),
    ],
)
def test_an_answer_that_is_no_list_of_vectors_is_refused(serve, data, message):
    server, encoder = serve(FakeOpenAI(), openai)
    assert encoder.dimensions
    server.change = lambda body: body | {"data": data}
    with pytest.raises(RemoteError, match=message):
        encoder.encode_dense(["oak", "elm"])


def test_a_fingerprint_is_of_the_provider_and_the_model(serve):
    _, encoder = serve(FakeOpenAI(), openai, max_length=512, document_prefix="doc: ")
    expected = Fingerprint("openai:bge-m3", None, 512, document_prefix="doc: ")
    assert encoder.fingerprint == expected
    assert encoder.model == "openai:bge-m3"
    given = Fingerprint("BAAI/bge-m3", "0" * 40, 8192)
    assert serve(FakeOpenAI(), openai, fingerprint=given)[1].fingerprint == given


def test_a_model_of_another_name_is_noticed(serve):
    server, encoder = serve(FakeOpenAI(), openai)
    assert encoder.encode_available("oak and pine").n_tokens.tolist() == [5]
    server.served = "e5"
    with pytest.raises(RemoteError, match="answers by the model 'e5' now, before by 'bge-m3'"):
        encoder.encode_dense("oak")


def test_a_wrong_address_or_model_says_so(serve):
    server, _ = serve(FakeOpenAI(), openai)
    with (
        OpenAIEncoder("bge-m3", base_url=server.url) as encoder,
        pytest.raises(RemoteError, match="/embeddings answered 404: Not Found"),
    ):
        _ = encoder.dimensions
    with (
        OpenAIEncoder("e5", base_url=f"{server.url}/v1") as encoder,
        pytest.raises(RemoteError, match=r"The model e5 does not exist\. \(404\)"),
    ):
        _ = encoder.dimensions


def test_more_texts_than_the_server_takes_are_halved(serve):
    server, encoder = serve(FakeOpenAI(), openai)
    texts = [f"text {number}" for number in range(30)]
    sent = encoder.encode_dense(texts)
    np.testing.assert_array_equal(sent, server.hashes.encode_dense(texts))


def test_a_key_of_openai_goes_to_openai_alone(serve, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    server, encoder = serve(FakeOpenAI(), openai)
    encoder.encode_dense("oak")
    assert "Authorization" not in server.requests[-1][1]
    monkeypatch.setenv("OPENAI_COMPATIBLE_API_KEY", "own")
    encoder.encode_dense("oak")
    assert server.requests[-1][1]["Authorization"] == "Bearer own"
    monkeypatch.setenv("OPENAI_BASE_URL", f"{server.url}/v1")
    with OpenAIEncoder("bge-m3") as named_by_environment:
        named_by_environment.encode_dense("oak")
    assert server.requests[-1][1]["Authorization"] == f"Bearer {KEY}"
    monkeypatch.delenv("OPENAI_BASE_URL")
    assert repr(OpenAIEncoder("m")) == "OpenAIEncoder('m', base_url='https://api.openai.com/v1')"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"model": ""}, "model is empty"),
        ({"model": "m", "max_texts": 0}, "max_texts is 0, but must be more than 0"),
        ({"model": "m", "encoding_format": "hex"}, "encoding_format is 'hex'; allowed are"),
    ],
)
def test_arguments_of_openais_encoder_are_checked(arguments, message):
    with pytest.raises(ValueError, match=message):
        OpenAIEncoder(**arguments)


# ---------------------------------------------------------------- Alibaba Cloud


@pytest.fixture
def cloud(serve):
    return serve(FakeDashScope(dimensions=1024), dashscope)


def parameters(server):
    return [json.loads(body)["parameters"] for _, _, body in server.requests]


def test_both_vectors_are_of_one_request_in_the_order_of_text_index(cloud):
    server, encoder = cloud
    texts = ["oak and pine", "elm", "oak"]
    server.change = lambda body: (
        body | {"output": {"embeddings": body["output"]["embeddings"][::-1]}}
    )
    both, expected = encoder.encode(texts), server.hashes.encode(texts)
    np.testing.assert_allclose(both.dense, expected.dense, atol=1e-6)
    np.testing.assert_array_equal(both.sparse.indices, expected.sparse.indices)
    assert parameters(server) == [{"text_type": "document", "output_type": "dense&sparse"}]
    assert all(token.startswith("token") for token in both.token_weights(0))
    assert pickle.loads(pickle.dumps(both)).token_weights(0) == both.token_weights(0)


def test_the_role_is_the_text_type_and_queries_have_an_instruction(serve):
    server, encoder = serve(FakeDashScope(dimensions=1024), dashscope, instruct="find: ")
    encoder.encode_dense("oak")
    encoder.encode_dense("oak", role="query")
    assert parameters(server) == [
        {"text_type": "document"},
        {"text_type": "query", "instruct": "find: "},
    ]


def test_what_is_known_of_a_model_is_not_asked(cloud):
    server, encoder = cloud
    assert (encoder.dimensions, encoder.has_dense, encoder.has_sparse) == (1024, True, True)
    assert encoder.fingerprint == Fingerprint("dashscope:text-embedding-v4", None, 8192)
    assert server.requests == []
    with pytest.raises(ValueError, match="dimensions is 100, but text-embedding-v4 offers 64, 128"):
        DashScopeEncoder("text-embedding-v4", dimensions=100)
    with pytest.raises(ValueError, match="model is empty"):
        DashScopeEncoder("")
    assert not DashScopeEncoder("text-embedding-v2").has_sparse


def test_its_limit_of_texts_is_kept_and_a_smaller_one_found(cloud):
    server, encoder = cloud
    texts = [f"text {number}" for number in range(25)]
    encoder.encode_dense(texts)
    sent = [json.loads(body)["input"]["texts"] for *_, body in server.requests]
    assert sorted(map(len, sent)) == [5, 10, 10]
    server.most_texts = 6
    expected = server.hashes.encode_dense(texts)
    np.testing.assert_allclose(encoder.encode_dense(texts), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("code", "status"), [("Throttling.RateQuota", 429), ("Throttling.AllocationQuota", 429)]
)
def test_its_throttling_is_waited_out(cloud, pauses, code, status):
    server, encoder = cloud
    server.faults = [refuse(*server.refused(status, code, "Requests rate limit exceeded"))] * 3
    assert encoder.encode_dense("oak").any()
    assert len(pauses) == 3


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (
            refuse(400, {"code": "Arrearage", "message": "Access denied.", "request_id": "1"}),
            r"answered 400: Access denied\. \(Arrearage\)",
        ),
        (
            refuse(401, {"code": "InvalidApiKey", "message": "Invalid API-key provided."}),
            r"\(InvalidApiKey\)\. Pass api_key, or set DASHSCOPE_API_KEY; it is not given",
        ),
        (
            refuse(200, {"code": "InternalError", "message": "no"}),
            r"answered 200, but no \(InternalError\)",
        ),
        (refuse(200, {"output": None}), r"answered 200, but \['output'\]"),
        (refuse(200, {"output": {"embeddings": [{"text_index": 5}]}}), r"with text_index \[5\]"),
        (
            refuse(200, {"output": {"embeddings": [{"text_index": 0, "embedding": [1.0] * 1024}]}}),
            "but must give sparse_embedding",
        ),
    ],
)
def test_its_refusals_are_errors(cloud, pauses, fault, message):
    server, encoder = cloud
    server.faults = [fault]
    with pytest.raises(RemoteError, match=message):
        encoder.encode("oak")
    assert pauses == []


# ---------------------------------------------------------------- what goes wrong


def test_texts_are_split_to_the_servers_limits(tei):
    server, encoder = tei
    texts = [f"text {number}" for number in range(10)]
    encoder.encode_dense(texts)
    sizes = [len(json.loads(body)["inputs"]) for path, _, body in server.requests if body]
    assert sorted(sizes) == [1, 2, 4, 4]  # the first is asked for the size of the vectors


@pytest.mark.parametrize("status", [413, 422])
def test_what_is_too_much_is_halved(tei, status):
    server, encoder = tei
    texts = [f"text {number}" for number in range(9)]
    expected = encoder.encode_dense(texts)
    server.most_texts = 1  # it said 4
    if status == 413:
        server.most_texts, server.most_bytes = 4, 60
    np.testing.assert_array_equal(encoder.encode_dense(texts), expected)


def test_one_text_that_is_too_much_is_named(tei):
    server, encoder = tei
    assert encoder.dimensions
    server.most_bytes = 200
    with pytest.raises(RemoteError, match="answered 413: Failed to buffer") as caught:
        encoder.encode_dense(["oak", "elm", "x" * 300])
    assert caught.value.__notes__ == ["Too large for the server by itself: texts[2]."]


def test_a_storm_of_429_is_waited_out(tei, pauses):
    server, encoder = tei
    texts = [f"text {number}" for number in range(30)]
    expected = encoder.encode_dense(texts)
    overloaded = {"error": "Model is overloaded", "error_type": "Overloaded"}
    server.faults = [refuse(429, overloaded)] * 20 + [refuse(503, b"", {"Retry-After": "7"})]
    np.testing.assert_array_equal(encoder.encode_dense(texts), expected)
    assert len(pauses) == 21
    assert 7 in pauses


@pytest.mark.parametrize("fault", [drop, cut_off, refuse(502, b"<html>bad gateway</html>")])
def test_what_can_pass_is_asked_again(tei, pauses, fault):
    server, encoder = tei
    expected = encoder.encode_dense("oak")
    server.faults = [fault]
    np.testing.assert_array_equal(encoder.encode_dense("oak"), expected)
    assert len(pauses) == 1


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (refuse(424, {"error": "NaN", "error_type": "Backend"}), r"answered 424: NaN \(Backend\)"),
        (refuse(200, b"[[0.1, 0."), r"answered no JSON, but '\[\[0.1, 0.'"),
        (refuse(200, {"error": "x"}), "with no vectors"),
        (refuse(200, [[0.1], [0.2]]), "answered 1 texts with 2 vectors"),
        (refuse(200, [[0.1, "x"]]), "or some that are no lists of numbers"),
        (refuse(200, [[[0.1, 0.2]]]), "or some that are no lists of numbers"),
        (refuse(307, b"", {"Location": "http://elsewhere/"}), "go to 'http://elsewhere/'. A redir"),
        (refuse(401), "answered 401: Unauthorized. Pass api_key, or set TEI_API_KEY"),
    ],
)
def test_what_cannot_pass_is_an_error(tei, pauses, fault, message):
    server, encoder = tei
    assert encoder.dimensions
    server.faults = [fault]
    with pytest.raises(RemoteError, match=message):
        encoder.encode_dense("oak")
    assert pauses == []


@pytest.mark.parametrize("number", [float("nan"), float("inf"), 1e39])
def test_what_is_no_number_is_refused(tei, number):
    server, encoder = tei
    assert encoder.dimensions
    server.change = lambda rows: [*rows[:-1], [number] * SIZE]
    with pytest.raises(NonFiniteError, match=r"texts\[5\]: the server's dense vector has NaN or i"):
        encoder.encode_dense(["a", "b", "c", "d", "e", "f"])


def test_a_vector_of_zeros_has_no_direction(tei):
    server, encoder = tei
    assert encoder.dimensions
    server.change = lambda rows: [[0.0] * SIZE for _ in rows]
    with pytest.raises(NonFiniteError, match=r"texts\[0\]: only zeros"):
        encoder.encode_dense("a")


def test_sparse_rows_are_put_in_order(serve):
    server, encoder = serve(FakeTEI("splade"), TEIEncoder, vocab_size=10)
    pairs = [(7, 0.5), (3, 1.0), (7, 0.75), (1, 0.0)]
    server.change = lambda rows: [[{"index": i, "value": v} for i, v in pairs] for _ in rows]
    sparse = encoder.encode_sparse("oak")
    assert sparse.indices.tolist() == [3, 7]
    assert sparse.data.tolist() == [1.0, 0.75]
    for index, value, error in [
        (10, 1.0, pytest.raises(RemoteError, match="token ids from 10 to 10, but the vocabulary")),
        (1, float("nan"), pytest.raises(NonFiniteError, match=r"texts\[0\]: the server's sparse")),
        ("x", 1.0, pytest.raises(RemoteError, match="must give the weights of 1 texts")),
    ]:
        server.change = lambda _, i=index, v=value: [[{"index": i, "value": v}]]
        with error:
            encoder.encode_sparse("oak")


def test_a_server_that_never_was_there_is_not_waited_for(pauses):
    with (
        TEIEncoder("http://127.0.0.1:9") as encoder,
        pytest.raises(RemoteError, match=r"cannot be reached: .* Look at the address"),
    ):
        _ = encoder.dimensions
    assert pauses == []


def test_an_address_where_nobody_takes_connections_is_not_waited_for(pauses):
    with contextlib.ExitStack() as opened:
        full = opened.enter_context(socket.socket())
        full.bind(("127.0.0.1", 0))
        full.listen(0)  # and accepts none, so that the next connections hang
        for _ in range(4):
            waiting = opened.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        url = f"http://127.0.0.1:{full.getsockname()[1]}"
        encoder = opened.enter_context(TEIEncoder(url, timeout=0.3))
        with pytest.raises(RemoteError, match=r"cannot be reached: .* Look at the address"):
            _ = encoder.dimensions
    assert pauses == []


def test_a_server_that_speaks_otherwise_is_not_waited_for(tei, pauses):
    server, encoder = tei
    server.info_faults = [drop]
    with pytest.raises(RemoteError, match=r"cannot be reached: .* Look at the address"):
        _ = encoder.dimensions
    assert pauses == []


def test_a_request_and_a_call_have_their_time(serve):
    server, encoder = serve(FakeTEI(), TEIEncoder, timeout=0.1, deadline=0.3)
    assert encoder.dimensions
    server.faults = [drip] * 50
    started = time.monotonic()
    with pytest.raises(RemoteError, match=r"not (finish|answer).* within 0\.[13] seconds"):
        encoder.encode_dense("oak")
    assert time.monotonic() - started < 10


def test_no_more_than_so_many_requests_are_in_flight(serve):
    server, encoder = serve(FakeTEI(), TEIEncoder, max_in_flight=3)
    assert encoder.dimensions
    server.pause = 0.01
    encoder.encode_dense([f"text {number}" for number in range(60)])
    assert 1 < server.most_in_flight <= 3


def test_a_cancelled_call_closes_its_request(tei):
    server, encoder = tei
    assert encoder.dimensions
    server.faults = [drip]
    server.asked.clear()

    async def cancel():
        call = asyncio.ensure_future(encoder.aencode_available("oak"))
        await asyncio.to_thread(server.asked.wait, 30)
        call.cancel()
        with pytest.raises(asyncio.CancelledError, match=r"^$"):
            await call

    asyncio.run(cancel())
    assert server.hung_up.wait(timeout=30)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_forked_child_asks_by_a_connection_of_its_own(serve):
    _, encoder = serve(FakeOpenAI(), openai)
    expected = encoder.encode_dense("oak")
    process = os.fork()
    if process == 0:
        signal.alarm(60)
        same = np.array_equal(encoder.encode_dense("oak"), expected)
        encoder.close()
        os._exit(0 if same else 1)
    assert os.waitpid(process, 0)[1] == 0
    np.testing.assert_array_equal(encoder.encode_dense("oak"), expected)


# ---------------------------------------------------------------- keys


def shown_by(error):
    """All that a traceback can show, but for the variables of the test itself."""
    error = error.with_traceback(error.__traceback__.tb_next)
    lines = traceback.TracebackException.from_exception(error, capture_locals=True).format()
    return "".join(lines) + repr((error.__cause__, error.__context__))


@pytest.fixture
def keyed(serve, caplog):
    caplog.set_level(logging.DEBUG)
    server, encoder = serve(FakeTEI(), TEIEncoder, api_key=KEY)
    server.key = KEY
    return server, encoder


def test_a_key_is_sent_and_shown_nowhere(keyed, caplog, pauses):
    server, encoder = keyed
    encoder.encode_dense("oak")
    assert all(headers["Authorization"] == f"Bearer {KEY}" for _, headers, _ in server.requests)
    said = [repr(encoder), repr(encoder.connection), repr(encoder.connection.key)]
    said += [str(pickle.dumps(encoder)), repr(vars(encoder)), repr(vars(encoder.connection))]
    echo = {"error": f"Incorrect API key provided: {KEY}"}
    for fault in [
        refuse(401, echo),
        refuse(400, f"your header was Bearer {KEY}".encode()),
        refuse(200, f"<html>{KEY}</html>".encode()),
        refuse(429, echo, {"Retry-After": "10000"}),
    ]:
        server.faults = [fault]
        with pytest.raises(RemoteError, match="answered") as caught:
            encoder.encode_dense("oak")
        said += [shown_by(caught.value), str(pickle.dumps(caught.value))]
    encoder.connection.deadline = 0.01
    server.faults = [drop] * 1000
    with pytest.raises(RemoteError, match=r"reached|finish") as caught:
        encoder.encode_dense("oak")
    said += [shown_by(caught.value), str(pickle.dumps(caught.value)), caplog.text]
    assert not [text for text in said if KEY in text]


def test_a_key_that_an_answer_repeats_is_not_shown(serve):
    server, encoder = serve(FakeTEI("splade"), TEIEncoder, api_key=KEY)
    server.change = lambda _: {"your key": KEY}
    with pytest.raises(RemoteError, match=r"must give the weights") as caught:
        encoder.encode_sparse("oak")
    assert KEY not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("before", [279, 285, 299])
def test_a_key_that_is_cut_where_an_error_ends_is_not_shown(keyed, before):
    server, encoder = keyed
    server.info_faults = [refuse(400, {"error": "x" * before + KEY})]
    with pytest.raises(RemoteError, match=r"x\*\*\*…?$|xs?k?-?…$") as caught:
        _ = encoder.dimensions
    assert KEY[:4] not in str(caught.value)


def test_a_pickle_reads_the_environment_and_a_copy_keeps_the_key(keyed, monkeypatch):
    _, encoder = keyed
    pickled = pickle.dumps(encoder)
    with copy.deepcopy(encoder) as same:
        assert same.encode_dense("oak").any()
    with pickle.loads(pickled) as again, pytest.raises(RemoteError, match="it is not given"):
        again.encode_dense("oak")
    monkeypatch.setenv("TEI_API_KEY", f"{KEY}\n")
    with pickle.loads(pickled) as again:
        assert again.encode_dense("oak").any()


@pytest.mark.parametrize("key", ["", " ", "two words", "line\nbreak", "schlüssel"])
def test_a_key_that_no_header_carries_is_refused_and_not_shown(key):
    with pytest.raises(ValueError, match="api_key, or TEI_API_KEY of the environment, is") as found:
        TEIEncoder("http://localhost", api_key=key)
    assert not key.strip() or key not in str(found.value)


@pytest.mark.parametrize(
    "url",
    ["localhost:80", "ftp://a", "http://", "http://me:pw@a", "http://a?key=pw", "http://a#pw"],
)
def test_an_address_is_checked_and_its_secrets_not_shown(url):
    with pytest.raises(ValueError, match=r"^url ") as caught:
        TEIEncoder(url)
    assert "pw" not in str(caught.value)


@pytest.mark.parametrize("name", ["timeout", "deadline", "max_in_flight"])
def test_limits_are_more_than_0(name):
    with pytest.raises(ValueError, match=f"{name} is 0, but must be more than 0"):
        TEIEncoder("http://localhost", **{name: 0})


# ---------------------------------------------------------------- real servers


REAL_KEYS = dict(os.environ)  # as they were before the fixture took the keys away


def check_real(encoder):
    with encoder:
        both = encoder.encode_available(["What is the capital of China?", "北京", ""])
        again = encoder.encode_available("北京")
        np.testing.assert_allclose(again.dense, both[1].dense, atol=1e-2)
        assert str(encoder.fingerprint)


@pytest.mark.server
@pytest.mark.skipif("TEI_URL" not in os.environ, reason="no TEI_URL")
def test_a_real_tei():
    check_real(TEIEncoder(os.environ["TEI_URL"], api_key=REAL_KEYS.get("TEI_API_KEY")))


@pytest.mark.server
@pytest.mark.skipif("OPENAI_COMPATIBLE_URL" not in os.environ, reason="no OPENAI_COMPATIBLE_URL")
def test_a_real_server_of_openais_form():
    model, url = os.environ["OPENAI_COMPATIBLE_MODEL"], os.environ["OPENAI_COMPATIBLE_URL"]
    check_real(
        OpenAIEncoder(model, base_url=url, api_key=REAL_KEYS.get("OPENAI_COMPATIBLE_API_KEY"))
    )


@pytest.mark.server
@pytest.mark.skipif("DASHSCOPE_API_KEY" not in os.environ, reason="no DASHSCOPE_API_KEY")
def test_the_real_cloud():
    check_real(DashScopeEncoder("text-embedding-v4", api_key=REAL_KEYS["DASHSCOPE_API_KEY"]))
