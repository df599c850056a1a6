"""Tokenized texts -> CLS states and sparse vectors, in input order."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
import scipy.sparse as sp
import torch
from numpy.typing import NDArray
from torch import Tensor

from gte_core.checkpoint.config import GTEConfig
from gte_core.exceptions import NonFiniteError
from gte_core.forks import computing
from gte_core.network.device import to_device
from gte_core.network.heads import max_per_id, to_csr
from gte_core.network.model import GTEModel
from gte_core.runtime.cuda_graphs import GraphedPass
from gte_core.runtime.passes import HostCopy, PackPass, PackRunner, PassInputs, Texts
from gte_core.texts import NameOf, as_text, named
from gte_core.tokenizer import TokenizedText

Compute = Callable[[Texts, Sequence[int]], tuple[Tensor, ...]]


@dataclass(frozen=True, slots=True)
class EncodedTexts:
    """What the model makes of n texts.

    Attributes:
        cls: float32 ``(n, hidden_size)``, the state of the first token, neither cut nor scaled.
        sparse: float32 CSR ``(n, vocab_size)``, empty rows where it was not asked for.
        n_tokens: int64 ``(n,)``.
        truncated: bool ``(n,)``.
    """

    cls: NDArray[np.float32]
    sparse: sp.csr_array[np.float32]
    n_tokens: NDArray[np.int64]
    truncated: NDArray[np.bool_]


class PackedEngine:
    """Runs texts through a model in packs of similar length.

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
        dropped_ids: frozenset[int],
        deterministic: bool,
        graphed: bool = False,
    ) -> None:
        self._model = model
        self._load_float32 = load_float32
        dropped = torch.tensor(sorted(dropped_ids), dtype=torch.int64, device="cpu")
        self._dropped_ids = dropped.to(model.device)
        self._packs = PackRunner(model.device, deterministic=deterministic)
        passes = {sparse: self._pass(model, sparse=sparse) for sparse in (False, True)}
        self._passes: Mapping[bool, Compute] = passes
        if graphed:
            padding = min(dropped_ids)  # a token without a weight
            self._passes = {sparse: GraphedPass(passes[sparse], padding) for sparse in passes}

    @property
    def pack_tokens(self) -> int:
        """Tokens of a pack, unless a single text has more."""
        return self._packs.max_tokens

    @property
    def has_sparse(self) -> bool:
        """Whether the model has the sparse head."""
        return self._model.has_sparse

    def encode(
        self,
        texts: Sequence[TokenizedText],
        *,
        sparse: bool = True,
        name_of: NameOf = as_text,
    ) -> EncodedTexts:
        """Encode a window of texts.

        Args:
            texts: what to encode.
            sparse: whether sparse vectors are wanted; dense ones alone cost less.
            name_of: what to call a text in an error.

        Raises:
            NonFiniteError: a vector is NaN or infinite even in float32.
            TextTooLargeError: a text does not fit in memory even alone.
        """
        found = _Vectors(len(texts), self._model.config)
        sparse = sparse and self.has_sparse
        encode = partial(self._encode, texts, found, name_of=name_of)
        broken = encode(self._passes[sparse], range(len(texts)))
        if broken and self._model.dtype != torch.float32:
            broken = encode(self._pass(self._float32_model, sparse=sparse), broken)
        if broken:
            raise NonFiniteError(
                f"{named(broken, name_of)}: NaN or infinity, even in float32. The "
                "weights are damaged or not meant for this network; check the checkpoint."
            )
        return EncodedTexts(
            found.cls,
            found.sparse(),
            np.array([len(text) for text in texts], dtype=np.int64),
            np.array([text.truncated for text in texts], dtype=np.bool_),
        )

    def _encode(
        self,
        texts: Sequence[TokenizedText],
        found: _Vectors,
        compute: Compute,
        rows: Sequence[int],
        *,
        name_of: NameOf,
    ) -> list[int]:
        """Compute the vectors of these rows; returns the rows that are not finite."""
        broken: list[int] = []
        for pack, results in self._packs.run(
            {row: len(texts[row]) for row in rows},
            lambda pack: HostCopy(*compute([texts[row].ids for row in pack], pack)),
            name_of=name_of,
        ):
            finite, *vectors = results.arrays()
            found.put(pack, *vectors)
            broken += np.array(pack)[~finite].tolist()
        return sorted(broken)

    def _pass(self, model: GTEModel, *, sparse: bool) -> PackPass:
        compute = self._both if sparse else _dense
        return PackPass(partial(_lay_out, model), partial(compute, model))

    def _both(self, model: GTEModel, inputs: PassInputs) -> tuple[Tensor, ...]:
        """Which texts are finite, their CLS states, and the entries of their sparse vectors."""
        input_ids, layout, rows = inputs
        hidden = model.encode_pack(input_ids, layout)
        weights = model.token_weights(hidden).float()
        cls = hidden[layout.first_tokens].float()

        owners = layout.owners
        infinite = torch.zeros(len(rows), device=cls.device)
        infinite.index_add_(0, owners, weights.isfinite().logical_not_().float())
        finite = cls.isfinite().all(1) & (infinite == 0)

        dropped = torch.isin(input_ids, self._dropped_ids)
        weights = weights.masked_fill(dropped | ~finite[owners], 0)
        keys = rows[owners] * model.config.vocab_size + input_ids
        entries = max_per_id(keys, weights)
        return finite, cls, entries.keys, entries.weights, entries.kept

    @cached_property
    def _float32_model(self) -> GTEModel:
        with computing():
            return self._load_float32()


def _dense(model: GTEModel, inputs: PassInputs) -> tuple[Tensor, ...]:
    """Which texts are finite, and their CLS states."""
    cls = model.encode_first_tokens(inputs.input_ids, inputs.layout).float()
    return cls.isfinite().all(1), cls


def _lay_out(model: GTEModel, texts: Texts, rows: Sequence[int]) -> PassInputs:
    numbers = torch.tensor(rows, dtype=torch.int64, device="cpu")
    return PassInputs(*model.lay_out(texts), to_device(numbers, model.device))


class _Vectors:
    """The vectors of n texts, filled in as the packs come."""

    def __init__(self, n_texts: int, config: GTEConfig) -> None:
        self.cls = np.empty((n_texts, config.hidden_size), dtype=np.float32)
        self._shape = n_texts, config.vocab_size
        self._keys = [np.empty(0, dtype=np.int64)]
        self._weights = [np.empty(0, dtype=np.float32)]

    def put(
        self,
        rows: list[int],
        cls: NDArray[np.float32],
        keys: NDArray[np.int64] | None = None,
        weights: NDArray[np.float32] | None = None,
        kept: NDArray[np.bool_] | None = None,
    ) -> None:
        """Keep what one pack gave."""
        self.cls[rows] = cls
        if keys is not None and weights is not None:
            self._keys.append(keys[kept])
            self._weights.append(weights[kept])

    def sparse(self) -> sp.csr_array[np.float32]:
        """All sparse vectors, empty rows where there was no sparse pass."""
        return to_csr(np.concatenate(self._keys), np.concatenate(self._weights), self._shape)
