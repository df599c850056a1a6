import json
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from gte_core import GTEEmbedder, release_shared
from gte_core.checkpoint import hub
from gte_core.runtime.learned_sparse import LearnedSparseEngine
from gte_core.runtime.vectors import VectorEngine
from gte_core.testing import random_checkpoint
from gte_core.tokenizer import GTETokenizer

GOLDEN = Path(__file__).parent / "golden"
HOSTILE_CODE = "import pathlib; pathlib.Path({marker!r}).touch()\n"

# A busy machine is slow, which makes no property false.
settings.register_profile("suite", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("suite")


@pytest.fixture(scope="session")
def golden():
    return GOLDEN


@pytest.fixture(scope="session")
def demo():
    return GTEEmbedder.from_pretrained("demo", dtype="float32", on_truncation="ignore")


@pytest.fixture(scope="session")
def small_checkpoint(tmp_path_factory):
    return random_checkpoint(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture
def encoded(monkeypatch):
    """The texts of every call that reaches a model, by whatever method; nothing is cached yet."""
    release_shared()
    calls = []
    texts = {}
    tokenize = GTETokenizer.tokenize

    def tokenized(self, given, max_length):
        found = tokenize(self, given, max_length)
        # What is tokenized is kept, so that no other gets its id.
        texts.update((id(ids), (text, ids)) for text, ids in zip(given, found, strict=True))
        return found

    def recording(compute):
        def recorded(self, given, **options):
            calls.append([texts[id(ids)][0] for ids in given])
            return compute(self, given, **options)

        return recorded

    monkeypatch.setattr(GTETokenizer, "tokenize", tokenized)
    for engine in (VectorEngine, LearnedSparseEngine):
        monkeypatch.setattr(engine, "compute", recording(engine.compute))
    return calls


@pytest.fixture
def start():
    """``subprocess.Popen`` for programs that are interrupted; killed if the test leaves them alive.

    A shell makes what it starts in the background ignore SIGINT, pytest too, and a child inherits
    that: so while the test runs it is not ignored here.
    """
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    started = []

    def start(command, **options):
        started.append(subprocess.Popen(command, **options))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        with process:  # closes its pipes and waits
            pass
    signal.signal(signal.SIGINT, previous)


@pytest.fixture(scope="session")
def small(small_checkpoint):
    return GTEEmbedder.from_pretrained(small_checkpoint, dtype="float32")


def laid_out(home, model, files):
    """Lay files out as the Hugging Face cache in a home does after a download of main."""
    repository = home / "hub" / f"models--{model.replace('/', '--')}"
    snapshot = repository / "snapshots" / hub.PINS[hub.DEFAULT_MODEL].revision
    for name, content in files.items():
        (snapshot / name).parent.mkdir(parents=True, exist_ok=True)
        (snapshot / name).write_text(content)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(snapshot.name)
    return snapshot


@pytest.fixture(scope="session")
def hub_home(tmp_path_factory):
    """A home of the hub with the default model in its cache, small: the demo, published like it.

    Its code, in a repository of its own and beside the weights, leaves a file ``executed``.
    """
    home = tmp_path_factory.mktemp("hub")
    demo = hub.find_model("demo").directory
    code = HOSTILE_CODE.format(marker=str(home / "executed"))
    elsewhere = "Alibaba-NLP/new-impl"
    laid_out(home, elsewhere, {"configuration.py": code, "modeling.py": code})
    classes = {
        "AutoConfig": "configuration.NewConfig",
        "AutoModel": "modeling.NewModel",
        "AutoModelForTokenClassification": "modeling.NewForTokenClassification",
    }
    auto_map = {name: f"{elsewhere}--{place}" for name, place in classes.items()}
    config = json.loads((demo / "config.json").read_text())
    # Weights are kept in float16; in float32 they give what the tests compare more closely.
    config |= {"auto_map": auto_map, "torch_dtype": "float32"}
    types = {"": "Transformer", "1_Pooling": "Pooling", "2_Normalize": "Normalize"}
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (path, kind) in enumerate(types.items())
    ]
    pooling = {"word_embedding_dimension": config["hidden_size"], "pooling_mode_cls_token": True}
    described = {
        "config.json": config,
        "modules.json": modules,
        "1_Pooling/config.json": pooling | {"pooling_mode_mean_tokens": False},
        "sentence_bert_config.json": {"max_seq_length": 8192, "do_lower_case": False},
    }
    files = {name: json.dumps(value) for name, value in described.items()}
    files |= {"modeling.py": code, "scripts/gte_embedding.py": code}
    snapshot = laid_out(home, hub.DEFAULT_MODEL, files)
    for name in ("model.safetensors", "tokenizer.json", "tokenizer_config.json"):
        shutil.copy(demo / name, snapshot)
    return home


@pytest.fixture
def published(hub_home, monkeypatch):
    """The default model is in the cache of this process, and the hub is away."""
    pin = hub.Pin(hub.PINS[hub.DEFAULT_MODEL].revision)
    monkeypatch.setattr(hub, "PINS", {hub.DEFAULT_MODEL: pin})
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(hub_home / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return hub_home
