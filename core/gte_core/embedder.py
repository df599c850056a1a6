"""``GTEEmbedder``: texts in, dense and sparse vectors out, in one forward pass."""

from __future__ import annotations

import asyncio
import logging
import operator
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from itertools import chain
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import scipy.sparse as sp
import torch
from numpy.typing import NDArray
from tqdm.auto import tqdm

from gte_core.config import GTEConfig, Task
from gte_core.device import choose_device, choose_dtype
from gte_core.embeddings import HybridEmbeddings, check_dimensions, cut
from gte_core.encoder import Fingerprint, NumericFamily, as_queries
from gte_core.engine import EncodedTexts, PackedEngine
from gte_core.exceptions import MissingHeadError
from gte_core.explanation import Explanation, explain
from gte_core.files import shown
from gte_core.hub import DEFAULT_MODEL, ModelFiles, find_model
from gte_core.model import GTEModel
from gte_core.modules import check_computed
from gte_core.packing import computed_ahead, windows
from gte_core.texts import as_texts, checked, checked_pairs, checked_text
from gte_core.tokenizer import GTETokenizer, TokenizedText, check_vocabulary

logger = logging.getLogger(__name__)

OnTruncation = Literal["warn", "error", "ignore"]

# A window is what is sorted by length at once: large enough to pack well, small enough to stream.
_WINDOW_PACKS = 16
_WINDOW_TEXTS = 32_768
_TOKENIZED_TEXTS = 64
_TOKENIZED_CHARACTERS = 1_000_000
# A window's worth, tokenized while a GPU computes. A CPU has nothing to gain: both need its cores.
_BATCHES_AHEAD = 64

_FAMILIES: dict[str, NumericFamily] = {"int8": "int8", "float8_e4m3fn": "fp8"}


@dataclass(frozen=True, slots=True)
class _Settings:
    """The arguments of ``from_pretrained`` that are not about finding the model."""

    device: str
    dtype: str
    dimensions: int
    max_length: int
    query_prefix: str
    on_truncation: OnTruncation
    deterministic: bool
    torch_compile: bool


class GTEEmbedder:
    """A loaded model that encodes texts; built by :meth:`from_pretrained`.

    Safe to call from several threads; passes run one after another. Pickles as the arguments it
    was built with, not as weights.
    """

    def __init__(
        self,
        *,
        files: ModelFiles,
        engine: PackedEngine,
        tokenizer: GTETokenizer,
        config: GTEConfig,
        settings: _Settings,
        arguments: Mapping[str, Any],
    ) -> None:
        self._files = files
        self._engine = engine
        self._tokenizer = tokenizer
        self._config = config
        self._settings = settings
        self._arguments = arguments

    @classmethod
    def from_pretrained(
        cls,
        model: str | Path = DEFAULT_MODEL,
        *,
        revision: str | None = None,
        device: str | torch.device | None = None,
        dtype: str | torch.dtype = "auto",
        dimensions: int | None = None,
        max_length: int = 8192,
        query_prefix: str = "",
        on_truncation: OnTruncation = "warn",
        deterministic: bool = False,
        torch_compile: bool = False,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
    ) -> GTEEmbedder:
        """Load a model from the hub, a directory, or the package itself.

        Args:
            model: a hub id, a local directory, or ``"demo"``, the small bundled checkpoint.
            revision: branch, tag or commit; by default the pinned commit of known models.
            device: by default ``"cuda"`` or ``"mps"`` where there is one, else ``"cpu"``.
            dtype: ``"float32"``, ``"bfloat16"``, ``"float16"`` or the torch type; ``"auto"`` is
                bfloat16 on GPUs and CPUs that multiply it natively (AVX-512 BF16, AMX), float16
                on other CUDA cards, float32 elsewhere. ``"int8"`` (x86 CPUs) and ``"float8"``
                (Hopper) are faster, and make vectors of a family of their own.
            dimensions: size of the dense vectors, from 1 to the model's own, which is the default.
            max_length: tokens of a text that are read, special tokens included.
            query_prefix: text put before queries only, ``"query: "`` for arctic-embed.
            on_truncation: ``"warn"`` logs once a call, ``"error"`` raises, ``"ignore"``.
            deterministic: compute every text by itself, so that its vectors are the same to the
                last bit whatever it is encoded with; slower.
            torch_compile: on CUDA, fuse steps of the layers, and replay packs of up to 1,023 tokens
                as CUDA graphs. The first passes take their time. Needs Triton.
            cache_dir: where downloads are kept, by default the Hugging Face cache.
            local_files_only: never ask the hub.

        Raises:
            MissingHeadError: the checkpoint is a sequence classifier, such as a reranker.
            HubError, ConfigError, WeightsError: see :mod:`gte_core.exceptions`.
            ValueError, TypeError: for an argument that makes no sense.
        """
        if on_truncation not in get_args(OnTruncation):
            raise ValueError(
                f"on_truncation is {on_truncation!r}; allowed are {list(get_args(OnTruncation))}."
            )
        checked_text(query_prefix, "query_prefix")
        computed_on = choose_device(device)
        computed_in = choose_dtype(dtype, computed_on)
        files = find_model(
            model, revision=revision, cache_dir=cache_dir, local_files_only=local_files_only
        )
        config = GTEConfig.from_pretrained(files.directory)
        _refuse_classifier(files.model, config.task)
        check_computed(files.directory, config)
        tokenizer = GTETokenizer.from_pretrained(files.directory, pad_token_id=config.pad_token_id)
        check_vocabulary(tokenizer, config.vocab_size)
        size = config.hidden_size if dimensions is None else dimensions
        settings = _Settings(
            device=str(computed_on),
            dtype=str(computed_in).removeprefix("torch."),
            dimensions=check_dimensions(size, config.hidden_size),
            max_length=_check_max_length(max_length, tokenizer),
            query_prefix=query_prefix,
            on_truncation=on_truncation,
            deterministic=deterministic,
            torch_compile=torch_compile,
        )
        load = partial(GTEModel.for_inference, files, device=computed_on)
        loaded = load(dtype=computed_in, torch_compile=torch_compile)
        _refuse_classifier(files.model, loaded.task)
        engine = PackedEngine(
            loaded,
            partial(load, dtype=torch.float32),
            dropped_ids=tokenizer.dropped_ids,
            deterministic=deterministic,
            graphed=torch_compile,
        )
        arguments = asdict(settings) | {
            "revision": files.revision,
            "device": None if device is None else str(device),
            "dtype": str(dtype).removeprefix("torch."),
            "cache_dir": None if cache_dir is None else str(cache_dir),
            "local_files_only": local_files_only,
        }
        return cls(
            files=files,
            engine=engine,
            tokenizer=tokenizer,
            config=config,
            settings=settings,
            arguments=arguments,
        )

    def __repr__(self) -> str:
        shown = {"model": self.model, "revision": self.revision} | asdict(self._settings)
        return f"GTEEmbedder({', '.join(f'{name}={value!r}' for name, value in shown.items())})"

    def __reduce__(self) -> tuple[Any, ...]:
        return _from_arguments, (type(self), self.model, self._arguments)

    @property
    def model(self) -> str:
        """The hub id, the absolute path of a directory, or ``"demo"``."""
        return self._files.model

    @property
    def revision(self) -> str | None:
        """The commit of the model's files, None for a directory."""
        return self._files.revision

    @property
    def device(self) -> str:
        """Where it computes, such as ``"cpu"`` or ``"cuda:0"``."""
        return self._settings.device

    @property
    def dtype(self) -> str:
        """The type of the matrix products, such as ``"bfloat16"``; never ``"auto"``."""
        return self._settings.dtype

    @property
    def dimensions(self) -> int:
        """Size of the dense vectors when a call does not ask for another."""
        return self._settings.dimensions

    @property
    def max_length(self) -> int:
        """Tokens of a text that are read, special tokens included."""
        return self._settings.max_length

    @property
    def query_prefix(self) -> str:
        """Text that goes before queries, usually none."""
        return self._settings.query_prefix

    @property
    def has_sparse(self) -> bool:
        """Whether the checkpoint has the sparse head."""
        return self._engine.has_sparse

    @property
    def vocab_size(self) -> int:
        """Width of the sparse vectors, at least the number of the tokenizer's pieces."""
        return self._config.vocab_size

    @property
    def tokenizer(self) -> GTETokenizer:
        """What turns texts into ids and ids into strings."""
        return self._tokenizer

    @cached_property
    def fingerprint(self) -> Fingerprint:
        """What vectors of another encoder must share to be comparable with these.

        Raises ``WeightsError`` if the files of a directory were changed since they were loaded.
        """
        family = _FAMILIES.get(self._settings.dtype, "float")
        return Fingerprint(self._files.identity, self.revision, self.max_length, family)

    def encode(
        self,
        texts: str | Iterable[str],
        *,
        dimensions: int | None = None,
        show_progress: bool = False,
    ) -> HybridEmbeddings:
        """Dense and sparse vectors of every text, in one pass.

        Args:
            texts: one text (a list of one) or any iterable of them.
            dimensions: size of the dense vectors, from 1 to the model's own.
            show_progress: draw a progress bar on stderr.

        Raises:
            MissingHeadError: the checkpoint has no sparse head; use :meth:`encode_dense`.
            TypeError: something is not a str, naming its index.
            ValueError: ``dimensions`` is out of range, or texts are too long under
                ``on_truncation="error"``; it names those of the first window that has any.
            NonFiniteError: a vector is NaN or infinite even in float32.
            TextTooLargeError: a text does not fit in the device's memory, even alone.
        """
        parts = self.encode_iter(texts, dimensions=dimensions, show_progress=show_progress)
        return HybridEmbeddings.concatenate(parts)

    def encode_iter(
        self,
        texts: str | Iterable[str],
        *,
        dimensions: int | None = None,
        show_progress: bool = False,
    ) -> Iterator[HybridEmbeddings]:
        """:meth:`encode` for a stream: reads lazily, yields parts in input order.

        Memory follows the token budget, not the stream. An empty stream yields one empty part.
        """
        self.require_sparse_head()
        size = self._size(dimensions)
        parts = self._encode_windows(as_texts(texts), self.max_length, show_progress=show_progress)
        return (self._embeddings(part, size) for part in parts)

    def encode_dense(
        self,
        texts: str | Iterable[str],
        *,
        dimensions: int | None = None,
        show_progress: bool = False,
    ) -> NDArray[np.float32]:
        """Dense vectors alone, float32 ``(n, dimensions)``; works without a sparse head."""
        size = self._size(dimensions)
        parts = self._encode_windows(
            as_texts(texts), self.max_length, sparse=False, show_progress=show_progress
        )
        return np.concatenate([cut(part.cls, size) for part in parts])

    def encode_sparse(
        self, texts: str | Iterable[str], *, show_progress: bool = False
    ) -> sp.csr_array[np.float32]:
        """Sparse vectors alone, float32 CSR ``(n, vocab_size)``."""
        self.require_sparse_head()
        parts = self._encode_windows(as_texts(texts), self.max_length, show_progress=show_progress)
        return sp.csr_array(sp.vstack([part.sparse for part in parts], format="csr"))

    async def aencode(
        self, texts: str | Iterable[str], *, dimensions: int | None = None
    ) -> HybridEmbeddings:
        """:meth:`encode` in a worker thread, so that the event loop goes on."""
        return await asyncio.to_thread(self.encode, texts, dimensions=dimensions)

    def compute_scores(
        self,
        pairs: Iterable[tuple[str, str]],
        *,
        dense_weight: float = 1.0,
        sparse_weight: float = 0.1,
        dimensions: int | None = None,
        max_length: int = 1024,
    ) -> NDArray[np.float32]:
        """Score ``(query, document)`` pairs as the model's published script does, float32 ``(n,)``.

        ``dense_weight * cosine + sparse_weight * (sum of products of token weights)``, where ids
        that decode to the same string count as one token; :meth:`explain` and the indexes go by
        id instead. At most ``max_length`` tokens of each text are read.
        """
        if sparse_weight:
            self.require_sparse_head()
        listed = list(checked_pairs(pairs))
        n = len(listed)
        size = self._size(dimensions)
        texts = [
            *as_queries(self, [query for query, _ in listed]),
            *(document for _, document in listed),
        ]
        limit = min(_check_max_length(max_length, self._tokenizer), self.max_length)
        both = self.encode_available(
            texts, size, max_length=limit, name_of=lambda i: f"pairs[{i % n}][{i // n}]"
        )
        scores = dense_weight * np.einsum("ij,ij->i", both.dense[:n], both.dense[n:])
        if sparse_weight:
            weights = [both.token_weights(i) for i in range(2 * n)]
            dots = [_dot(weights[i], weights[n + i]) for i in range(n)]
            scores = scores + sparse_weight * np.array(dots)
        return np.asarray(scores, dtype=np.float32)

    def explain(
        self,
        query: str,
        document: str,
        *,
        dense_weight: float = 1.0,
        sparse_weight: float = 0.01,
        dimensions: int | None = None,
    ) -> Explanation:
        """Take a score apart: both parts, and the shared tokens with their contributions."""
        checked_text(query, "query")
        texts = [*as_queries(self, query), checked_text(document, "document")]
        both = self.encode(texts, dimensions=dimensions)
        return explain(
            both[0],
            both[1],
            piece=self._tokenizer.piece,
            dense_weight=dense_weight,
            sparse_weight=sparse_weight,
        )

    def encode_available(
        self,
        texts: Sequence[str],
        dimensions: int,
        *,
        max_length: int | None = None,
        name_of: Callable[[int], str] = "texts[{}]".format,
    ) -> HybridEmbeddings:
        """What the checkpoint gives: without the sparse head, sparse rows are empty.

        ``name_of`` says what to call a text in an error.
        """
        parts = self._encode_windows(texts, max_length or self.max_length, name_of=name_of)
        return HybridEmbeddings.concatenate(self._embeddings(part, dimensions) for part in parts)

    def require_sparse_head(self) -> None:
        """Raise :class:`MissingHeadError` for a checkpoint without the sparse head."""
        if not self.has_sparse:
            raise MissingHeadError(
                f"{self.model!r} has no sparse head, so it gives dense vectors alone: "
                "use encode_dense."
            )

    def _size(self, dimensions: int | None) -> int:
        return check_dimensions(
            self.dimensions if dimensions is None else dimensions, self._config.hidden_size
        )

    def _embeddings(self, encoded: EncodedTexts, size: int) -> HybridEmbeddings:
        return HybridEmbeddings(
            cut(encoded.cls, size),
            encoded.sparse,
            encoded.n_tokens,
            encoded.truncated,
            self._tokenizer.decode_token,
        )

    def _encode_windows(
        self,
        texts: Iterable[str],
        max_length: int,
        *,
        sparse: bool = True,
        show_progress: bool = False,
        name_of: Callable[[int], str] = "texts[{}]".format,
    ) -> Iterator[EncodedTexts]:
        """Encode a stream window by window; at least one window, which may be empty."""
        done = n_truncated = 0
        with _progress_bar(texts, show=show_progress) as advance:
            try:
                for window in self._tokenized_windows(texts, max_length):
                    cut_off = [name_of(done + i) for i, t in enumerate(window) if t.truncated]
                    self._refuse_truncated(cut_off, max_length)
                    n_truncated += len(cut_off)
                    yield self._engine.encode(
                        window,
                        sparse=sparse,
                        name_of=lambda i: name_of(done + i),  # noqa: B023
                    )
                    done += len(window)
                    advance(len(window))
            finally:
                self._report_truncated(n_truncated, max_length)

    def _tokenized_windows(
        self, texts: Iterable[str], max_length: int
    ) -> Iterator[list[TokenizedText]]:
        batches = windows(
            checked(texts), max_size=_TOKENIZED_CHARACTERS, max_items=_TOKENIZED_TEXTS
        )
        tokenize = partial(self._tokenizer.encode, max_length=max_length)
        depth = 0 if self._settings.device == "cpu" else _BATCHES_AHEAD
        tokenized = computed_ahead(tokenize, batches, depth=depth)
        ready = windows(
            chain.from_iterable(tokenized),
            max_size=_WINDOW_PACKS * self._engine.pack_tokens,
            max_items=_WINDOW_TEXTS,
        )
        yield next(ready, [])
        yield from ready

    def _refuse_truncated(self, cut_off: Sequence[str], max_length: int) -> None:
        if cut_off and self._settings.on_truncation == "error":
            raise ValueError(
                f"{', '.join(cut_off)}: longer than max_length={max_length} tokens. Split the "
                "text, raise max_length, or choose on_truncation='warn'."
            )

    def _report_truncated(self, count: int, max_length: int) -> None:
        if count and self._settings.on_truncation == "warn":
            warn_truncated(logger, count, max_length)


def warn_truncated(log: logging.Logger, count: int, max_length: int) -> None:
    """Say once how many texts of a call were cut, and what to do."""
    log.warning(
        "%d text(s) were longer than max_length=%d tokens and were cut; split them, raise "
        "max_length, or pass on_truncation='ignore'.",
        count,
        max_length,
    )


def _from_arguments(
    kind: type[GTEEmbedder], model: str, arguments: Mapping[str, Any]
) -> GTEEmbedder:
    return kind.from_pretrained(model, **arguments)


@contextmanager
def _progress_bar(texts: Iterable[str], *, show: bool) -> Iterator[Callable[[int], object]]:
    """Something to call with the number of texts done; draws a bar only if asked to."""
    if not show:
        yield lambda count: count
        return
    total = len(texts) if isinstance(texts, Sized) else None
    with tqdm(total=total, unit=" texts") as bar:
        yield bar.update


def _check_max_length(max_length: int, tokenizer: GTETokenizer) -> int:
    if isinstance(max_length, bool) or not hasattr(max_length, "__index__"):
        raise TypeError(f"max_length must be an integer, got {max_length!r}.")
    length = operator.index(max_length)
    if length <= tokenizer.n_special:
        raise ValueError(
            f"max_length is {length}, but must be more than the {tokenizer.n_special} special "
            "tokens that every text gets."
        )
    return length


def _refuse_classifier(model: str, task: Task | None) -> None:
    """Asked of config.json first, then of the weights, which know where it announces no head."""
    if task == "sequence_classification":
        raise MissingHeadError(
            f"{shown(model)} is a sequence classifier: it scores pairs of texts, as a reranker "
            "does, and has no trained embedding. Load it with GTEReranker (GTEModel gives its "
            f"logits), or load an embedding model, such as {DEFAULT_MODEL!r}."
        )


def _dot(one: dict[str, float], other: dict[str, float]) -> float:
    return sum(weight * other[token] for token, weight in one.items() if token in other)
