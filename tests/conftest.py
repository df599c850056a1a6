from pathlib import Path

import pytest

from gte_core import GTEEmbedder, release_shared
from gte_core.testing import random_checkpoint

GOLDEN = Path(__file__).parent / "golden"


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
    original = GTEEmbedder._encode_windows

    def recorded(self, texts, max_length, **options):
        calls.append(list(texts))
        return original(self, calls[-1], max_length, **options)

    monkeypatch.setattr(GTEEmbedder, "_encode_windows", recorded)
    return calls


@pytest.fixture(scope="session")
def small(small_checkpoint):
    return GTEEmbedder.from_pretrained(small_checkpoint, dtype="float32")
