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

from gte_core.checkpoint.naming import DEFAULT_MODEL
from gte_core.embeddings import HybridEmbeddings, stacked
from gte_core.encoder import (
    Role,
    with_prefix,
)
from gte_core.foreign import refuses_foreign
from gte_core.forks import Threads
from gte_core.loading import LoadedModel, load
from gte_core.runtime.vectors import TextVectors
from gte_core.scoring import Scoring
from gte_core.settings import EncoderSettings, OnTruncation
from gte_core.texts import FedText, FedTexts, NameOf, as_text, as_texts, check_max_length
from gte_core.tokenizer import TokenizedText
from gte_core.truncation import WindowedCall
from gte_core.windows import Part, WindowedEncoding

logger = logging.getLogger(__name__)

_ASYNC_CALLS = 32  # at once; each waits in a thread for its passes

_NOT_SHOWN = ("prompt_name", "cache_dir", "local_files_only")


class GTEEmbedder(Scoring):
    """A loaded model that encodes texts; built by ``from_pretrained``.

    Safe to call from several threads; passes run one after another. Pickles as the arguments it
    was built with, not as weights.

    Attributes:
        look_up: what gives queries their vectors without a pass, None where they are encoded as
            documents are.
    """

    def __init__(self, loaded: LoadedModel) -> None:
        super().__init__(loaded)
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
        max_length: int | None = None,
        query_prefix: str | None = None,
        prompt_name: str | None = None,
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
            max_length: tokens of a text that are read, special tokens included; by default as many
                as the checkpoint says, at most its positions.
            query_prefix: text put before queries only; by default the checkpoint's own prompt,
                and ``""`` for none.
            prompt_name: of another prompt of the checkpoint that goes before queries.
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
            prompt_name=prompt_name,
            on_truncation=on_truncation,
            deterministic=deterministic,
            torch_compile=torch_compile,
            cache_dir=None if cache_dir is None else str(cache_dir),
            local_files_only=local_files_only,
        )
        return cls(load(given, model))

    def __repr__(self) -> str:
        settings = self.settings.arguments() | {
            "device": self.device,
            "dtype": self.dtype,
            "max_length": self.max_length,
            "query_prefix": self.query_prefix,
        }
        if self.document_prefix:
            settings["document_prefix"] = self.document_prefix
        shown = [f"{name}={value!r}" for name, value in settings.items() if name not in _NOT_SHOWN]
        return f"GTEEmbedder({', '.join(shown)})"

    def __reduce__(self) -> tuple[Any, ...]:
        arguments = self.settings.arguments()
        return _from_arguments, (type(self), arguments.pop("model"), arguments)

    def with_max_length(self, max_length: int) -> GTEEmbedder:
        """An embedder that reads this many tokens of a text; both share the loaded weights."""
        limit = check_max_length(max_length, self.tokenizer.n_special)
        settings = replace(self.settings, max_length=limit)
        look_up = self.look_up and self.look_up.with_max_length(limit)
        return type(self)(
            replace(self._loaded, settings=settings, max_length=limit, look_up=look_up)
        )

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
            role: whose prefix goes before each, ``query_prefix`` or ``document_prefix``.
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
        return np.concatenate(
            [self.projection.vectors(part.pooled, size, name_of=names) for part, names in parts]
        )

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
        """Tokens of every text, special ones and its prefix included, int64 ``(n,)``.

        All of them are counted, also those beyond ``max_length`` that the model would not read.
        Reads lazily; no pass.
        """
        return self.count_fed(self._fed(texts, role), role)

    def count_fed(self, texts: FedTexts, role: Role) -> NDArray[np.int64]:
        """``count_tokens`` of texts that are behind their prompt."""
        return self._windows_of(role).tokenizer.count(fed.text for fed in texts)

    def _parts(
        self,
        texts: str | Iterable[str],
        role: Role,
        *,
        sparse: bool = True,
        is_stream: bool = False,
        show_progress: bool = False,
    ) -> Iterator[Part]:
        call = WindowedCall(self.max_length, is_stream=is_stream)
        return self._windows_of(role).parts(
            self._fed(texts, role), call, sparse=sparse, show_progress=show_progress
        )

    def fed(self, texts: str | Iterable[str], role: Role, query_prefix: str) -> FedTexts:
        """The texts as the model reads them, with this prefix before queries."""
        prompt = query_prefix if role == "query" else self.document_prefix
        given = with_prefix(texts, role, query_prefix, self.document_prefix)
        return FedTexts(given, self._left_out(prompt))

    def _fed(self, texts: str | Iterable[str], role: Role) -> FedTexts:
        return self.fed(texts, role, self.query_prefix)

    def _left_out(self, prompt: str) -> int:
        """How many tokens pooling leaves out at the beginning of a text behind this prompt."""
        if self._loaded.description.include_prompt or not prompt:
            return 0
        return self.tokenizer.count_prompt(prompt, self.max_length)

    def _windows_of(self, role: Role) -> WindowedEncoding:
        return self._query_windows if role == "query" else self._windows

    def tokenized_windows(
        self, texts: Iterable[FedText], *, max_items: int
    ) -> Iterator[list[TokenizedText]]:
        """What ``compute_tokenized`` takes, a window at a time; reads the texts lazily.

        A window has ``pack_tokens`` tokens for each of 16 packs, or ``max_items`` texts.
        """
        return self._windows.tokenized(texts, max_length=self.max_length, max_items=max_items)

    def compute_tokenized(
        self, texts: Sequence[TokenizedText], *, name_of: NameOf = as_text
    ) -> TextVectors:
        """What a pass makes of texts whose ids are known."""
        return self._loaded.engine.compute(texts, name_of=name_of)

    def _embeddings(self, encoded: TextVectors, name_of: NameOf, size: int) -> HybridEmbeddings:
        return HybridEmbeddings(
            self.projection.vectors(encoded.pooled, size, name_of=name_of),
            encoded.sparse,
            encoded.n_tokens,
            encoded.truncated,
            self.tokenizer.decode_token,
            self.separate_sizes,
        )


def _from_arguments(
    kind: type[GTEEmbedder], model: str, arguments: Mapping[str, Any]
) -> GTEEmbedder:
    return kind.from_pretrained(model, **arguments)
