import signal
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from gte_core import GTEEmbedder, release_shared
from gte_core.runtime.learned_sparse import LearnedSparseEngine
from gte_core.runtime.vectors import VectorEngine
from gte_core.testing import random_checkpoint
from gte_core.tokenizer import GTETokenizer

GOLDEN = Path(__file__).parent / "golden"

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
