"""Tokenized texts -> CLS states and sparse vectors, or what else a model computes, in packs."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import scipy.sparse as sp
import torch
from numpy.typing import NDArray
from torch import Tensor

from gte_core.exceptions import NonFiniteError
from gte_core.forks import computing
from gte_core.network.attention import PackLayout
from gte_core.network.heads import max_per_id, to_csr
from gte_core.network.model import GTEModel
from gte_core.runtime.cuda_graphs import GraphedPass
from gte_core.runtime.passes import Compute, PackResults, PackRunner
from gte_core.texts import NameOf, as_text, named
from gte_core.tokenizer import TokenizedText


@dataclass(frozen=True, slots=True)
class TextVectors:
    """What the model makes of n texts.

    Attributes:
        cls: float32 ``(n, hidden_size)``, the states of the CLS tokens, neither cut nor scaled.
        sparse: float32 CSR ``(n, vocab_size)``, empty rows where it was not asked for.
        n_tokens: int64 ``(n,)``.
        truncated: bool ``(n,)``.
    """

    cls: NDArray[np.float32]
    sparse: sp.csr_array[np.float32]
    n_tokens: NDArray[np.int64]
    truncated: NDArray[np.bool_]


class PackedEngine:
    """Runs texts, or pairs of them, through a model in packs of similar length.

    Args:
        model: on the device and in the type to compute with.
        load_float32: loads the same model in float32, for texts that overflow a half type.
        dropped_ids: token ids that never carry a sparse weight.
        deterministic: give every text a pack of its own, so that no bit depends on the others.
        graphed: replay small packs as CUDA graphs.
    """

    def __init__(
        self,
        model: GTEModel,
        load_float32: Callable[[], GTEModel],
        *,
        dropped_ids: frozenset[int] = frozenset(),
        deterministic: bool = False,
        graphed: bool = False,
    ) -> None:
        self._model = model
        self._load_float32 = load_float32
        self._dropped_ids = sorted(dropped_ids)
        self._packs = PackRunner(model.device, deterministic=deterministic)
        self._graphed: dict[Compute, GraphedPass] | None = {} if graphed else None

    @property
    def pack_tokens(self) -> int:
        """Tokens of a pack, unless a single text has more."""
        return self._packs.max_tokens

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
        cls = np.empty((len(texts), self._model.config.hidden_size), dtype=np.float32)
        keys, weights = [np.empty(0, dtype=np.int64)], [np.empty(0, dtype=np.float32)]
        compute = compute_both if sparse and self.has_sparse else compute_cls
        for pack, (states, *entries) in self.run(texts, compute, name_of=name_of):
            cls[pack] = states
            if entries:
                found, largest, kept = entries
                places, token_ids = np.divmod(found, vocab_size)
                # Padding has a place behind the pack.
                kept &= (places < len(pack)) & ~np.isin(token_ids, self._dropped_ids)
                keys.append(np.array(pack)[places[kept]] * vocab_size + token_ids[kept])
                weights.append(largest[kept])
        return TextVectors(
            cls,
            to_csr(np.concatenate(keys), np.concatenate(weights), (len(texts), vocab_size)),
            np.array([len(text) for text in texts], dtype=np.int64),
            np.array([text.truncated for text in texts], dtype=np.bool_),
        )

    def run(
        self, texts: Sequence[TokenizedText], compute: Compute, *, name_of: NameOf = as_text
    ) -> Iterator[PackResults]:
        """Yield the indices of the texts of each pack, and what ``compute`` made of them.

        A text whose results are not finite comes again, with those of the float32 model.

        Args:
            texts: what to compute.
            compute: what to compute of a pack. Its first result, ``finite``, is not yielded.
            name_of: index of a text -> what an error calls it.

        Raises:
            NonFiniteError: results are NaN or infinite even in float32.
            TextTooLargeError: a text does not fit in memory even alone.
        """
        ids = {index: text.ids for index, text in enumerate(texts)}
        broken = yield from self._run(self._model, ids, compute, name_of)
        if broken and self._model.dtype != torch.float32:
            ids = {index: ids[index] for index in broken}
            broken = yield from self._run(self._float32_model, ids, compute, name_of)
        if broken:
            raise NonFiniteError(
                f"{named(broken, name_of)}: NaN or infinity, even in float32. The "
                "weights are damaged or not meant for this network; check the checkpoint."
            )

    def _run(
        self, model: GTEModel, ids: Mapping[int, list[int]], compute: Compute, name_of: NameOf
    ) -> Generator[PackResults, None, list[int]]:
        """Yield what ``run`` does; return the indices whose results are not finite."""

        def launch(pack: list[int]) -> tuple[Tensor, ...]:
            sequences = [ids[index] for index in pack]
            if self._graphed is None or model is not self._model:
                return compute(model, *model.lay_out(sequences))
            return self._graphed.setdefault(compute, GraphedPass(model, compute))(sequences)

        broken: list[int] = []
        lengths = {index: len(sequence) for index, sequence in ids.items()}
        for pack, (finite, *results) in self._packs.run(lengths, launch, name_of=name_of):
            broken += np.array(pack)[~finite].tolist()
            yield pack, results
        return sorted(broken)

    @cached_property
    def _float32_model(self) -> GTEModel:
        with computing():
            return self._load_float32()


def compute_cls(model: GTEModel, input_ids: Tensor, layout: PackLayout) -> tuple[Tensor, ...]:
    """Which sequences are finite, and their CLS states, float32 ``(n, hidden_size)``."""
    cls = model.compute_cls(input_ids, layout).float()
    return cls.isfinite().all(1), cls


def compute_both(model: GTEModel, input_ids: Tensor, layout: PackLayout) -> tuple[Tensor, ...]:
    """``compute_cls``, and the entries of the sparse vectors by sequence and token id."""
    hidden = model.compute_pack(input_ids, layout)
    weights = model.token_weights(hidden).float()
    cls = hidden[layout.cls_indices].float()

    sequence_ids = layout.sequence_ids
    infinite = torch.zeros(layout.n_sequences, device=cls.device)
    infinite.index_add_(0, sequence_ids, weights.isfinite().logical_not_().float())
    finite = cls.isfinite().all(1) & (infinite == 0)

    keys = sequence_ids * model.config.vocab_size + input_ids
    entries = max_per_id(keys, weights.masked_fill(~finite[sequence_ids], 0))
    return finite, cls, entries.keys, entries.weights, entries.kept
