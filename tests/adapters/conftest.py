"""An encoder made of hashes, and the places where an index can live."""

import hashlib
import logging
import os
import re
import socket
import subprocess
import sys
import time
import uuid
from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import pytest
import scipy.sparse as sp

from gte_core import Fingerprint, HybridEmbeddings

VOCAB_SIZE = 500
SIZE = 32
SERVERS = {"qdrant_server": "QDRANT_URL", "milvus_server": "MILVUS_URI"}
FINGERPRINT = Fingerprint("hash", "0" * 40, 512)


@dataclass
class HashEncoder:
    """Satisfies ``Encoder``: a word is a token, its vector and its weight come from its hash."""

    dimensions: int = SIZE
    has_sparse: bool = True
    query_prefix: str = ""
    fingerprint: Fingerprint = FINGERPRINT
    calls: Counter = field(default_factory=Counter)
    texts: list = field(default_factory=list)
    failures: dict = field(default_factory=dict)

    def encode(self, texts, *, dimensions=None):
        return self._both("encode", texts, dimensions)

    def encode_available(self, texts, *, dimensions=None):
        return self._both("encode_dense", texts, dimensions)

    def _both(self, call, texts, dimensions):
        texts = self._take(call, texts)
        sparse = self._sparse(texts)
        n_tokens = np.array([len(_words(text)) + 2 for text in texts], np.int64)
        truncated = n_tokens > self.fingerprint.max_length
        return HybridEmbeddings(self._dense(texts, dimensions), sparse, n_tokens, truncated, str)

    def encode_dense(self, texts, *, dimensions=None):
        return self._dense(self._take("encode_dense", texts), dimensions)

    def encode_sparse(self, texts):
        return self._sparse(self._take("encode_sparse", texts))

    async def aencode(self, texts, *, dimensions=None):
        return self.encode(texts, dimensions=dimensions)

    def _take(self, call, texts):
        texts = [texts] if isinstance(texts, str) else list(texts)
        self.calls[call] += 1
        self.texts.extend(texts)
        for text in texts:
            if text in self.failures:
                raise self.failures[text]
        return texts

    def _dense(self, texts, dimensions):
        total = np.zeros((len(texts), self.dimensions))
        for row, text in enumerate(texts):
            for word in ["", *_words(text)]:
                total[row] += np.random.default_rng(_number(word)).normal(size=self.dimensions)
        cut = total[:, : dimensions or self.dimensions]
        return np.float32(cut / np.linalg.norm(cut, axis=1, keepdims=True).clip(1e-9))

    def _sparse(self, texts):
        matrix = np.zeros((len(texts), VOCAB_SIZE), np.float32)
        for row, text in enumerate(texts):
            for word in _words(text):  # like the model's, a weight depends on the whole text
                matrix[row, _number(word) % VOCAB_SIZE] = 0.2 + _number(word + text) % 9973 / 9973
        return sp.csr_array(matrix)


def _words(text):
    return re.findall(r"\w+", text.lower())


def _number(word):
    return int.from_bytes(hashlib.blake2b(repr(word).encode(), digest_size=7).digest())


@pytest.fixture
def encoder():
    return HashEncoder()


@pytest.fixture(scope="session")
def make_encoder():
    return HashEncoder


class Place:
    """One engine, empty; ``open`` may be called again for what was stored before."""

    def __init__(self, engine, directory):
        self.engine = engine
        self.prefix = f"gte_test_{uuid.uuid4().hex}_" if engine in SERVERS else ""
        self.directory = directory
        self.opened = []
        self.client = None

    def open(self, encoder, collection="docs", **options):
        name = self.prefix + collection if self.prefix else collection
        index = getattr(self, f"_{self.engine}")(encoder, name, options)
        self.opened.append(index)
        return index

    def close(self):
        for index in self.opened:
            index.close()
        if self.client is not None:
            self.client.close()

    def drop(self):
        client = self.opened[0]._store._client
        if self.engine == "milvus_server":
            names = client.list_collections()
            drop = client.drop_collection
        else:
            names = [found.name for found in client.get_collections().collections]
            drop = client.delete_collection
        for name in names:
            if name.startswith(self.prefix):
                drop(name)

    def filter(self, key, value):
        if self.engine.startswith("milvus"):
            return f'{key} == "{value}"'
        if self.engine == "edge":
            import qdrant_edge as edge

            condition = edge.FieldCondition(key=key, match=edge.MatchValue(value=value))
            return edge.Filter(must=[condition])
        from qdrant_client import models

        condition = models.FieldCondition(key=key, match=models.MatchValue(value=value))
        return models.Filter(must=[condition])

    def _edge(self, encoder, collection, options):
        from gte_integrations.qdrant import QdrantHybridIndex

        return QdrantHybridIndex(self.directory / "qdrant", collection, encoder, **options)

    def _memory(self, encoder, collection, options):
        from gte_integrations.qdrant import QdrantClient, QdrantHybridIndex

        self.client = self.client or QdrantClient(":memory:")
        return QdrantHybridIndex(self.client, collection, encoder, **options)

    def _qdrant_server(self, encoder, collection, options):
        from gte_integrations.qdrant import QdrantHybridIndex

        return QdrantHybridIndex(os.environ["QDRANT_URL"], collection, encoder, **options)

    def _milvus_server(self, encoder, collection, options):
        from gte_integrations.milvus import MilvusHybridIndex

        return MilvusHybridIndex(os.environ["MILVUS_URI"], collection, encoder, **options)

    def _milvus(self, encoder, collection, options):
        from gte_integrations.milvus import MilvusHybridIndex

        return MilvusHybridIndex(self.directory / "milvus.db", collection, encoder, **options)


NAMED = [
    pytest.param(engine, marks=pytest.mark.server)
    for engine, variable in SERVERS.items()
    if variable in os.environ
]


@pytest.fixture(params=["edge", "memory", "milvus", *NAMED])
def place(request, tmp_path):
    place = Place(request.param, tmp_path)
    yield place
    if place.prefix and place.opened:
        place.drop()
    place.close()


@pytest.fixture
def make_place():
    return Place


@pytest.fixture
def index(place, encoder):
    index = place.open(encoder)
    index.create()
    return index


@pytest.fixture
def when_missed():
    """Takes what is called once an index has warned that its server is away, before it goes on."""
    calls = []

    class Calling(logging.Handler):
        def emit(self, record):
            if calls:
                calls.pop()()

    handler = Calling(logging.WARNING)
    logging.getLogger("gte_integrations").addHandler(handler)
    yield calls.append
    logging.getLogger("gte_integrations").removeHandler(handler)


class MilvusServer:
    """Milvus Lite in a process of its own, whose content outlives its restarts."""

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
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and self.process.poll() is None:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.05)
        self.kill()
        raise TimeoutError("milvus-lite server did not start")

    def kill(self):
        self.process.kill()
        self.process.wait()


@pytest.fixture
def milvus_process(tmp_path):
    server = MilvusServer(tmp_path / "server")
    yield server
    server.kill()
