"""GTE checkpoints in sentence-transformers, without the repository's code.

After ``import gte_integrations.sentence_transformers``, ``SentenceTransformer(...)`` loads the
model type ``"new"`` by itself, with everything that class can do, training included. It cuts to
``truncate_dim`` behind all modules, so its shorter vectors have length 1 only with
``normalize_embeddings=True``.

``GTESentenceTransformer`` and ``GTESparseEncoder`` are for inference: faces of one shared encoder,
so that both vectors of a text cost one pass, whichever object is asked first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import Tensor

import gte_integrations.transformers  # noqa: F401  registers the model type
from gte_core import (
    CachedEncoder,
    CachingEncoder,
    Encoder,
    EncoderSettings,
    PairedEncoder,
    Role,
    SharedEncoder,
    as_encoder,
    shared_encoder,
)

try:
    from sentence_transformers import SentenceTransformer, SparseEncoder
    from sentence_transformers.base.modules import InputModule
except ImportError as error:
    raise ImportError(
        "gte_integrations.sentence_transformers needs sentence-transformers; "
        "pip install 'gte-integrations[sentence-transformers]'"
    ) from error

__all__ = ["GTESentenceTransformer", "GTESparseEncoder"]

DEFAULT_MODEL = EncoderSettings().model

Half = Literal["dense", "sparse"]


class GTESentenceTransformer(SentenceTransformer):
    """Dense vectors of length 1 at every ``truncate_dim``.

    Args:
        encoder: a hub id, a directory, ``"demo"``, a loaded ``GTEEmbedder``, or any ``Encoder``.
        truncate_dim: size of the vectors, None for the encoder's own.
    """

    def __init__(
        self, encoder: str | Path | Encoder = DEFAULT_MODEL, *, truncate_dim: int | None = None
    ) -> None:
        module = SharedVectors(encoder, "dense")
        if truncate_dim is not None:  # a size that the model does not have is refused at once
            module.encoder.encode_available([], dimensions=truncate_dim)
        super().__init__(
            modules=[module],
            prompts=module.prompts,
            default_prompt_name=module.default_prompt_name,
            device="cpu",
            similarity_fn_name="cosine",
            truncate_dim=truncate_dim,
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return _restored, (type(self), self[0].encoder, {"truncate_dim": self.truncate_dim})

    # The arguments are those of the parent, which refuses any other.
    def encode(self, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """As ``SentenceTransformer.encode``; every vector has length 1."""
        size = kwargs.get("truncate_dim")
        kwargs |= {"dimensions": self.truncate_dim if size is None else size}
        return super().encode(inputs, *args, **kwargs)

    def get_embedding_dimension(self) -> int:
        """Size of the vectors; it may be larger than the model's own, where it offers several."""
        module = cast("SharedVectors", self[0])
        return self.truncate_dim or module.get_embedding_dimension()


class GTESparseEncoder(SparseEncoder):
    """Sparse vectors ``(n, vocab_size)`` by token id, as ``HybridEmbeddings.sparse`` holds them.

    Args:
        encoder: as of ``GTESentenceTransformer``.
        max_active_dims: the most weights of a text, None for all.
    """

    def __init__(
        self, encoder: str | Path | Encoder = DEFAULT_MODEL, *, max_active_dims: int | None = None
    ) -> None:
        module = SharedVectors(encoder, "sparse")
        super().__init__(
            modules=[module],
            prompts=module.prompts,
            default_prompt_name=module.default_prompt_name,
            device="cpu",
            similarity_fn_name="dot",
            max_active_dims=max_active_dims,
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return _restored, (type(self), self[0].encoder, {"max_active_dims": self.max_active_dims})


class SharedVectors(InputModule):
    """The one module of both: texts -> one half of the vectors of a shared encoder."""

    forward_kwargs = {"dimensions"}  # noqa: RUF012  as its base declares it

    def __init__(self, encoder: str | Path | Encoder, half: Half) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.encoder: CachingEncoder = shared_encoder(_half_of(as_encoder(encoder), half))
        self.given = half
        if half == "sparse":
            self.encoder.require_sparse_head()
        else:
            self.encoder.require_dense_head()
        self.tokenizer = cast("Any", _Pieces(self.encoder))

    @property
    def prompts(self) -> dict[str, str]:
        """The checkpoint's, and what the encoder puts before texts of either role."""
        encoder = self.encoder
        own = encoder.embedder.prompts.by_name if isinstance(encoder, SharedEncoder) else {}
        return {**own, "query": encoder.query_prefix, "document": encoder.document_prefix}

    @property
    def default_prompt_name(self) -> str | None:
        """Of the prompt that ``encode`` puts before texts, None for none."""
        encoder = self.encoder
        return encoder.embedder.prompts.default_name if isinstance(encoder, SharedEncoder) else None

    @property
    def max_seq_length(self) -> int:
        """Tokens of a text that are read."""
        return self.encoder.fingerprint.max_length

    def get_embedding_dimension(self) -> int:
        """Size of the dense vectors, or width of the sparse ones."""
        if self.given == "dense":
            return self.encoder.dimensions
        return self.encoder.vocab_size or 0

    def preprocess(
        self,
        inputs: Sequence[Any],
        prompt: str | None = None,
        task: str | None = None,
        **_: Any,
    ) -> dict[str, Any]:
        """Nothing yet: the encoder tokenizes."""
        role: Role = "query" if task == "query" else "document"
        return {"texts": list(inputs), "role": role, "prompt": prompt or ""}

    def forward(
        self, features: dict[str, Any], dimensions: int | None = None, **_: Any
    ) -> dict[str, Any]:
        """Add ``sentence_embedding``, float32 ``(n, size)``."""
        role, encoder = self._prompted(features["role"], features["prompt"])
        both = encoder.encode_available(features["texts"], role=role, dimensions=dimensions)
        dense = both.dense if self.given == "dense" else both.sparse.toarray()
        embeddings: Tensor = torch.from_numpy(dense)
        return features | {"sentence_embedding": embeddings}

    def save(self, output_path: str, *args: Any, **kwargs: Any) -> None:
        """Refused: the weights are the checkpoint's own."""
        raise ValueError(
            f"{self.encoder.model!r} is only read here, so there is nothing to save. "
            "SentenceTransformer, which this import lets load it, trains and saves."
        )

    def _prompted(self, role: Role, prompt: str) -> tuple[Role, Encoder]:
        """An encoder that puts this prompt before texts of a role."""
        encoder = self.encoder
        own: dict[Role, str] = {
            "query": encoder.query_prefix,
            "document": encoder.document_prefix,
        }
        if prompt == own[role]:
            return role, encoder
        if not isinstance(encoder, SharedEncoder):
            matching = [other for other in own if own[other] == prompt]
            if matching:
                return matching[0], encoder
            raise ValueError(
                f"prompt is {prompt!r}, but this encoder puts {own[role]!r} before a {role} by "
                "itself. Leave it out, or load the model here by its name."
            )
        if role == "document" and encoder.embedder.look_up is not None:
            raise ValueError(
                f"prompt is {prompt!r}, but {encoder.model!r} puts {own[role]!r} before documents, "
                "and its queries are looked up. Leave it out."
            )
        settings = replace(encoder.settings, query_prefix=prompt, prompt_name=None)
        return "query", shared_encoder(settings)


class _Pieces:
    """As much of a tokenizer as ``SparseEncoder.decode`` asks for."""

    def __init__(self, encoder: CachingEncoder) -> None:
        self._encoder = encoder

    def convert_ids_to_tokens(self, ids: Sequence[int]) -> list[str]:
        """The strings of token ids."""
        decode = self._encoder.encode_available([]).decode_token
        return [decode(token_id) for token_id in ids]


def _half_of(encoder: Encoder, half: Half) -> Encoder:
    """Of a pair, the encoder of one half: it knows its own prompts, and the other need not run."""
    source = encoder.source if isinstance(encoder, CachedEncoder) else encoder
    return getattr(source, half) if isinstance(source, PairedEncoder) else encoder


def _restored(kind: type, encoder: Encoder, arguments: dict[str, Any]) -> Any:
    return kind(encoder, **arguments)
