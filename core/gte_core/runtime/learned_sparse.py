"""Tokenized texts -> sparse vectors over the whole vocabulary, from a masked language model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor

from gte_core.checkpoint.learned_sparse import Activation
from gte_core.network.attention import PackLayout
from gte_core.network.heads import to_csr
from gte_core.network.model import GTEModel
from gte_core.runtime.engine import PackedEngine
from gte_core.runtime.vectors import TextVectors
from gte_core.texts import NameOf, as_text
from gte_core.tokenizer import TokenizedText


class LearnedSparseEngine(PackedEngine):
    """The engine of a sparse encoder; it gives no dense vectors.

    Args:
        model: as of ``PackedEngine``, with a head of ``"masked_lm"``.
        load_float32: as of ``PackedEngine``.
        activation: what makes weights of logits.
        dropped_ids: token ids that never carry a weight.
        deterministic: as of ``PackedEngine``.
    """

    has_dense = False
    has_sparse = True

    def __init__(
        self,
        model: GTEModel,
        load_float32: Callable[[], GTEModel],
        *,
        activation: Activation,
        dropped_ids: frozenset[int],
        deterministic: bool = False,
    ) -> None:
        super().__init__(model, load_float32, deterministic=deterministic)
        self._compute = partial(compute_learned_sparse, activation=activation)
        self._vocab_size = model.config.vocab_size
        self._is_dropped = np.zeros(self._vocab_size, dtype=np.bool_)
        self._is_dropped[[i for i in dropped_ids if i < self._vocab_size]] = True

    def compute(
        self, texts: Sequence[TokenizedText], *, sparse: bool = True, name_of: NameOf = as_text
    ) -> TextVectors:
        """Compute the vectors of a window of texts; ``sparse`` is what they are anyway.

        Raises what ``run`` does.
        """
        keys, weights = [np.empty(0, dtype=np.int64)], [np.empty(0, dtype=np.float32)]
        for pack, (found, largest) in self.run(texts, self._compute, name_of=name_of):
            places, token_ids = np.divmod(found, self._vocab_size)
            kept = ~self._is_dropped[token_ids]
            keys.append(np.array(pack)[places[kept]] * self._vocab_size + token_ids[kept])
            weights.append(largest[kept])
        shape = len(texts), self._vocab_size
        csr = to_csr(np.concatenate(keys), np.concatenate(weights), shape)
        return TextVectors.of_sparse(csr, texts)


def compute_learned_sparse(
    model: GTEModel, input_ids: Tensor, layout: PackLayout, *, activation: Activation
) -> tuple[Tensor, ...]:
    """Which sequences are finite, and the entries of those: keys ``sequence * vocab_size + id``.

    A weight is that of the largest logit of all tokens. The tokens' logits are there for a block of
    the vocabulary at a time, so that memory follows the tokens.
    """
    vocab_size = model.config.vocab_size
    sequence_ids, n_sequences = layout.sequence_ids, layout.n_sequences
    keys, weights = [], []
    finite = torch.ones(n_sequences, dtype=torch.bool, device=input_ids.device)
    scratch = torch.empty(0, device=input_ids.device)
    for first, logits in model.vocabulary_logits(model.compute_pack(input_ids, layout)):
        width = logits.shape[1]
        # One scratch for all blocks, for the reason that the logits have one.
        largest = scratch.resize_(n_sequences, width).zero_()
        index = sequence_ids[:, None].expand_as(logits)
        largest.scatter_reduce_(0, index, logits, "amax")  # with the zeros, this is relu
        finite &= largest.amax(1).isfinite()
        places = largest.flatten().nonzero().squeeze(1)
        weights.append(activated(largest.flatten()[places], activation))
        keys.append(places + places // width * (vocab_size - width) + first)
    found, values = torch.cat(keys), torch.cat(weights)
    kept = finite[found // vocab_size]
    return finite, found[kept], values[kept]


def activated(logits: Tensor, activation: Activation) -> Tensor:
    """Weights of positive logits."""
    weights = logits.log1p()
    return weights.log1p() if activation == "log1p_relu" else weights
