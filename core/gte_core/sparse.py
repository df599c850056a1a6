"""Weights of tokens -> one sparse vector per text."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray


def max_per_id(
    rows: NDArray[np.int64],
    ids: NDArray[np.int64],
    weights: NDArray[np.float32],
    *,
    shape: tuple[int, int],
    dropped_ids: NDArray[np.int64],
) -> sp.csr_array[np.float32]:
    """Keep the largest weight of each token id of each text, float32 CSR of ``shape``.

    The rule of the model's published script: ReLU, maximum per id, special tokens dropped. Ids
    come out sorted and unique, weights positive.

    Args:
        rows: text of each token, ``(total_tokens,)``.
        ids: token ids, ``(total_tokens,)``.
        weights: raw or rectified logits, ``(total_tokens,)``.
        shape: ``(n_texts, vocab_size)``.
        dropped_ids: ids that carry no weight.
    """
    n_texts, vocab_size = shape
    kept = (weights > 0) & ~np.isin(ids, dropped_ids)
    keys, weights = rows[kept] * vocab_size + ids[kept], weights[kept]
    order = np.argsort(keys, kind="stable")
    keys, weights = keys[order], weights[order]
    starts = np.flatnonzero(np.diff(keys, prepend=-1))
    maxima = np.maximum.reduceat(weights, starts) if len(starts) else weights
    bounds = np.searchsorted(keys[starts], np.arange(n_texts + 1) * vocab_size)
    return sp.csr_array((maxima, keys[starts] % vocab_size, bounds), shape=shape)
