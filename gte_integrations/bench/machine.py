"""What the machine is, and the most that it can do: the fastest matrix product, measured."""

from __future__ import annotations

import platform
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

# Rows, inner size, columns: the two large products of the model's MLP, and a square one.
_CPU_SHAPES = ((2048, 768, 6144), (2048, 3072, 768), (2048, 2048, 2048))
_GPU_SHAPES = ((65_536, 768, 6144), (65_536, 3072, 768), (8192, 8192, 8192))
_SECONDS_A_WAY = 0.1


def describe(device: str) -> str:
    """The name of a processor or GPU, with what decides its speed."""
    if device.startswith("cuda"):
        major, minor = torch.cuda.get_device_capability(device)
        return (
            f"{torch.cuda.get_device_name(device)} (sm_{major}{minor}), torch {torch.__version__}"
        )
    named = _field("/proc/cpuinfo", "model name") or platform.processor() or platform.machine()
    return f"{named}, {torch.get_num_threads()} threads, torch {torch.__version__}"


def peak_flops(dtype: str, device: str, *, quick: bool = False) -> float | None:
    """Operations a second of the fastest product in a type; None where torch has none.

    The best of several ways and shapes, as no single one is the fastest everywhere. ``quick``
    tries one shape alone, and so may miss the peak.
    """
    shapes = _GPU_SHAPES if device.startswith("cuda") and not quick else _CPU_SHAPES
    rates = []
    for rows, inner, columns in shapes[:1] if quick else shapes:
        x = _random((rows, inner), dtype, device)
        weight = _random((columns, inner), dtype, device)
        for product in _products(x, weight):
            # A way that this type, device or build of torch lacks is no way.
            with suppress(NotImplementedError, RuntimeError, AttributeError):
                rates.append(2 * rows * inner * columns / _fastest(product, device))
    return max(rates, default=None)


def seconds_of(step: Callable[[], object], device: str) -> float:
    """Seconds until a step is done, on the device too."""
    _wait(device)
    start = time.perf_counter()
    step()
    _wait(device)
    return time.perf_counter() - start


def peak_ram() -> int:
    """The most bytes of RAM that this process has held."""
    if found := _field("/proc/self/status", "VmHWM"):
        return int(found.split()[0]) * 1024
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def peak_vram(device: str) -> int | None:
    """The most bytes of GPU memory that torch has handed out; None for a CPU."""
    return torch.cuda.max_memory_allocated(device) if device.startswith("cuda") else None


def _field(file: str, name: str) -> str:
    with suppress(OSError):
        for line in Path(file).read_text(encoding="utf-8").splitlines():
            if line.startswith(name):
                return line.partition(":")[2].strip()
    return ""


def _products(x: Tensor, weight: Tensor) -> Iterator[Callable[[], Tensor]]:
    if x.dtype == torch.float8_e4m3fn:
        one = torch.ones((), device=x.device)
        half = torch.bfloat16
        yield lambda: torch._scaled_mm(x, weight.t(), scale_a=one, scale_b=one, out_dtype=half)
        return
    transposed = weight.t().contiguous()
    if x.dtype == torch.int8:
        yield lambda: torch._int_mm(x, transposed)
        yield lambda: torch._int_mm(x, weight.t())
        return
    yield lambda: torch.mm(x, transposed)
    yield lambda: F.linear(x, weight)
    # oneDNN with the weight in an order of its own, as torch's inductor freezes it.
    with suppress(NotImplementedError, RuntimeError, AttributeError):
        ops = torch.ops.mkldnn
        reordered = ops._reorder_linear_weight(weight, len(x))
        yield lambda: ops._linear_pointwise(x, reordered, None, "none", [], "")


def _fastest(step: Callable[[], Tensor], device: str) -> float:
    """Seconds of the fastest of the runs that fit into a moment; at least three."""
    step()
    seconds: list[float] = []
    end = time.perf_counter() + _SECONDS_A_WAY
    while len(seconds) < 3 or time.perf_counter() < end:
        seconds.append(seconds_of(step, device))
    return min(seconds)


def _wait(device: str) -> None:
    if device != "cpu":
        torch.accelerator.synchronize(device)


def _random(shape: tuple[int, int], dtype: str, device: str) -> Tensor:
    if dtype == "int8":
        return torch.randint(-127, 128, shape, dtype=torch.int8, device=device)
    return torch.randn(shape, device=device).to(getattr(torch, dtype))
