"""From texts to vectors: records to write, and queries to search with. Knows no engine."""

from __future__ import annotations

import operator
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from gte_core import (
    Encoder,
    EncoderSettings,
    HybridEmbeddings,
    MissingHeadError,
    NonFiniteError,
    Role,
    as_encoder,
)
from gte_core.foreign import refuses_foreign
from gte_integrations._index.checks import check_choice
from gte_integrations._index.document import as_document
from gte_integrations._index.metadata import (
    Metadata,
    Quantization,
    fingerprint_metadata,
    of_sparse_half,
)
from gte_integrations._index.preparation import Limits, Prepared, prepare
from gte_integrations._index.records import Embedded, Record
from gte_integrations._index.sparse import Floats, Sparse, sparse_rows
from gte_integrations._index.tables import documents_of

Mode = Literal["hybrid", "dense", "sparse"]


@dataclass(frozen=True, slots=True)
class Queries:
    """Vectors to search with, row for row; None for a kind that is not wanted.

    ``coarse`` is the leading part of ``dense``, for a collection with two sizes.
    """

    dense: Floats | None = None
    coarse: Floats | None = None
    sparse: Sparse | None = None

    def __len__(self) -> int:
        vectors = self.sparse if self.dense is None else self.dense
        return 0 if vectors is None else int(vectors.shape[0])

    def __getitem__(self, rows: slice | list[int]) -> Queries:
        if isinstance(rows, slice) and rows.indices(len(self)) == (0, len(self), 1):
            return self  # cutting a sparse matrix takes a good part of a small search
        return Queries(
            None if self.dense is None else self.dense[rows],
            None if self.coarse is None else self.coarse[rows],
            None if self.sparse is None else self.sparse[rows],
        )


class Vectorizer:
    """Makes records and query vectors. Needs no store; its arguments are those of an index."""

    limits = Limits()
    metric = "dot product"

    @refuses_foreign
    def __init__(
        self,
        encoder: Encoder | str | Path,
        *,
        dimensions: int | None = None,
        coarse_dimensions: int | None = None,
        storage: Quantization = "float32",
    ) -> None:
        check_choice("storage", storage, Quantization)
        self.storage: Quantization = storage
        self._given = self.encoder = encoder = as_encoder(encoder)
        if not encoder.has_dense:
            kept = None if storage == "float32" else storage
            _refuse_for_sparse(
                encoder, dimensions=dimensions, coarse_dimensions=coarse_dimensions, storage=kept
            )
        self.dimensions = encoder.dimensions
        self._takes_any_size = dimensions is None
        # None of an encoder that does not say, or whose vectors may be cut.
        self._separate_sizes: tuple[int, ...] = getattr(encoder, "separate_sizes", ())
        if dimensions is not None:
            self.dimensions = self._checked_size(dimensions)
        self.coarse_dimensions = coarse_dimensions
        if coarse_dimensions is not None:
            self.coarse_dimensions = self._checked_coarse(coarse_dimensions)

    @property
    def _sizes_listed(self) -> str:
        return ", ".join(map(str, self._separate_sizes))

    def fit_to(self, collection: Metadata | None) -> None:
        """Take what was not asked for from a collection; the encoder's own if there is none.

        That is the size, and how much of a text is read. A size that the encoder does not reach
        stays a difference between the two.
        """
        self.encoder = _as_long(self._given, collection or {})
        if self._takes_any_size:
            own = self.encoder.dimensions
            size = (collection or {}).get("dimensions")
            offered = self._separate_sizes or range(1, own + 1)
            self.dimensions = size if isinstance(size, int) and size in offered else own

    def _checked_size(self, dimensions: int) -> int:
        if not self._separate_sizes:
            return _check_size("dimensions", dimensions, self.encoder.dimensions)
        if dimensions not in self._separate_sizes:
            raise ValueError(
                f"dimensions is {dimensions!r}, but must be one of {self._sizes_listed}: this "
                "model has a matrix of its own for each size."
            )
        return int(dimensions)

    def _checked_coarse(self, dimensions: int) -> int:
        if self._separate_sizes:
            raise ValueError(
                f"coarse_dimensions is {dimensions!r}, but the vectors of this model cannot be "
                "cut: it has a matrix of its own for each of the sizes "
                f"{self._sizes_listed}. Leave coarse_dimensions out, or "
                "choose a smaller size by dimensions."
            )
        return _check_size("coarse_dimensions", dimensions, self.dimensions - 1)

    def comparable_metadata(self) -> Metadata:
        """What a collection must have been made with for these vectors to fit into it."""
        of_dense: Metadata = {
            "dimensions": self.dimensions,
            "coarse_dimensions": self.coarse_dimensions,
            "metric": self.metric,
            "storage": self.storage,
        }
        return {
            **fingerprint_metadata(self.encoder.fingerprint),
            **(of_dense if self.encoder.has_dense else dict.fromkeys(of_dense)),
            "sparse": self.encoder.has_sparse,
        }

    def facts(self) -> Metadata:
        """The former name of ``comparable_metadata``."""
        warnings.warn(
            "facts() is called comparable_metadata() now, and goes with the next version.",
            DeprecationWarning,
            stacklevel=2,
        )
        return self.comparable_metadata()

    def metadata(self) -> Metadata:
        """All that is recorded with a collection: what is compared, and two things that are not.

        These are "name", the model as it was given, and "query_prefix", what went before queries,
        both also of the other model of a pair; with them others can open the collection as it was
        made.
        """
        found = {**self.comparable_metadata(), **_description(self.encoder)}
        pair = getattr(self.encoder, "source", self.encoder)  # behind a cache
        half = getattr(pair, "sparse", None) if self.encoder.fingerprint.sparse else None
        return found if half is None else found | of_sparse_half(_description(half))

    def __repr__(self) -> str:
        coarse, storage = self.coarse_dimensions, self.storage
        parts = [repr(_name_of(self.encoder))]
        parts += [f"dimensions={self.dimensions}"] if self.dimensions else []
        parts += [] if coarse is None else [f"coarse_dimensions={coarse}"]
        parts += [] if storage == "float32" else [f"storage={storage!r}"]
        return f"{type(self).__name__}({', '.join(parts)})"

    def prepare(self, item: object) -> Prepared:
        """Read and check one document in any accepted form."""
        return prepare(as_document(item), self.limits)

    def records(self, documents: Iterable[object]) -> list[Record]:
        """Read, check and embed documents, in one call of the encoder."""
        return self.embed([self.prepare(item) for item in documents_of(documents)]).records

    def embed(self, documents: Sequence[Prepared]) -> Embedded:
        """Embed documents that were checked. ``NonFiniteError`` if a vector cannot be stored."""
        both = self.vectors([document.source for document in documents])
        return Embedded(self._as_records(documents, both), int(both.n_tokens.sum()))

    def vectors(self, texts: list[str], role: Role = "document") -> HybridEmbeddings:
        """What the model gives; a half that it lacks has no columns."""
        if self.default_mode == "hybrid":
            return self.encoder.encode(texts, role=role, dimensions=self.dimensions)
        size = self.dimensions or None
        both = self.encoder.encode_available(texts, role=role, dimensions=size)
        if self.encoder.has_sparse:
            return both
        return replace(both, sparse=HybridEmbeddings.of_dense(both.dense).sparse)

    @property
    def default_mode(self) -> Mode:
        """How to search with all vectors that the model gives."""
        if self.encoder.has_dense:
            return "hybrid" if self.encoder.has_sparse else "dense"
        return "sparse"

    def query_vectors(self, queries: str | Sequence[str], mode: Mode) -> Queries:
        """Dense ``(n, dimensions)`` and sparse ``(n, vocab_size)`` vectors, as far as needed."""
        self.need(mode, f"mode={mode!r}")
        if mode == "dense":
            dense = self.encoder.encode_dense(queries, role="query", dimensions=self.dimensions)
            return Queries(dense, self._coarse(dense))
        if mode == "sparse":
            return Queries(sparse=self.encoder.encode_sparse(queries, role="query"))
        both = self.encoder.encode(queries, role="query", dimensions=self.dimensions)
        return Queries(both.dense, self._coarse(both.dense), both.sparse)

    def mode_of(self, embeddings: HybridEmbeddings) -> Mode:
        """How to search with all vectors that both the embeddings and the model have."""
        if not isinstance(embeddings, HybridEmbeddings):
            raise TypeError(
                f"embeddings is a {type(embeddings).__name__}, but must be the HybridEmbeddings of "
                "queries; HybridEmbeddings.of_dense(array) makes them of dense vectors alone."
            )
        there = _mode_in(embeddings)
        return self.default_mode if there == "hybrid" else there

    def given_vectors(self, embeddings: HybridEmbeddings, mode: Mode) -> Queries:
        """``query_vectors`` of vectors that are there already; ``ValueError`` if they do not fit.

        Dense ones are scaled to length 1.
        """
        self.mode_of(embeddings)
        self.need(mode, f"mode={mode!r}")
        there = _mode_in(embeddings)
        if there not in ("hybrid", mode):
            raise ValueError(
                f"mode is {mode!r}, but embeddings has {there} vectors alone; search with "
                f'mode="{there}", or pass what encode(..., role="query") gives.'
            )
        if not (np.isfinite(embeddings.dense).all() and np.isfinite(embeddings.sparse.data).all()):
            raise NonFiniteError("embeddings has NaN or infinity, by which nothing can be found.")
        if mode == "sparse":
            return Queries(sparse=embeddings.sparse)
        if embeddings.dimensions != self.dimensions:
            raise ValueError(
                f"embeddings has dense vectors of {embeddings.dimensions} components, but the "
                f"collection has {self.dimensions}; pass those of the model it was built with, "
                f"encoded with dimensions={self.dimensions}."
            )
        dense = embeddings.with_dimensions(self.dimensions).dense
        return Queries(dense, self._coarse(dense), embeddings.sparse if mode == "hybrid" else None)

    def need(self, mode: Mode, what: str) -> None:
        """Raise ``MissingHeadError`` if the model lacks vectors of ``mode``, which ``what`` needs.

        Those of "hybrid" are both.
        """
        there = self.default_mode
        if there not in ("hybrid", mode):
            lacking = "sparse" if there == "dense" else "dense"
            raise MissingHeadError(
                f"{what} needs {lacking} vectors, but {self.encoder.fingerprint.model} gives none; "
                f'search with mode="{there}", or use a model that gives both.'
            )

    def need_sparse(self, what: str) -> None:
        """The former name of ``need("sparse", what)``."""
        warnings.warn(
            "need_sparse(what) is called need('sparse', what) now, and goes with the next version.",
            DeprecationWarning,
            stacklevel=2,
        )
        self.need("sparse", what)

    def _coarse(self, dense: Floats) -> Floats | None:
        if self.coarse_dimensions is None:
            return None
        return HybridEmbeddings.of_dense(dense).with_dimensions(self.coarse_dimensions).dense

    def _as_records(self, documents: Sequence[Prepared], both: HybridEmbeddings) -> list[Record]:
        dense, sparse = both.dense, both.sparse
        expected = (len(documents), self.dimensions)
        if dense.shape != expected or sparse.shape[0] != len(documents):
            raise ValueError(
                f"The encoder gave dense vectors of shape {dense.shape} and {sparse.shape[0]} "
                f"sparse ones, but {len(documents)} documents need {expected}."
            )
        _check_finite(documents, dense, sparse)
        coarse = self._coarse(dense)
        width, truncated = int(sparse.shape[1]), both.truncated.tolist()
        return [
            Record(
                document,
                dense[row],
                None if coarse is None else coarse[row],
                *found,
                width,
                truncated[row],
            )
            for row, (document, found) in enumerate(
                zip(documents, sparse_rows(sparse), strict=True)
            )
        ]


def _as_long(encoder: Encoder, collection: Metadata) -> Encoder:
    """The encoder that reads as much of a text as the collection's did, where it was not told.

    The checkpoint's own ``max_length`` is the default since 0.3.0; 8,192 was it before.
    """
    length, settings = collection.get("max_length"), getattr(encoder, "settings", None)
    if length is None or not isinstance(settings, EncoderSettings) or settings.max_length:
        return encoder
    from gte_core import SharedEncoder, shared_encoder  # brings torch

    own = encoder.fingerprint
    is_other = own.max_length != length and own.model == collection["model"]
    if not is_other or not isinstance(encoder, SharedEncoder):
        return encoder
    return shared_encoder(replace(settings, max_length=int(length)))


def _mode_in(embeddings: HybridEmbeddings) -> Mode:
    """How to search with all vectors that the embeddings have."""
    if not embeddings.dimensions:
        return "sparse"
    return "hybrid" if embeddings.sparse.shape[1] else "dense"


def _description(encoder: Encoder) -> Metadata:
    """What is recorded of an encoder, and not compared."""
    return {"name": _name_of(encoder), "query_prefix": encoder.query_prefix}


def _name_of(encoder: Encoder) -> str:
    """The model as it was given."""
    model = getattr(encoder, "model", None)
    return model if isinstance(model, str) else encoder.fingerprint.model


def _refuse_for_sparse(encoder: Encoder, **given: object) -> None:
    """Raise ``ValueError`` for what says how dense vectors are kept, where there are none."""
    for name, value in given.items():
        if value is not None:
            raise ValueError(
                f"{name} is {value!r}, but {encoder.fingerprint.model} gives sparse vectors alone; "
                "leave it out, for it is about dense ones."
            )


def _check_size(name: str, size: int, limit: int) -> int:
    if isinstance(size, (bool, np.bool_)) or not hasattr(size, "__index__"):
        raise TypeError(f"{name} must be an integer from 1 to {limit}, got {size!r}.")
    size = operator.index(size)  # of NumPy's integers, too
    if not 1 <= size <= limit:
        raise ValueError(
            f"{name} is {size}, but must be from 1 to {limit}: the dense vectors are no larger "
            "than the encoder's, the coarse ones smaller than the dense."
        )
    return size


def _check_finite(documents: Sequence[Prepared], dense: Floats, sparse: Sparse) -> None:
    # Some engines store NaN without a word and rank it above everything.
    good: NDArray[np.bool_] = np.asarray(np.isfinite(dense).all(axis=1))
    weights_good = np.isfinite(sparse.data) & (sparse.data > 0)
    if not weights_good.all():
        rows = np.searchsorted(sparse.indptr, np.flatnonzero(~weights_good), side="right") - 1
        good[rows] = False
    if not good.all():
        document = documents[int(np.argmin(good))]
        raise NonFiniteError(
            f"The encoder gave document {document.id!r} a vector with NaN, infinity or a sparse "
            "weight that is not positive; nothing of its batch was written."
        )
