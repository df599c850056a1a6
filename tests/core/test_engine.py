from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from gte_core import GTEEmbedder, GTEModel, NonFiniteError
from gte_core.runtime.vectors import VectorEngine
from gte_core.testing import random_checkpoint


def scale(directory, name, factor):
    path = directory / "model.safetensors"
    tensors = load_file(path)
    save_file(tensors | {name: tensors[name] * factor}, path)


@pytest.fixture
def overflowing(tmp_path):
    """Fine in float32; in float16 the gated product passes 65,504."""
    path = random_checkpoint(tmp_path)
    scale(path, "new.encoder.layer.0.mlp.up_gate_proj.weight", 2000.0)
    return path


@pytest.fixture
def forwards(monkeypatch):
    """Type of the weights in each forward pass."""
    seen = []
    original = GTEModel.compute_pack

    def counted(self, input_ids, layout, **kwargs):
        seen.append((self.dtype, len(layout.lengths)))
        return original(self, input_ids, layout, **kwargs)

    monkeypatch.setattr(GTEModel, "compute_pack", counted)
    return seen


def test_both_vectors_cost_one_pass(small, forwards):
    small.encode(["w1 w2", "w3"])
    assert forwards == [(torch.float32, 2)]


def test_weights_beyond_a_half_type_are_loaded_again_in_float32(tmp_path):
    path = random_checkpoint(tmp_path)
    scale(path, "new.encoder.layer.0.mlp.down_proj.weight", 1e7)
    expected = GTEEmbedder.from_pretrained(path, dtype="float32").encode("w1 w2")
    half = GTEEmbedder.from_pretrained(path, dtype="float16").encode("w1 w2")
    np.testing.assert_allclose(half.dense, expected.dense, atol=1e-6)


def test_one_pass_at_a_time_whatever_the_threads(small, monkeypatch):
    inside, most = 0, 0
    original = GTEModel.compute_pack

    def watched(self, *args, **kwargs):
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        result = original(self, *args, **kwargs)
        inside -= 1
        return result

    monkeypatch.setattr(GTEModel, "compute_pack", watched)
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(small.encode, ["w1 " * 400] * 16))
    assert most == 1


def test_memory_follows_the_budget(small, forwards, monkeypatch):
    seen = []
    original = VectorEngine.compute
    monkeypatch.setattr(
        VectorEngine, "compute", lambda self, t, **k: seen.append(t) or original(self, t, **k)
    )
    small.encode("w1 " * (i % 300) for i in range(1200))
    budget = small.pack_tokens
    assert len(seen) > 5
    assert max(sum(map(len, window)) for window in seen) < 17 * budget
    assert max(n for _, n in forwards) <= budget


def test_autocast_and_default_device_of_the_caller_change_nothing(small):
    expected = small.encode("w1 w2").dense
    with torch.autocast("cpu", dtype=torch.bfloat16):
        np.testing.assert_array_equal(small.encode("w1 w2").dense, expected)
    with torch.device("meta"):
        np.testing.assert_array_equal(small.encode("w1 w2").dense, expected)


def test_long_texts_get_packs_of_their_own(small, forwards):
    small.encode(["w1 " * 3000, *["w2"] * 10])
    assert [n for _, n in forwards] == [1, 10]


def test_a_half_row_that_overflows_is_computed_again_in_float32(overflowing, forwards):
    texts = ["w1 w2 w3", "w4"]
    expected = GTEEmbedder.from_pretrained(overflowing, dtype="float32").encode(texts)
    half = GTEEmbedder.from_pretrained(overflowing, dtype="float16")
    forwards.clear()
    both = half.encode(texts)
    assert forwards == [(torch.float16, 2), (torch.float32, 2)]
    cosines = np.einsum("ij,ij->i", both.dense, expected.dense)
    assert cosines.min() > 0.999
    assert np.isfinite(both.sparse.data).all()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_what_is_not_finite_in_float32_either_is_named(tmp_path, dtype):
    path = random_checkpoint(tmp_path)
    tensors = load_file(path / "model.safetensors")
    tensors["new.embeddings.word_embeddings.weight"][105] = torch.nan
    save_file(tensors, path / "model.safetensors")
    embedder = GTEEmbedder.from_pretrained(path, dtype=dtype)
    piece = embedder.tokenizer.piece(105).removeprefix("▁")
    assert embedder.encode("w400").dense.shape == (1, 64)
    with pytest.raises(NonFiniteError, match=r"texts\[4097\]: NaN or infinity, even in float32"):
        embedder.encode([*["w400"] * 4097, piece, "w401"])


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_types_agree_with_float32_on_the_demo(demo, dtype):
    texts = ["How to print a document", "Ein Dokument drucken", "打印文档", "", "x" * 500]
    half = GTEEmbedder.from_pretrained("demo", dtype=dtype).encode(texts)
    assert np.einsum("ij,ij->i", half.dense, demo.encode(texts).dense).min() >= 0.9995
    np.testing.assert_allclose(np.linalg.norm(half.dense, axis=1), 1, atol=1e-6)
