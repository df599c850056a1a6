import pytest
import torch
from torch import nn

from gte_core import GTEEmbedder
from gte_core.network.device import has_onednn
from gte_core.network.kernels import (
    BlockedGatedLinear,
    BlockedLinear,
    Float8GatedLinear,
    Float8Linear,
    GatedLinear,
    Int8GatedLinear,
    Int8Linear,
    choose_kernels,
)

CPU = torch.device("cpu")
onednn = pytest.mark.skipif(not has_onednn(), reason="needs oneDNN's x86 kernels")
FAMILIES = [
    pytest.param(BlockedLinear, BlockedGatedLinear, 1e-6, marks=onednn),
    pytest.param(Int8Linear, Int8GatedLinear, 0.02, marks=onednn),
    (Float8Linear, Float8GatedLinear, 0.05),
]


@pytest.fixture
def linear():
    torch.manual_seed(0)
    return nn.Linear(48, 32).requires_grad_(False)


@pytest.fixture
def gated():
    torch.manual_seed(1)
    return GatedLinear(48, 64, bias=False).requires_grad_(False)


@pytest.fixture
def activations():
    # Rows of very different size, as LayerNorm's outliers make them.
    return torch.randn(7, 48) * torch.logspace(-3, 3, 7)[:, None]


def error(found, expected):
    """The largest error of a row, relative to the length of the row."""
    return ((found - expected).norm(dim=1) / expected.norm(dim=1)).max().item()


@pytest.mark.parametrize(("kind", "_gated", "tolerance"), FAMILIES)
def test_linear_is_close_to_torch(linear, activations, kind, _gated, tolerance):
    found = kind(linear.weight, None)(activations)
    assert error(found, activations @ linear.weight.T) < tolerance
    with_bias = kind(linear.weight, linear.bias)(activations)
    torch.testing.assert_close(with_bias, found + linear.bias)


@pytest.mark.parametrize(("_kind", "gated_kind", "tolerance"), FAMILIES)
def test_gated_linear_is_close_to_torch(gated, _kind, gated_kind, tolerance):
    activations = torch.randn(7, 48)
    assert error(gated_kind(gated.weight)(activations), gated(activations)) < 2 * tolerance


def test_gated_linear_is_its_formula(gated):
    x = torch.randn(3, 48)
    up, gate = gated.weight[:32], gated.weight[32:]
    expected = nn.functional.gelu(x @ gate.T) * (x @ up.T)
    torch.testing.assert_close(gated(x), expected)


@pytest.mark.parametrize(("kind", "_gated", "_tolerance"), FAMILIES)
def test_a_row_does_not_depend_on_its_neighbours(linear, activations, kind, _gated, _tolerance):
    kernel = kind(linear.weight, linear.bias)
    alone = torch.cat([kernel(row[None]) for row in activations])
    assert error(kernel(activations), alone) < 1e-6  # a sum's order depends on where memory lies


@onednn
def test_int8_survives_a_row_of_zeros(linear):
    kernel = Int8Linear(linear.weight, linear.bias)
    torch.testing.assert_close(kernel(torch.zeros(2, 48)), linear.bias.expand(2, -1))


@pytest.mark.parametrize("kind", [Int8Linear, Float8Linear])
def test_bfloat16_activations_stay_bfloat16(linear, kind):
    kernel = kind(linear.weight, linear.bias.bfloat16())
    x = torch.randn(5, 48, dtype=torch.bfloat16)
    assert kernel(x).dtype == torch.bfloat16
    assert error(kernel(x).float(), linear(x.float())) < 0.05


def test_float16_on_a_cpu_has_no_kernels_of_its_own():
    assert choose_kernels(torch.float16, CPU) is None


@onednn
def test_int8_agrees_with_float32_on_the_demo(demo):
    texts = ["How to print a document", "Ein Dokument drucken", "打印文档", "", "x" * 500]
    quantized = GTEEmbedder.from_pretrained("demo", dtype="int8")
    cosines = (quantized.encode(texts).dense * demo.encode(texts).dense).sum(1)
    assert cosines.min() >= 0.995
    assert quantized.fingerprint.numeric == "int8"
    assert quantized.fingerprint != demo.fingerprint
