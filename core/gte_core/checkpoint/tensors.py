"""The tensors of a safetensors file: where each one starts, and how it is read.

Only to read a tensor needs torch; what a file holds is known without.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open

from gte_core.checkpoint.files import open_file, shortened, shown
from gte_core.exceptions import WeightsError

if TYPE_CHECKING:
    from torch import Tensor

# The types of floats in a file, and torch's names of them.
FLOATS = {"F16": "float16", "BF16": "bfloat16", "F32": "float32", "F64": "float64"}

_BLOCK_NUMBERS = 2**22  # read of a tensor at once

# Published headers take some 20 kB. The longest axis keeps sizes far from overflowing 64 bits.
_LARGEST_HEADER = 16 * 2**20
_LONGEST_AXIS = 2**31 - 1


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """One tensor in a file: its name, its shape and type, and the byte it starts at."""

    path: Path
    key: str
    shape: tuple[int, ...]
    dtype: str
    start: int

    def mapped(self) -> Tensor:
        """All of it in the file's own memory, which stays mapped as long as it is kept."""
        with safe_open(self.path, framework="pt") as file:
            tensor: Tensor = file.get_tensor(self.key)
        return tensor

    def blocks(self) -> Iterator[Tensor]:
        """All rows, in blocks of bounded size.

        They are read, not mapped: safetensors parses the header of a file each time it opens one.
        """
        import torch

        dtype = getattr(torch, FLOATS[self.dtype])
        step = max(1, _BLOCK_NUMBERS // max(1, math.prod(self.shape[1:])))
        with open_file(self.path, WeightsError) as file:
            file.seek(self.start)
            for first in range(0, self.shape[0], step):
                rows = min(step, self.shape[0] - first)
                block = torch.empty(rows, *self.shape[1:], dtype=dtype, device="cpu")
                content = block.view(-1).view(torch.uint8).numpy().data
                if file.readinto(content) != len(content):
                    raise WeightsError(f"{self.path} ends too early. Download it again.")
                yield block


def stored_tensors(path: Path) -> list[StoredTensor]:
    """The tensors of a safetensors file, from its header; ``WeightsError`` for any other file.

    The safetensors library checks that the header fits the file, but does not say where a tensor
    starts. So the header is read here, once the library has accepted it.
    """
    try:
        with open_file(path, WeightsError) as file:
            size = int.from_bytes(file.read(8), "little")
            if size > _LARGEST_HEADER:
                raise _unreadable(path, f"a header of {size:,} bytes; the limit is 16 MB")
            with safe_open(path, framework="numpy"):
                header = json.loads(file.read(size))
    except (SafetensorError, OSError, ValueError, RecursionError) as error:
        if isinstance(error, WeightsError):
            raise
        raise _unreadable(path, shortened(str(error))) from error
    header.pop("__metadata__", None)
    return [_stored_tensor(path, key, fields, 8 + size) for key, fields in header.items()]


def _stored_tensor(path: Path, key: str, fields: dict[str, Any], data: int) -> StoredTensor:
    shape = tuple(fields["shape"])
    if any(length > _LONGEST_AXIS for length in shape):
        raise _unreadable(path, f"{shown(key)} has the shape {shown(shape)}")
    return StoredTensor(path, key, shape, fields["dtype"], data + fields["data_offsets"][0])


def _unreadable(path: Path, why: str) -> WeightsError:
    return WeightsError(f"{path} is not a readable safetensors file ({why}). Download it again.")
