"""Enough space on the disk, looked up before it is needed."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterable
from pathlib import Path

# The embedded engine writes through memory maps, and a page that finds no space ends the process
# (SIGBUS). It grows in files of 32 MiB, mostly holes: one of a write-ahead log and one of a
# storage may begin with any write, and not every file system has holes.
RESERVE = 64 * 2**20
# Opening fills the holes of one such file where a file system has none: 32 MiB on tmpfs, below
# 0.3 MiB on ext4.
OPENING = 40 * 2**20
# Flushing and deleting took below 0.3 MiB wherever it was measured.
LITTLE = 8 * 2**20


def require_space(name: str, folder: Path, needed: int) -> None:
    """``OSError`` (ENOSPC) unless so many bytes are free where the folder is.

    Args:
        name: the collection, for the message.
        folder: an existing folder.
        needed: bytes.
    """
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise OSError(
            errno.ENOSPC,
            f"{name} needs {_mib(needed)} of free space for this, its engine's reserve included, "
            f"and the disk has {_mib(free)}. Nothing of it was written: free some space and run "
            "the same again",
        )


def allocated(files: Iterable[Path]) -> int:
    """Bytes that files take on the disk; holes take none."""
    return sum(_on_disk(path.stat()) for path in files if path.is_file())


def _on_disk(status: os.stat_result) -> int:
    blocks: int | None = getattr(status, "st_blocks", None)  # Windows counts none
    return status.st_size if blocks is None else 512 * blocks


def _mib(size: int) -> str:
    return f"{size / 2**20:,.1f} MiB"
