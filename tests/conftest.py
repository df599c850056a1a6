from pathlib import Path

import pytest

from gte_core import GTEEmbedder
from gte_core.testing import random_checkpoint

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture(scope="session")
def golden():
    return GOLDEN


@pytest.fixture(scope="session")
def demo():
    return GTEEmbedder.from_pretrained("demo", on_truncation="ignore")


@pytest.fixture(scope="session")
def small_checkpoint(tmp_path_factory):
    return random_checkpoint(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture(scope="session")
def small(small_checkpoint):
    return GTEEmbedder.from_pretrained(small_checkpoint)
