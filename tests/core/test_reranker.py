import logging

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import GteForSequenceClassification, PreTrainedTokenizerFast

from gte_core import (
    ConfigError,
    GTEModel,
    GTEReranker,
    MissingHeadError,
    NonFiniteError,
    RerankerSettings,
)
from gte_core.testing import random_checkpoint, word_tokenizer

QUERY = "w1 w2"
DOCUMENTS = ["w3 w4 " * 30, "", "w1", "w1 w2 w5", "x"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp("reranker")
    return random_checkpoint(path, task="sequence_classification")


@pytest.fixture(scope="module")
def reranker(checkpoint):
    return GTEReranker.from_pretrained(checkpoint, dtype="float32")


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("max_length", [8192, 20, 7])
def test_scores_equal_transformers(tmp_path, max_length, side):
    config = GteForSequenceClassification.config_class(
        vocab_size=300,
        hidden_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=80,
        num_labels=1,
    )
    theirs = GteForSequenceClassification(config).eval()
    theirs.save_pretrained(tmp_path)
    word_tokenizer(300).save(str(tmp_path / "tokenizer.json"))
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(tmp_path / "tokenizer.json"), pad_token="<pad>", truncation_side=side
    )
    batch = tokenizer(
        [(QUERY, document) for document in DOCUMENTS],
        padding=True,
        truncation=True,
        max_length=max_length,
        return_tensors="pt",
        return_token_type_ids=False,
    )
    with torch.no_grad():
        expected = theirs(**batch).logits[:, 0].numpy()
    ours = GTEReranker.from_pretrained(
        tmp_path, dtype="float32", max_length=max_length, truncation_side=side
    )
    scores = ours.score((QUERY, document) for document in DOCUMENTS)
    np.testing.assert_allclose(scores, expected, atol=2e-5)


def test_rank_goes_from_high_to_low(reranker):
    scores = reranker.score([(QUERY, document) for document in DOCUMENTS])
    ranked = reranker.rank(QUERY, DOCUMENTS)
    assert [hit.index for hit in ranked] == np.argsort(-scores, kind="stable").tolist()
    assert [hit.document for hit in ranked] == [DOCUMENTS[hit.index] for hit in ranked]
    assert [hit.score for hit in reranker.rank(QUERY, DOCUMENTS, top_n=2)] == pytest.approx(
        sorted(scores, reverse=True)[:2]
    )


def test_a_pair_scores_the_same_alone_and_among_others(reranker):
    scores = reranker.score([(QUERY, document) for document in DOCUMENTS])
    alone = [reranker.score([(QUERY, document)])[0] for document in DOCUMENTS]
    np.testing.assert_allclose(scores, alone, atol=1e-5)


def test_long_and_short_pairs_are_packed_without_padding(reranker, monkeypatch):
    fed, compute = [], GTEModel.compute_cls

    def counted(self, input_ids, layout):
        fed.append(len(input_ids))
        return compute(self, input_ids, layout)

    monkeypatch.setattr(GTEModel, "compute_cls", counted)
    words = [200, *[1] * 30]
    reranker.score([("w1 w2", " ".join(["w3"] * n)) for n in words])
    assert len(fed) < len(words) / 2
    assert sum(fed) == sum(2 + n + 4 for n in words)


def test_truncation_is_reported(checkpoint, caplog):
    short = GTEReranker.from_pretrained(checkpoint, dtype="float32", max_length=10)
    with caplog.at_level(logging.WARNING):
        short.rank(QUERY, DOCUMENTS)
    assert "1 pair(s) were longer than max_length=10 tokens" in caplog.text


@pytest.mark.parametrize(("side", "kept"), [("right", "w5 w6 w7"), ("left", "w8 w9 w10")])
def test_the_longer_text_is_cut_at_its_side(checkpoint, side, kept):
    document = "w5 w6 w7 w8 w9 w10"
    options = {"dtype": "float32", "max_length": 9, "truncation_side": side}
    short = GTEReranker.from_pretrained(checkpoint, **options)
    scores = short.score(
        [("w1 w2", document), ("w1 w2", kept), (document, "w1 w2"), (kept, "w1 w2")]
    )
    np.testing.assert_allclose(scores[[0, 2]], scores[[1, 3]], atol=1e-6)


def test_a_side_that_is_none(checkpoint):
    message = r"truncation_side is 'end'; allowed are \['right', 'left'\]"
    with pytest.raises(ValueError, match=message):
        GTEReranker.from_pretrained(checkpoint, truncation_side="end")
    with pytest.raises(ValueError, match=message):
        RerankerSettings(truncation_side="end")


def test_truncation_is_reported_once_a_call(checkpoint, caplog):
    short = GTEReranker.from_pretrained(checkpoint, dtype="float32", max_length=10)
    short.score([("w1", "w1"), ("w1 " * 9, "w2")] * 600)
    assert [record.getMessage()[:11] for record in caplog.records] == ["600 pair(s)"]


@pytest.mark.parametrize("max_length", [0, 2, 4, -1])
def test_max_length_leaves_room_beside_the_special_tokens(checkpoint, max_length):
    with pytest.raises(
        ValueError, match=f"max_length is {max_length}, but must be more than the 4"
    ):
        GTEReranker.from_pretrained(checkpoint, max_length=max_length)


@pytest.mark.parametrize("max_length", [True, "9", 9.0])
def test_max_length_is_an_integer(checkpoint, max_length):
    with pytest.raises(TypeError, match="max_length must be an integer, got"):
        GTEReranker.from_pretrained(checkpoint, max_length=max_length)


def test_max_length_may_be_as_small_and_as_large_as_one_likes(checkpoint, reranker):
    shortest = GTEReranker.from_pretrained(checkpoint, dtype="float32", max_length=5)
    assert np.isfinite(shortest.score([("w1 w2 w3", "w4 w5")])).all()
    longest = GTEReranker.from_pretrained(checkpoint, dtype="float32", max_length=10**30)
    np.testing.assert_array_equal(longest.score([("w1", "w2")]), reranker.score([("w1", "w2")]))


def test_nothing(reranker):
    assert reranker.rank(QUERY, []) == []
    assert reranker.score([]).shape == (0,)


def test_wrong_input(reranker):
    with pytest.raises(TypeError, match=r"documents\[1\] must be a str, got int"):
        reranker.rank(QUERY, ["a", 1])
    with pytest.raises(TypeError, match=r"pairs\[0\]\[1\] must be a str, got NoneType"):
        reranker.score([("a", None)])


def test_a_model_that_is_no_reranker(small_checkpoint):
    with pytest.raises(MissingHeadError, match="no sequence classifier of one label"):
        GTEReranker.from_pretrained(small_checkpoint)


def test_a_tokenizer_of_another_checkpoint(tmp_path):
    path = random_checkpoint(tmp_path, task="sequence_classification")
    word_tokenizer(600).save(str(path / "tokenizer.json"))
    with pytest.raises(ConfigError, match="has ids up to 599, but the model has embeddings for 51"):
        GTEReranker.from_pretrained(path)


def test_top_n_out_of_range(reranker):
    with pytest.raises(ValueError, match="top_n is 0, but must be at least 1"):
        reranker.rank(QUERY, DOCUMENTS, top_n=0)


def test_a_pair_that_overflows_a_half_type_is_computed_again_in_float32(tmp_path):
    path = random_checkpoint(tmp_path, task="sequence_classification")
    tensors = load_file(path / "model.safetensors")
    tensors["new.encoder.layer.0.mlp.up_gate_proj.weight"] *= 2000  # the product passes 65,504
    save_file(tensors, path / "model.safetensors")
    pairs = [(QUERY, document) for document in DOCUMENTS]
    expected = GTEReranker.from_pretrained(path, dtype="float32").score(pairs)
    half = GTEReranker.from_pretrained(path, dtype="float16")
    np.testing.assert_allclose(half.score(pairs), expected, atol=1e-5)


def test_pairs_that_are_not_finite_are_named_by_their_place(tmp_path):
    path = random_checkpoint(tmp_path, task="sequence_classification")
    tensors = load_file(path / "model.safetensors")
    tensors["new.embeddings.word_embeddings.weight"][105] = torch.nan
    save_file(tensors, path / "model.safetensors")
    broken = GTEReranker.from_pretrained(path, dtype="bfloat16")
    piece = word_tokenizer(512).id_to_token(105).removeprefix("▁")
    with pytest.raises(NonFiniteError, match=r"pairs\[600\]: NaN or infinity, even in"):
        broken.score([("w400", "w401")] * 600 + [("w400", piece)])
