"""Queries and long lists at one model: the order of its passes, whoever asks and however."""

import asyncio
import inspect
import threading

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from gte_core import (
    EncoderSettings,
    GTEEmbedder,
    NonFiniteError,
    release_shared,
    shared_encoder,
)
from gte_core.batching import FairQueue
from gte_core.serving import Serving
from gte_core.testing import random_checkpoint, word_tokenizer

WORDS = 202  # so many, with both special tokens, and a unit of a CPU, 2,048 tokens, has ten texts
LIST = [f"w{i} " * WORDS for i in range(60)]
QUERIES = [f"w{i}" for i in range(30)]
CLS = 0  # the id with which every text begins


class Passes:
    """The number of texts in each pass, of which the first is held until the test goes on."""

    def __init__(self):
        self.sizes = []
        self.entered, self.go_on = threading.Event(), threading.Event()
        self.arrived = threading.Semaphore(0)  # calls that wait behind the first pass

    def has_begun(self):
        assert self.entered.wait(60)

    def wait_for_arrivals(self, count):
        for _ in range(count):
            assert self.arrived.acquire(timeout=60)


@pytest.fixture
def passes(monkeypatch, watching_passes):
    seen = Passes()
    put, submit = FairQueue.put, Serving.submit

    def held(input_ids):
        seen.sizes.append(int((input_ids == CLS).sum()))
        seen.entered.set()
        assert seen.go_on.wait(60)

    def arrived(original):
        def counted(self, item):
            original(self, item)
            if seen.entered.is_set() and not seen.go_on.is_set():
                seen.arrived.release()

        return counted

    monkeypatch.setattr(FairQueue, "put", arrived(put))
    monkeypatch.setattr(Serving, "submit", arrived(submit))
    with watching_passes(held):
        yield seen
        seen.go_on.set()


@pytest.fixture(params=["GTEEmbedder", "SharedEncoder"])
def encoder(request, small_checkpoint, passes):
    if request.param == "GTEEmbedder":
        return GTEEmbedder.from_pretrained(small_checkpoint, dtype="float32")
    return shared(small_checkpoint)


def shared(checkpoint):
    release_shared()
    encoder = shared_encoder(EncoderSettings(model=str(checkpoint), dtype="float32"))
    assert encoder.dimensions  # loads it
    return encoder


def answered(encoder, verb, texts):
    answer = getattr(encoder, verb)(texts)
    return asyncio.run(answer) if inspect.isawaitable(answer) else answer


def started(encoder, verb, texts):
    thread = threading.Thread(target=answered, args=(encoder, verb, texts))
    thread.start()
    return thread


@pytest.mark.parametrize("sender", ["encode", "encode_dense", "aencode"])
@pytest.mark.parametrize("asker", ["encode", "encode_dense", "aencode"])
def test_a_query_waits_for_one_unit_whoever_sent_a_list(encoder, passes, sender, asker):
    threads = [started(encoder, sender, LIST[:12])]
    passes.has_begun()
    threads += [started(encoder, sender, LIST[12:24]), started(encoder, asker, "a query")]
    passes.wait_for_arrivals(2)
    passes.go_on.set()
    for thread in threads:
        thread.join(60)
    assert passes.sizes.index(1) == 1
    assert sum(passes.sizes) == 25


def test_lists_take_turns(small_checkpoint, passes):
    encoder = shared(small_checkpoint)
    lists = [started(encoder, "encode", LIST[:30])]
    passes.has_begun()
    lists.append(started(encoder, "aencode", ["w1 " * 2 * WORDS + text for text in LIST[:15]]))
    passes.wait_for_arrivals(1)
    passes.go_on.set()
    for thread in lists:
        thread.join(60)
    order = "".join("A" if n_texts > 4 else "B" for n_texts in passes.sizes)
    assert order.startswith("ABABABAB")


async def test_queries_that_wait_share_a_pass_whatever_they_ask_for(small_checkpoint, passes):
    encoder = shared(small_checkpoint)
    long = asyncio.create_task(encoder.aencode(LIST))
    await asyncio.to_thread(passes.has_begun)
    hybrid = [asyncio.create_task(encoder.aencode(query)) for query in QUERIES]
    dense = [asyncio.create_task(encoder.aencode_dense(query)) for query in QUERIES]
    blocking = [started(encoder, "encode", query) for query in ("s1", "s2")]
    await asyncio.to_thread(passes.wait_for_arrivals, 62)
    passes.go_on.set()
    found = await asyncio.gather(*hybrid, *dense)
    assert passes.sizes[1] == 32  # of the sixty, each was asked for twice
    assert not long.done()
    await long
    for thread in blocking:
        thread.join(60)
    expected = GTEEmbedder.from_pretrained(small_checkpoint, dtype="float32").encode(QUERIES)
    for both, vector, row in zip(found, found[30:], expected, strict=False):
        np.testing.assert_allclose(both.dense, row.dense, atol=1e-6)
        np.testing.assert_allclose(both.sparse.toarray(), row.sparse.toarray(), atol=1e-5)
        np.testing.assert_array_equal(vector, both.dense)


async def test_what_two_ask_for_at_once_is_computed_once(small_checkpoint, passes):
    encoder = shared(small_checkpoint)
    one = asyncio.create_task(encoder.aencode(LIST))
    await asyncio.to_thread(passes.has_begun)
    two = asyncio.create_task(encoder.aencode_dense(LIST[::-1]))
    three = started(encoder, "encode_sparse", LIST[:5])
    await asyncio.to_thread(passes.wait_for_arrivals, 2)
    passes.go_on.set()
    np.testing.assert_array_equal((await one).dense, (await two)[::-1])
    three.join(60)
    assert sum(passes.sizes) == len(LIST)


async def test_of_a_cancelled_call_nothing_more_is_computed(small_checkpoint, passes):
    encoder = shared(small_checkpoint)
    long = asyncio.create_task(encoder.aencode(LIST))
    await asyncio.to_thread(passes.has_begun)
    unseen = asyncio.create_task(encoder.aencode(["never", "computed"]))
    await asyncio.to_thread(passes.wait_for_arrivals, 1)
    for task in (long, unseen):
        task.cancel()
    await asyncio.wait([long, unseen])
    passes.go_on.set()
    assert (await encoder.aencode("w1")).dense.shape == (1, 64)
    assert passes.sizes[1:] == [1]


async def test_an_error_of_a_shared_pass_belongs_to_the_call_with_that_text(tmp_path):
    path = random_checkpoint(tmp_path)
    tensors = load_file(path / "model.safetensors")
    tensors["new.embeddings.word_embeddings.weight"][105] = np.nan
    save_file(tensors, path / "model.safetensors")
    broken = word_tokenizer(512).id_to_token(105).removeprefix("▁")
    encoder = shared(path)
    found = await asyncio.gather(
        encoder.aencode("w400"),
        encoder.aencode(["w401", "w402", broken]),
        encoder.aencode_dense("w403"),
        return_exceptions=True,
    )
    assert [type(answer) for answer in found[::2]] == [type(encoder.encode("w400")), np.ndarray]
    with pytest.raises(NonFiniteError, match=r"^texts\[2\]: NaN or infinity"):
        raise found[1]


def test_a_text_that_was_computed_for_another_list_is_in_both(small_checkpoint):
    encoder = shared(small_checkpoint)
    texts = [f"w{i % 7}" for i in range(600)]
    expected = encoder.embedder.encode(texts)
    np.testing.assert_allclose(encoder.encode(texts).dense, expected.dense, atol=1e-6)
