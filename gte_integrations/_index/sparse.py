"""Sparse vectors as the dictionaries and lists that clients take. No engine here."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import scipy.sparse as sp

# Of a token beyond the vocabulary, which no query holds: some engines refuse an empty vector.
EMPTY_WEIGHT = 1e-6


def sparse_lists(matrix: Any) -> list[tuple[list[int], list[float]]]:
    """Token ids and weights of each row of a CSR matrix, as Python numbers; ids sorted."""
    ids, weights = matrix.indices.tolist(), matrix.data.tolist()
    return [(ids[a:b], weights[a:b]) for a, b in pairwise(matrix.indptr.tolist())]


def sparse_dicts(matrix: Any) -> list[dict[int, float]]:
    """``{token id: weight}`` of each row of a CSR matrix, {} for a row without weights."""
    return [dict(zip(ids, weights, strict=True)) for ids, weights in sparse_lists(matrix)]


def stored_dicts(matrix: Any) -> list[dict[int, float]]:
    """:func:`sparse_dicts` for documents: a row without weights gets one that nothing matches."""
    return [row or {matrix.shape[1]: EMPTY_WEIGHT} for row in sparse_dicts(matrix)]


def with_spare_column(matrix: Any) -> sp.csr_array[np.float32]:
    """A CSR matrix with one more column, which is of no token."""
    rows, width = matrix.shape
    return sp.csr_array((matrix.data, matrix.indices, matrix.indptr), shape=(rows, width + 1))


def never_empty_rows(matrix: Any) -> sp.csr_array[np.float32]:
    """:func:`with_spare_column` for documents: there, a row without weights gets a tiny one."""
    rows, width = matrix.shape
    empty = np.flatnonzero(np.diff(matrix.indptr) == 0)
    weights = np.full(len(empty), EMPTY_WEIGHT, np.float32)
    tiny = sp.csr_array((weights, (empty, np.full(len(empty), width))), shape=(rows, width + 1))
    return with_spare_column(matrix) + tiny
