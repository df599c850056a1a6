"""One loaded model per configuration and process, whoever asks for it."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import replace
from typing import Any, Generic, TypeVar, overload
from weakref import WeakValueDictionary

import numpy as np
from numpy.typing import NDArray

from gte_core.cached import CACHE_BYTES, CachedEncoder, CachingEncoder
from gte_core.checkpoint.naming import absolute_model
from gte_core.embedder import GTEEmbedder
from gte_core.embeddings import HybridEmbeddings
from gte_core.encoder import Encoder, Role
from gte_core.foreign import refuses_foreign
from gte_core.forks import renew_in_children
from gte_core.loading import decided_length, located
from gte_core.look_up import LookUp
from gte_core.ranking import ScoringReranker
from gte_core.recent import RecentVectors, Vectors, dense_of, embeddings_of
from gte_core.reranker import GTEReranker
from gte_core.serving import Answer, Call, Serving
from gte_core.settings import EncoderSettings, RerankerSettings
from gte_core.texts import FedText, FedTexts, named
from gte_core.truncation import too_long, warn_truncated

logger = logging.getLogger(__name__)

_KEPT_LOADED = 2

K = TypeVar("K")
V = TypeVar("V")
R = TypeVar("R")


class _Model:
    """A model of this process, loaded when it is first needed, with its cache and its queue."""

    def __init__(self, load: Callable[[], GTEEmbedder]) -> None:
        self._load = load
        self._embedder: GTEEmbedder | None = None
        self.kept = RecentVectors(CACHE_BYTES)
        self.serving = Serving(lambda: self.embedder, self.kept)
        self.renew()
        renew_in_children(self)

    def renew(self) -> None:
        """Begin again with a free lock, as a forked child must."""
        self._loading = threading.Lock()

    @property
    def embedder(self) -> GTEEmbedder:
        """The loaded model."""
        with self._loading:
            if self._embedder is None:
                self._embedder = self._load()
            return self._embedder


class SharedEncoder(CachingEncoder):
    """An ``Encoder`` that loads at first use, keeps both vectors, and joins async calls.

    Made by ``shared_encoder``; pickles as its settings. Encoders whose settings come to the
    same weights, device and type share the loaded model and its cache, also with a
    ``GTEEmbedder`` that was handed to ``shared_encoder``.
    """

    def __init__(self, settings: EncoderSettings) -> None:
        self.settings = settings
        self._found: _Model | None = None
        self.renew()
        renew_in_children(self)

    def renew(self) -> None:
        """Begin again with a free lock, as a forked child must."""
        self._finding = threading.Lock()

    def __repr__(self) -> str:
        return f"SharedEncoder({self._in_use() if self._found else self.settings})"

    def _in_use(self) -> EncoderSettings:
        """The settings, with the checkpoint's own where they leave it the choice."""
        return replace(
            self.settings,
            max_length=self.embedder.max_length,
            query_prefix=self.query_prefix,
            prompt_name=None,
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return shared_encoder, (self.settings,)

    @property
    def embedder(self) -> GTEEmbedder:
        """The model, loaded when it is first needed."""
        return self._model.embedder

    @property
    def source(self) -> GTEEmbedder:
        """The model, loaded when it is first needed."""
        return self.embedder

    @property
    def _model(self) -> _Model:
        with self._finding:
            if self._found is None:
                found = _model_of(self.settings)
                # Loads it, and refuses a prompt that it does not have.
                found.embedder.prompts.query_prefix(name=self.settings.prompt_name)
                _RECENTLY_LOADED.append(self)
                self._found = found
            return self._found

    def adopt(self, embedder: GTEEmbedder) -> None:
        """Compute with an embedder that is loaded, unless a model like it is."""
        decided = replace(
            embedder.settings,
            device=embedder.device,
            dtype=embedder.dtype,
            max_length=embedder.max_length,
        )
        with self._finding:
            if self._found is None:
                self._found = _MODELS.get(_identity(decided), lambda: _Model(lambda: embedder))

    @property
    def model(self) -> str:
        """The hub id, the absolute path of a directory, or ``"demo"``; nothing is loaded."""
        return self.settings.model

    @property
    def dimensions(self) -> int:
        """Size of the dense vectors when a call does not ask for another."""
        return self._size(self.settings.dimensions)

    @property
    def query_prefix(self) -> str:
        """Text that ``role="query"`` puts before each text; the checkpoint's own loads it."""
        if self.settings.query_prefix is not None:
            return self.settings.query_prefix
        return self.embedder.prompts.query_prefix(name=self.settings.prompt_name)

    @refuses_foreign
    def encode_available(
        self, texts: str | Iterable[str], *, role: Role = "document", dimensions: int | None = None
    ) -> HybridEmbeddings:
        """``encode`` with what the checkpoint has: sparse rows are empty without the head.

        Calls from all threads and event loops wait in one queue, where short ones go first.
        """
        wanted, size = self._fed(texts, role), self._size(dimensions)
        if look_up := self._look_up(role):
            return self._reported(look_up.encode([fed.text for fed in wanted]))
        vectors = self._model.kept.get(wanted)
        if any(text not in vectors for text in wanted):
            answer: Answer[dict[FedText, Vectors]] = Answer()
            call = self._call(wanted, lambda call: call.found, answer)
            try:
                self._model.serving.submit(call)
                vectors = answer.result()
            except BaseException:  # an interrupt, such as Ctrl-C
                call.answer.cancel()
                raise
        return self._embeddings(wanted, vectors, size)

    @refuses_foreign
    async def aencode_available(
        self, texts: str | Iterable[str], *, role: Role = "document", dimensions: int | None = None
    ) -> HybridEmbeddings:
        """``encode_available`` without blocking the event loop."""
        await self._ready()
        wanted, size = self._fed(texts, role), self._size(dimensions)
        if look_up := self._look_up(role):
            return self._reported(await look_up.aencode([fed.text for fed in wanted]))

        def finish(call: Call[HybridEmbeddings]) -> HybridEmbeddings:
            return self._embeddings(wanted, call.found, size)

        answer: Future[HybridEmbeddings] = Future()
        self._model.serving.submit(self._call(wanted, finish, answer))
        return await asyncio.wrap_future(answer)

    def count_tokens(
        self, texts: str | Iterable[str], *, role: Role = "document"
    ) -> NDArray[np.int64]:
        """Tokens of every text, as ``GTEEmbedder.count_tokens`` counts them, int64 ``(n,)``."""
        return self.embedder.count_fed(self._behind_prompt(texts, role), role)

    async def _ready(self) -> None:
        if self._found is None:
            await asyncio.to_thread(lambda: self._model)

    def _fed(self, texts: str | Iterable[str], role: Role) -> list[FedText]:
        """The texts as the model reads them, which is what the cache knows them by."""
        return list(self._behind_prompt(texts, role))

    def _behind_prompt(self, texts: str | Iterable[str], role: Role) -> FedTexts:
        return self.embedder.fed(texts, role, self.query_prefix)

    def _size(self, dimensions: int | None) -> int:
        if not self.has_dense and dimensions is None:
            return 0
        self.require_dense_head()
        size = self.settings.dimensions if dimensions is None else dimensions
        return self.embedder.projection.size(size)

    def _look_up(self, role: Role) -> LookUp | None:
        """What gives these texts their vectors without a pass: they neither wait nor are kept."""
        return self.embedder.look_up if role == "query" else None

    def _reported(self, both: HybridEmbeddings) -> HybridEmbeddings:
        self._report_truncated(both.truncated)
        return both

    def _call(
        self, texts: list[FedText], finish: Callable[[Call[R]], R], answer: Answer[R] | Future[R]
    ) -> Call[R]:
        refuse = self._refuse if self.settings.on_truncation == "error" else None
        return Call(texts, finish=finish, refuse_truncated=refuse, answer=answer)

    def _refuse(self, rows: Sequence[int]) -> None:
        raise too_long(named(rows), rows, self.embedder.max_length)

    def _report_truncated(self, truncated: Iterable[bool]) -> None:
        cut_off = [i for i, is_cut_off in enumerate(truncated) if is_cut_off]
        if cut_off and self.settings.on_truncation == "error":
            self._refuse(cut_off)
        if cut_off and self.settings.on_truncation == "warn":
            warn_truncated(logger, len(cut_off), self.embedder.max_length)

    def _embeddings(
        self, texts: Sequence[FedText], vectors: Mapping[FedText, Vectors], size: int
    ) -> HybridEmbeddings:
        rows = [vectors[text] for text in texts]
        self._report_truncated(row.truncated for row in rows)
        embedder = self.embedder
        projection = embedder.projection
        return embeddings_of(
            rows,
            projection.vectors(dense_of(rows, projection.hidden_size), size),
            embedder.vocab_size,
            embedder.tokenizer.decode_token,
            projection.separate_sizes,
        )


class SharedReranker(ScoringReranker):
    """A ``GTEReranker`` that loads at first use and pickles as its settings.

    Made by ``shared_reranker``.
    """

    def __init__(self, settings: RerankerSettings) -> None:
        self.settings = settings
        self._loaded: GTEReranker | None = None
        self.renew()
        renew_in_children(self)

    def renew(self) -> None:
        """Begin again with a free lock, as a forked child must."""
        self._loading = threading.Lock()

    def __repr__(self) -> str:
        return f"SharedReranker({self.settings!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return shared_reranker, (self.settings,)

    @property
    def model(self) -> str:
        """The hub id, or the absolute path of a directory; nothing is loaded."""
        return self.settings.model

    def score(self, pairs: Iterable[tuple[str, str]]) -> NDArray[np.float32]:
        """Relevance of each ``(query, document)`` pair, a raw logit, float32 ``(n,)``."""
        with self._loading:
            if self._loaded is None:
                self._loaded = GTEReranker.from_pretrained(**self.settings.arguments())
                _RECENTLY_LOADED.append(self)
        return self._loaded.score(pairs)


class _Registry(Generic[K, V]):
    """What was made under a key and somebody still holds: one of each in this process."""

    def __init__(self) -> None:
        self._made: WeakValueDictionary[K, V] = WeakValueDictionary()
        self.renew()
        renew_in_children(self)

    def renew(self) -> None:
        """Begin again with a free lock, as a forked child must."""
        self._lock = threading.Lock()

    def get(self, key: K, make: Callable[[], V]) -> V:
        """The one of this key, made if there is none."""
        with self._lock:
            made = self._made.get(key)
            if made is None:
                made = self._made[key] = make()
            return made

    def clear(self) -> None:
        """Make anew what is asked for from now on."""
        with self._lock:
            self._made.clear()


_ENCODERS: _Registry[EncoderSettings, SharedEncoder] = _Registry()
_CACHES: _Registry[int, CachedEncoder] = _Registry()
_MODELS: _Registry[EncoderSettings, _Model] = _Registry()
_RERANKERS: _Registry[RerankerSettings, SharedReranker] = _Registry()
# Held, so that objects that come and go find their model loaded.
_RECENTLY_LOADED: deque[SharedEncoder | SharedReranker] = deque(maxlen=_KEPT_LOADED)


@overload
def shared_encoder(source: EncoderSettings | GTEEmbedder) -> SharedEncoder: ...


@overload
def shared_encoder(source: Encoder) -> CachingEncoder: ...


def shared_encoder(source: EncoderSettings | Encoder) -> CachingEncoder:
    """The caching encoder of these settings, or over this encoder: one in this process.

    It lives as long as anyone holds it; the two loaded last are held here, until
    ``release_shared``.

    Args:
        source: settings, of which a directory is known by its absolute path; a loaded
            ``GTEEmbedder``, which everyone whose settings come to the same model then shares;
            or any other encoder, which gets a cache. One that has a cache is returned as it is.
            ``TypeError`` for anything else.
    """
    if isinstance(source, CachingEncoder):
        return source
    if isinstance(source, EncoderSettings):
        settings = replace(source, model=absolute_model(source.model))
        return _ENCODERS.get(settings, lambda: SharedEncoder(settings))
    if isinstance(source, GTEEmbedder):
        encoder = _ENCODERS.get(source.settings, lambda: SharedEncoder(source.settings))
        encoder.adopt(source)
        return encoder
    if not callable(getattr(source, "encode_available", None)):
        raise TypeError(
            f"source is a {type(source).__name__}, but must be EncoderSettings, a GTEEmbedder or "
            "another Encoder; as_encoder(...) also takes the name of a model, or an encoder of "
            "version 0.1.0."
        )
    return _CACHES.get(id(source), lambda: CachedEncoder(source))


def shared_reranker(settings: RerankerSettings) -> SharedReranker:
    """The reranker of these settings: one in this process, held as ``shared_encoder`` does."""
    settings = replace(settings, model=absolute_model(settings.model))
    return _RERANKERS.get(settings, lambda: SharedReranker(settings))


def release_shared() -> None:
    """Let go of models that nobody else holds, and of directories that were written anew."""
    _RECENTLY_LOADED.clear()
    for registry in (_ENCODERS, _CACHES, _MODELS, _RERANKERS):
        registry.clear()


def _model_of(settings: EncoderSettings) -> _Model:
    """The model that the settings come to, which others may have loaded."""
    files, device, dtype = located(settings, settings.model)
    decided = replace(
        settings,
        revision=files.revision,
        device=device,
        dtype=dtype,
        max_length=decided_length(settings.max_length, files),
    )
    # Sizes are cut, prefixes put and truncation told by whoever shares it.
    plain = replace(
        decided, dimensions=None, query_prefix="", prompt_name=None, on_truncation="ignore"
    )
    return _MODELS.get(
        _identity(plain), lambda: _Model(lambda: GTEEmbedder.from_pretrained(**plain.arguments()))
    )


def _identity(decided: EncoderSettings) -> EncoderSettings:
    """What makes two loaded models one: not how their texts are given and their vectors cut."""
    return replace(
        decided,
        dimensions=None,
        query_prefix="",
        prompt_name=None,
        on_truncation="ignore",
        cache_dir=None,
        local_files_only=False,
    )
