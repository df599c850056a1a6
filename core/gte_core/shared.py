"""One loaded encoder per configuration and process, with a cache that holds both heads of a text.

Frameworks keep dense and sparse in separate objects. When both are faces of one
:class:`SharedEncoder`, whichever asks second finds the vectors that the first one's pass left.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import asdict, dataclass, replace
from typing import Any, Generic, TypeVar
from weakref import WeakValueDictionary

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from gte_core.checkpoint.hub import DEFAULT_MODEL, absolute_model
from gte_core.embedder import GTEEmbedder, OnTruncation
from gte_core.embeddings import HybridEmbeddings, check_dimensions, cut
from gte_core.encoder import Fingerprint
from gte_core.forks import renew_in_children
from gte_core.recent import RecentVectors, Vectors
from gte_core.reranker import DEFAULT_RERANKER, GTEReranker
from gte_core.serving import Answer, Call, Serving
from gte_core.texts import as_texts, checked, named
from gte_core.truncation import too_long, warn_truncated

logger = logging.getLogger(__name__)

_CACHE_BYTES = 256 * 2**20
_KEPT_LOADED = 2
_NO_IDS = np.empty(0, dtype=np.int32)
_NO_WEIGHTS = np.empty(0, dtype=np.float32)

K = TypeVar("K")
V = TypeVar("V")
R = TypeVar("R")


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderSettings:
    """The arguments of :meth:`GTEEmbedder.from_pretrained` but for the size, which is cut late.

    Equal settings share one encoder. ``device`` and ``dtype`` are strings here.
    """

    model: str = DEFAULT_MODEL
    revision: str | None = None
    device: str | None = None
    dtype: str = "auto"
    max_length: int = 8192
    query_prefix: str = ""
    on_truncation: OnTruncation = "warn"
    torch_compile: bool = False
    cache_dir: str | None = None
    local_files_only: bool = False


class SharedEncoder:
    """An :class:`Encoder` that loads at first use, keeps both vectors, and joins async calls.

    Made by :func:`shared_encoder`; pickles as its settings. It keeps the vectors of recent texts,
    256 MiB of them, and beside them those of the latest call whatever their number.
    """

    def __init__(self, settings: EncoderSettings) -> None:
        self.settings = settings
        self._loaded: GTEEmbedder | None = None
        self._kept = RecentVectors(_CACHE_BYTES)
        self._serving = Serving(lambda: self.embedder, self._kept)
        self.renew()
        renew_in_children(self)

    def renew(self) -> None:
        """Begin again with a free lock, as a forked child must."""
        self._loading = threading.Lock()

    def __reduce__(self) -> tuple[Any, ...]:
        return shared_encoder, (self.settings,)

    @property
    def embedder(self) -> GTEEmbedder:
        """The model, loaded when it is first needed."""
        with self._loading:
            if self._loaded is None:
                # Truncation is reported here, also for texts that cost no pass.
                quiet = asdict(self.settings) | {"on_truncation": "ignore"}
                self._loaded = GTEEmbedder.from_pretrained(**quiet)
                _RECENTLY_LOADED.append(self)
            return self._loaded

    @property
    def model(self) -> str:
        """The hub id, the absolute path of a directory, or ``"demo"``; nothing is loaded."""
        return self.settings.model

    @property
    def dimensions(self) -> int:
        """Size of the model's dense vectors."""
        return self.embedder.dimensions

    @property
    def has_sparse(self) -> bool:
        """Whether the checkpoint has the sparse head."""
        return self.embedder.has_sparse

    @property
    def fingerprint(self) -> Fingerprint:
        """What vectors of another encoder must share to be comparable with these."""
        return self.embedder.fingerprint

    @property
    def query_prefix(self) -> str:
        """Text that goes before queries, usually none."""
        return self.settings.query_prefix

    def encode(
        self, texts: str | Iterable[str], *, dimensions: int | None = None
    ) -> HybridEmbeddings:
        """Both vectors of every text; those encoded lately cost no pass.

        Calls from all threads and event loops wait in one queue, where short ones go first.
        """
        self.embedder.require_sparse_head()
        return self.encode_available(texts, dimensions=dimensions)

    def encode_available(
        self, texts: str | Iterable[str], *, dimensions: int | None = None
    ) -> HybridEmbeddings:
        """:meth:`encode` with what the checkpoint has: sparse rows are empty without the head."""
        wanted = _listed(texts)
        size = self._size(dimensions)
        vectors = self._kept.get(wanted)
        if any(text not in vectors for text in wanted):
            answer: Answer[dict[str, Vectors]] = Answer()
            call = self._call(wanted, lambda: None, lambda call: call.found, answer)
            try:
                self._serving.submit(call)
                vectors = answer.result()
            except BaseException:  # an interrupt, such as Ctrl-C
                call.answer.cancel()
                raise
        return self._embeddings(wanted, vectors, size)

    def encode_dense(
        self, texts: str | Iterable[str], *, dimensions: int | None = None
    ) -> NDArray[np.float32]:
        """Dense vectors alone, float32 ``(n, dimensions)``; works without a sparse head."""
        return self.encode_available(texts, dimensions=dimensions).dense

    def encode_sparse(self, texts: str | Iterable[str]) -> sp.csr_array[np.float32]:
        """Sparse vectors alone, float32 CSR ``(n, vocab_size)``."""
        return self.encode(texts).sparse

    async def aencode(
        self, texts: str | Iterable[str], *, dimensions: int | None = None
    ) -> HybridEmbeddings:
        """:meth:`encode` without blocking the event loop; short calls that wait share a pass.

        Of a call that is cancelled, what is not yet computed is dropped.
        """

        def check() -> None:
            self.embedder.require_sparse_head()
            self._size(dimensions)

        return await self._answer(_listed(texts), dimensions, check)

    async def aencode_dense(
        self, texts: str | Iterable[str], *, dimensions: int | None = None
    ) -> NDArray[np.float32]:
        """:meth:`encode_dense` without blocking the event loop, as :meth:`aencode`."""
        both = await self._answer(_listed(texts), dimensions, lambda: self._size(dimensions))
        return both.dense

    async def _answer(
        self, texts: list[str], dimensions: int | None, check: Callable[[], object]
    ) -> HybridEmbeddings:
        def finish(call: Call[HybridEmbeddings]) -> HybridEmbeddings:
            return self._embeddings(texts, call.found, self._size(dimensions))

        answer: Future[HybridEmbeddings] = Future()
        self._serving.submit(self._call(texts, check, finish, answer))
        return await asyncio.wrap_future(answer)

    def _call(
        self,
        texts: list[str],
        check: Callable[[], object],
        finish: Callable[[Call[R]], R],
        answer: Answer[R] | Future[R],
    ) -> Call[R]:
        refuse = self._refuse if self.settings.on_truncation == "error" else None
        return Call(texts, check=check, finish=finish, refuse_truncated=refuse, answer=answer)

    def _size(self, dimensions: int | None) -> int:
        return check_dimensions(
            self.dimensions if dimensions is None else dimensions, self.dimensions
        )

    def _refuse(self, rows: Sequence[int]) -> None:
        raise too_long(named(rows), rows, self.settings.max_length)

    def _report_truncated(self, rows: Sequence[Vectors]) -> None:
        cut_off = [i for i, row in enumerate(rows) if row.truncated]
        if cut_off and self.settings.on_truncation == "error":
            self._refuse(cut_off)
        if cut_off and self.settings.on_truncation == "warn":
            warn_truncated(logger, len(cut_off), self.settings.max_length)

    def _embeddings(
        self, texts: Sequence[str], vectors: Mapping[str, Vectors], size: int
    ) -> HybridEmbeddings:
        rows = [vectors[text] for text in texts]
        self._report_truncated(rows)
        dense = np.array([row.dense for row in rows], dtype=np.float32)
        bounds = np.cumsum([0, *(len(row.ids) for row in rows)])
        ids = np.concatenate([_NO_IDS, *(row.ids for row in rows)])
        weights = np.concatenate([_NO_WEIGHTS, *(row.weights for row in rows)])
        return HybridEmbeddings(
            cut(dense.reshape(len(rows), self.dimensions), size),
            sp.csr_array((weights, ids, bounds), shape=(len(rows), self.embedder.vocab_size)),
            np.array([row.n_tokens for row in rows], dtype=np.int64),
            np.array([row.truncated for row in rows], dtype=np.bool_),
            self.embedder.tokenizer.decode_token,
        )


class _Registry(Generic[K, V]):
    """What was made of settings and somebody still holds: one of each in this process."""

    def __init__(self, make: Callable[[K], V]) -> None:
        self._make = make
        self._made: WeakValueDictionary[K, V] = WeakValueDictionary()
        self.renew()
        renew_in_children(self)

    def renew(self) -> None:
        """Begin again with a free lock, as a forked child must."""
        self._lock = threading.Lock()

    def get(self, settings: K) -> V:
        """The one of these settings."""
        with self._lock:
            made = self._made.get(settings)
            if made is None:
                made = self._made[settings] = self._make(settings)
            return made

    def clear(self) -> None:
        """Make anew what is asked for from now on."""
        with self._lock:
            self._made.clear()


_ENCODERS = _Registry(SharedEncoder)
# Held, so that objects that come and go find their model loaded.
_RECENTLY_LOADED: deque[SharedEncoder | SharedReranker] = deque(maxlen=_KEPT_LOADED)


def shared_encoder(settings: EncoderSettings) -> SharedEncoder:
    """The encoder of these settings: one in this process.

    It lives as long as anyone holds it; the two loaded last are held here, until
    :func:`release_shared`. A directory is known by its absolute path.
    """
    return _ENCODERS.get(replace(settings, model=absolute_model(settings.model)))


def release_shared() -> None:
    """Let go of models that nobody else holds, and of directories that were written anew."""
    _RECENTLY_LOADED.clear()
    _ENCODERS.clear()
    _RERANKERS.clear()


@dataclass(frozen=True, slots=True, kw_only=True)
class RerankerSettings:
    """The arguments of :meth:`GTEReranker.from_pretrained`. Equal settings share one reranker."""

    model: str = DEFAULT_RERANKER
    revision: str | None = None
    device: str | None = None
    dtype: str = "auto"
    max_length: int = 8192
    torch_compile: bool = False
    cache_dir: str | None = None
    local_files_only: bool = False


class SharedReranker:
    """A :class:`GTEReranker` that loads at first use and pickles as its settings.

    Made by :func:`shared_reranker`.
    """

    def __init__(self, settings: RerankerSettings) -> None:
        self.settings = settings
        self._loaded: GTEReranker | None = None
        self.renew()
        renew_in_children(self)

    def renew(self) -> None:
        """Begin again with a free lock, as a forked child must."""
        self._loading = threading.Lock()

    def __reduce__(self) -> tuple[Any, ...]:
        return shared_reranker, (self.settings,)

    def score(self, pairs: Iterable[tuple[str, str]]) -> NDArray[np.float32]:
        """Relevance of each ``(query, document)`` pair, a raw logit, float32 ``(n,)``."""
        with self._loading:
            if self._loaded is None:
                self._loaded = GTEReranker.from_pretrained(**asdict(self.settings))
                _RECENTLY_LOADED.append(self)
        return self._loaded.score(pairs)


_RERANKERS = _Registry(SharedReranker)


def shared_reranker(settings: RerankerSettings) -> SharedReranker:
    """The reranker of these settings: one in this process, held as :func:`shared_encoder` does."""
    return _RERANKERS.get(replace(settings, model=absolute_model(settings.model)))


def _listed(texts: str | Iterable[str]) -> list[str]:
    return list(checked(as_texts(texts)))
