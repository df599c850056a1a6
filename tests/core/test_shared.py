import asyncio
import gc
import pickle
import threading
import weakref

import numpy as np
import pytest

from gte_core import EncoderSettings, GTEEmbedder, MissingHeadError, shared_encoder
from gte_core.shared import _RecentVectors, _Vectors
from gte_core.testing import random_checkpoint

TEXTS = ["w1 w2", "", "w3 " * 50, "w4"]


@pytest.fixture
def settings(small_checkpoint):
    return EncoderSettings(model=str(small_checkpoint))


@pytest.fixture
def encoder(settings):
    return shared_encoder(settings)


def test_equals_the_embedder(encoder, small):
    both, expected = encoder.encode(TEXTS), small.encode(TEXTS)
    np.testing.assert_allclose(both.dense, expected.dense, atol=1e-6)
    np.testing.assert_array_equal(both.sparse.toarray(), expected.sparse.toarray())
    assert both.n_tokens.tolist() == expected.n_tokens.tolist()
    assert both.token_weights(0) == expected.token_weights(0)
    assert both.sparse.has_sorted_indices


def test_whichever_head_comes_second_is_free(encoder, encoded):
    dense = encoder.encode_dense(TEXTS)
    sparse = encoder.encode_sparse(TEXTS)
    assert encoded == [TEXTS]
    both = encoder.encode(TEXTS, dimensions=16)
    assert len(encoded) == 1
    np.testing.assert_array_equal(both.sparse.toarray(), sparse.toarray())
    np.testing.assert_allclose(
        both.dense @ both.dense.T,
        dense[:, :16] @ dense[:, :16].T / np.outer(*[np.linalg.norm(dense[:, :16], axis=1)] * 2),
        atol=1e-6,
    )


def test_only_what_is_missing_is_encoded_and_only_once(encoder, encoded):
    encoder.encode(["w1", "w2"])
    encoder.encode(["w2", "w3", "w3", "w1"])
    assert encoded == [["w1", "w2"], ["w3"]]


def test_equal_settings_share_one_encoder(settings, encoder, small_checkpoint):
    assert shared_encoder(EncoderSettings(model=str(small_checkpoint))) is encoder
    assert shared_encoder(EncoderSettings(model=settings.model, max_length=64)) is not encoder


def test_pickles_as_its_settings(encoder):
    data = pickle.dumps(encoder)
    assert len(data) < 1000
    assert pickle.loads(data) is encoder


def test_nothing_is_loaded_before_it_is_needed():
    encoder = shared_encoder(EncoderSettings(model="/no/such/model"))
    assert encoder.query_prefix == ""
    with pytest.raises(OSError, match="no directory here"):
        encoder.encode("x")


def test_threads_load_once_and_agree(settings, small, monkeypatch):
    loads = []
    original = GTEEmbedder.from_pretrained
    monkeypatch.setattr(
        GTEEmbedder, "from_pretrained", lambda *a, **k: loads.append(1) or original(*a, **k)
    )
    encoder = shared_encoder(EncoderSettings(model=settings.model, max_length=100))
    found = []
    threads = [
        threading.Thread(target=lambda: found.append(encoder.encode_dense(TEXTS))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert loads == [1]
    assert len(found) == 8
    for dense in found:
        np.testing.assert_allclose(dense, small.encode_dense(TEXTS), atol=1e-6)


def test_an_encoder_that_nobody_holds_is_freed(small_checkpoint):
    settings = EncoderSettings(model=str(small_checkpoint), max_length=77)
    encoder = shared_encoder(settings)
    encoder.encode("x")
    alive = weakref.ref(encoder)
    del encoder
    gc.collect()
    assert alive() is None


async def test_concurrent_queries_become_one_batch(encoder, encoded):
    encoder.encode("warm up")
    encoded.clear()
    queries = [f"w{number}" for number in range(30)]
    found = await asyncio.gather(*(encoder.aencode(query) for query in queries))
    assert len(encoded) <= 3
    for query, both in zip(queries, found, strict=True):
        np.testing.assert_allclose(both.dense, encoder.encode(query).dense, atol=1e-5)


async def test_an_error_goes_to_its_own_caller(encoder):
    found = await asyncio.gather(
        encoder.aencode("w1"),
        encoder.aencode("w2", dimensions=999),
        encoder.aencode("w3"),
        return_exceptions=True,
    )
    assert [type(answer).__name__ for answer in found] == [
        "HybridEmbeddings",
        "ValueError",
        "HybridEmbeddings",
    ]


async def test_a_cancelled_call_does_not_stop_the_others(encoder):
    cancelled = asyncio.create_task(encoder.aencode("w1 " * 500))
    other = asyncio.create_task(encoder.aencode("w2"))
    await asyncio.sleep(0)
    cancelled.cancel()
    assert (await other).dense.shape == (1, 64)


async def test_the_loop_is_not_blocked(encoder):
    encoder.encode("warm up")
    longest, last = 0.0, asyncio.get_running_loop().time()

    async def watch():
        nonlocal longest, last
        while True:
            await asyncio.sleep(0.001)
            now = asyncio.get_running_loop().time()
            longest, last = max(longest, now - last), now

    watching = asyncio.create_task(watch())
    await encoder.aencode([f"w{number} " * 100 for number in range(300)])
    watching.cancel()
    assert longest < 0.5


def test_what_is_no_text_is_named(encoder):
    with pytest.raises(TypeError, match=r"texts\[1\] must be a str, got int"):
        encoder.encode(["a", 1])


def test_without_a_sparse_head(tmp_path):
    path = random_checkpoint(tmp_path, task=None)
    encoder = shared_encoder(EncoderSettings(model=str(path)))
    expected = GTEEmbedder.from_pretrained(path).encode_dense(TEXTS)
    np.testing.assert_allclose(encoder.encode_dense(TEXTS), expected, atol=1e-6)
    with pytest.raises(MissingHeadError, match="use encode_dense"):
        encoder.encode("a")


def test_nothing_in_nothing_out(encoder):
    both = encoder.encode([])
    assert (both.dense.shape, both.sparse.shape) == ((0, 64), (0, 512))


def row(size):
    empty = np.empty(0)
    return _Vectors(np.zeros(size, dtype=np.float32), empty, empty, 0, truncated=False)


def test_the_oldest_vectors_go_first_and_the_latest_call_stays():
    kept = _RecentVectors(max_bytes=40)
    kept.put({"a": row(5)})
    kept.put({"b": row(5)})
    kept.get(["a"])
    kept.put({"c": row(5)})
    assert set(kept.get("abc")) == {"a", "c"}
    kept.put({letter: row(5) for letter in "defg"})
    assert set(kept.get("abcdefg")) == set("defg")
