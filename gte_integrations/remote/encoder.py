"""``RemoteEncoder``: what the encoders of all providers share, whatever their servers speak."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from gte_core import Fingerprint, HybridEmbeddings, MissingHeadError, NonFiniteError, Role
from gte_core.embeddings import Floats, Integers, TokenDecoder, check_dimensions, cut
from gte_core.encoder import missing_dense_head, missing_sparse_head, with_prefix
from gte_core.foreign import refuses_foreign
from gte_core.texts import checked, named
from gte_integrations.remote.base import Connection, Remote, RemoteError, as_json, sendable

Half = Literal["dense", "sparse"]
TokenWeight = tuple[int, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """What a server gives.

    Attributes:
        fingerprint: of the model.
        dimensions: of the dense vectors, 0 where there are none.
        has_sparse: whether there are sparse vectors.
        vocab_size: width of the sparse vectors, None where it is not known.
        max_texts: of one request.
    """

    fingerprint: Fingerprint
    dimensions: int
    has_sparse: bool
    vocab_size: int | None
    max_texts: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """What one request gave, row for row.

    Attributes:
        dense: float ``(n, size)``, None where it was not asked for.
        sparse: weights by token id, in any order; None where they were not asked for.
        n_tokens: int64 ``(n,)``, 0 where nobody counted.
        truncated: bool ``(n,)``.
    """

    dense: NDArray[np.floating[Any]] | None
    sparse: Sequence[Sequence[TokenWeight]] | None
    n_tokens: Integers
    truncated: NDArray[np.bool_]


class RemoteEncoder(Remote, ABC):
    """An ``Encoder`` whose vectors a server makes. Safe to use from several threads.

    Dense vectors have length 1, whatever the server gave. A smaller size that a call asks for is
    cut here. A text without a character is sent as a space, which servers take.
    """

    _max_bytes = 1_900_000  # of the texts of one request

    def __init__(self, connection: Connection, query_prefix: str, document_prefix: str) -> None:
        super().__init__(connection)
        self.query_prefix = query_prefix
        self.document_prefix = document_prefix
        self._described: Description | None = None

    @abstractmethod
    async def _describe(self) -> Description:
        """Ask, or know, what the server gives."""

    @abstractmethod
    async def _ask(self, texts: Sequence[str], role: Role, halves: set[Half]) -> Part:
        """Make one request for these vectors of texts, whose prefixes are there."""

    @property
    def model(self) -> str:
        """What the fingerprint calls the model."""
        return self.fingerprint.model

    @property
    def revision(self) -> str | None:
        """The commit of the model, None where the server does not say it."""
        return self.fingerprint.revision

    @property
    def fingerprint(self) -> Fingerprint:
        """What vectors of another encoder must share to be comparable with these."""
        return self._description.fingerprint

    @property
    def dimensions(self) -> int:
        """Size of the dense vectors when a call does not ask for another; 0 if there are none."""
        return self._description.dimensions

    @property
    def vocab_size(self) -> int | None:
        """Width of the sparse vectors; None where it is not known."""
        return self._description.vocab_size

    @property
    def has_dense(self) -> bool:
        """Whether the model gives dense vectors."""
        return self._description.dimensions > 0

    @property
    def has_sparse(self) -> bool:
        """Whether the model gives sparse vectors."""
        return self._description.has_sparse

    @refuses_foreign
    def encode(
        self, texts: str | Iterable[str], *, role: Role = "document", dimensions: int | None = None
    ) -> HybridEmbeddings:
        """Both vectors of every text; ``MissingHeadError`` if the model lacks one."""
        both = self._work(self._listed(texts, role), role, dimensions, {"dense", "sparse"})
        return self.connection.call(both)

    @refuses_foreign
    async def aencode(
        self, texts: str | Iterable[str], *, role: Role = "document", dimensions: int | None = None
    ) -> HybridEmbeddings:
        """``encode`` without blocking the event loop; cancelled, it closes its requests."""
        both = self._work(self._listed(texts, role), role, dimensions, {"dense", "sparse"})
        return await self.connection.acall(both)

    @refuses_foreign
    def encode_available(
        self, texts: str | Iterable[str], *, role: Role = "document", dimensions: int | None = None
    ) -> HybridEmbeddings:
        """What the model has: a half that it lacks is empty."""
        found = self._work(self._listed(texts, role), role, dimensions, None)
        return self.connection.call(found)

    @refuses_foreign
    async def aencode_available(
        self, texts: str | Iterable[str], *, role: Role = "document", dimensions: int | None = None
    ) -> HybridEmbeddings:
        """``encode_available`` without blocking the event loop, as ``aencode``."""
        found = self._work(self._listed(texts, role), role, dimensions, None)
        return await self.connection.acall(found)

    @refuses_foreign
    def encode_dense(
        self, texts: str | Iterable[str], *, role: Role = "document", dimensions: int | None = None
    ) -> NDArray[np.float32]:
        """Dense vectors alone, float32 ``(n, dimensions)``."""
        dense = self._work(self._listed(texts, role), role, dimensions, {"dense"})
        return self.connection.call(dense).dense

    @refuses_foreign
    def encode_sparse(
        self, texts: str | Iterable[str], *, role: Role = "document"
    ) -> sp.csr_array[np.float32]:
        """Sparse vectors alone, float32 CSR ``(n, vocab_size)``.

        Where the width is not known, it is as large as the largest token id of the call needs.
        """
        return self.connection.call(
            self._work(self._listed(texts, role), role, None, {"sparse"})
        ).sparse

    @property
    def _description(self) -> Description:
        if self._described is None:
            return self.connection.call(self._known())
        return self._described

    async def _known(self) -> Description:
        if self._described is None:
            self._described = await self._describe()
        return self._described

    def _listed(self, texts: str | Iterable[str], role: Role) -> list[str]:
        given = checked(with_prefix(texts, role, self.query_prefix, self.document_prefix))
        return list(map(sendable, given))

    async def _work(
        self, texts: list[str], role: Role, dimensions: int | None, halves: set[Half] | None
    ) -> HybridEmbeddings:
        """The vectors of these halves; of those that the model has, where none are named."""
        known = await self._known()
        there = _halves_of(known)
        wanted = there if halves is None else halves
        _require(wanted | ({"dense"} if dimensions is not None else set()), there, known)
        size = known.dimensions if "dense" in wanted else 0
        if dimensions is not None:
            size = check_dimensions(dimensions, known.dimensions)
        parts = await self.connection.ask_in_parts(
            texts,
            partial(self._ask, role=role, halves=wanted),
            most=known.max_texts,
            most_bytes=self._max_bytes,
            size_of=_size,
            name_of=lambda text: f"texts[{texts.index(text)}]",
        )
        found = HybridEmbeddings(
            _dense(parts, known.dimensions if size else 0, size),
            _sparse(parts, len(texts), known.vocab_size or 0),
            np.concatenate([np.zeros(0, np.int64), *(part.n_tokens for part in parts)]),
            np.concatenate([np.zeros(0, np.bool_), *(part.truncated for part in parts)]),
            self._decode_token,
        )
        return self._reported(found)

    _decode_token: TokenDecoder = str

    def _reported(self, found: HybridEmbeddings) -> HybridEmbeddings:
        """The vectors of a call, after what is to be said of them, such as which texts were cut."""
        return found


def counts(n_texts: int, total: object) -> Integers:
    """Tokens of each text, int64 ``(n,)``, where a server says those of all; else 0."""
    known = n_texts == 1 and isinstance(total, int)
    return np.array([total] if known else [0] * n_texts, np.int64)


def dense_rows(rows: object, n_texts: int, where: str) -> NDArray[np.float64]:
    """A matrix of the rows of an answer; ``RemoteError`` unless there is one for each text."""
    try:
        matrix = np.array(rows, np.float64)
    except (TypeError, ValueError):
        matrix = np.zeros(0)
    if matrix.ndim != 2 or len(matrix) != n_texts:
        raise RemoteError(
            f"{where} answered {n_texts} texts with {len(rows) if isinstance(rows, list) else 'no'}"
            " vectors, or some that are no lists of numbers of one length; it must give one for "
            "each text."
        )
    return matrix


def by_place(items: object, name: str, n_texts: int, where: str) -> list[dict[str, Any]]:
    """The objects of an answer in the order of their texts, which the field ``name`` says."""
    given = items if isinstance(items, list) else []
    found: dict[Any, dict[str, Any]] = {
        item.get(name): item for item in given if isinstance(item, dict)
    }
    if len(given) != n_texts or set(found) != set(range(n_texts)):
        raise RemoteError(
            f"{where} answered {n_texts} texts with {name} {shown(found)}, but must give one "
            f"object for each text, numbered from 0; it gave {len(given)}."
        )
    return [found[place] for place in range(n_texts)]


def shown(value: object) -> str:
    """The beginning of what a server said."""
    text = repr(list(value) if isinstance(value, dict) else value)
    return text if len(text) <= 80 else f"{text[:80]}…"


def _size(text: str) -> int:
    return len(as_json(text)) + 1


def _halves_of(known: Description) -> set[Half]:
    halves: set[Half] = {"sparse"} if known.has_sparse else set()
    return halves | {"dense"} if known.dimensions else halves


def _require(wanted: set[Half], there: set[Half], known: Description) -> None:
    model = known.fingerprint.model
    if not there:
        raise MissingHeadError(f"{model!r} gives neither dense nor sparse vectors.")
    if "dense" in wanted - there:
        raise missing_dense_head(model)
    if "sparse" in wanted - there:
        raise missing_sparse_head(model)


def _dense(parts: Sequence[Part], own: int, size: int) -> Floats:
    """Rows of length 1; the error about one that has no direction names its text."""
    rows = [part.dense for part in parts if part.dense is not None]
    for row in rows:
        if row.shape[1] != own:
            raise RemoteError(
                f"The server gave dense vectors of {row.shape[1]} components, but those of its "
                f"model have {own}: it serves another model now, or does not know the size that "
                "was asked for. Make a new encoder, and look at what the server loads."
            )
    with np.errstate(over="ignore"):  # what is too large becomes infinity
        none = np.zeros((sum(len(part.n_tokens) for part in parts), size))
        dense: Floats = np.concatenate(rows or [none]).astype(np.float32)
    if bad := np.flatnonzero(~np.isfinite(dense).all(axis=1)).tolist():
        raise NonFiniteError(f"{named(bad)}: the server's dense vector has NaN or infinity.")
    return cut(dense, size)


def _sparse(parts: Sequence[Part], n_texts: int, width: int) -> sp.csr_array[np.float32]:
    """Weights above 0 by ascending token id; of an id that comes twice, the larger."""
    rows = [row for part in parts if part.sparse is not None for row in part.sparse]
    weights = [_weights(row, place) for place, row in enumerate(rows)] or [{}] * n_texts
    ids = [token_id for row in weights for token_id in row]
    width = width or max(ids, default=-1) + 1
    if ids and not 0 <= min(ids) <= max(ids) < width:
        raise RemoteError(
            f"The server gave token ids from {min(ids)} to {max(ids)}, but the vocabulary has "
            f"{width}; make the encoder with the vocab_size of the model that is served."
        )
    values = np.array([weight for row in weights for weight in row.values()], np.float32)
    bounds = np.cumsum([0, *map(len, weights)])
    shape = (n_texts, width)
    matrix: sp.csr_array[np.float32] = sp.csr_array(
        (values, np.array(ids, np.int32), bounds), shape=shape
    )
    return matrix


def _weights(row: Sequence[TokenWeight], place: int) -> dict[int, float]:
    largest: dict[int, float] = {}
    for token_id, weight in sorted(row):
        if not np.isfinite(weight):
            raise NonFiniteError(f"texts[{place}]: the server's sparse vector has NaN or infinity.")
        if weight > 0:
            largest[token_id] = max(weight, largest.get(token_id, 0.0))
    return largest
