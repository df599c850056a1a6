"""Peak memory of this process: of the host, and of the device where it has its own."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")


def reset_peaks(device: str) -> None:
    """Forget the peaks so far, where the system can; else they go on from the process's start."""
    with suppress(OSError):
        _CLEAR.write_text("5", encoding="ascii")
    if device.startswith("cuda"):
        import torch

        torch.cuda.reset_peak_memory_stats(device)


def host_peak() -> int:
    """The most bytes of RAM that this process has held."""
    try:
        lines = _STATUS.read_text(encoding="utf-8").splitlines()
    except OSError:
        return _highest_ever()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


def device_peak(device: str) -> int | None:
    """The most bytes of GPU memory that torch has handed out; None for a CPU."""
    if not device.startswith("cuda"):
        return None
    import torch

    return torch.cuda.max_memory_allocated(device)


def leave_room(device: str) -> None:
    """Give cached GPU memory back while the GPU is more than half full.

    Else what one contender has freed but kept is what the next one lacks.
    """
    if not device.startswith("cuda"):
        return
    import torch

    free, total = torch.cuda.mem_get_info(device)
    if free < total / 2:
        torch.cuda.empty_cache()


def _highest_ever() -> int:
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
