"""Tokenized texts -> sparse vectors over the whole vocabulary, from a masked language model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import scipy.sparse as sp
import torch
from numpy.typing import NDArray
from torch import Tensor

from gte_core.checkpoint.learned_sparse import Activation
from gte_core.network.attention import PackLayout
from gte_core.network.model import GTEModel
from gte_core.runtime.engine import PackedEngine
from gte_core.runtime.vectors import TextVectors
from gte_core.texts import NameOf, as_text
from gte_core.tokenizer import TokenizedText

# Of every sequence how many entries there are, and the ids and weights of all.
Block = tuple[Tensor, Tensor, Tensor]

Entries = tuple[NDArray[np.int32], NDArray[np.float32]]  # ids and weights of one text
_NO_ENTRIES: Entries = np.empty(0, np.int32), np.empty(0, np.float32)


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
        self._vocab_size = model.config.vocab_size
        self._compute = partial(
            compute_learned_sparse, activation=activation, dropped_ids=sorted(dropped_ids)
        )

    def compute(
        self, texts: Sequence[TokenizedText], *, sparse: bool = True, name_of: NameOf = as_text
    ) -> TextVectors:
        """Compute the vectors of a window of texts; ``sparse`` is what they are anyway.

        Raises what ``run`` does.
        """
        rows = [_NO_ENTRIES] * len(texts)
        for pack, (counts, ids, weights) in self.run(texts, self._compute, name_of=name_of):
            bounds = np.cumsum(counts)[:-1]
            found = zip(np.split(ids, bounds), np.split(weights, bounds), strict=True)
            for place, row in zip(pack, found, strict=True):
                rows[place] = row  # again, for a text that overflowed and comes in float32
        return TextVectors.of(texts, _to_csr(rows, self._vocab_size))


def compute_learned_sparse(
    model: GTEModel,
    input_ids: Tensor,
    layout: PackLayout,
    *,
    activation: Activation,
    dropped_ids: Sequence[int] = (),
) -> tuple[Tensor, ...]:
    """Which sequences are finite, how many entries each has, and the ids and weights of these.

    A weight is that of the largest logit of all tokens. The tokens' logits are there for a block of
    the vocabulary at a time, so that memory follows the tokens. Entries are int32 and float32, in
    the order of the sequences and of the ids.
    """
    sequence_ids, n_sequences = layout.sequence_ids, layout.n_sequences
    finite = torch.ones(n_sequences, dtype=torch.bool, device=input_ids.device)
    blocks = []
    scratch = torch.empty(0, device=input_ids.device)
    for first, logits in model.vocabulary_logits(model.compute_pack(input_ids, layout)):
        width = logits.shape[1]
        # One scratch for all blocks, for the reason that the logits have one.
        largest = scratch.resize_(n_sequences, width).zero_()
        index = sequence_ids[:, None].expand_as(logits)
        largest.scatter_reduce_(0, index, logits, "amax")  # with the zeros, this is relu
        finite &= largest.amax(1).isfinite()
        largest[:, [i - first for i in dropped_ids if first <= i < first + width]] = 0
        places = largest.flatten().nonzero().squeeze(1)
        weights = activated(largest.flatten()[places], activation)
        ids = (places % width).add_(first).to(torch.int32)
        blocks.append(((largest != 0).sum(1), ids, weights))
    return finite, *_by_sequence(blocks, finite)


def _by_sequence(blocks: list[Block], finite: Tensor) -> Block:
    """The entries of all blocks, those of one sequence side by side, and none that are not finite.

    The blocks are taken out of the list, so that they are not kept beside the result.
    """
    counts = torch.stack([count for count, *_ in blocks])  # of each block and sequence
    counts_kept = counts * finite
    total = counts_kept.sum(0)
    starts = total.cumsum(0) - total + counts_kept.cumsum(0) - counts_kept
    ids = torch.empty(int(total.sum()), dtype=torch.int32, device=finite.device)
    weights = torch.empty(len(ids), device=finite.device)
    for number in reversed(range(len(blocks))):
        count, found, values = blocks.pop()
        own = torch.arange(len(found), device=finite.device)
        own += (starts[number] - count.cumsum(0) + count).repeat_interleave(count)
        kept = finite.repeat_interleave(count)
        ids[own[kept]], weights[own[kept]] = found[kept], values[kept]
    return total, ids, weights


def _to_csr(rows: Sequence[Entries], vocab_size: int) -> sp.csr_array[np.float32]:
    bounds = np.cumsum([0, *(len(ids) for ids, _ in rows)])
    if bounds[-1] <= np.iinfo(np.int32).max:  # else the ids are copied to the type of the bounds
        bounds = bounds.astype(np.int32)
    ids = np.concatenate([_NO_ENTRIES[0], *(ids for ids, _ in rows)])
    weights = np.concatenate([_NO_ENTRIES[1], *(weights for _, weights in rows)])
    return sp.csr_array((weights, ids, bounds), shape=(len(rows), vocab_size))


def activated(logits: Tensor, activation: Activation) -> Tensor:
    """Weights of positive logits."""
    weights = logits.log1p()
    return weights.log1p() if activation == "log1p_relu" else weights
