"""Where and in which type to compute, checked before anything is loaded."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

_FLOATS = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}
_QUANTIZED = {"int8": torch.int8, "float8": torch.float8_e4m3fn}
_LONG_NAMES = {"float8_e4m3fn": "float8"}


def choose_device(device: str | torch.device | None) -> torch.device:
    """The device asked for, or CUDA or MPS where there is one, else the CPU.

    Raises ``ValueError`` for a device that does not exist or is not there.
    """
    if device is None:
        return torch.device(_best_device())
    try:
        chosen = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise ValueError(
            f"device is {device!r}; allowed are 'cpu', 'cuda', 'cuda:N', 'mps', or None to choose."
        ) from error
    n_devices = {
        "cpu": 1,
        "meta": 1,  # shapes without numbers
        "cuda": torch.cuda.device_count(),
        "mps": int(torch.backends.mps.is_available()),
    }
    if (chosen.index or 0) >= n_devices.get(chosen.type, 0):
        raise ValueError(
            f"device is {device!r}, but this machine or this build of torch has none. Use 'cpu', "
            "or None to choose."
        )
    return chosen


def choose_dtype(dtype: str | torch.dtype, device: torch.device) -> torch.dtype:
    """The type of the matrix products: the one asked for or, for ``"auto"``, ``best_float``.

    Raises ``ValueError`` for a type that is unknown, or that the device cannot multiply.
    """
    name = str(dtype).removeprefix("torch.")
    name = _LONG_NAMES.get(name, name)
    known = _FLOATS | _QUANTIZED
    if name == "auto":
        return best_float(device)
    if name not in known:
        raise ValueError(f"dtype is {dtype!r}; allowed are {', '.join(map(repr, known))}, 'auto'.")
    if name == "int8" and not (device.type == "cpu" and has_onednn()):
        raise ValueError(f"dtype 'int8' needs an x86 CPU, not {device}. Use 'auto'.")
    if name == "float8" and not _has_float8(device):
        raise ValueError(f"dtype 'float8' needs a Hopper GPU or newer, not {device}. Use 'auto'.")
    return known[name]


def best_float(device: torch.device) -> torch.dtype:
    """bfloat16 where the device multiplies it natively, else float16 on CUDA, else float32."""
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if native else torch.float16
    if device.type == "cpu" and _cpu_multiplies_bfloat16():
        return torch.bfloat16
    return torch.float32


def is_quantized(dtype: torch.dtype) -> bool:
    """Whether vectors of this type must not be compared with those of float types."""
    return dtype in _QUANTIZED.values()


def has_onednn() -> bool:
    """Whether torch computes on this CPU through oneDNN's x86 kernels."""
    x86 = platform.machine().lower() in ("x86_64", "amd64")
    return x86 and bool(torch.backends.mkldnn.is_available())  # type: ignore[no-untyped-call]


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy a host tensor to a device; the host does not wait for a GPU."""
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def _best_device() -> str:
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def _cpu_multiplies_bfloat16() -> bool:
    """AVX-512 BF16 or AMX; elsewhere bfloat16 is emulated, and slower than float32."""
    abilities: Mapping[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(abilities.get("avx512_bf16") or abilities.get("amx_bf16"))


def _has_float8(device: torch.device) -> bool:
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (9, 0)
