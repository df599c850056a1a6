"""One loaded encoder per configuration and process, with a cache that holds both heads of a text.

Frameworks keep dense and sparse in separate objects. When both are faces of one
:class:`SharedEncoder`, whichever asks second finds the vectors that the first one's pass left.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from typing import Any
from weakref import WeakValueDictionary

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from gte_core.embedder import GTEEmbedder, OnTruncation, warn_truncated
from gte_core.embeddings import HybridEmbeddings, check_dimensions, cut
from gte_core.encoder import Fingerprint
from gte_core.hub import DEFAULT_MODEL, absolute_model
from gte_core.packing import batched
from gte_core.reranker import DEFAULT_RERANKER, GTEReranker
from gte_core.texts import as_texts, checked

logger = logging.getLogger(__name__)

_CACHE_BYTES = 256 * 2**20
_TEXTS_PER_PASS = 512  # queries wait for no more than this of somebody's long list
_JOINED_TEXTS = 64  # asynchronous calls of up to this many texts share a pass
_KEPT_LOADED = 2


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
        self._kept = _RecentVectors(_CACHE_BYTES)
        self.renew()

    def renew(self) -> None:
        """Begin again with free locks and a live worker, as a forked child must."""
        self._loading = threading.Lock()
        self._passing = threading.Lock()
        self._keeping = threading.Lock()
        self._waiting: deque[_Request] = deque()
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="gte-encode")

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
        vectors = self._recall(wanted)
        missing = {text: i for i, text in enumerate(wanted) if text not in vectors}
        if missing:
            with self._keeping:
                self._kept.trim()
        for part in batched(missing, _TEXTS_PER_PASS):
            vectors |= self._recall_or_pass(part, missing)
        rows = [vectors[text] for text in wanted]
        self._report_truncated(rows)
        return self._joined(rows, size)

    def _recall(self, texts: Iterable[str]) -> dict[str, _Vectors]:
        with self._keeping:
            return self._kept.get(texts)

    def _recall_or_pass(
        self, texts: Sequence[str], places: Mapping[str, int]
    ) -> dict[str, _Vectors]:
        """Encode what nobody else has encoded while this call waited for its turn."""
        with self._passing:
            vectors = self._recall(texts)
            missing = [text for text in texts if text not in vectors]
            if missing:
                both = self.embedder.encode_available(
                    missing, self.dimensions, name_of=lambda i: f"texts[{places[missing[i]]}]"
                )
                found = dict(zip(missing, _rows(both), strict=True))
                with self._keeping:
                    self._kept.put(found)
                vectors |= found
        return vectors

    def _report_truncated(self, rows: Sequence[_Vectors]) -> None:
        cut_off = [i for i, row in enumerate(rows) if row.truncated]
        if cut_off and self.settings.on_truncation == "error":
            raise ValueError(
                f"texts {cut_off} are longer than max_length={self.settings.max_length} tokens. "
                "Split them, raise max_length, or choose on_truncation='warn'."
            )
        if cut_off and self.settings.on_truncation == "warn":
            warn_truncated(logger, len(cut_off), self.settings.max_length)

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
        small = [request.texts for request in requests if len(request.texts) <= _JOINED_TEXTS]
        if len(small) > 1:
            # One pass for all of them. An error is left to the request that it belongs to, below.
            with suppress(Exception):
                self._encode([text for texts in small for text in texts])
        # Those that ask for little go first: they find their vectors ready.
        requests.sort(key=lambda request: len(request.texts))
        for request in requests:
            request.serve(self)


_ENCODERS: WeakValueDictionary[EncoderSettings, SharedEncoder] = WeakValueDictionary()
_REGISTRY_LOCK = threading.Lock()
# Held, so that objects that come and go find their model loaded.
_RECENTLY_LOADED: deque[SharedEncoder | SharedReranker] = deque(maxlen=_KEPT_LOADED)


def shared_encoder(settings: EncoderSettings) -> SharedEncoder:
    """The encoder of these settings: one in this process.

    It lives as long as anyone holds it; the two loaded last are held here, until
    :func:`release_shared`. A directory is known by its absolute path.
    """
    settings = replace(settings, model=absolute_model(settings.model))
    with _REGISTRY_LOCK:
        encoder = _ENCODERS.get(settings)
        if encoder is None:
            encoder = _ENCODERS[settings] = SharedEncoder(settings)
        return encoder


def release_shared() -> None:
    """Let go of models that nobody else holds, and of directories that were written anew."""
    with _REGISTRY_LOCK:
        _RECENTLY_LOADED.clear()
        _ENCODERS.clear()
        _RERANKERS.clear()


def _renew_after_fork() -> None:
    for encoder in list(_ENCODERS.values()):
        encoder.renew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_after_fork)


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


_RERANKERS: WeakValueDictionary[RerankerSettings, SharedReranker] = WeakValueDictionary()


def shared_reranker(settings: RerankerSettings) -> SharedReranker:
    """The reranker of these settings: one in this process, held as :func:`shared_encoder` does."""
    settings = replace(settings, model=absolute_model(settings.model))
    with _REGISTRY_LOCK:
        reranker = _RERANKERS.get(settings)
        if reranker is None:
            reranker = _RERANKERS[settings] = SharedReranker(settings)
        return reranker


_NO_IDS = np.empty(0, dtype=np.int32)
_ROW_OVERHEAD = 600  # bytes of a key, three array headers and their container
_NO_WEIGHTS = np.empty(0, dtype=np.float32)


@dataclass(frozen=True, slots=True)
class _Vectors:
    """What is kept of one text: the uncut dense row and the sparse entries."""

    dense: NDArray[np.float32]
    ids: NDArray[np.int32]
    weights: NDArray[np.float32]
    n_tokens: int
    truncated: bool

    @property
    def n_bytes(self) -> int:
        return self.dense.nbytes + self.ids.nbytes + self.weights.nbytes + _ROW_OVERHEAD


def _rows(both: HybridEmbeddings) -> Iterator[_Vectors]:
    counts = zip(both.n_tokens.tolist(), both.truncated.tolist(), strict=True)
    for (dense, ids, weights), (n_tokens, truncated) in zip(both.rows(), counts, strict=True):
        # Copies, because a view would keep the arrays of the whole batch alive.
        yield _Vectors(
            dense.copy(), ids.astype(np.int32), weights.copy(), n_tokens, truncated=truncated
        )


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

    def put(self, rows: Mapping[str, _Vectors]) -> None:
        """Keep these rows, whatever their number until the next ``trim``."""
        for text, row in rows.items():
            self._rows[_hash(text)] = row
            self._n_bytes += row.n_bytes

    def trim(self) -> None:
        """Drop the least recently used beyond the limit."""
        while self._n_bytes > self._max_bytes:
            _, dropped = self._rows.popitem(last=False)
            self._n_bytes -= dropped.n_bytes


def _listed(texts: str | Iterable[str]) -> list[str]:
    return list(checked(as_texts(texts)))


def _hash(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
