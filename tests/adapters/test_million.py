"""Many documents in a directory: everything one does with them, with bounded memory.

``GTE_MANY`` sets how many; times and the peak of memory are logged (``--log-cli-level=INFO``).
"""

import logging
import os
import sys
import time
from contextlib import contextmanager

import pytest
from qdrant_client import models

from gte_core.testing import HashEncoder
from gte_integrations.qdrant import QdrantHybridIndex

if sys.platform == "win32":
    pytest.skip("knows no resource module", allow_module_level=True)
import resource

_logger = logging.getLogger(__name__)


def documents(count):
    words = [f"w{number}" for number in range(500)]
    for number in range(count):
        some = [words[number * step % 500] for step in (1, 7, 31, 97, 211, 307)]
        yield number, f"{' '.join(some)} n{number}", {"tenth": number % 10 == 0}


@contextmanager
def timed(step):
    started = time.perf_counter()
    yield
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    _logger.info("%s: %.1f s, peak %.0f MiB", step, time.perf_counter() - started, peak)


@pytest.mark.slow
@pytest.mark.parametrize("count", [int(os.environ.get("GTE_MANY", "20000"))])
def test_many_documents_live_in_a_directory(tmp_path, count):
    def opened(collection, dimensions):
        return QdrantHybridIndex(tmp_path, collection, HashEncoder(dimensions=dimensions))

    with opened("docs", 64) as index:
        index.create()
        with timed("add"):
            assert index.add(documents(count)).written == count
    with opened("docs", 64) as index, opened("other", 32) as other:
        with timed("reopen and count"):
            assert len(index) == count
        with timed("iterate"):
            assert sum(1 for _ in index) == count
        with timed("iterate with vectors"):
            assert sum(len(document.dense) for document in index.documents(with_vectors=True)) == (
                64 * count
            )
        with timed("delete by filter"):
            tenth = models.FieldCondition(key="tenth", match=models.MatchValue(value=True))
            removed = index.delete(filter=models.Filter(must=[tenth]))
            assert removed == count // 10
        with timed("prune"):
            kept = [number for number in range(count) if number % 10 and number % 3]
            assert index.prune(kept) == count - removed - len(kept)
        other.create()
        with timed("reindex"):
            assert index.reindex(to=other).written == len(kept)
        with timed("reindex again"):
            assert index.reindex(to=other).unchanged == len(kept)
        assert {document.id for document in other} == set(kept)
        with timed("drop"):
            index.drop()
        assert index.metadata() is None
