"""Matrix products of the encoder layers, and the kernels that compute them.

There are two kinds of product: ``x Wᵀ + b`` (``torch.nn.Linear``) and the first half of the
MLP (``GatedLinear``). ``Kernels`` names a module for each of them;
``choose_kernels`` chooses the fastest for a device.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu

from gte_core.network.device import has_onednn

_INT8_MAX = 127.0
_UNSIGNED_ZERO = 128
_INT8_ROWS = 512  # computed at once, so that intermediate results stay in the cache
_FLOAT8_MAX = 448.0
_FLOAT8_STEP = 16
_TINY = 1e-12
# oneDNN arranges weights for this number of rows of activations. The results are the same for any
# other number, and nearly as fast.
_BLOCKED_FOR_ROWS = 2048


class GatedLinear(nn.Linear):
    """``gelu(x Gᵀ) * (x Uᵀ)``, where the weight is U above G; exact erf GELU."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  the name in torch
        """``(n, in_features)`` -> ``(n, out_features / 2)``."""
        return gated(super().forward(input))


@dataclass(frozen=True, slots=True)
class Kernels:
    """What makes the modules of the two kinds of product, from weight and bias.

    ``weight_dtype`` is the type in which they take the weight; some keep it in another.
    """

    weight_dtype: torch.dtype
    linear: Callable[[Tensor, Tensor | None], nn.Module]
    gated_linear: Callable[[Tensor], nn.Module]

    def replace(self, module: nn.Linear, weight: Tensor, bias: Tensor | None) -> nn.Module:
        """The module that computes the same product as ``module``, with these parameters."""
        if isinstance(module, GatedLinear):
            return self.gated_linear(weight)
        return self.linear(weight, bias)


def choose_kernels(dtype: torch.dtype, device: torch.device) -> Kernels | None:
    """The fastest kernels for a type on a device; None where torch's own layers are fastest."""
    if dtype == torch.int8:
        return Kernels(torch.float32, Int8Linear, Int8GatedLinear)
    if dtype == torch.float8_e4m3fn:
        return Kernels(torch.float32, Float8Linear, Float8GatedLinear)
    if device.type == "cpu" and has_onednn() and _onednn_computes(dtype):
        return Kernels(dtype, BlockedLinear, BlockedGatedLinear)
    return None


class BlockedLinear(nn.Module):
    """``x Wᵀ + b`` by oneDNN, whose kernels read weights in blocks; they are reordered once."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self._blocks, self._bias = _blocked(weight), bias

    def forward(self, x: Tensor) -> Tensor:
        """``(n, in_features)`` -> ``(n, out_features)``."""
        return _blocked_linear(x, self._blocks, self._bias)


class BlockedGatedLinear(nn.Module):
    """``GatedLinear`` by oneDNN, GELU computed while its product is still in registers."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self._up, self._gate = (_blocked(half.contiguous()) for half in weight.chunk(2))

    def forward(self, x: Tensor) -> Tensor:
        """``(n, in_features)`` -> ``(n, out_features / 2)``."""
        gate = _blocked_linear(x, self._gate, None, activation="gelu")
        return gate.mul_(_blocked_linear(x, self._up, None))


class Int8Linear(nn.Module):
    """``x Wᵀ + b`` in 8-bit integers: one scale per row of W and one per row of x.

    With one scale for all of x, a text would change the vectors of its neighbours.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self._product = _Int8Product(weight)
        self._bias = bias

    def forward(self, x: Tensor) -> Tensor:
        """``(n, in_features)`` -> ``(n, out_features)``."""
        out = x.new_empty(len(x), self._product.out_features)
        for rows, found in _row_blocks(x, out):
            product, scales = self._product(rows)
            if self._bias is None:
                torch.mul(product, scales, out=found)
            else:
                torch.addcmul(self._bias, product, scales, out=found)
        return out


class Int8GatedLinear(nn.Module):
    """``GatedLinear`` in 8-bit integers."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self._product = _Int8Product(weight)

    def forward(self, x: Tensor) -> Tensor:
        """``(n, in_features)`` -> ``(n, out_features / 2)``."""
        out = x.new_empty(len(x), self._product.out_features // 2)
        for rows, found in _row_blocks(x, out):
            product, scales = self._product(rows)
            up, gate = product.mul_(scales).chunk(2, dim=-1)
            torch.mul(gelu(gate), up, out=found)
        return out


class _Int8Product(nn.Module):
    """The product without the scales of the rows of x, which the caller multiplies it by."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.out_features = len(weight)
        integers, scales = _to_int8(weight)
        self._weight = torch.ops.onednn.qlinear_prepack(integers, None)
        self._scales = scales.flatten()
        self._zeros = torch.zeros(len(weight), dtype=torch.int64)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """``(n, in_features)`` -> product ``(n, out_features)``, scales ``(n, 1)``, in x's type."""
        integers, scales = _to_int8(x)
        # oneDNN's fast kernels take unsigned activations. Flipping the highest bit adds 128.
        unsigned = integers.view(torch.uint8).bitwise_xor_(_UNSIGNED_ZERO)
        product: Tensor = torch.ops.onednn.qlinear_pointwise(
            unsigned,
            1.0,
            _UNSIGNED_ZERO,
            self._weight,
            self._scales,
            self._zeros,
            None,
            1.0,
            0,
            x.dtype,
            "none",
            [],
            "none",
        )
        return product, scales


class Float8Linear(nn.Module):
    """``x Wᵀ + b`` in 8-bit floats (e4m3): one scale per row of W and one per row of x."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        if any(size % _FLOAT8_STEP for size in weight.shape):
            raise ValueError(
                f"dtype 'float8' needs sizes in steps of {_FLOAT8_STEP}; a layer of this model is "
                f"{tuple(weight.shape)}. Use 'auto'."
            )
        self._weight, scales = _to_float8(weight)
        self._weight_scales = scales.mT
        self._bias = bias

    def forward(self, x: Tensor) -> Tensor:
        """``(n, in_features)`` -> ``(n, out_features)``."""
        floats, scales = _to_float8(x)
        product: Tensor = torch._scaled_mm(
            floats, self._weight.mT, scales, self._weight_scales, out_dtype=x.dtype
        )
        return product if self._bias is None else product.add_(self._bias)


class Float8GatedLinear(nn.Module):
    """``GatedLinear`` in 8-bit floats."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self._up_gate = Float8Linear(weight, None)

    def forward(self, x: Tensor) -> Tensor:
        """``(n, in_features)`` -> ``(n, out_features / 2)``."""
        return gated(self._up_gate(x))


def gated(up_gate: Tensor) -> Tensor:
    """``(n, 2 * size)`` -> ``(n, size)``: the first half times GELU of the second."""
    up, gate = up_gate.chunk(2, dim=-1)
    return gelu(gate).mul_(up)


def _row_blocks(x: Tensor, out: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    return zip(torch.split(x, _INT8_ROWS), torch.split(out, _INT8_ROWS), strict=True)


def _blocked(weight: Tensor) -> Tensor:
    blocks: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight, _BLOCKED_FOR_ROWS)
    return blocks


def _blocked_linear(
    x: Tensor, blocks: Tensor, bias: Tensor | None, *, activation: str = "none"
) -> Tensor:
    product: Tensor = torch.ops.mkldnn._linear_pointwise(x, blocks, bias, activation, [], "none")
    return product


def _to_int8(x: Tensor) -> tuple[Tensor, Tensor]:
    """Integers from -127 to 127 of the shape of x, and the scale of each row ``(n, 1)``."""
    scales = _row_scales(x, _INT8_MAX)
    copy = x.to(torch.float32, copy=True)
    return copy.mul_(scales.float().reciprocal()).round_().to(torch.int8), scales


def _to_float8(x: Tensor) -> tuple[Tensor, Tensor]:
    """e4m3 floats of the shape of x, and the float32 scale of each row ``(n, 1)``."""
    scales = _row_scales(x, _FLOAT8_MAX).float()
    return (x * scales.reciprocal()).to(torch.float8_e4m3fn), scales


def _row_scales(x: Tensor, largest: float) -> Tensor:
    """The scales ``(n, 1)`` that bring every row into ``-largest..largest``, in the type of x."""
    # The margin keeps a scale that is rounded down from being too small.
    margin = 1 + torch.finfo(x.dtype).eps
    return _largest(x).mul_(margin / largest).clamp_min_(_TINY)


def _largest(x: Tensor) -> Tensor:
    """The largest absolute value of each row, ``(n, 1)``; NaN where a row has one.

    Without their sign bit, floats have the order of their bits as integers, and these are compared:
    four times as fast as ``x.abs().amax(-1)``.
    """
    bits = torch.int32 if x.itemsize == 4 else torch.int16
    unsigned = x.view(bits) & torch.iinfo(bits).max
    return unsigned.amax(-1, keepdim=True).view(x.dtype)


def _onednn_computes(dtype: torch.dtype) -> bool:
    if dtype == torch.bfloat16:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return dtype == torch.float32
