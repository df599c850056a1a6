"""Sparse vectors in the forms that clients take: arrays, lists and dictionaries. No engine here.

Not every Milvus stores an empty vector. There, a document without token weights gets a tiny one in
a spare column behind the vocabulary. No query has a weight in that column, so nothing matches it.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Sparse = sp.csr_array[np.float32]

EMPTY_WEIGHT = 1e-6
"""The weight in the spare column of a document without token weights."""


def sparse_rows(matrix: Sparse) -> Iterator[tuple[NDArray[np.int64], Floats]]:
    """Yield ``(token ids int64, weights float32)`` of each row."""
    ids = matrix.indices.astype(np.int64)
    for start, stop in pairwise(matrix.indptr.tolist()):
        yield ids[start:stop], matrix.data[start:stop]


def sparse_lists(matrix: Sparse) -> list[tuple[list[int], list[float]]]:
    """``sparse_rows`` as Python numbers."""
    return [(ids.tolist(), weights.tolist()) for ids, weights in sparse_rows(matrix)]


def sparse_dicts(matrix: Sparse) -> list[dict[int, float]]:
    """``{token id: weight}`` of each row, {} for a row without weights."""
    return [dict(zip(*row, strict=True)) for row in sparse_lists(matrix)]


def stored_dicts(matrix: Sparse) -> list[dict[int, float]]:
    """``sparse_dicts`` of documents: no row is empty."""
    return [row or {matrix.shape[1]: EMPTY_WEIGHT} for row in sparse_dicts(matrix)]


def with_spare_column(matrix: Sparse) -> Sparse:
    """The matrix, one column wider."""
    rows, width = matrix.shape
    return sp.csr_array((matrix.data, matrix.indices, matrix.indptr), shape=(rows, width + 1))


def never_empty_rows(matrix: Sparse) -> Sparse:
    """``with_spare_column`` of documents: no row is empty."""
    wider = with_spare_column(matrix)
    empty = np.flatnonzero(np.diff(matrix.indptr) == 0)
    weights = np.full(len(empty), EMPTY_WEIGHT, np.float32)
    columns = np.full(len(empty), matrix.shape[1])
    return wider + sp.csr_array((weights, (empty, columns)), shape=wider.shape)
