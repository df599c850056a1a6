"""One loaded encoder per configuration and process, with a cache that holds both heads of a text.

Frameworks keep dense and sparse in separate objects. When both are faces of one
:class:`SharedEncoder`, whichever asks second finds the vectors that the first one's pass left.
"""

from __future__ import annotations

import asyncio
import hashlib
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import Any
from weakref import WeakValueDictionary

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from gte_core.embedder import GTEEmbedder, OnTruncation
from gte_core.embeddings import HybridEmbeddings, check_dimensions, cut
from gte_core.encoder import Fingerprint
from gte_core.hub import DEFAULT_MODEL
from gte_core.reranker import DEFAULT_RERANKER, GTEReranker
from gte_core.texts import as_texts, checked

_CACHE_BYTES = 64 * 2**20


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
    cache_dir: str | None = None
    local_files_only: bool = False


class SharedEncoder:
    """An :class:`Encoder` that loads at first use, keeps both vectors, and joins async calls.

    Made by :func:`shared_encoder`; pickles as its settings. It keeps the vectors of recent texts,
    64 MiB of them, and those of the latest call whatever their number.
    """

    def __init__(self, settings: EncoderSettings) -> None:
        self.settings = settings
        self._loaded: GTEEmbedder | None = None
        self._loading = threading.Lock()
        self._passing = threading.Lock()
        self._kept = _RecentVectors(_CACHE_BYTES)
        self._waiting: deque[_Request] = deque()
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="gte-encode")

    def __reduce__(self) -> tuple[Any, ...]:
        return shared_encoder, (self.settings,)

    @property
    def embedder(self) -> GTEEmbedder:
        """The model, loaded when it is first needed."""
        with self._loading:
            if self._loaded is None:
                self._loaded = GTEEmbedder.from_pretrained(**asdict(self.settings))
            return self._loaded

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
        """Both vectors of every text; those encoded lately cost no pass."""
        self.embedder.require_sparse_head()
        return self._encode(texts, dimensions=dimensions)

    def encode_dense(
        self, texts: str | Iterable[str], *, dimensions: int | None = None
    ) -> NDArray[np.float32]:
        """Dense vectors alone, float32 ``(n, dimensions)``; works without a sparse head."""
        return self._encode(texts, dimensions=dimensions).dense

    def encode_sparse(self, texts: str | Iterable[str]) -> sp.csr_array[np.float32]:
        """Sparse vectors alone, float32 CSR ``(n, vocab_size)``."""
        return self.encode(texts).sparse

    async def aencode(
        self, texts: str | Iterable[str], *, dimensions: int | None = None
    ) -> HybridEmbeddings:
        """:meth:`encode` in the one worker thread; calls that wait there share a batch."""
        return await self._answer(_Request(_listed(texts), dimensions, SharedEncoder.encode))

    async def aencode_dense(
        self, texts: str | Iterable[str], *, dimensions: int | None = None
    ) -> NDArray[np.float32]:
        """:meth:`encode_dense` in the one worker thread, as :meth:`aencode`."""
        request = _Request(_listed(texts), dimensions, SharedEncoder._encode)
        return (await self._answer(request)).dense

    async def _answer(self, request: _Request) -> HybridEmbeddings:
        self._waiting.append(request)
        self._worker.submit(self._serve_waiting)
        return await asyncio.wrap_future(request.answer)

    def _encode(
        self, texts: str | Iterable[str], *, dimensions: int | None = None
    ) -> HybridEmbeddings:
        wanted = _listed(texts)
        size = check_dimensions(
            self.dimensions if dimensions is None else dimensions, self.dimensions
        )
        with self._passing:
            vectors = self._kept.get(wanted)
            if missing := [text for text in dict.fromkeys(wanted) if text not in vectors]:
                vectors |= self._kept.put(dict(zip(missing, self._pass(missing), strict=True)))
        return self._joined([vectors[text] for text in wanted], size)

    def _pass(self, texts: Sequence[str]) -> Iterator[_Vectors]:
        if not self.has_sparse:
            for row in self.embedder.encode_dense(texts):
                yield _Vectors(row.copy(), _NO_IDS, _NO_WEIGHTS, 0, truncated=False)
            return
        both = self.embedder.encode(texts)
        counts = zip(both.n_tokens.tolist(), both.truncated.tolist(), strict=True)
        for (dense, ids, weights), (n_tokens, truncated) in zip(both.rows(), counts, strict=True):
            # Copies, because a view would keep the arrays of the whole batch alive.
            yield _Vectors(dense.copy(), ids, weights.copy(), n_tokens, truncated=truncated)

    def _joined(self, rows: Sequence[_Vectors], size: int) -> HybridEmbeddings:
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

    def _serve_waiting(self) -> None:
        requests = []
        while self._waiting:
            request = self._waiting.popleft()
            if request.answer.set_running_or_notify_cancel():
                requests.append(request)
        if len(requests) > 1:
            # One pass for all of them. An error is left to the request that it belongs to, below.
            with suppress(Exception):
                self._encode([text for request in requests for text in request.texts])
        for request in requests:
            request.serve(self)


_ENCODERS: WeakValueDictionary[EncoderSettings, SharedEncoder] = WeakValueDictionary()
_REGISTRY_LOCK = threading.Lock()


def shared_encoder(settings: EncoderSettings) -> SharedEncoder:
    """The encoder of these settings: one in this process, for as long as anyone holds it."""
    with _REGISTRY_LOCK:
        encoder = _ENCODERS.get(settings)
        if encoder is None:
            encoder = _ENCODERS[settings] = SharedEncoder(settings)
        return encoder


@dataclass(frozen=True, slots=True, kw_only=True)
class RerankerSettings:
    """The arguments of :meth:`GTEReranker.from_pretrained`. Equal settings share one reranker."""

    model: str = DEFAULT_RERANKER
    revision: str | None = None
    device: str | None = None
    dtype: str = "auto"
    max_length: int = 8192
    cache_dir: str | None = None
    local_files_only: bool = False


class SharedReranker:
    """A :class:`GTEReranker` that loads at first use and pickles as its settings.

    Made by :func:`shared_reranker`.
    """

    def __init__(self, settings: RerankerSettings) -> None:
        self.settings = settings
        self._loaded: GTEReranker | None = None
        self._loading = threading.Lock()

    def __reduce__(self) -> tuple[Any, ...]:
        return shared_reranker, (self.settings,)

    def score(self, pairs: Iterable[tuple[str, str]]) -> NDArray[np.float32]:
        """Relevance of each ``(query, document)`` pair, a raw logit, float32 ``(n,)``."""
        with self._loading:
            if self._loaded is None:
                self._loaded = GTEReranker.from_pretrained(**asdict(self.settings))
        return self._loaded.score(pairs)


_RERANKERS: WeakValueDictionary[RerankerSettings, SharedReranker] = WeakValueDictionary()


def shared_reranker(settings: RerankerSettings) -> SharedReranker:
    """The reranker of these settings: one in this process, for as long as anyone holds it."""
    with _REGISTRY_LOCK:
        reranker = _RERANKERS.get(settings)
        if reranker is None:
            reranker = _RERANKERS[settings] = SharedReranker(settings)
        return reranker


_NO_IDS = np.empty(0, dtype=np.int64)
_NO_WEIGHTS = np.empty(0, dtype=np.float32)


@dataclass(frozen=True, slots=True)
class _Vectors:
    """What is kept of one text: the uncut dense row and the sparse entries."""

    dense: NDArray[np.float32]
    ids: NDArray[np.int64]
    weights: NDArray[np.float32]
    n_tokens: int
    truncated: bool

    @property
    def n_bytes(self) -> int:
        return self.dense.nbytes + self.ids.nbytes + self.weights.nbytes


@dataclass(frozen=True, slots=True)
class _Request:
    """An asynchronous call on its way through the worker thread."""

    texts: list[str]
    dimensions: int | None
    encode: Callable[..., HybridEmbeddings]
    answer: Future[HybridEmbeddings] = field(default_factory=Future)

    def serve(self, encoder: SharedEncoder) -> None:
        try:
            self.answer.set_result(self.encode(encoder, self.texts, dimensions=self.dimensions))
        except BaseException as error:  # noqa: BLE001  it belongs to whoever awaits the answer
            self.answer.set_exception(error)


class _RecentVectors:
    """Vectors by text, the least recently used dropped beyond a number of bytes.

    Texts are known by their hash, so that long ones cost nothing to remember.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._n_bytes = 0
        self._rows: OrderedDict[bytes, _Vectors] = OrderedDict()

    def get(self, texts: Iterable[str]) -> dict[str, _Vectors]:
        """The vectors of those texts that are kept."""
        found = {}
        for text in texts:
            key = _hash(text)
            if row := self._rows.get(key):
                self._rows.move_to_end(key)
                found[text] = row
        return found

    def put(self, rows: Mapping[str, _Vectors]) -> Mapping[str, _Vectors]:
        """Keep these rows, all of them, and drop the oldest others."""
        for text, row in rows.items():
            self._rows[_hash(text)] = row
            self._n_bytes += row.n_bytes
        while self._n_bytes > self._max_bytes and len(self._rows) > len(rows):
            _, dropped = self._rows.popitem(last=False)
            self._n_bytes -= dropped.n_bytes
        return rows


def _listed(texts: str | Iterable[str]) -> list[str]:
    return list(checked(as_texts(texts)))


def _hash(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
