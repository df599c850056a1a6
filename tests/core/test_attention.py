import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gte_core.network.attention import PackLayout, attend

CPU = torch.device("cpu")


def reference(query, key, value, lengths):
    """Softmax attention over one big block-diagonal mask."""
    owner = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
    scores = torch.einsum("qhd,khd->hqk", query, key) / query.shape[-1] ** 0.5
    scores = scores.masked_fill(owner[:, None] != owner[None, :], -torch.inf)
    return torch.einsum("hqk,khd->qhd", scores.softmax(-1), value)


@given(lengths=st.lists(st.integers(1, 9), min_size=1, max_size=8), seed=st.integers(0, 99))
def test_every_sequence_sees_itself_alone(lengths, seed):
    generator = torch.Generator().manual_seed(seed)
    query, key, value = torch.randn(3, sum(lengths), 2, 4, generator=generator)
    out = attend(query, key, value, PackLayout.from_lengths(lengths, device=CPU))
    torch.testing.assert_close(out, reference(query, key, value, lengths), atol=1e-5, rtol=0)


@pytest.mark.parametrize("at_once", [1, 7, 40, 2**22])
def test_products_of_any_size_equal_the_reference(monkeypatch, at_once):
    monkeypatch.setattr("gte_core.network.attention._SCORES_AT_ONCE", at_once)
    lengths = [9, 9, 5, 1]
    query, key, value = torch.randn(3, sum(lengths), 2, 8).bfloat16()
    out = attend(query, key, value, PackLayout.from_lengths(lengths, device=CPU))
    expected = reference(query.float(), key.float(), value.float(), lengths)
    torch.testing.assert_close(out.float(), expected, atol=3e-2, rtol=0)


def test_an_empty_pack():
    empty = torch.zeros(0, 2, 4)
    assert attend(empty, empty, empty, PackLayout.from_lengths([], device=CPU)).shape == (0, 2, 4)


def test_layout():
    layout = PackLayout.from_lengths([3, 1, 2], device=CPU)
    assert layout.cu_seqlens.tolist() == [0, 3, 4, 6]
    assert layout.cu_seqlens.dtype == torch.int32
    assert layout.positions.tolist() == [0, 1, 2, 0, 0, 1]
    assert layout.cls_indices.tolist() == [0, 3, 4]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_varlen_kernel_equals_the_reference():
    lengths = [5, 17, 1, 64]
    query, key, value = torch.randn(3, sum(lengths), 2, 64)
    halves = [x.cuda().bfloat16() for x in (query, key, value)]
    out = attend(*halves, PackLayout.from_lengths(lengths, device=torch.device("cuda")))
    expected = reference(query, key, value, lengths)
    torch.testing.assert_close(out.float().cpu(), expected, atol=3e-2, rtol=0)
