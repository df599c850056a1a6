import asyncio
import json
import logging
import pickle
import subprocess
import sys
import threading

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gte_core import (
    ConfigError,
    EncoderSettings,
    GTEEmbedder,
    HybridEmbeddings,
    MissingHeadError,
    NonFiniteError,
    TruncationError,
    WeightsError,
    shared_encoder,
)
from gte_core.runtime.vectors import VectorEngine
from gte_core.testing import random_checkpoint, word_tokenizer
from gte_core.tokenizer import GTETokenizer

TEXTS = ["one two", "", "w1 w2 w3 " * 40, "the quick brown fox", "x"]
ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=60)


@pytest.fixture(scope="module")
def s3(golden):
    expected = (golden / "s3_gte_embedding_script" / "expected.json").read_text()
    model = GTEEmbedder.from_pretrained(
        golden / "s3_gte_embedding_script" / "model", dtype="float32", on_truncation="ignore"
    )
    return model, json.loads(expected)


@pytest.mark.parametrize("dimensions", [16, 32, 48, 64])
def test_dense_equals_the_original(s3, dimensions):
    embedder, expected = s3
    both = embedder.encode(expected["texts"], dimensions=dimensions)
    np.testing.assert_allclose(both.dense, expected["dense"][str(dimensions)], atol=2e-5)


def test_token_weights_equal_the_script(s3):
    embedder, expected = s3
    both = embedder.encode(expected["texts"])
    for index, weights in enumerate(expected["token_weights_script"]):
        assert both.token_weights(index) == pytest.approx(weights, abs=2e-5)


def test_sparse_vectors_equal_the_script_by_id(s3):
    embedder, expected = s3
    rows = embedder.encode(expected["texts"]).rows()
    for (_, ids, weights), of_text in zip(rows, expected["token_weights_by_id"], strict=True):
        found = dict(zip(map(str, ids), weights.tolist(), strict=True))
        assert found == pytest.approx(of_text, abs=2e-5)


def test_a_lower_max_length_equals_the_original(s3, golden):
    expected = s3[1]
    embedder = GTEEmbedder.from_pretrained(
        golden / "s3_gte_embedding_script" / "model",
        dtype="float32",
        max_length=8,
        dimensions=16,
        on_truncation="ignore",
    )
    both = embedder.encode(expected["texts"])
    np.testing.assert_allclose(both.dense, expected["truncated"]["dense"], atol=2e-5)
    assert both.n_tokens.tolist() == [len(ids) for ids in expected["truncated"]["input_ids"]]
    assert both.truncated.tolist() == [len(ids) > 8 for ids in expected["input_ids"]]


@pytest.mark.parametrize(
    ("case", "arguments"),
    [
        ("hybrid_default(dense 1.0 + sparse 0.1)", {}),
        ("dense_only", {"sparse_weight": 0.0}),
        ("sparse_only", {"dense_weight": 0.0, "sparse_weight": 1.0}),
        ("hybrid_0.6_0.4", {"dense_weight": 0.6, "sparse_weight": 0.4}),
        ("hybrid_default_dim16", {"dimensions": 16}),
        ("hybrid_default_maxlen8", {"max_length": 8}),
    ],
)
def test_scores_equal_the_script(s3, case, arguments):
    embedder, expected = s3
    scores = embedder.compute_scores(expected["pairs"], **arguments)
    np.testing.assert_allclose(scores, expected["scores"][case], atol=2e-5)


def test_explain_goes_by_id_as_the_golden_data(s3):
    embedder, expected = s3
    found = [embedder.explain(*pair).sparse_score for pair in expected["pairs"]]
    assert found == pytest.approx(expected["scores"]["sparse_only_by_id"], abs=2e-5)


def test_one_text_is_a_list_of_one(small):
    one, many = small.encode("w1 w2"), small.encode(["w1 w2"])
    np.testing.assert_array_equal(one.dense, many.dense)
    np.testing.assert_array_equal(one.sparse.toarray(), many.sparse.toarray())
    assert isinstance(one, HybridEmbeddings)


def test_nothing_gives_empty_arrays(small):
    both = small.encode([])
    assert (both.dense.shape, both.sparse.shape) == ((0, 64), (0, 512))
    assert (both.n_tokens.dtype, both.truncated.dtype) == (np.int64, np.bool_)
    assert small.encode_dense([]).shape == (0, 64)
    assert small.encode_sparse(iter([])).shape == (0, 512)


def test_generators_sets_and_tuples_work(small):
    expected = small.encode(TEXTS).dense
    np.testing.assert_array_equal(small.encode(text for text in TEXTS).dense, expected)
    np.testing.assert_array_equal(small.encode(tuple(TEXTS)).dense, expected)


@settings(max_examples=50)
@given(texts=st.lists(ANY_TEXT, max_size=5))
def test_the_contract_holds_for_any_text(demo, texts):
    both = demo.encode(texts)
    assert both.dense.shape == (len(texts), 256)
    assert (both.dense.dtype, both.sparse.dtype) == (np.float32, np.float32)
    np.testing.assert_allclose(np.linalg.norm(both.dense, axis=1), 1, atol=1e-6)
    for _, ids, weights in both.rows():
        assert np.all(np.diff(ids) > 0)
        assert np.all(weights > 0)
        assert np.isfinite(weights).all()
        assert not {0, 1, 2, 3} & set(ids.tolist())


@settings(max_examples=20)
@given(texts=st.lists(ANY_TEXT, min_size=1, max_size=6), data=st.data())
def test_a_text_is_the_same_alone_and_in_any_batch(demo, texts, data):
    index = data.draw(st.integers(0, len(texts) - 1))
    alone, among = demo.encode(texts[index]), demo.encode(texts)[index]
    np.testing.assert_allclose(alone.dense, among.dense, atol=1e-5)
    np.testing.assert_allclose(alone.sparse.toarray(), among.sparse.toarray(), atol=1e-4)


def test_deterministic_is_equal_to_the_last_bit(small_checkpoint):
    embedder = GTEEmbedder.from_pretrained(small_checkpoint, deterministic=True)
    among = embedder.encode(TEXTS)
    for index, text in enumerate(TEXTS):
        alone = embedder.encode(text)
        np.testing.assert_array_equal(alone.dense[0], among.dense[index])
        np.testing.assert_array_equal(alone.sparse.toarray()[0], among.sparse.toarray()[index])


def test_dense_and_sparse_alone_equal_both(small):
    both = small.encode(TEXTS, dimensions=32)
    # Alone, dense vectors come from a shorter last layer.
    np.testing.assert_allclose(small.encode_dense(TEXTS, dimensions=32), both.dense, atol=1e-6)
    sparse = small.encode_sparse(TEXTS)
    assert isinstance(sparse, sp.csr_array)
    np.testing.assert_array_equal(sparse.toarray(), both.sparse.toarray())


def test_the_width_of_sparse_is_the_models_vocabulary(tmp_path):
    path = random_checkpoint(tmp_path, {"vocab_size": 700})
    word_tokenizer(600).save(str(path / "tokenizer.json"))
    assert GTEEmbedder.from_pretrained(path).encode_sparse("w1").shape == (1, 700)


def test_default_dimensions_and_a_call_of_its_own(small_checkpoint, small):
    embedder = GTEEmbedder.from_pretrained(small_checkpoint, dtype="float32", dimensions=16)
    assert embedder.encode("w1").dimensions == 16
    expected = small.encode("w1").with_dimensions(48)
    np.testing.assert_allclose(
        embedder.encode("w1", dimensions=48).dense, expected.dense, atol=1e-6
    )
    with pytest.raises(ValueError, match="dimensions is 65, but must be from 1 to 64"):
        embedder.encode("w1", dimensions=65)
    with pytest.raises(ValueError, match="dimensions is 0"):
        GTEEmbedder.from_pretrained(small_checkpoint, dimensions=0)


class TestStreaming:
    def test_parts_come_in_order_and_join_to_the_whole(self, small):
        texts = [f"w{i} " * (i % 7) for i in range(9000)]
        parts = list(small.encode_iter(texts))
        assert len(parts) > 1
        np.testing.assert_array_equal(
            HybridEmbeddings.concatenate(parts).dense, small.encode(texts).dense
        )
        assert small.encode(texts[5000]).dense == pytest.approx(
            HybridEmbeddings.concatenate(parts).dense[5000:5001], abs=1e-5
        )

    def test_reads_lazily(self, small):
        read = []
        stream = (read.append(i) or "w1 w2 w3 w4" for i in range(10**6))
        parts = small.encode_iter(stream)
        assert not read
        n_encoded = len(next(parts))
        assert n_encoded == -(-16 * 2048 // 6)  # tokens of a window, and of a text
        assert len(read) < 1.1 * n_encoded
        parts.close()

    def test_an_empty_stream_yields_one_empty_part(self, small):
        (part,) = small.encode_iter(iter([]))
        assert part.dense.shape == (0, 64)

    def test_arguments_are_checked_at_once(self, small):
        with pytest.raises(ValueError, match="dimensions is 999"):
            small.encode_iter(["x"], dimensions=999)


class TestWrongInput:
    @pytest.mark.parametrize(
        ("texts", "message"),
        [
            (["a", None], r"texts\[1\] must be a str, got NoneType"),
            ([b"a"], r"texts\[0\] must be a str, got bytes"),
            (range(2), r"texts\[0\] must be a str, got int"),
            (None, "must be a str or an iterable of str, got NoneType"),
            (3, "must be a str or an iterable of str, got int"),
        ],
    )
    def test_what_is_no_text_is_named(self, small, texts, message):
        for encode in (small.encode, small.encode_dense, small.encode_sparse):
            with pytest.raises(TypeError, match=message):
                encode(texts)

    def test_the_index_counts_the_whole_stream(self, small):
        stream = (f"w{i}" if i < 5000 else i for i in range(6000))
        with pytest.raises(TypeError, match=r"texts\[5000\] must be a str, got int"):
            small.encode(stream)

    def test_tables_are_not_taken_for_their_keys(self, small):
        for table in ({"text": "hello"}, pd.DataFrame({"text": ["a", "b"]}), b"abc"):
            with pytest.raises(TypeError, match="Pass a list, a generator, or one column"):
                small.encode(table)
        assert len(small.encode(pd.Series(["a", "b"]))) == 2

    def test_explain_takes_two_texts(self, small):
        with pytest.raises(TypeError, match="query must be a str, got list"):
            small.explain(["w1", "w5"], "zzz")
        with pytest.raises(TypeError, match="document must be a str, got NoneType"):
            small.explain("w1", None)

    def test_pairs(self, small):
        with pytest.raises(TypeError, match="pairs must be an iterable of"):
            small.compute_scores(None)
        with pytest.raises(TypeError, match=r"pairs\[1\]\[0\] must be a str, got int"):
            small.compute_scores([("a", "b"), (1, "b")])
        with pytest.raises(TypeError, match=r"pairs\[1\] must be \(query, document\), got 'ab'"):
            small.compute_scores([("a", "b"), "ab"])
        assert small.compute_scores([]).shape == (0,)

    @pytest.mark.parametrize(
        ("arguments", "error", "message"),
        [
            (
                {"on_truncation": "raise"},
                ValueError,
                "on_truncation is 'raise'; allowed are",
            ),
            ({"dtype": "int4"}, ValueError, "dtype is 'int4'; allowed are 'float32', 'bfloat16'"),
            ({"dtype": "float8"}, ValueError, "'float8' needs a Hopper GPU or newer, not cpu"),
            ({"max_length": 2}, ValueError, "must be more than the 2 special tokens"),
            ({"max_length": "9"}, TypeError, "max_length must be an integer, got '9'"),
            ({"dimensions": "64"}, TypeError, "dimensions must be an integer from 1 to 64"),
            ({"query_prefix": None}, TypeError, "query_prefix must be a str"),
            ({"device": "gpu"}, ValueError, "device is 'gpu'; allowed are 'cpu'"),
        ],
    )
    def test_arguments(self, small_checkpoint, arguments, error, message):
        with pytest.raises(error, match=message):
            GTEEmbedder.from_pretrained(small_checkpoint, **arguments)

    def test_a_tokenizer_larger_than_the_model(self, tmp_path):
        path = random_checkpoint(tmp_path, {"vocab_size": 200})
        word_tokenizer(300).save(str(path / "tokenizer.json"))
        with pytest.raises(
            ConfigError, match="ids up to 299, but the model has embeddings for 200"
        ):
            GTEEmbedder.from_pretrained(path)


class TestTruncation:
    LONG = "w1 " * 30

    def load(self, checkpoint, policy):
        return GTEEmbedder.from_pretrained(checkpoint, max_length=9, on_truncation=policy)

    def test_warns_once_a_call_with_the_count(self, small_checkpoint, caplog):
        embedder = self.load(small_checkpoint, "warn")
        embedder.encode([self.LONG, "w1", self.LONG] * 2000)
        (record,) = caplog.records
        assert record.levelno == logging.WARNING
        assert "4000 text(s) were longer than max_length=9" in record.getMessage()

    def test_error_names_the_indices(self, small_checkpoint):
        embedder = self.load(small_checkpoint, "error")
        with pytest.raises(ValueError, match=r"texts\[1\], texts\[3\]: longer than max_length=9"):
            embedder.encode(["w1", self.LONG, "w2", self.LONG])

    @pytest.mark.parametrize(
        "verb", ["encode", "encode_dense", "encode_sparse", "encode_available"]
    )
    def test_error_knows_all_texts_of_the_call_and_names_twenty(self, small_checkpoint, verb):
        embedder = self.load(small_checkpoint, "error")
        texts = ["w1 w2"] * 9000  # several windows
        long = [5, *range(8000, 8100, 2)]
        for index in long:
            texts[index] = self.LONG
        named = ", ".join(rf"texts\[{i}\]" for i in long[:20])
        with pytest.raises(TruncationError, match=rf"^{named} and 31 more: longer") as raised:
            getattr(embedder, verb)(texts)
        assert raised.value.indices == tuple(long)
        assert isinstance(raised.value, ValueError)
        assert pickle.loads(pickle.dumps(raised.value)).indices == tuple(long)

    def test_error_of_a_stream_is_about_its_window(self, small_checkpoint):
        embedder = self.load(small_checkpoint, "error")
        texts = ["w1 w2"] * 20_000
        for index in (9000, 9001, 19_999):
            texts[index] = self.LONG
        parts = embedder.encode_iter(texts)
        n_encoded = len(next(parts))
        assert n_encoded < 9000
        with pytest.raises(
            TruncationError, match=r"^texts\[9000\], texts\[9001\]: longer"
        ) as raised:
            list(parts)
        assert raised.value.indices == (9000, 9001)

    def test_ignore_says_nothing_but_marks_the_rows(self, small_checkpoint, caplog):
        both = self.load(small_checkpoint, "ignore").encode(["w1", self.LONG])
        assert (both.truncated.tolist(), both.n_tokens.tolist()) == ([False, True], [3, 9])
        assert not caplog.records

    def test_compute_scores_names_its_pairs(self, small_checkpoint):
        embedder = self.load(small_checkpoint, "error")
        with pytest.raises(TruncationError, match=r"pairs\[1\]\[1\]: longer than max_le") as raised:
            embedder.compute_scores([("a", "b"), ("c", self.LONG)])
        assert raised.value.indices == (1,)

    def test_compute_scores_reads_1024_tokens(self, small, caplog):
        small.compute_scores([("w1", "w1 " * 2000)])
        assert "1 text(s) were longer than max_length=1024" in caplog.text


@pytest.fixture(scope="module")
def dense_only(tmp_path_factory):
    path = random_checkpoint(tmp_path_factory.mktemp("dense"), task=None, prefix="")
    return GTEEmbedder.from_pretrained(path)


class TestWithoutASparseHead:
    def test_dense_works(self, dense_only):
        assert not dense_only.has_sparse
        assert dense_only.encode_dense(TEXTS).shape == (5, 64)
        assert dense_only.compute_scores([("a", "a")], sparse_weight=0.0) == pytest.approx(1.0)

    def test_everything_else_names_encode_dense(self, dense_only):
        for call in (
            lambda: dense_only.encode("a"),
            lambda: dense_only.encode_iter("a"),
            lambda: dense_only.encode_sparse("a"),
            lambda: dense_only.explain("a", "b"),
            lambda: dense_only.compute_scores([("a", "b")]),
        ):
            with pytest.raises(MissingHeadError, match="use encode_dense"):
                call()


class TestWhatIsAvailable:
    def test_with_a_sparse_head_it_is_encode(self, small):
        both = small.encode_available(TEXTS, dimensions=16)
        expected = small.encode(TEXTS, dimensions=16)
        np.testing.assert_array_equal(both.dense, expected.dense)
        np.testing.assert_array_equal(both.sparse.toarray(), expected.sparse.toarray())

    def test_without_one_it_still_counts(self, tmp_path):
        path = random_checkpoint(tmp_path, task=None)
        embedder = GTEEmbedder.from_pretrained(path, max_length=9, on_truncation="ignore")
        texts = ["w1 w2", "", "w1 " * 30]
        both = embedder.encode_available(texts)
        np.testing.assert_array_equal(both.dense, embedder.encode_dense(texts))
        assert (both.sparse.shape, both.sparse.nnz) == ((3, 512), 0)
        assert both.n_tokens.tolist() == [4, 2, 9]
        assert both.truncated.tolist() == [False, False, True]


def test_a_text_without_direction_is_named_by_its_place_in_the_call(small, monkeypatch):
    original = VectorEngine.compute

    def flat(self, texts, **options):
        encoded = original(self, texts, **options)
        for row, text in enumerate(texts):
            if len(text) > 20:
                encoded.pooled[row, :8] = 0
        return encoded

    monkeypatch.setattr(VectorEngine, "compute", flat)
    texts = ["w1 w2"] * 9000
    texts[7000] = "w1 " * 30
    for encode in (small.encode, small.encode_dense, small.encode_available):
        with pytest.raises(NonFiniteError, match=r"^texts\[7000\]: only zeros in the first 8 comp"):
            encode(texts, dimensions=8)
    with pytest.raises(NonFiniteError, match=r"^pairs\[1\]\[0\]: only zeros in the first 8"):
        small.compute_scores([("w1", "w2"), ("w1 " * 30, "w3")], dimensions=8)


def test_query_prefix_goes_before_queries_only(small_checkpoint, small):
    prefixed = GTEEmbedder.from_pretrained(
        small_checkpoint, dtype="float32", query_prefix="query: "
    )
    np.testing.assert_array_equal(prefixed.encode("w1").dense, small.encode("w1").dense)
    expected = small.compute_scores([("query: w1", "w1")])
    assert prefixed.compute_scores([("w1", "w1")]) == pytest.approx(expected)
    assert prefixed.explain("w1", "w2").dense_score == pytest.approx(
        small.explain("query: w1", "w2").dense_score
    )


def test_explain_adds_up(demo):
    explanation = demo.explain("print a document", "How to print documents and a document list")
    assert {"▁print", "▁document"} <= {token.token for token in explanation.tokens}
    assert sum(t.contribution for t in explanation.tokens) == pytest.approx(
        explanation.sparse_score
    )
    contributions = [token.contribution for token in explanation.tokens]
    assert contributions == sorted(contributions, reverse=True)
    assert explanation.score == pytest.approx(
        explanation.dense_score + 0.01 * explanation.sparse_score
    )


class Subclass(GTEEmbedder):
    pass


def test_pickles_as_its_arguments(small_checkpoint, tmp_path):
    embedder = Subclass.from_pretrained(
        small_checkpoint,
        dimensions=32,
        query_prefix="q: ",
        max_length=99,
        on_truncation="ignore",
        deterministic=True,
        cache_dir=tmp_path,
        local_files_only=True,
    )
    data = pickle.dumps(embedder)
    assert len(data) < 1000
    copy = pickle.loads(data)
    assert type(copy) is Subclass
    assert repr(copy) == repr(embedder)
    np.testing.assert_array_equal(copy.encode("w1").dense, embedder.encode("w1").dense)
    _, (_, _, arguments) = embedder.__reduce__()
    assert arguments == {
        "revision": None,
        "device": None,
        "dtype": "auto",
        "dimensions": 32,
        "max_length": 99,
        "query_prefix": "q: ",
        "on_truncation": "ignore",
        "deterministic": True,
        "torch_compile": False,
        "cache_dir": str(tmp_path),
        "local_files_only": True,
    }


def test_threads_get_what_one_thread_gets(small):
    expected = [small.encode(text).dense for text in TEXTS]
    wrong = []

    def work():
        for _ in range(10):
            for text, vector in zip(TEXTS, expected, strict=True):
                if not np.array_equal(small.encode(text).dense, vector):
                    wrong.append(text)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_several_threads_of_torch_compute_the_same(demo):
    texts = ["print " * n for n in range(1, 400, 40)]
    expected = demo.encode(texts)
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    try:
        found = demo.encode(texts)
    finally:
        torch.set_num_threads(before)
    np.testing.assert_allclose(found.dense, expected.dense, atol=5e-6)
    np.testing.assert_allclose(found.sparse.toarray(), expected.sparse.toarray(), atol=1e-4)


async def test_async_equals_sync_and_lets_the_loop_run(small):
    ticks = 0

    async def tick():
        nonlocal ticks
        while True:
            ticks += 1
            await asyncio.sleep(0)

    ticking = asyncio.create_task(tick())
    both = await small.aencode(TEXTS * 200, dimensions=16)
    ticking.cancel()
    assert ticks > 1
    np.testing.assert_array_equal(both.dense, small.encode(TEXTS * 200, dimensions=16).dense)


async def test_a_cancelled_call_reads_no_further(small, monkeypatch):
    entered, go_on, ended = (threading.Event() for _ in range(3))
    tokenize, encode = GTETokenizer.tokenize, GTEEmbedder.encode
    tokenized = []

    def held(self, texts, max_length):
        tokenized.extend(texts)
        entered.set()
        assert go_on.wait(60)
        return tokenize(self, texts, max_length)

    def observed(self, *args, **options):
        try:
            return encode(self, *args, **options)
        finally:
            ended.set()

    monkeypatch.setattr(GTETokenizer, "tokenize", held)
    monkeypatch.setattr(GTEEmbedder, "encode", observed)
    call = asyncio.create_task(small.aencode(["w1"] * 10_000))
    await asyncio.to_thread(entered.wait, 60)
    call.cancel()
    await asyncio.wait([call])
    go_on.set()
    assert await asyncio.to_thread(ended.wait, 60)
    assert len(tokenized) == 64


def test_no_thread_is_left_behind():
    script = """
import threading
from gte_core import GTEEmbedder
GTEEmbedder.from_pretrained("demo").encode("x")
assert threading.active_count() == 1, threading.enumerate()
"""
    subprocess.run([sys.executable, "-c", script], check=True)


def test_progress_goes_to_stderr_and_only_on_request(small, capsys):
    small.encode(TEXTS)
    assert capsys.readouterr() == ("", "")
    small.encode(TEXTS, show_progress=True)
    out, err = capsys.readouterr()
    assert (out, "5/5" in err) == ("", True)


def test_fingerprint_follows_content_not_place(tmp_path, small):
    one = GTEEmbedder.from_pretrained(random_checkpoint(tmp_path / "one"))
    two = GTEEmbedder.from_pretrained(random_checkpoint(tmp_path / "two", seed=1))
    shorter = GTEEmbedder.from_pretrained(tmp_path / "one", max_length=128, dtype="bfloat16")
    assert one.fingerprint == small.fingerprint
    assert one.fingerprint != two.fingerprint
    assert one.fingerprint != shorter.fingerprint
    assert (shorter.fingerprint.model, shorter.fingerprint.numeric) == (
        one.fingerprint.model,
        "float",
    )
    assert str(one.fingerprint).startswith("sha256:")


def test_the_fingerprint_is_that_of_the_loaded_weights(tmp_path):
    embedder = GTEEmbedder.from_pretrained(random_checkpoint(tmp_path))
    random_checkpoint(tmp_path, {"vocab_size": 600}, seed=9)
    with pytest.raises(WeightsError, match="were changed after they were loaded"):
        _ = embedder.fingerprint


def test_the_demo_says_what_it_is(demo):
    assert "model='demo'" in repr(demo)
    assert (demo.model, demo.revision, demo.dimensions) == ("demo", None, 256)
    assert (demo.device, demo.dtype) == ("cpu", "float32")


def test_the_demo_finds_across_languages(demo):
    texts = ["Drucken eines Dokuments", "Eine Tabelle einfügen", "Rechtschreibung prüfen"]
    scores = demo.encode("print a document").scores(demo.encode(texts))
    assert scores.argmax() == 0


def shared(checkpoint, **settings):
    return shared_encoder(EncoderSettings(model=str(checkpoint), **settings))


@pytest.mark.parametrize("load", [GTEEmbedder.from_pretrained, shared], ids=["loaded", "shared"])
class TestCountTokens:
    def test_all_tokens_are_counted_without_a_pass(self, small_checkpoint, load, encoded):
        embedder = load(small_checkpoint, max_length=8, on_truncation="ignore")
        given = TEXTS * 60  # more than are counted at once
        counts = embedder.count_tokens(iter(given))
        assert encoded == []
        assert counts.dtype == np.int64
        both = embedder.encode(given)
        np.testing.assert_array_equal(np.minimum(counts, 8), both.n_tokens)
        np.testing.assert_array_equal(counts > 8, both.truncated)

    def test_a_query_is_counted_with_its_prefix(self, small_checkpoint, load):
        embedder = load(small_checkpoint, query_prefix="w1 w2 ")
        assert embedder.count_tokens("w3").tolist() == [3]
        assert embedder.count_tokens(["w3"], role="query").tolist() == [5]

    def test_no_texts_have_no_counts(self, small_checkpoint, load):
        assert load(small_checkpoint).count_tokens([]).shape == (0,)

    def test_what_is_no_text_is_named(self, small_checkpoint, load):
        with pytest.raises(TypeError, match=r"texts\[1\] must be a str, got int"):
            load(small_checkpoint).count_tokens(["a", 1])
        with pytest.raises(ValueError, match="role is 'passage'; allowed are"):
            load(small_checkpoint).count_tokens("a", role="passage")


@given(st.lists(ANY_TEXT, max_size=5))
def test_what_is_counted_is_what_is_fed(small, texts):
    np.testing.assert_array_equal(small.count_tokens(texts), small.encode(texts).n_tokens)
