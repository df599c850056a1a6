"""``GTEEmbedder``: texts in, dense and sparse vectors out, in one forward pass."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from numpy.typing import NDArray

from gte_core.checkpoint.hub import DEFAULT_MODEL
from gte_core.embeddings import HybridEmbeddings, check_dimensions, cut, stacked
from gte_core.encoder import (
    Fingerprint,
    NumericFamily,
    Role,
    missing_dense_head,
    missing_sparse_head,
    with_prefix,
)
from gte_core.foreign import refuses_foreign
from gte_core.forks import Threads
from gte_core.loading import LoadedModel, load
from gte_core.runtime.vectors import TextVectors
from gte_core.scoring import Scoring
from gte_core.settings import EncoderSettings, OnTruncation
from gte_core.texts import (
    NameOf,
    as_text,
    as_texts,
    checked,
)
from gte_core.tokenizer import GTETokenizer, TokenizedText
from gte_core.truncation import WindowedCall
from gte_core.windows import Part, WindowedEncoding

logger = logging.getLogger(__name__)

_ASYNC_CALLS = 32  # at once; each waits in a thread for its passes

_NOT_SHOWN = ("cache_dir", "local_files_only")
_FAMILIES: dict[str, NumericFamily] = {"int8": "int8", "float8_e4m3fn": "fp8"}


class GTEEmbedder(Scoring):
    """A loaded model that encodes texts; built by ``from_pretrained``.

    Safe to call from several threads; passes run one after another. Pickles as the arguments it
    was built with, not as weights.

    Attributes:
        look_up: what gives queries their vectors without a pass, None where they are encoded as
            documents are.
    """

    def __init__(self, loaded: LoadedModel) -> None:
        self._files = loaded.files
        self._config = loaded.config
        self._tokenizer = loaded.tokenizer
        self._engine = loaded.engine
        self._settings = loaded.settings
        self._device = loaded.device
        self._dtype = loaded.dtype
        self._windows = WindowedEncoding(
            loaded.engine,
            loaded.tokenizer,
            loaded.settings.on_truncation,
            logger,
            is_ahead=loaded.device != "cpu",
        )
        self.look_up = loaded.look_up
        self._query_windows = self._windows
        if self.look_up:
            self._query_windows = replace(
                self._windows, engine=self.look_up, tokenizer=self.look_up.tokenizer, is_ahead=False
            )
        self._fingerprint: Fingerprint | None = None
        # Its own: in the pool that all of a program shares, waiting lists would hold up queries.
        self._threads = Threads(_ASYNC_CALLS, "gte-encode")

    @classmethod
    @refuses_foreign
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
            HubError, ConfigError, WeightsError: see ``gte_core.exceptions``.
            ValueError, TypeError: for an argument that makes no sense.
        """
        given = EncoderSettings(
            model=str(model),
            revision=revision,
            device=None if device is None else str(device),
            dtype=str(dtype).removeprefix("torch."),
            dimensions=dimensions,
            max_length=max_length,
            query_prefix=query_prefix,
            on_truncation=on_truncation,
            deterministic=deterministic,
            torch_compile=torch_compile,
            cache_dir=None if cache_dir is None else str(cache_dir),
            local_files_only=local_files_only,
        )
        return cls(load(given, model))

    def __repr__(self) -> str:
        settings = replace(self._settings, device=self.device, dtype=self.dtype).arguments()
        shown = [f"{name}={value!r}" for name, value in settings.items() if name not in _NOT_SHOWN]
        return f"GTEEmbedder({', '.join(shown)})"

    def __reduce__(self) -> tuple[Any, ...]:
        arguments = self._settings.arguments()
        return _from_arguments, (type(self), arguments.pop("model"), arguments)

    @property
    def settings(self) -> EncoderSettings:
        """What it was loaded with; ``device`` and ``dtype`` as they were given."""
        return self._settings

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
        return self._device

    @property
    def dtype(self) -> str:
        """The type of the matrix products, such as ``"bfloat16"``; never ``"auto"``."""
        return self._dtype

    @property
    def dimensions(self) -> int:
        """Size of the dense vectors when a call does not ask for another; 0 if there are none."""
        return self._size(self._settings.dimensions)

    @property
    def max_dimensions(self) -> int:
        """Size of the model's own dense vectors, 0 if there are none."""
        return self._config.hidden_size if self.has_dense else 0

    @property
    def max_length(self) -> int:
        """Tokens of a text that are read, special tokens included."""
        return self._settings.max_length

    @property
    def query_prefix(self) -> str:
        """Text that goes before queries, usually none."""
        return self._settings.query_prefix

    @property
    def has_dense(self) -> bool:
        """Whether the checkpoint gives dense vectors; a sparse encoder gives sparse ones alone."""
        return self._engine.has_dense

    @property
    def has_sparse(self) -> bool:
        """Whether the checkpoint gives sparse vectors."""
        return self._engine.has_sparse

    @property
    def vocab_size(self) -> int:
        """Width of the sparse vectors, at least the number of the tokenizer's pieces."""
        return self._config.vocab_size

    @property
    def tokenizer(self) -> GTETokenizer:
        """What turns texts into ids and ids into strings."""
        return self._tokenizer

    @property
    def fingerprint(self) -> Fingerprint:
        """What vectors of another encoder must share to be comparable with these.

        Raises ``WeightsError`` if the files of a directory were changed since they were loaded.
        """
        if self._fingerprint is None:
            family = _FAMILIES.get(self._dtype, "float")
            identity = self._files.identity
            self._fingerprint = Fingerprint(identity, self.revision, self.max_length, family)
        return self._fingerprint

    @refuses_foreign
    def encode(
        self,
        texts: str | Iterable[str],
        *,
        role: Role = "document",
        dimensions: int | None = None,
        show_progress: bool = False,
    ) -> HybridEmbeddings:
        """Dense and sparse vectors of every text, in one pass.

        Args:
            texts: one text (a list of one) or any iterable of them.
            role: ``"query"`` puts ``query_prefix`` before each.
            dimensions: size of the dense vectors, from 1 to the model's own.
            show_progress: draw a progress bar on stderr.

        Raises:
            MissingHeadError: the checkpoint gives one kind of vector; use ``encode_dense`` or
                ``encode_sparse``.
            TypeError: something is not a str, naming its index.
            ValueError: ``dimensions`` or ``role`` is not allowed.
            TruncationError: texts are too long, under ``on_truncation="error"``; it has the
                indices of all, and names the first 20.
            NonFiniteError: a vector is NaN or infinite even in float32.
            TextTooLargeError: a text does not fit in the device's memory, even alone.
        """
        self.require_dense_head()
        self.require_sparse_head()
        return self.encode_available(
            texts, role=role, dimensions=dimensions, show_progress=show_progress
        )

    @refuses_foreign
    def encode_available(
        self,
        texts: str | Iterable[str],
        *,
        role: Role = "document",
        dimensions: int | None = None,
        show_progress: bool = False,
    ) -> HybridEmbeddings:
        """``encode`` with what the checkpoint has.

        Without the sparse head, the sparse rows are empty; without dense vectors, ``dense`` is
        ``(n, 0)``. Arguments and errors are those of ``encode``.
        """
        size = self._size(dimensions)
        parts = self._parts(texts, role, show_progress=show_progress)
        return HybridEmbeddings.concatenate(self._embeddings(*part, size) for part in parts)

    @refuses_foreign
    def encode_iter(
        self,
        texts: str | Iterable[str],
        *,
        role: Role = "document",
        dimensions: int | None = None,
        show_progress: bool = False,
    ) -> Iterator[HybridEmbeddings]:
        """``encode`` for a stream: reads lazily, yields parts in input order.

        Of a sparse encoder, ``dense`` is ``(n, 0)``.
        Memory follows the token budget, not the stream. An empty stream yields one empty part.
        Of texts that are too long, an error names those of the window that it came to.
        """
        self.require_sparse_head()
        size = self._size(dimensions)
        parts = self._parts(texts, role, is_stream=True, show_progress=show_progress)
        return (self._embeddings(*part, size) for part in parts)

    @refuses_foreign
    def encode_dense(
        self,
        texts: str | Iterable[str],
        *,
        role: Role = "document",
        dimensions: int | None = None,
        show_progress: bool = False,
    ) -> NDArray[np.float32]:
        """Dense vectors alone, float32 ``(n, dimensions)``; works without a sparse head."""
        self.require_dense_head()
        size = self._size(dimensions)
        parts = self._parts(texts, role, sparse=False, show_progress=show_progress)
        return np.concatenate([cut(part.pooled, size, name_of=names) for part, names in parts])

    @refuses_foreign
    def encode_sparse(
        self,
        texts: str | Iterable[str],
        *,
        role: Role = "document",
        show_progress: bool = False,
    ) -> sp.csr_array[np.float32]:
        """Sparse vectors alone, float32 CSR ``(n, vocab_size)``."""
        self.require_sparse_head()
        parts = self._parts(texts, role, show_progress=show_progress)
        return stacked([part.sparse for part, _ in parts])

    @refuses_foreign
    async def aencode(
        self,
        texts: str | Iterable[str],
        *,
        role: Role = "document",
        dimensions: int | None = None,
    ) -> HybridEmbeddings:
        """``encode`` in a thread, so that the event loop goes on; up to 32 calls at once.

        A call that is cancelled reads no further texts.
        """
        encode = partial(self.encode, role=role, dimensions=dimensions)
        return await self._threads.run(encode, as_texts(texts))

    def count_tokens(
        self, texts: str | Iterable[str], *, role: Role = "document"
    ) -> NDArray[np.int64]:
        """Tokens of every text, special ones and a query's prefix included, int64 ``(n,)``.

        All of them are counted, also those beyond ``max_length`` that the model would not read.
        Reads lazily; no pass.
        """
        given = with_prefix(texts, role, self.query_prefix)
        return self._windows_of(role).tokenizer.count(checked(given))

    def require_dense_head(self) -> None:
        """Raise ``MissingHeadError`` for a checkpoint without dense vectors."""
        if not self.has_dense:
            raise missing_dense_head(self.model)

    def require_sparse_head(self) -> None:
        """Raise ``MissingHeadError`` for a checkpoint without the sparse head."""
        if not self.has_sparse:
            raise missing_sparse_head(self.model)

    def _parts(
        self,
        texts: str | Iterable[str],
        role: Role,
        *,
        sparse: bool = True,
        is_stream: bool = False,
        show_progress: bool = False,
    ) -> Iterator[Part]:
        given = with_prefix(texts, role, self.query_prefix)
        call = WindowedCall(self.max_length, is_stream=is_stream)
        windows = self._windows_of(role)
        return windows.parts(given, call, sparse=sparse, show_progress=show_progress)

    def _windows_of(self, role: Role) -> WindowedEncoding:
        return self._query_windows if role == "query" else self._windows

    def _size(self, dimensions: int | None) -> int:
        if not self.has_dense and dimensions is None:
            return 0
        self.require_dense_head()
        return check_dimensions(
            self.dimensions if dimensions is None else dimensions, self._config.hidden_size
        )

    def tokenized_windows(
        self, texts: Iterable[str], *, max_items: int
    ) -> Iterator[list[TokenizedText]]:
        """What ``encode_tokenized`` takes, a window at a time; reads the texts lazily.

        A window has ``pack_tokens`` tokens for each of 16 packs, or ``max_items`` texts.
        """
        return self._windows.tokenized(texts, max_length=self.max_length, max_items=max_items)

    def encode_tokenized(
        self, texts: Sequence[TokenizedText], *, name_of: NameOf = as_text
    ) -> HybridEmbeddings:
        """``encode_available`` of texts whose ids are known, dense vectors in full size."""
        encoded = self._engine.compute(texts, name_of=name_of)
        return self._embeddings(encoded, name_of, self.max_dimensions)

    @property
    def pack_tokens(self) -> int:
        """Tokens that one pass computes at once, unless a single text has more."""
        return self._engine.pack_tokens

    def _embeddings(self, encoded: TextVectors, name_of: NameOf, size: int) -> HybridEmbeddings:
        return HybridEmbeddings(
            cut(encoded.pooled, size, name_of=name_of),
            encoded.sparse,
            encoded.n_tokens,
            encoded.truncated,
            self._tokenizer.decode_token,
        )


def _from_arguments(
    kind: type[GTEEmbedder], model: str, arguments: Mapping[str, Any]
) -> GTEEmbedder:
    return kind.from_pretrained(model, **arguments)
