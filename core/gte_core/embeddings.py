"""``HybridEmbeddings``: the dense and the sparse vectors of a list of texts, row for row."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from gte_core.exceptions import NonFiniteError
from gte_core.texts import NameOf, as_text, named

if TYPE_CHECKING:
    import pandas as pd

Floats = NDArray[np.float32]
Integers = NDArray[np.int64]
TokenDecoder = Callable[[int], str]
# What chooses rows: one by its number, many by a slice, their numbers, or a boolean for each row.
Rows = int | slice | Sequence[int] | Sequence[bool] | NDArray[np.integer[Any]] | NDArray[np.bool_]


@dataclass(frozen=True, eq=False, repr=False)
class HybridEmbeddings:
    """Both vectors of n texts, from one forward pass each.

    Attributes:
        dense: float32 ``(n, dimensions)``, every row of length 1; ``(n, 0)`` where there are none.
        sparse: float32 ``csr_array`` ``(n, vocab_size)``; token ids sorted and unique, weights > 0.
        n_tokens: int64 ``(n,)``, tokens fed to the model, special tokens included.
        truncated: bool ``(n,)``, whether a text was longer than ``max_length``.
        decode_token: token id -> the string that ``token_weights`` uses as key.
        separate_sizes: the sizes that the model offers, where each has a matrix of its own and
            cutting would mean nothing; else none.
    """

    dense: Floats
    sparse: sp.csr_array[np.float32]
    n_tokens: Integers
    truncated: NDArray[np.bool_]
    decode_token: TokenDecoder = field(repr=False)
    separate_sizes: tuple[int, ...] = ()

    @classmethod
    def of_dense(cls, dense: Floats) -> HybridEmbeddings:
        """Dense vectors ``(n, dimensions)`` alone, of texts that nobody counted."""
        counts = np.zeros(len(dense), np.int64)
        sparse = sp.csr_array(np.zeros((len(dense), 0), np.float32))
        return cls(dense, sparse, counts, counts > 0, str)

    @classmethod
    def concatenate(cls, parts: Iterable[HybridEmbeddings]) -> HybridEmbeddings:
        """Join parts in order; undoes ``encode_iter``. ``ValueError`` when there are none."""
        parts = list(parts)
        if not parts:
            raise ValueError("concatenate needs at least one part; encode([]) gives an empty one.")
        if len(parts) == 1:
            return parts[0]
        return cls(
            np.concatenate([part.dense for part in parts]),
            stacked([part.sparse for part in parts]),
            np.concatenate([part.n_tokens for part in parts]),
            np.concatenate([part.truncated for part in parts]),
            joint_decoder([part.decode_token for part in parts]),
            next((part.separate_sizes for part in parts if part.separate_sizes), ()),
        )

    @property
    def dimensions(self) -> int:
        """Size of the dense vectors."""
        return int(self.dense.shape[1])

    def __len__(self) -> int:
        return len(self.dense)

    def __iter__(self) -> Iterator[HybridEmbeddings]:
        return (self[index] for index in range(len(self)))

    def __repr__(self) -> str:
        return (
            f"HybridEmbeddings({len(self)} texts, dense {self.dense.shape}, sparse "
            f"{self.sparse.shape} with {self.sparse.nnz} weights, {self.n_tokens.sum()} tokens, "
            f"{self.truncated.sum()} truncated)"
        )

    def __getitem__(self, key: Rows) -> HybridEmbeddings:
        """The chosen rows, again as ``HybridEmbeddings``, also for a single integer.

        ``both[both.truncated]`` takes the rows where a boolean mask is true, ``both[[3, 1]]`` those
        of a list of integers, in its order. ``IndexError`` for a row that is not there, or a mask
        of another length.
        """
        rows = _chosen(key, len(self))
        return replace(
            self,
            dense=self.dense[rows],
            sparse=self.sparse[rows],
            n_tokens=self.n_tokens[rows],
            truncated=self.truncated[rows],
        )

    def rows(self) -> Iterator[tuple[Floats, Integers, Floats]]:
        """Yield ``(dense 1-D, token ids int64, weights float32)`` for each text."""
        bounds, ids, weights = self.sparse.indptr, self.sparse.indices, self.sparse.data
        for row, (start, stop) in enumerate(pairwise(bounds)):
            yield self.dense[row], ids[start:stop].astype(np.int64), weights[start:stop]

    def with_dimensions(self, dimensions: int) -> HybridEmbeddings:
        """The same embeddings with dense vectors of a smaller size, without another pass.

        Raises ``ValueError`` unless ``1 <= dimensions <= self.dimensions``, and for any other size
        than their own where each has a matrix of its own.
        """
        if (
            self.separate_sizes
            and check_offered(dimensions, self.separate_sizes) != self.dimensions
        ):
            raise ValueError(
                f"dimensions is {dimensions}, but these vectors of {self.dimensions} cannot be "
                "cut: the model has a matrix of its own for each of the sizes "
                f"{_listed(self.separate_sizes)}. Encode the texts with dimensions={dimensions}."
            )
        return replace(self, dense=cut(self.dense, dimensions))

    def token_weights(self, index: int) -> dict[str, float]:
        """Sparse weights of one text by token string, as the published script gives them.

        Ids that decode to the same string (``foo`` and ``▁foo``) share a key, and the larger
        weight wins. Everything that searches goes by id instead.
        """
        _, ids, weights = next(self[index].rows())
        merged: dict[str, float] = {}
        for token_id, weight in zip(ids.tolist(), weights.tolist(), strict=True):
            token = self.decode_token(token_id)
            merged[token] = max(weight, merged.get(token, 0.0))
        return merged

    def scores(
        self, documents: HybridEmbeddings, *, dense_weight: float = 1.0, sparse_weight: float = 0.01
    ) -> Floats:
        """Score every text against every document, float32 ``(len(self), len(documents))``.

        ``dense_weight * cosine + sparse_weight * (dot product of the sparse weights by id)``; the
        default weight is the upper end of the range in arXiv 2407.19669. ``ValueError`` for vectors
        of another size.
        """
        _check_comparable(self, documents, with_sparse=bool(sparse_weight))
        scores = dense_weight * (self.dense @ documents.dense.T)
        if sparse_weight:
            scores = scores + sparse_weight * (self.sparse @ documents.sparse.T).toarray()
        return np.asarray(scores, dtype=np.float32)

    def similarity(self, documents: HybridEmbeddings) -> Floats:
        """Cosine of every text with every document, float32 ``(len(self), len(documents))``.

        These are the ``scores`` of the dense vectors alone.
        """
        return self.scores(documents, sparse_weight=0.0)

    def to_pandas(self) -> pd.DataFrame:
        """A data frame with a row for each text, in their order.

        Columns: ``dense`` (float32 arrays), ``token_ids`` (int64 arrays) and ``weights`` (float32
        arrays) of the sparse vectors, ``n_tokens``, ``truncated``. ``ImportError`` without pandas.
        """
        try:
            import pandas as pd
        except ImportError as error:
            raise ImportError("to_pandas needs pandas; pip install pandas") from error
        vectors = pd.DataFrame(list(self.rows()), columns=["dense", "token_ids", "weights"])
        return vectors.assign(n_tokens=self.n_tokens, truncated=self.truncated)

    def __reduce__(self) -> tuple[Any, ...]:
        # A pickle carries the strings of its own tokens, not a tokenizer of 17 MB.
        ids = np.unique(self.sparse.indices).tolist()
        known = _KnownTokens({token_id: self.decode_token(token_id) for token_id in ids})
        values = self.dense, self.sparse, self.n_tokens, self.truncated, known, self.separate_sizes
        return type(self), values


def _check_comparable(
    queries: HybridEmbeddings, documents: HybridEmbeddings, *, with_sparse: bool
) -> None:
    if not isinstance(documents, HybridEmbeddings):
        raise TypeError(
            f"documents is a {type(documents).__name__}, but must be HybridEmbeddings, such as "
            "encode gives; HybridEmbeddings.of_dense(array) makes them of dense vectors alone."
        )
    kinds = ("dense", "sparse") if with_sparse else ("dense",)
    for kind in kinds:
        own, other = (getattr(both, kind).shape[1] for both in (queries, documents))
        if own != other:
            raise ValueError(
                f"documents has {kind} vectors of {other} components, but these have {own}; "
                "compare vectors of one model and size, for which with_dimensions cuts dense ones."
            )


def _chosen(key: Rows, n: int) -> slice | Integers:
    """The chosen ones of n rows; those chosen by a single integer as a slice, which copies nothing.

    Raises ``IndexError`` or ``TypeError`` for what chooses none.
    """
    if isinstance(key, slice):
        return key
    single = np.ndim(key) == 0
    if single and not hasattr(key, "__index__"):
        raise TypeError(_no_rows(key, n))
    rows = np.asarray([operator.index(key)] if single else key)  # type: ignore[arg-type]
    if rows.dtype == bool and rows.shape != (n,):
        raise IndexError(
            f"a mask has the shape {rows.shape}, but must be ({n},), one for each text."
        )
    if rows.dtype == bool:
        return np.flatnonzero(rows)
    if isinstance(key, tuple) or rows.ndim != 1 or (rows.size and rows.dtype.kind not in "iu"):
        raise TypeError(_no_rows(key, n))
    outside = rows[(rows < -n) | (rows >= n)]
    if outside.size:
        raise IndexError(f"index {outside[0]} is out of range: there are {n} texts.")
    rows = rows.astype(np.int64)
    return slice(rows[0] % n, rows[0] % n + 1) if single else rows


def _no_rows(key: object, n: int) -> str:
    return (
        f"{key!r} cannot be interpreted as an integer or as rows, which must be an integer, a "
        f"slice, a list of integers, or a mask of {n} booleans."
    )


@dataclass(frozen=True, slots=True)
class _KnownTokens:
    """Stands in for the tokenizer in an unpickled ``HybridEmbeddings``."""

    strings: Mapping[int, str]

    def __call__(self, token_id: int) -> str:
        return self.strings[token_id]


def stacked(parts: Sequence[sp.csr_array[np.float32]]) -> sp.csr_array[np.float32]:
    """The rows of all parts; of a single part, itself."""
    return parts[0] if len(parts) == 1 else sp.csr_array(sp.vstack(parts, format="csr"))


def joint_decoder(decoders: Sequence[TokenDecoder]) -> TokenDecoder:
    """A decoder for the tokens of all parts; that of an unpickled part knows only its own."""
    for decoder in decoders:
        if not isinstance(decoder, _KnownTokens):
            return decoder
    strings: dict[int, str] = {}
    for decoder in decoders:
        if isinstance(decoder, _KnownTokens):
            strings |= decoder.strings
    return _KnownTokens(strings)


def check_dimensions(dimensions: int, limit: int) -> int:
    """Return ``dimensions`` as an int; ``ValueError`` naming both unless in ``1..limit``."""
    if isinstance(dimensions, bool) or not hasattr(dimensions, "__index__"):
        raise TypeError(f"dimensions must be an integer from 1 to {limit}, got {dimensions!r}.")
    size = operator.index(dimensions)
    if not 1 <= size <= limit:
        raise ValueError(
            f"dimensions is {size}, but must be from 1 to {limit}, the size of these vectors; "
            "gte-multilingual-base documents 128 to 768 in steps of 32."
        )
    return size


def check_offered(dimensions: int, sizes: Sequence[int]) -> int:
    """Return ``dimensions`` as an int; ``ValueError`` naming the sizes unless it is one of them."""
    if isinstance(dimensions, bool) or not hasattr(dimensions, "__index__"):
        raise TypeError(f"dimensions must be one of {_listed(sizes)}, got {dimensions!r}.")
    size = operator.index(dimensions)
    if size not in sizes:
        raise ValueError(
            f"dimensions is {size}, but must be one of {_listed(sizes)}: this model has a matrix "
            "of its own for each size, and no other can be cut from them."
        )
    return size


def _listed(sizes: Sequence[int]) -> str:
    return ", ".join(map(str, sizes))


def cut(vectors: Floats, dimensions: int, *, name_of: NameOf = as_text) -> Floats:
    """Keep the leading ``dimensions`` components of each row, then scale rows to length 1.

    Scaled before they are cut, they would be shorter than 1. ``name_of`` says what an error calls a
    row. Rows without components, of a model without dense vectors, stay as they are.
    """
    if vectors.shape[1] == dimensions == 0:
        return vectors
    leading = vectors[:, : check_dimensions(dimensions, vectors.shape[1])].astype(np.float64)
    lengths = np.linalg.norm(leading, axis=1, keepdims=True)
    if not lengths.all():
        rows = np.flatnonzero(lengths == 0).tolist()
        raise NonFiniteError(
            f"{named(rows, name_of)}: only zeros in the first {dimensions} components, so there is "
            "no direction at that size. Use larger dimensions."
        )
    return np.asarray(leading / lengths, dtype=np.float32)
