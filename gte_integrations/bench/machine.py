"""What the machine is, and the most it can do: matrix products and copies, measured."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from gte_integrations.bench.report import Machine

_Shape = tuple[int, int, int]

# Rows, inner size, columns: the two large products of the model's MLP, and a square one.
_CPU_SHAPES = ((2048, 768, 6144), (2048, 3072, 768), (2048, 2048, 2048))
_GPU_SHAPES = ((65_536, 768, 6144), (65_536, 3072, 768), (8192, 8192, 8192))
_QUICK_SHAPES = _CPU_SHAPES[:1]
_SECONDS_A_WAY = 0.1
_COPIED_BYTES = 256 * 1024**2
_CAPABILITIES = (
    "avx2",
    "avx512_f",
    "avx512_vnni",
    "avx512_bf16",
    "avx512_fp16",
    "amx_bf16",
    "amx_int8",
    "amx_fp16",
)


def measure_machine(device: str | None, *, quick: bool = False) -> Machine:
    """Measure a device, by default the one that ``GTEEmbedder`` would choose.

    ``quick`` tries one shape alone, and so may miss the peak. Raises ``ValueError`` for a device
    that is not there.
    """
    chosen = _device(device)
    cuda = chosen.type == "cuda"
    properties = torch.cuda.get_device_properties(chosen) if cuda else None
    with torch.inference_mode():
        return Machine(
            device=str(chosen),
            name=properties.name if properties else _processor(),
            cores=torch.cpu.get_capabilities().get("num_logical_cores") or 0,
            threads=torch.get_num_threads(),
            memory_bytes=properties.total_memory if properties else None,
            capabilities=_capabilities(chosen),
            torch=str(torch.__version__),
            gemm_flops=_gemm_flops(chosen, _shapes(chosen, quick=quick)),
            copy_bytes=_copy_bytes(chosen),
        )


def _device(device: str | None) -> torch.device:
    best = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    if device is None:
        return best or torch.device("cpu")
    try:
        torch.empty(1, device=device)
    except (AssertionError, RuntimeError) as error:
        raise ValueError(
            f"device is {device!r}, but this machine or this build of torch has none; allowed are "
            f"'cpu'{f', {best.type!r}' if best else ''}."
        ) from error
    return torch.device(device)


def _processor() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _capabilities(device: torch.device) -> tuple[str, ...]:
    if device.type == "cuda":
        major, minor = torch.cuda.get_device_capability(device)
        return (f"sm_{major}{minor}",)
    present = torch.cpu.get_capabilities()
    return tuple(name for name in _CAPABILITIES if present.get(name))


def _shapes(device: torch.device, *, quick: bool) -> Sequence[_Shape]:
    if quick:
        return _QUICK_SHAPES
    return _GPU_SHAPES if device.type == "cuda" else _CPU_SHAPES


def _gemm_flops(device: torch.device, shapes: Sequence[_Shape]) -> dict[str, float]:
    dtypes = [torch.float32, torch.bfloat16, torch.int8]
    if device.type == "cuda":
        dtypes += [torch.float16, torch.float8_e4m3fn]
    peaks = {str(dtype).removeprefix("torch."): _peak(dtype, device, shapes) for dtype in dtypes}
    return {name: peak for name, peak in peaks.items() if peak}


def _peak(dtype: torch.dtype, device: torch.device, shapes: Sequence[_Shape]) -> float:
    """The best of several ways and shapes: no single one is the fastest everywhere."""
    best = 0.0
    for rows, inner, columns in shapes:
        work = 2.0 * rows * inner * columns
        x = _random((rows, inner), dtype, device)
        weight = _random((columns, inner), dtype, device)
        for product in _products(x, weight):
            # A way that this type, device or build of torch lacks is no way.
            with suppress(NotImplementedError, RuntimeError, AttributeError):
                best = max(best, work / _fastest(product, device))
    return best


def _products(x: Tensor, weight: Tensor) -> Iterator[Callable[[], Tensor]]:
    transposed = weight.t().contiguous()
    if x.dtype == torch.int8:
        yield lambda: torch._int_mm(x, transposed)
        yield lambda: torch._int_mm(x, weight.t())
        return
    if x.dtype == torch.float8_e4m3fn:
        one = torch.ones((), device=x.device)
        half = torch.bfloat16
        yield lambda: torch._scaled_mm(x, weight.t(), scale_a=one, scale_b=one, out_dtype=half)
        return
    yield lambda: torch.mm(x, transposed)
    yield lambda: F.linear(x, weight)
    if x.device.type == "cpu":
        yield _reordered(x, weight)


def _reordered(x: Tensor, weight: Tensor) -> Callable[[], Tensor]:
    """OneDNN with the weight in an order of its own, as torch's inductor freezes it."""
    kept: list[Tensor] = []

    def product() -> Tensor:
        ops = torch.ops.mkldnn
        if not kept:
            kept.append(ops._reorder_linear_weight(weight, len(x)))
        result: Tensor = ops._linear_pointwise(x, kept[0], None, "none", [], "")
        return result

    return product


def _copy_bytes(device: torch.device) -> float:
    source = torch.ones(_COPIED_BYTES, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * _COPIED_BYTES / _fastest(lambda: target.copy_(source), device)


def _fastest(step: Callable[[], Tensor], device: torch.device) -> float:
    """Seconds of the fastest of the runs that fit into a moment; at least three."""
    step()
    _wait(device)
    seconds: list[float] = []
    end = time.perf_counter() + _SECONDS_A_WAY
    while len(seconds) < 3 or time.perf_counter() < end:
        start = time.perf_counter()
        step()
        _wait(device)
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def _wait(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def _random(shape: tuple[int, int], dtype: torch.dtype, device: torch.device) -> Tensor:
    if dtype == torch.int8:
        return torch.randint(-127, 128, shape, dtype=dtype, device=device)
    return torch.randn(shape, device=device).to(dtype)
