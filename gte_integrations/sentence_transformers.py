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
    CachingEncoder,
    Encoder,
    EncoderSettings,
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
        super().__init__(
            modules=[module],
            prompts=module.prompts,
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
        self.encoder: CachingEncoder = shared_encoder(as_encoder(encoder))
        self.given = half
        if half == "sparse":
            self.encoder.require_sparse_head()
        self.tokenizer = cast("Any", _Pieces(self.encoder))

    @property
    def prompts(self) -> dict[str, str]:
        """What the encoder puts before texts, by sentence-transformers' names."""
        return {"query": self.encoder.query_prefix, "document": ""}

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
        own = self.prompts[role]
        if prompt == own:
            return role, self.encoder
        if not isinstance(self.encoder, SharedEncoder):
            raise ValueError(
                f"prompt is {prompt!r}, but this encoder puts {own!r} before a {role} by itself. "
                "Leave it out, or load the model here by its name."
            )
        return "query", shared_encoder(replace(self.encoder.settings, query_prefix=prompt))


class _Pieces:
    """As much of a tokenizer as ``SparseEncoder.decode`` asks for."""

    def __init__(self, encoder: CachingEncoder) -> None:
        self._encoder = encoder

    def convert_ids_to_tokens(self, ids: Sequence[int]) -> list[str]:
        """The strings of token ids."""
        decode = self._encoder.encode_available([]).decode_token
        return [decode(token_id) for token_id in ids]


def _restored(kind: type, encoder: Encoder, arguments: dict[str, Any]) -> Any:
    return kind(encoder, **arguments)
