"""Where and in which type to compute, checked before anything is loaded."""

from __future__ import annotations

import torch

_DTYPES = ("auto", "float32", "bfloat16", "float16")


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
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not there.get(chosen.type, True):
        raise ValueError(
            f"device is {device!r}, but this machine or this build of torch has none. Use 'cpu', "
            "or None to choose."
        )
    return chosen


def choose_dtype(dtype: str | torch.dtype, device: torch.device) -> torch.dtype:
    """The type asked for; ``"auto"`` is a half type on CUDA and float32 elsewhere."""
    name = str(dtype).removeprefix("torch.")
    if name not in _DTYPES:
        raise ValueError(f"dtype is {dtype!r}; allowed are {', '.join(map(repr, _DTYPES))}.")
    if name == "auto":
        name = _half_type() if device.type == "cuda" else "float32"
    chosen: torch.dtype = getattr(torch, name)
    return chosen


def _best_device() -> str:
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def _half_type() -> str:
    real = torch.cuda.is_bf16_supported(including_emulation=False)
    return "bfloat16" if real else "float16"
