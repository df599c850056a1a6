"""The published script's class, against what the script itself gave."""

import json

import numpy as np
import pytest
import torch

from gte_core import GTEEmbedder, MissingHeadError
from gte_core.testing import random_checkpoint
from gte_integrations.gte_embedding import GTEEmbeddidng

TOLERANCE = 2e-5


@pytest.fixture(scope="module")
def expected(golden):
    return json.loads((golden / "s3_gte_embedding_script" / "expected.json").read_text())


@pytest.fixture(scope="module")
def model(golden):
    return GTEEmbeddidng(str(golden / "s3_gte_embedding_script" / "model"), device="cpu")


def assert_weights(found, expected):
    for weights, of_text in zip(found, expected, strict=True):
        assert weights == pytest.approx(of_text, abs=TOLERANCE)


@pytest.mark.parametrize("dimension", [16, 64])
def test_both_vectors_equal_the_script(model, expected, dimension):
    found = model.encode(expected["texts"], dimension, return_sparse=True)
    dense = expected["dense"][str(dimension)]
    np.testing.assert_allclose(found["dense_embeddings"], dense, atol=TOLERANCE)
    assert_weights(found["token_weights"], expected["token_weights_script"])


def test_fewer_tokens_equal_the_script(model, expected, caplog):
    of = expected["truncated"]
    limits = {"dimension": of["dimension"], "max_length": of["max_length"], "batch_size": 3}
    found = model.encode(expected["texts"], **limits, return_sparse=True)
    np.testing.assert_allclose(found["dense_embeddings"], of["dense"], atol=TOLERANCE)
    assert_weights(found["token_weights"], of["token_weights_script"])
    assert "longer than max_length=8 tokens" in caplog.text


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("hybrid_default(dense 1.0 + sparse 0.1)", {}),
        ("dense_only", {"sparse_weight": 0.0}),
        ("sparse_only", {"dense_weight": 0.0, "sparse_weight": 1.0}),
        ("hybrid_0.6_0.4", {"dense_weight": 0.6, "sparse_weight": 0.4}),
        ("hybrid_default_dim16", {"dimension": 16}),
        ("hybrid_default_maxlen8", {"max_length": 8}),
    ],
)
def test_scores_equal_the_script(model, expected, name, options):
    scores = model.compute_scores([tuple(pair) for pair in expected["pairs"]], **options)
    assert all(type(score) is float for score in scores)
    assert scores == pytest.approx(expected["scores"][name], abs=TOLERANCE)


def test_scores_can_be_made_of_the_parts(model, expected):
    queries, documents = (
        model.encode(list(texts), return_sparse=True)
        for texts in zip(*expected["pairs"], strict=True)
    )
    dense = model.compute_dense_scores(queries["dense_embeddings"], documents["dense_embeddings"])
    sparse = model.compute_sparse_scores(queries["token_weights"], documents["token_weights"])
    assert dense == pytest.approx(expected["scores"]["dense_only"], abs=TOLERANCE)
    assert sparse == pytest.approx(expected["scores"]["sparse_only"], abs=TOLERANCE)


@pytest.mark.parametrize("texts", [[], "one text", ["one", "two"]])
@pytest.mark.parametrize("dense", [True, False])
@pytest.mark.parametrize("sparse", [True, False])
def test_what_is_not_wanted_is_empty(model, texts, dense, sparse):
    """The script raises for no texts, and for ``return_dense=False``."""
    count = 1 if isinstance(texts, str) else len(texts)
    found = model.encode(texts, 32, return_dense=dense, return_sparse=sparse)
    vectors = found["dense_embeddings"]
    assert (vectors.shape, vectors.dtype) == ((count * dense, 32), torch.float32)
    assert len(found["token_weights"]) == count * sparse


def test_a_model_without_the_sparse_head_gives_dense_vectors(tmp_path):
    model = GTEEmbeddidng(str(random_checkpoint(tmp_path, task=None)))
    assert model.encode("w1")["dense_embeddings"].shape == (1, model.embedder.dimensions)
    assert model.compute_scores([("w1", "w1")], sparse_weight=0) == pytest.approx([1], abs=1e-5)
    with pytest.raises(MissingHeadError, match="has no sparse head"):
        model.encode("w1", return_sparse=True)


def test_it_computes_in_float32_on_a_cpu(model):
    """The script computes in float16 where ``device="cpu"`` is named."""
    assert (model.embedder.dtype, model.device) == ("float32", torch.device("cpu"))


@pytest.mark.parametrize(
    ("device", "use_fp16", "dtype"),
    [
        ("cuda", True, "float16"),
        ("cuda:1", False, "float32"),
        ("cpu", True, "float32"),
        (None, True, "float16"),
    ],
)
def test_it_computes_in_float16_on_a_gpu_alone(monkeypatch, device, use_fp16, dtype):
    asked = {}
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr(GTEEmbedder, "from_pretrained", lambda name, **given: asked.update(given))
    GTEEmbeddidng("demo", use_fp16=use_fp16, device=device)
    assert (asked["device"], asked["dtype"]) == (device, dtype)


def test_vectors_that_are_not_normalised_are_refused():
    with pytest.raises(ValueError, match="normalized is False, but dense vectors here always"):
        GTEEmbeddidng("demo", normalized=False)
