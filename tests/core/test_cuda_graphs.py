import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch._dynamo.testing import CompileCounterWithBackend
from torch.utils._python_dispatch import TorchDispatchMode

from gte_core import GTEEmbedder
from gte_core.checkpoint.hub import find_model
from gte_core.network import attention
from gte_core.network.model import GTEModel
from gte_core.runtime import cuda_graphs as graphs
from gte_core.runtime.cuda_graphs import GraphedPass
from gte_core.runtime.vectors import VectorEngine, compute_both, compute_cls
from gte_core.tokenizer import TokenizedText

CPU = torch.device("cpu")
IDS = st.lists(st.integers(5, 60), min_size=1, max_size=40)


class NothingCrosses(TorchDispatchMode):
    """Fails where a tensor goes from one device to another."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if func is torch.ops.aten._to_copy.default:
            assert args[0].device == out.device
        return out


def by_bounds(query, key, value, queries, keys):
    """What a varlen kernel computes, from the bounds alone; sequences may be empty."""
    places = torch.arange(len(query)), torch.arange(len(key))
    owner, other = (
        torch.bucketize(place, layout.cu_seqlens[1:], right=True)
        for place, layout in zip(places, (queries, keys), strict=True)
    )
    scores = torch.einsum("qhd,khd->hqk", query, key) / query.shape[-1] ** 0.5
    scores = scores.masked_fill(owner[:, None] != other[None, :], -torch.inf)
    return torch.einsum("hqk,khd->qhd", scores.softmax(-1).nan_to_num(), value)


@pytest.fixture
def varlen(monkeypatch):
    """A CPU with a kernel for whole packs."""
    monkeypatch.setattr(attention, "has_varlen_kernel", lambda *_: True)
    monkeypatch.setattr(attention, "_varlen_attention", by_bounds)


class Recomputing:
    """Stands in for a CUDA graph: every replay writes into the outputs of its capture."""

    def __init__(self, compute):
        self._compute = compute
        self.outputs = tuple(output.clone() for output in compute())

    def replay(self):
        for output, new in zip(self.outputs, self._compute(), strict=True):
            output.copy_(new)


@pytest.fixture
def captured(monkeypatch):
    """Sizes of the graphs that were captured."""
    sizes = []

    def capture(compute, input_ids, layout):
        sizes.append(len(input_ids))
        graph = Recomputing(lambda: compute(input_ids, layout))
        return graphs.CapturedGraph(graph, input_ids, layout, graph.outputs)

    monkeypatch.setattr(graphs, "capture_cuda_graph", capture)
    return sizes


@pytest.fixture(scope="module")
def model(small_checkpoint):
    return GTEModel.for_inference(find_model(small_checkpoint), device=CPU, dtype=torch.float32)


def engine(model, **options):
    return VectorEngine(model, lambda: model, dropped_ids=frozenset({0, 1, 2, 3}), **options)


@pytest.fixture
def accelerator(monkeypatch):
    """A device with a kernel for whole packs, whose tensors hold no numbers that one could read."""
    monkeypatch.setattr(attention, "has_varlen_kernel", lambda *_: True)
    return torch.device("meta")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float8_e4m3fn])
@pytest.mark.parametrize(("compute", "n_entries"), [(compute_cls, 0), (compute_both, 3)])
def test_a_pass_never_asks_the_device_for_a_number(accelerator, dtype, compute, n_entries):
    model = GTEModel.for_inference(find_model("demo"), device=accelerator, dtype=dtype)
    pack = model.lay_out([[0, 5, 2], [0, 2], [0, 7, 7, 2]])
    with NothingCrosses():
        finite, states, *entries = compute(model, *pack)
    assert (finite.shape, states.shape) == ((3,), (3, 256))
    assert [tuple(entry.shape) for entry in entries] == [(9,)] * n_entries


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float8_e4m3fn])
def test_what_was_compiled_serves_packs_of_all_lengths(accelerator, captured, dtype):
    torch.compiler.reset()
    model = GTEModel.for_inference(find_model("demo"), device=accelerator, dtype=dtype)
    counter = CompileCounterWithBackend("aot_eager")
    for layer in model.encoder.layer:
        layer.compile(backend=counter, fullgraph=True)
    graphed = GraphedPass(model, compute_both)

    def compute(*packs):
        for lengths in packs:
            ids = [[7] * length for length in lengths]
            graphed(ids)
            compute_both(model, *model.lay_out(ids))

    compute([4, 3, 2], [5, 9])
    n_compiled = counter.frame_count
    compute([2], [3] * 40, [100, 3], [900])
    assert counter.frame_count == n_compiled
    assert captured == [32, 128, 1024]


@pytest.mark.usefixtures("varlen")
def test_compiled_layers_compute_the_same(small_checkpoint):
    torch.compiler.reset()
    model, compiled = (GTEModel.from_pretrained(small_checkpoint) for _ in range(2))
    for layer in compiled.encoder.layer:
        layer.compile(backend="aot_eager", fullgraph=True)
    with torch.inference_mode():
        for lengths in ([4, 3, 2], [5, 9], [2]):
            inputs = model.lay_out([[7 + n] * n for n in lengths])
            torch.testing.assert_close(
                compiled.compute_pack(*inputs), model.compute_pack(*inputs), atol=1e-5, rtol=0
            )


@pytest.mark.usefixtures("varlen", "captured")
@pytest.mark.parametrize("alone", [False, True])
def test_replayed_packs_are_the_packs_themselves(model, alone):
    # Packs of one text each follow upon one another in the same graph.
    ordinary, replayed = engine(model), engine(model, graphed=True, deterministic=alone)

    @settings(max_examples=25)
    @given(texts=st.lists(IDS, min_size=1, max_size=8), sparse=st.booleans())
    def same(texts, sparse):
        tokenized = [TokenizedText(ids, truncated=False) for ids in texts]
        expected = ordinary.compute(tokenized, sparse=sparse)
        found = replayed.compute(tokenized, sparse=sparse)
        np.testing.assert_allclose(found.pooled, expected.pooled, atol=1e-5)
        np.testing.assert_allclose(found.sparse.toarray(), expected.sparse.toarray(), atol=1e-5)

    same()


@pytest.mark.usefixtures("varlen")
def test_a_size_is_captured_once(model, captured):
    replayed = engine(model, graphed=True)
    for n_tokens in (3, 31, 32, 5, 33, 1023):
        replayed.compute([TokenizedText([7] * n_tokens, truncated=False)])
    assert captured == [32, 64, 1024]


@pytest.mark.usefixtures("varlen")
@pytest.mark.parametrize("texts", [[[7] * 1024], [[7]] * 64])
def test_large_packs_are_computed_as_ever(model, captured, texts):
    replayed = engine(model, graphed=True)
    found = replayed.compute([TokenizedText(ids, truncated=False) for ids in texts])
    assert captured == []
    assert found.n_tokens.tolist() == [len(ids) for ids in texts]


def test_on_a_cpu_it_is_refused():
    with pytest.raises(ValueError, match="torch_compile is for half types and float8 on Ampere"):
        GTEEmbedder.from_pretrained("demo", device="cpu", torch_compile=True)


def test_without_a_capture_it_goes_on(model, monkeypatch, caplog):
    attempts = []

    def capture(compute, input_ids, layout):
        attempts.append(len(input_ids))
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(graphs, "capture_cuda_graph", capture)
    texts = [TokenizedText([7, 8, 9], truncated=False)] * 2
    found = engine(model, graphed=True)
    expected = engine(model).compute(texts)
    for _ in range(2):
        np.testing.assert_array_equal(found.compute(texts).pooled, expected.pooled)
    assert attempts == [32]
    assert found.pack_tokens == 2048
    assert "No CUDA graph of 32 tokens (CUDA out of memory)" in caplog.text


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("dtype", ["bfloat16", "float8"])
def test_compiled_and_replayed_equals_eager_on_cuda(dtype):
    if dtype == "float8" and torch.cuda.get_device_capability() < (9, 0):
        pytest.skip("needs a Hopper GPU")
    texts = ["How to print", "Ein Dokument drucken", *["word " * n for n in range(1, 900, 90)]]
    eager = GTEEmbedder.from_pretrained("demo", device="cuda", dtype=dtype)
    fast = GTEEmbedder.from_pretrained("demo", device="cuda", dtype=dtype, torch_compile=True)
    for part in (texts, texts[:1], texts[:2], texts[:1]):
        found, expected = fast.encode(part), eager.encode(part)
        assert (found.dense * expected.dense).sum(1).min() > 0.999
        np.testing.assert_allclose(found.dense, fast.encode_dense(part), atol=1e-2)
