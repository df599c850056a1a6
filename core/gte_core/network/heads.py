"""Weights of tokens -> one sparse vector per text."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
import torch
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True, slots=True)
class SparseEntries:
    """The entries of sparse vectors, ``(total_tokens,)`` each: as many as there are tokens.

    Attributes:
        keys: int64, ``sequence * vocab_size + id``, sorted.
        weights: float32, the largest of each key.
        kept: bool, True once for each key that has a weight.
    """

    keys: Tensor
    weights: Tensor
    kept: Tensor


def max_per_id(keys: Tensor, weights: Tensor) -> SparseEntries:
    """Keep the largest weight of each key.

    The results are as long as the arguments. Shorter ones would have a size that the host had to
    ask the device for.

    Args:
        keys: int64 ``(total_tokens,)``, ``sequence * vocab_size + id``.
        weights: float32 ``(total_tokens,)``; only weights above zero become entries.
    """
    keys, order = keys.sort()
    first = torch.ones_like(keys, dtype=torch.bool)
    torch.ne(keys[1:], keys[:-1], out=first[1:])
    group = first.cumsum(0) - 1
    largest = torch.zeros_like(weights).scatter_reduce_(0, group, weights[order], "amax")[group]
    return SparseEntries(keys, largest, first & (largest > 0))


def to_csr(
    keys: NDArray[np.int64], weights: NDArray[np.float32], shape: tuple[int, int]
) -> sp.csr_array[np.float32]:
    """Entries of unique keys ``row * vocab_size + id``, in any order -> CSR with sorted ids."""
    n_texts, vocab_size = shape
    order = np.argsort(keys, kind="stable")
    keys, weights = keys[order], weights[order]
    bounds = np.searchsorted(keys, np.arange(n_texts + 1) * vocab_size)
    return sp.csr_array((weights, keys % vocab_size, bounds), shape=shape)
