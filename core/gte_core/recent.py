"""A cache of the vectors of recent texts."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeVar

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from gte_core.embeddings import HybridEmbeddings, TokenDecoder
from gte_core.forks import renew_in_children
from gte_core.texts import FedText

K = TypeVar("K", str, FedText)

_NO_IDS = np.empty(0, dtype=np.int32)
_NO_WEIGHTS = np.empty(0, dtype=np.float32)
_ROW_OVERHEAD = 600  # bytes of a key, three array headers and their container


@dataclass(frozen=True, slots=True)
class Vectors:
    """What is kept of one text.

    Attributes:
        dense: the pooled state, of which every size is made; of an encoder that gives dense
            vectors alone, its own.
        ids: of the sparse entries.
        weights: of the sparse entries.
        n_tokens: of the text.
        truncated: whether it was cut.
    """

    dense: NDArray[np.float32]
    ids: NDArray[np.int32]
    weights: NDArray[np.float32]
    n_tokens: int
    truncated: bool

    @property
    def n_bytes(self) -> int:
        """About how much memory they take."""
        return self.dense.nbytes + self.ids.nbytes + self.weights.nbytes + _ROW_OVERHEAD


def vectors_of(
    dense: NDArray[np.float32],
    sparse: sp.csr_array[np.float32],
    n_tokens: NDArray[np.int64],
    truncated: NDArray[np.bool_],
) -> Iterator[Vectors]:
    """What to keep of each text; all have a row for each."""
    bounds, ids, weights = sparse.indptr, sparse.indices, sparse.data
    counts = zip(n_tokens.tolist(), truncated.tolist(), strict=True)
    for row, (start, stop), (count, is_cut) in zip(dense, pairwise(bounds), counts, strict=True):
        # Copies, because a view would keep the arrays of the whole batch alive.
        kept = ids[start:stop].astype(np.int32), weights[start:stop].copy()
        yield Vectors(row.copy(), *kept, count, truncated=is_cut)


def dense_of(rows: Sequence[Vectors], size: int) -> NDArray[np.float32]:
    """What is kept of the dense half of texts, float32 ``(n, size)``."""
    return np.array([row.dense for row in rows], dtype=np.float32).reshape(len(rows), size)


def embeddings_of(
    rows: Sequence[Vectors],
    dense: NDArray[np.float32],
    vocab_size: int,
    decode_token: TokenDecoder,
    separate_sizes: tuple[int, ...] = (),
) -> HybridEmbeddings:
    """The embeddings of texts of which something is kept; ``dense`` is made of ``dense_of``."""
    bounds = np.cumsum([0, *(len(row.ids) for row in rows)])
    ids = np.concatenate([_NO_IDS, *(row.ids for row in rows)])
    weights = np.concatenate([_NO_WEIGHTS, *(row.weights for row in rows)])
    return HybridEmbeddings(
        dense,
        sp.csr_array((weights, ids, bounds), shape=(len(rows), vocab_size)),
        np.array([row.n_tokens for row in rows], dtype=np.int64),
        np.array([row.truncated for row in rows], dtype=np.bool_),
        decode_token,
        separate_sizes,
    )


class RecentVectors:
    """What is kept, by text. Beyond a number of bytes, ``trim`` drops the least recently used.

    A text of which pooling leaves out a prompt is another than the same without one. Texts are
    known by their hash, so that long ones cost nothing to remember. Safe to use from several
    threads.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._rows: OrderedDict[bytes, Vectors] = OrderedDict()
        self.renew()
        renew_in_children(self)

    def renew(self) -> None:
        """Begin again with a free lock, and count the bytes that a stopped thread may not have."""
        self._lock = threading.Lock()
        self._n_bytes = sum(row.n_bytes for row in self._rows.values())

    def get(self, texts: Iterable[K]) -> dict[K, Vectors]:
        """The vectors of those texts that are kept."""
        found = {}
        with self._lock:
            for text in texts:
                key = _hash(text)
                if row := self._rows.get(key):
                    self._rows.move_to_end(key)
                    found[text] = row
        return found

    def put(self, rows: Mapping[K, Vectors]) -> None:
        """Keep these rows, at least until the next ``trim``."""
        with self._lock:
            for text, row in rows.items():
                self._rows[_hash(text)] = row
                self._n_bytes += row.n_bytes

    def trim(self) -> None:
        """Drop the least recently used beyond the limit."""
        with self._lock:
            while self._n_bytes > self._max_bytes:
                _, dropped = self._rows.popitem(last=False)
                self._n_bytes -= dropped.n_bytes


def _hash(key: str | FedText) -> bytes:
    content = key if isinstance(key, str) else f"{key.left_out}\0{key.text}"
    return hashlib.blake2b(content.encode("utf-8", "surrogatepass"), digest_size=16).digest()
