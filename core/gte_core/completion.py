"""What users hand over as an encoder or a reranker -> one that is complete: adapters ask here."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, cast
from weakref import WeakValueDictionary

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from gte_core.embeddings import HybridEmbeddings
from gte_core.encoder import Encoder, Role, with_prefix
from gte_core.ranking import Reranker

_OF_0_1_0 = (
    "dimensions",
    "has_sparse",
    "fingerprint",
    "query_prefix",
    "encode",
    "encode_dense",
    "encode_sparse",
    "aencode",
)
_SINCE_0_3_0 = ("vocab_size", "has_dense", "document_prefix", "encode_available")
# One for each object, so that whoever is handed the same encoder shares its cache.
_COMPLETED: WeakValueDictionary[int, CompletedEncoder] = WeakValueDictionary()
_VERBS = ("encode", "encode_dense", "encode_sparse", "aencode")
_OF_A_RERANKER = ("rank", "score", "arank", "ascore")


def as_encoder(encoder: Encoder | str | Path) -> Encoder:
    """The encoder that an adapter works with.

    Args:
        encoder: the name of a model, as in ``GTEEmbedder.from_pretrained``, which is loaded at
            first use and shared in this process; or an object that satisfies ``Encoder``, returned
            as it is. One that was written for version 0.1.0, without ``role``, ``vocab_size``,
            ``has_dense``, ``document_prefix`` and ``encode_available``, is completed: a query gets
            its ``query_prefix``, a document nothing.

    Raises:
        TypeError: it is neither; the message names what it lacks.
    """
    if isinstance(encoder, str | Path):
        from gte_core.settings import EncoderSettings
        from gte_core.shared import shared_encoder  # brings torch

        return shared_encoder(EncoderSettings(model=str(encoder)))
    _check_object("encoder", encoder, _OF_0_1_0, 'GTEEmbedder.from_pretrained("demo")')
    takes_roles = all(_takes_role(getattr(encoder, verb)) for verb in _VERBS)
    if takes_roles and all(_has(encoder, name) for name in _SINCE_0_3_0):
        return encoder
    completed = _COMPLETED.get(id(encoder))
    if completed is None:
        completed = CompletedEncoder(encoder, takes_roles=takes_roles)
        _COMPLETED[id(encoder)] = completed
    return cast("Encoder", completed)


def as_reranker(reranker: Reranker | str | Path) -> Reranker:
    """The reranker that an adapter works with.

    Args:
        reranker: the name of a model, as in ``GTEReranker.from_pretrained``, which is loaded at
            first use and shared in this process; or an object that satisfies ``Reranker``,
            returned as it is.

    Raises:
        TypeError: it is neither; the message names what it lacks.
    """
    if isinstance(reranker, str | Path):
        from gte_core.settings import RerankerSettings
        from gte_core.shared import shared_reranker  # brings torch

        return shared_reranker(RerankerSettings(model=str(reranker)))
    _check_object("reranker", reranker, _OF_A_RERANKER, "GTEReranker.from_pretrained(...)")
    return reranker


class CompletedEncoder:
    """An encoder of version 0.1.0, with what ``Encoder`` asks for since.

    Args:
        encoder: what computes.
        takes_roles: whether its verbs take ``role``, and so put the prefix themselves.
    """

    def __init__(self, encoder: Any, *, takes_roles: bool = False) -> None:
        self._encoder = encoder
        self._takes_roles = takes_roles

    def __getattr__(self, name: str) -> Any:
        # Its sizes and names, and whatever else users know it by.
        if name.startswith("__") or name == "_encoder":
            raise AttributeError(name)
        return getattr(self._encoder, name)

    @property
    def vocab_size(self) -> int | None:
        """Width of the sparse vectors, None where the encoder does not say."""
        return getattr(self._encoder, "vocab_size", None)

    @property
    def has_dense(self) -> bool:
        """Whether the model gives dense vectors, as all did that do not say."""
        return getattr(self._encoder, "has_dense", True)

    @property
    def document_prefix(self) -> str:
        """Text that the encoder puts before documents, none where it does not say."""
        return getattr(self._encoder, "document_prefix", "")

    def encode(
        self, texts: str | Iterable[str], *, role: Role = "document", dimensions: int | None = None
    ) -> HybridEmbeddings:
        """Both vectors of every text."""
        both: HybridEmbeddings = self._of_role(self._encoder.encode, texts, role, dimensions)
        return both

    def encode_available(
        self, texts: str | Iterable[str], *, role: Role = "document", dimensions: int | None = None
    ) -> HybridEmbeddings:
        """What the model has. Without sparse vectors, nobody counts tokens: the counts are 0."""
        counting = getattr(self._encoder, "encode_available", None)
        if counting is not None:
            both: HybridEmbeddings = self._of_role(counting, texts, role, dimensions)
            return both
        if self.has_sparse:
            return self.encode(texts, role=role, dimensions=dimensions)
        return HybridEmbeddings.of_dense(self.encode_dense(texts, role=role, dimensions=dimensions))

    def encode_dense(
        self, texts: str | Iterable[str], *, role: Role = "document", dimensions: int | None = None
    ) -> NDArray[np.float32]:
        """Dense vectors alone, float32 ``(n, dimensions)``."""
        dense: NDArray[np.float32] = self._of_role(
            self._encoder.encode_dense, texts, role, dimensions
        )
        return dense

    def encode_sparse(
        self, texts: str | Iterable[str], *, role: Role = "document"
    ) -> sp.csr_array[np.float32]:
        """Sparse vectors alone, float32 CSR ``(n, vocab_size)``."""
        verb = self._encoder.encode_sparse
        sparse: sp.csr_array[np.float32] = (
            verb(texts, role=role) if self._takes_roles else verb(self._fed(texts, role))
        )
        return sparse

    async def aencode(
        self, texts: str | Iterable[str], *, role: Role = "document", dimensions: int | None = None
    ) -> HybridEmbeddings:
        """``encode`` without blocking the event loop."""
        both: HybridEmbeddings = await self._of_role(self._encoder.aencode, texts, role, dimensions)
        return both

    def _of_role(
        self, verb: Any, texts: str | Iterable[str], role: Role, dimensions: int | None
    ) -> Any:
        if self._takes_roles:
            return verb(texts, role=role, dimensions=dimensions)
        return verb(self._fed(texts, role), dimensions=dimensions)

    def _fed(self, texts: str | Iterable[str], role: Role) -> Iterable[str]:
        return with_prefix(texts, role, self.query_prefix)


def _check_object(kind: str, given: object, needed: Sequence[str], example: str) -> None:
    """Raise ``TypeError`` unless it is an object that has what its kind needs."""
    if isinstance(given, type):
        raise TypeError(
            f"{kind} is the class {given.__name__}, but must be one of its objects, such as "
            f"{example} makes."
        )
    lacking = [name for name in needed if not _has(given, name)]
    if lacking:
        loaded = example.partition(".")[0]
        raise TypeError(
            f"{kind} is a {type(given).__name__} without {', '.join(lacking)}, but must be the "
            f"name of a model, a loaded {loaded}, or another object that satisfies "
            f"gte_core.{kind.capitalize()}."
        )


def _has(encoder: object, name: str) -> bool:
    """Whether there is an attribute; a property is not asked, because that may load a model."""
    try:
        inspect.getattr_static(encoder, name)
    except AttributeError:
        return hasattr(encoder, name)
    return True


def _takes_role(verb: Any) -> bool:
    parameters = inspect.signature(verb).parameters.values()
    return any(p.name == "role" or p.kind is p.VAR_KEYWORD for p in parameters)
