"""What a smaller type costs, against float32: on the shipped weights and at the real width."""

import json
from pathlib import Path

import numpy as np
import pytest

from gte_core import GTEEmbedder
from gte_core.network.device import has_onednn
from gte_core.testing import random_checkpoint

CORPUS = Path(__file__).parents[2] / "examples" / "corpus" / "passages.jsonl"
WORDS = [f"w{i}" for i in range(300)]
# The promise of each type: the smallest cosine to float32 of any text.
PROMISES = [
    ("bfloat16", 0.9995),
    pytest.param(
        "int8", 0.995, marks=pytest.mark.skipif(not has_onednn(), reason="needs oneDNN on x86")
    ),
]


def smallest_cosine(one, other):
    return np.einsum("ij,ij->i", one, other).min()


@pytest.fixture(scope="module")
def passages():
    lines = CORPUS.read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["text"] for line in lines]


@pytest.fixture(scope="module")
def real_width(tmp_path_factory):
    """The published network, but for the rows of its embedding table."""
    shape = {
        "hidden_size": 768,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "intermediate_size": 3072,
    }
    return random_checkpoint(tmp_path_factory.mktemp("real"), shape, initializer_range=0.02)


@pytest.mark.parametrize("step", [24, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize(("dtype", "promised"), PROMISES)
def test_passages_on_the_demo(demo, passages, dtype, promised, step):
    expected = demo.encode(passages[::step])
    both = GTEEmbedder.from_pretrained("demo", dtype=dtype).encode(passages[::step])
    assert smallest_cosine(both.dense, expected.dense) >= promised
    assert abs(both.sparse - expected.sparse).max() < 0.3 * expected.sparse.max()


@pytest.mark.parametrize(("dtype", "promised"), PROMISES)
def test_random_weights_of_the_real_width(real_width, dtype, promised):
    texts = [" ".join(WORDS[:n]) for n in (1, 4, 16, 70, 300)]
    expected = GTEEmbedder.from_pretrained(real_width, dtype="float32").encode_dense(texts)
    found = GTEEmbedder.from_pretrained(real_width, dtype=dtype).encode_dense(texts)
    assert smallest_cosine(found, expected) >= promised


@pytest.mark.parametrize(("dtype", "promised"), PROMISES)
def test_neighbours_change_no_more_than_the_rounding(passages, dtype, promised):
    embedder = GTEEmbedder.from_pretrained("demo", dtype=dtype)
    together = embedder.encode(passages[:40]).dense
    alone = np.concatenate([embedder.encode(text).dense for text in passages[:40]])
    rounding = 1 - (1 - promised) / 5
    assert smallest_cosine(together, alone) >= rounding


def test_float8_on_the_demo(demo, passages, monkeypatch):
    """Its products can be computed on a CPU, slowly: enough to know what they lose.

    The switch is private because no user should do so.
    """
    monkeypatch.setattr("gte_core.network.device._has_float8", lambda device: True)
    embedder = GTEEmbedder.from_pretrained("demo", dtype="float8")
    found = embedder.encode_dense(passages[::24])
    assert embedder.fingerprint.numeric == "fp8"
    assert smallest_cosine(found, demo.encode_dense(passages[::24])) >= 0.99
