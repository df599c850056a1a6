"""``--model`` with a server or a cloud: a collection filled and searched through HTTP."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from typer.testing import CliRunner

from gte_core import GTEEmbedder
from gte_integrations.cli.commands import app
from gte_integrations.cli.remote_models import is_remote


class Handler(BaseHTTPRequestHandler):
    """A server of text-embeddings-inference and one of OpenAI's form, over the demo model."""

    def do_GET(self):
        self._answer(self.server.info)

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        texts = body.get("inputs") or body["input"]
        rows = self.server.embedder.encode_dense(texts).tolist()
        data = [{"index": place, "embedding": row} for place, row in enumerate(rows)]
        self._answer(rows if self.path == "/embed" else {"model": body["model"], "data": data})

    def _answer(self, answer):
        content = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def server():
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.embedder = GTEEmbedder.from_pretrained("demo")
        server.info = {
            "model_id": "/models/demo",
            "model_sha": None,
            "model_type": {"embedding": {"pooling": "cls"}},
            "max_input_length": 8192,
            "max_client_batch_size": 32,
        }
        server.address = f"127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.md").write_text("How to print a booklet")
    (tmp_path / "notes" / "b.md").write_text("Fußnoten einfügen")


def gte(*words, exit_code=0):
    ran = CliRunner().invoke(app, [*map(str, words)])
    assert ran.exit_code == exit_code, ran.output
    return ran


@pytest.mark.parametrize("model", ["tei+http://{}", "openai+http://{}/v1#demo"])
def test_a_collection_is_filled_and_searched_by_a_server(server, model):
    model = model.format(server.address)
    store = ("--collection", "notes", "--model", model)
    gte("index", "notes", "--to", "qdrant:./index", *store)
    found = gte("search", "print a booklet", "--from", "qdrant:./index", *store, "--json")
    first = json.loads(found.stdout)
    assert first["hits"][0]["id"].endswith("a.md")
    assert first["model"] == ("tei:/models/demo" if model.startswith("tei") else "openai:demo")
    gte("index", "notes", "--to", "qdrant:./index", *store, "--dimensions", 64, exit_code=1)
    refused = gte("search", "x", "--from", "qdrant:./index", "--collection", "notes", exit_code=1)
    assert "the model of a server; pass that server as --model" in " ".join(refused.output.split())


def test_texts_are_encoded_by_a_server(server):
    model = f"tei+http://{server.address}"
    done = gte("encode", "print", "--model", model, "--dimensions", 8, "--json")
    encoded = json.loads(done.stdout)
    assert len(encoded["dense"]) == 8
    assert encoded["sparse"] is None


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["encode", "x", "--model", "tei+http://a", "--device", "cpu"], "--device is for a model"),
        (["encode", "x", "--model", "openai+http://a/v1"], "put the name of the model behind it"),
        (["encode", "x", "--model", "tei+http://a#b"], "that server has one model; leave out #"),
        (["encode", "x", "--model", "openai:m", "--on-truncation", "warn"], "openai does not say"),
        (["explain", "x", "y", "--model", "dashscope:m"], "a server, but scores are explained by"),
    ],
)
def test_what_a_server_does_not_take_is_said(words, message):
    assert message in " ".join(gte(*words, exit_code=1).output.split())


@pytest.mark.parametrize(
    "model", ["demo", "Alibaba-NLP/gte-multilingual-base", "./tei", "C:\\model", None]
)
def test_names_of_local_models_stay_local(model):
    assert not is_remote(model)


@pytest.mark.parametrize(
    "model", ["tei:http://h:1", "tei+h:1", "openai:http://h/v1#m", "openai+h/v1#m", "TEI+http://h"]
)
def test_what_nearly_names_a_server_goes_nowhere(model):
    with pytest.raises(ValueError, match=r"model is '.*'; write tei\+http"):
        is_remote(model)
