"""An encoder made of hashes, and the places where an index can live."""

import json
import logging
import os
import socket
import subprocess
import sys
import time
import uuid
from collections import Counter

import pytest
import torch
from safetensors.torch import save_file

from gte_core import Fingerprint
from gte_core.encoder import with_prefix
from gte_core.testing import HashEncoder, random_checkpoint
from gte_core.texts import checked

VOCAB_SIZE = 500
SIZE = 32
SERVERS = {"qdrant_server": "QDRANT_URL", "milvus_server": "MILVUS_URI"}
KEYS = {"qdrant_server": ("api_key", "QDRANT_API_KEY"), "milvus_server": ("token", "MILVUS_TOKEN")}
FINGERPRINT = Fingerprint("hash", "0" * 40, 512)


class RecordingEncoder:
    """A ``HashEncoder`` that counts calls, keeps texts, and fails at those in ``failures``."""

    vocab_size = VOCAB_SIZE

    def __init__(
        self,
        dimensions=SIZE,
        has_sparse=True,
        query_prefix="",
        fingerprint=FINGERPRINT,
        has_dense=True,
    ):
        self.hashes = HashEncoder(
            dimensions=dimensions,
            vocab_size=VOCAB_SIZE,
            has_sparse=has_sparse,
            has_dense=has_dense,
            max_length=fingerprint.max_length,
        )
        self.dimensions = self.hashes.dimensions
        self.has_dense, self.has_sparse = has_dense, has_sparse
        self.query_prefix, self.fingerprint = query_prefix, fingerprint
        self.calls, self.texts, self.failures = Counter(), [], {}

    def encode(self, texts, *, role="document", dimensions=None):
        return self.hashes.encode(self._take("encode", texts, role), dimensions=dimensions)

    def encode_available(self, texts, *, role="document", dimensions=None):
        texts = self._take("encode_available", texts, role)
        return self.hashes.encode_available(texts, dimensions=dimensions)

    def encode_dense(self, texts, *, role="document", dimensions=None):
        texts = self._take("encode_dense", texts, role)
        return self.hashes.encode_dense(texts, dimensions=dimensions)

    def encode_sparse(self, texts, *, role="document"):
        return self.hashes.encode_sparse(self._take("encode_sparse", texts, role))

    async def aencode(self, texts, *, role="document", dimensions=None):
        return self.encode(texts, role=role, dimensions=dimensions)

    def _take(self, call, texts, role):
        texts = list(checked(with_prefix(texts, role, self.query_prefix)))
        self.calls[call] += 1
        self.texts.extend(texts)
        for text in texts:
            if text in self.failures:
                raise self.failures[text]
        return texts


@pytest.fixture(scope="session")
def sparse_checkpoint(tmp_path_factory):
    """A sparse encoder whose queries are looked up, in the form of sentence-transformers."""
    directory = tmp_path_factory.mktemp("sparse")
    network, pooling = "document_0_MLMTransformer", "document_1_SpladePooling"
    table = "query_0_SparseStaticEmbedding"
    types = {
        folder: f"sentence_transformers.models.{folder.rpartition('_')[2]}"
        for folder in (network, pooling, table)
    }
    random_checkpoint(directory / network, task="masked_lm")
    files = {
        "modules.json": [{"idx": 0, "name": "0", "path": "", "type": "models.Router"}],
        "router_config.json": {
            "types": types,
            "structure": {"query": [table], "document": [network, pooling]},
        },
        f"{network}/sentence_bert_config.json": {"transformer_task": "fill-mask"},
        f"{pooling}/config.json": {"activation_function": "log1p_relu"},
        f"{table}/config.json": {},
    }
    for name, content in files.items():
        path = directory / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(content), encoding="utf-8")
    weights = torch.rand(512, generator=torch.Generator().manual_seed(0))
    save_file({"weight": weights}, directory / table / "model.safetensors")
    return directory


@pytest.fixture
def encoder():
    return RecordingEncoder()


@pytest.fixture(scope="session")
def make_encoder():
    return RecordingEncoder


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
        index = self.index_type(self.location, name, encoder, **self.credentials, **options)
        self.opened.append(index)
        return index

    @property
    def index_type(self):
        if self.engine.startswith("milvus"):
            from gte_integrations.milvus import MilvusHybridIndex as HybridIndex
        else:
            from gte_integrations.qdrant import QdrantHybridIndex as HybridIndex
        return HybridIndex

    @property
    def credentials(self):
        """The key of a server, as an index and ``read_metadata`` take it."""
        argument, variable = KEYS.get(self.engine, ("", ""))
        return {argument: os.environ[variable]} if variable in os.environ else {}

    @property
    def location(self):
        """What an index takes to find the engine."""
        if self.engine in SERVERS:
            return os.environ[SERVERS[self.engine]]
        if self.engine == "memory":
            from qdrant_client import QdrantClient

            self.client = self.client or QdrantClient(":memory:")
            return self.client
        return self.directory / {"edge": "qdrant", "milvus": "milvus.db"}[self.engine]

    def close(self):
        for index in self.opened:
            index.close()
        if self.client is not None:
            self.client.close()

    def drop(self):
        location = os.environ[SERVERS[self.engine]]
        if self.engine == "milvus_server":
            from pymilvus import MilvusClient

            client = MilvusClient(location, **self.credentials)
            names, drop = client.list_collections(), client.drop_collection
            for alias in client.list_aliases()["aliases"]:  # which keep a collection from going
                if alias.startswith(self.prefix):
                    client.drop_alias(alias)
        else:
            from qdrant_client import QdrantClient

            client = QdrantClient(url=location, check_compatibility=False, **self.credentials)
            names = [found.name for found in client.get_collections().collections]
            drop = client.delete_collection
        for name in names:
            if name.startswith(self.prefix):
                drop(name)
        client.close()

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
def quick_retries(monkeypatch):
    """The pauses between attempts, which are drawn at random, are a fiftieth of what they were."""
    monkeypatch.setattr("random.uniform", lambda low, high: low / 50)


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
