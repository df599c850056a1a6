import asyncio
import gc
import pickle
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from gte_core import (
    EncoderSettings,
    GTEEmbedder,
    MissingHeadError,
    TruncationError,
    release_shared,
    shared_encoder,
)
from gte_core.recent import RecentVectors, Vectors
from gte_core.testing import random_checkpoint

TEXTS = ["w1 w2", "", "w3 " * 50, "w4"]


@pytest.fixture
def settings(small_checkpoint):
    return EncoderSettings(model=str(small_checkpoint), dtype="float32")


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


def test_whichever_head_comes_second_is_free(encoded, encoder):
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


def test_only_what_is_missing_is_encoded_and_only_once(encoded, encoder):
    encoder.encode(["w1", "w2"])
    encoder.encode(["w2", "w3", "w3", "w1"])
    assert encoded == [["w1", "w2"], ["w3"]]


def test_equal_settings_share_one_encoder(settings, encoder, small_checkpoint):
    same = EncoderSettings(model=str(small_checkpoint), dtype="float32")
    assert shared_encoder(same) is encoder
    assert shared_encoder(EncoderSettings(model=settings.model, max_length=64)) is not encoder


def test_pickles_as_its_settings(encoder):
    data = pickle.dumps(encoder)
    assert len(data) < 1000
    assert pickle.loads(data) is encoder


def test_nothing_is_loaded_before_it_is_needed():
    encoder = shared_encoder(EncoderSettings(model="/no/such/model", query_prefix=""))
    assert encoder.query_prefix == ""
    with pytest.raises(OSError, match="no directory here"):
        encoder.encode("x")


def test_threads_load_once_and_agree(settings, small, monkeypatch):
    loads = []
    original = GTEEmbedder.from_pretrained
    monkeypatch.setattr(
        GTEEmbedder, "from_pretrained", lambda *a, **k: loads.append(1) or original(*a, **k)
    )
    encoder = shared_encoder(EncoderSettings(model=settings.model, dtype="float32", max_length=100))
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


def test_objects_that_come_and_go_find_their_model_loaded(small_checkpoint, monkeypatch):
    loads = []
    original = GTEEmbedder.from_pretrained
    monkeypatch.setattr(
        GTEEmbedder, "from_pretrained", lambda *a, **k: loads.append(1) or original(*a, **k)
    )
    settings = EncoderSettings(model=str(small_checkpoint), max_length=77)
    for _ in range(3):
        shared_encoder(settings).encode("x")
        gc.collect()
    assert loads == [1]


def test_an_encoder_that_nobody_holds_is_freed_on_request(small_checkpoint):
    encoder = shared_encoder(EncoderSettings(model=str(small_checkpoint), max_length=78))
    encoder.encode("x")
    alive = weakref.ref(encoder)
    del encoder
    release_shared()
    gc.collect()
    assert alive() is None


def test_a_directory_is_known_by_its_absolute_path(tmp_path, monkeypatch):
    found = []
    for name in ("one", "two"):
        random_checkpoint(tmp_path / name / "model", seed=len(name) + ord(name[0]))
        monkeypatch.chdir(tmp_path / name)
        found.append(shared_encoder(EncoderSettings(model="./model")).encode_dense("w1"))
    assert not np.allclose(*found)


def test_its_model_is_named_before_it_is_loaded(tmp_path, monkeypatch, encoded):
    random_checkpoint(tmp_path / "model")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delattr(GTEEmbedder, "from_pretrained")
    for given, name in [("demo", "demo"), ("./model", str(tmp_path / "model"))]:
        assert shared_encoder(EncoderSettings(model=given)).model == name


def test_many_threads_asking_for_the_same_cost_one_pass(encoded, settings):
    encoder = shared_encoder(settings)
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(encoder.encode_dense, [TEXTS] * 8))
    assert encoded == [TEXTS]


def test_what_is_kept_is_not_kept_waiting(encoder, stopped):
    """A cached query is answered while somebody's pass is being computed."""
    expected = encoder.encode("w1")
    with stopped(encoder, ["w2"]):
        np.testing.assert_array_equal(encoder.encode("w1").dense, expected.dense)


def test_truncation_is_reported_by_place_also_from_the_cache(small_checkpoint, caplog):
    model = str(small_checkpoint)
    long = "w1 " * 30
    warning = shared_encoder(EncoderSettings(model=model, max_length=9))
    for _ in range(2):
        warning.encode(["w1", long, long])
    assert [record.getMessage()[:9] for record in caplog.records] == ["2 text(s)"] * 2
    error = shared_encoder(EncoderSettings(model=model, max_length=9, on_truncation="error"))
    error.encode(["w1", "w2"])
    with pytest.raises(ValueError, match=r"texts\[2\]: longer than max_length=9"):
        error.encode(["w1", "w2", long])


def test_error_has_the_places_of_the_call_with_duplicates_and_cached_texts(small_checkpoint):
    settings = EncoderSettings(model=str(small_checkpoint), max_length=9, on_truncation="error")
    encoder = shared_encoder(settings)
    long = [f"w{i} " * 30 for i in range(3)]
    for _ in range(2):  # the second time some are in the cache
        with pytest.raises(
            TruncationError, match=r"^texts\[1\], texts\[3\], texts\[4\]: longer"
        ) as e:
            encoder.encode(["w1", long[0], "w2", long[1], long[0]])
        assert e.value.indices == (1, 3, 4)
    texts = ["w1 w2", *[f"w{i} w3" for i in range(1500)], *long * 10]
    with pytest.raises(TruncationError, match=r"texts\[1520\] and 10 more: longer") as raised:
        encoder.encode_available(texts)
    assert raised.value.indices == tuple(range(1501, 1531))


def test_refused_texts_cost_no_pass(small_checkpoint, encoded):
    settings = EncoderSettings(model=str(small_checkpoint), max_length=9, on_truncation="error")
    with pytest.raises(TruncationError, match=r"texts\[0\], texts\[1100\]: longer"):
        shared_encoder(settings).encode(["w1 " * 9, *["w1", "w2"] * 549, "w3", "w1 " * 10])
    assert encoded == []


async def test_truncation_is_reported_once_a_call_also_of_calls_that_share_a_pass(
    small_checkpoint, caplog
):
    encoder = shared_encoder(EncoderSettings(model=str(small_checkpoint), max_length=9))
    await asyncio.gather(encoder.aencode("w1 " * 20), encoder.aencode("w2 " * 20))
    assert [record.getMessage()[:9] for record in caplog.records] == ["1 text(s)"] * 2


def test_what_is_available_is_counted_without_a_sparse_head(tmp_path, encoded):
    path = random_checkpoint(tmp_path, task=None)
    settings = EncoderSettings(model=str(path), max_length=9, on_truncation="ignore")
    encoder = shared_encoder(settings)
    both = encoder.encode_available(TEXTS, dimensions=16)
    assert (both.dense.shape, both.sparse.shape, both.sparse.nnz) == ((4, 16), (4, 512), 0)
    assert both.truncated.tolist() == [False, False, True, False]
    assert both.n_tokens.tolist() == [4, 2, 9, 3]
    encoder.encode_dense(TEXTS)
    assert len(encoded) == 1


async def test_concurrent_queries_become_one_batch(encoded, encoder):
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
    for attempt in range(10):  # the machine itself may pause us now and then
        texts = [f"w{number} w{attempt} " * 50 for number in range(300)]
        if await longest_pause(encoder.aencode(texts)) < 0.2:
            return
    pytest.fail("the loop was blocked every time")


async def longest_pause(work):
    """Longest time, in seconds, for which the event loop did not run during the work."""
    loop = asyncio.get_running_loop()
    longest, last = 0.0, loop.time()
    task = asyncio.ensure_future(work)
    while not task.done():
        await asyncio.sleep(0.001)
        longest, last = max(longest, loop.time() - last), loop.time()
    await task
    return longest


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
    return Vectors(np.zeros(size, dtype=np.float32), empty, empty, 0, truncated=False)


def test_the_oldest_vectors_go_first_and_the_latest_stay():
    kept = RecentVectors(max_bytes=3 * row(5).n_bytes)
    for letter in "abc":
        kept.put({letter: row(5)})
    kept.get(["a"])
    kept.put({"d": row(5)})
    kept.trim()
    assert set(kept.get("abcd")) == {"a", "c", "d"}
    kept.put({letter: row(5) for letter in "efgh"})
    assert set(kept.get("efgh")) == set("efgh")
    kept.trim()
    assert len(kept.get("abcdefgh")) == 3


def test_a_loaded_embedder_is_adopted(encoded, small_checkpoint):
    embedder = GTEEmbedder.from_pretrained(small_checkpoint, dtype="float32", dimensions=32)
    adopted = shared_encoder(embedder)
    assert adopted.embedder is embedder
    assert shared_encoder(embedder) is adopted
    assert adopted.encode_dense("w1").shape == (1, 32)
    assert adopted.encode_dense("w1", dimensions=64).shape == (1, 64)
    assert encoded == [["w1"]]


def test_settings_that_come_to_the_same_model_share_it_and_its_cache(
    encoded, small_checkpoint, monkeypatch
):
    embedder = GTEEmbedder.from_pretrained(small_checkpoint, dtype="float32")
    adopted = shared_encoder(embedder)
    adopted.encode("w1")
    monkeypatch.delattr(GTEEmbedder, "from_pretrained")
    same = EncoderSettings(
        model=str(small_checkpoint),
        device="cpu",
        dtype="float32",
        dimensions=16,
        query_prefix="w1 ",
        on_truncation="error",
    )
    encoder = shared_encoder(same)
    assert encoder.embedder is embedder
    assert encoder.encode_dense("w1").shape == (1, 16)
    assert encoded == [["w1"]]


@pytest.mark.parametrize(
    "other", [{"max_length": 9}, {"dtype": "bfloat16"}, {"deterministic": True}]
)
def test_settings_that_change_vectors_do_not(small_checkpoint, other):
    embedder = GTEEmbedder.from_pretrained(small_checkpoint, dtype="float32")
    adopted = shared_encoder(embedder)
    settings = {"model": str(small_checkpoint), "dtype": "float32"} | other
    encoder = shared_encoder(EncoderSettings(**settings))
    assert encoder.embedder is not adopted.embedder


def test_an_adopted_embedder_pickles_as_its_settings(small_checkpoint):
    adopted = shared_encoder(GTEEmbedder.from_pretrained(small_checkpoint, dtype="float32"))
    assert pickle.loads(pickle.dumps(adopted)) is adopted
