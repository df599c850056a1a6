"""Tokenized texts -> their pooled states and their sparse vectors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import numpy as np
import scipy.sparse as sp
import torch
from numpy.typing import NDArray
from torch import Tensor

from gte_core.checkpoint.modules import PoolingMode
from gte_core.network.attention import PackLayout
from gte_core.network.heads import max_per_id, to_csr
from gte_core.network.model import GTEModel
from gte_core.network.pooling import POOLS, Pool, pool_cls, pool_mean
from gte_core.runtime.engine import PackedEngine
from gte_core.runtime.passes import Compute
from gte_core.texts import NameOf, as_text
from gte_core.tokenizer import TokenizedText


@dataclass(frozen=True, slots=True)
class TextVectors:
    """What the model makes of n texts.

    Attributes:
        pooled: float32 ``(n, hidden_size)``, neither projected, cut nor scaled.
        sparse: float32 CSR ``(n, vocab_size)``, empty rows where it was not asked for.
        n_tokens: int64 ``(n,)``.
        truncated: bool ``(n,)``.
    """

    pooled: NDArray[np.float32]
    sparse: sp.csr_array[np.float32]
    n_tokens: NDArray[np.int64]
    truncated: NDArray[np.bool_]

    @classmethod
    def of(
        cls,
        texts: Sequence[TokenizedText],
        sparse: sp.csr_array[np.float32],
        pooled: NDArray[np.float32] | None = None,
    ) -> TextVectors:
        """Vectors of these texts; ``pooled`` is None where there are no dense ones."""
        return cls(
            np.empty((len(texts), 0), np.float32) if pooled is None else pooled,
            sparse,
            np.array([len(text) for text in texts], dtype=np.int64),
            np.array([text.truncated for text in texts], dtype=np.bool_),
        )


class ComputesVectors(Protocol):
    """What makes vectors of a window of texts: a model's engine, or a table."""

    @property
    def pack_tokens(self) -> int:
        """Tokens of a pack, unless a single text has more."""
        ...

    def compute(
        self, texts: Sequence[TokenizedText], *, sparse: bool = True, name_of: NameOf = as_text
    ) -> TextVectors:
        """The vectors of a window of texts; ``sparse`` says whether those are wanted."""
        ...


class VectorEngine(PackedEngine):
    """The engine of a model with dense vectors.

    Args:
        model: as of ``PackedEngine``.
        load_float32: as of ``PackedEngine``.
        dropped_ids: token ids that never carry a sparse weight.
        pooling: how the states of a text's tokens become one.
        deterministic: as of ``PackedEngine``.
        graphed: as of ``PackedEngine``.
    """

    has_dense = True

    def __init__(
        self,
        model: GTEModel,
        load_float32: Callable[[], GTEModel],
        *,
        dropped_ids: frozenset[int],
        pooling: PoolingMode = "cls",
        deterministic: bool = False,
        graphed: bool = False,
    ) -> None:
        super().__init__(model, load_float32, deterministic=deterministic, graphed=graphed)
        self._dropped_ids = sorted(dropped_ids)
        self._compute_both: Compute = partial(compute_both, pool=POOLS[pooling])
        self._compute_pooled: Compute = compute_cls if pooling == "cls" else compute_mean

    @property
    def has_sparse(self) -> bool:
        """Whether the model has the sparse head."""
        return self._model.has_sparse

    def compute(
        self, texts: Sequence[TokenizedText], *, sparse: bool = True, name_of: NameOf = as_text
    ) -> TextVectors:
        """Compute the vectors of a window of texts; without the sparse ones, it costs less.

        Raises what ``run`` does.
        """
        vocab_size = self._model.config.vocab_size
        pooled = np.empty((len(texts), self._model.config.hidden_size), dtype=np.float32)
        keys, weights = [np.empty(0, dtype=np.int64)], [np.empty(0, dtype=np.float32)]
        compute = self._compute_both if sparse and self.has_sparse else self._compute_pooled
        for pack, (states, *entries) in self.run(texts, compute, name_of=name_of):
            pooled[pack] = states
            if entries:
                found, largest, kept = entries
                places, token_ids = np.divmod(found, vocab_size)
                # Padding has a place behind the pack.
                kept &= (places < len(pack)) & ~np.isin(token_ids, self._dropped_ids)
                keys.append(np.array(pack)[places[kept]] * vocab_size + token_ids[kept])
                weights.append(largest[kept])
        shape = len(texts), vocab_size
        sparse_vectors = to_csr(np.concatenate(keys), np.concatenate(weights), shape)
        return TextVectors.of(texts, sparse_vectors, pooled)


def compute_cls(model: GTEModel, input_ids: Tensor, layout: PackLayout) -> tuple[Tensor, ...]:
    """Which sequences are finite, and their CLS states, float32 ``(n, hidden_size)``."""
    cls = model.compute_cls(input_ids, layout).float()
    return cls.isfinite().all(1), cls


def compute_mean(model: GTEModel, input_ids: Tensor, layout: PackLayout) -> tuple[Tensor, ...]:
    """Which sequences are finite, and their mean states, float32 ``(n, hidden_size)``."""
    mean = pool_mean(model.compute_pack(input_ids, layout), layout)
    return mean.isfinite().all(1), mean


def compute_both(
    model: GTEModel, input_ids: Tensor, layout: PackLayout, pool: Pool = pool_cls
) -> tuple[Tensor, ...]:
    """Finite ones and pooled states, and the entries of the sparse vectors by sequence and id."""
    hidden = model.compute_pack(input_ids, layout)
    weights = model.token_weights(hidden).float()
    pooled = pool(hidden, layout)

    sequence_ids = layout.sequence_ids
    infinite = torch.zeros(layout.n_sequences, device=pooled.device)
    infinite.index_add_(0, sequence_ids, weights.isfinite().logical_not_().float())
    finite = pooled.isfinite().all(1) & (infinite == 0)

    keys = sequence_ids * model.config.vocab_size + input_ids
    entries = max_per_id(keys, weights.masked_fill(~finite[sequence_ids], 0))
    return finite, pooled, entries.keys, entries.weights, entries.kept
