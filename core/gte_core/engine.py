"""Tokenized texts -> CLS states and sparse vectors, in input order: the forward passes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import scipy.sparse as sp
import torch
from numpy.typing import NDArray

from gte_core.exceptions import NonFiniteError
from gte_core.model import GTEModel
from gte_core.packing import plan_packs
from gte_core.sparse import max_per_id
from gte_core.tokenizer import TokenizedText

# A CPU is fastest with packs that reuse the same memory, a GPU with packs that fill it.
_PACK_TOKENS = {"cpu": 2048, "cuda": 65_536}
_PACK_TOKENS_ELSEWHERE = 8192


@dataclass(frozen=True, slots=True)
class EncodedTexts:
    """What the model makes of n texts.

    Attributes:
        cls: float32 ``(n, hidden_size)``, the state of the first token, neither cut nor scaled.
        sparse: float32 CSR ``(n, vocab_size)``, empty rows where the model has no sparse head.
        n_tokens: int64 ``(n,)``.
        truncated: bool ``(n,)``.
    """

    cls: NDArray[np.float32]
    sparse: sp.csr_array[np.float32]
    n_tokens: NDArray[np.int64]
    truncated: NDArray[np.bool_]


class PackedEngine:
    """Runs texts through a model in packs of similar length.

    Passes from several threads run one after another, so that memory stays bounded.

    Args:
        model: on the device and in the type to compute with.
        load_float32: loads the same model in float32, for texts that overflow a half type.
        dropped_ids: token ids that never carry a sparse weight.
        deterministic: give every text a pack of its own, so that no bit depends on the others.
    """

    def __init__(
        self,
        model: GTEModel,
        load_float32: Callable[[], GTEModel],
        *,
        dropped_ids: frozenset[int],
        deterministic: bool,
    ) -> None:
        self._model = model
        self._load_float32 = load_float32
        self._dropped_ids = np.array(sorted(dropped_ids), dtype=np.int64)
        self._deterministic = deterministic
        self._lock = threading.Lock()

    @property
    def pack_tokens(self) -> int:
        """Tokens of a pack, unless a single text has more."""
        return pack_tokens(self._model.device)

    @property
    def has_sparse(self) -> bool:
        """Whether the model has the sparse head."""
        return self._model.has_sparse

    def encode(
        self, texts: Sequence[TokenizedText], *, name_of: Callable[[int], str] = "texts[{}]".format
    ) -> EncodedTexts:
        """Encode a window of texts; ``name_of`` says what to call one in an error."""
        lengths = [len(text) for text in texts]
        cls = np.empty((len(texts), self._model.config.hidden_size), dtype=np.float32)
        weights = [np.empty(0, dtype=np.float32) for _ in texts]
        for pack in plan_packs(lengths, 1 if self._deterministic else self.pack_tokens):
            names = [name_of(i) for i in pack]
            states, of_tokens = self._finite_pass([texts[i].ids for i in pack], names)
            for i, state, token_weights in zip(pack, states, of_tokens, strict=True):
                cls[i], weights[i] = state, token_weights
        truncated = np.array([text.truncated for text in texts], dtype=np.bool_)
        return EncodedTexts(cls, self._sparse(texts, weights), np.array(lengths, int), truncated)

    def _sparse(
        self, texts: Sequence[TokenizedText], weights: Sequence[NDArray[np.float32]]
    ) -> sp.csr_array[np.float32]:
        return max_per_id(
            np.repeat(np.arange(len(texts)), [len(text) for text in texts]),
            np.array([token for text in texts for token in text.ids], dtype=np.int64),
            np.concatenate([np.empty(0, dtype=np.float32), *weights]),
            shape=(len(texts), self._model.config.vocab_size),
            dropped_ids=self._dropped_ids,
        )

    def _finite_pass(
        self, ids: Sequence[list[int]], names: Sequence[str]
    ) -> tuple[NDArray[np.float32], list[NDArray[np.float32]]]:
        """One pass; texts that overflow a half type are computed once more in float32."""
        cls, weights = self._pass(self._model, ids)
        if not (bad := _non_finite(cls, weights)):
            return cls, weights
        if self._model.dtype != torch.float32:
            cls[bad], again = self._pass(self._float32_model, [ids[i] for i in bad])
            for i, token_weights in zip(bad, again, strict=True):
                weights[i] = token_weights
        if still := _non_finite(cls, weights):
            raise NonFiniteError(
                f"{', '.join(names[i] for i in still)}: NaN or infinity, even in float32. The "
                "weights are damaged or not meant for this network; check the checkpoint."
            )
        return cls, weights

    def _pass(
        self, model: GTEModel, ids: Sequence[list[int]]
    ) -> tuple[NDArray[np.float32], list[NDArray[np.float32]]]:
        """CLS states ``(n, hidden_size)`` and the weight of every token of every text."""
        lengths = [len(text) for text in ids]
        device = model.device.type
        with self._lock, torch.inference_mode(), torch.autocast(device, enabled=False):
            hidden, layout = model.encode_sequences(ids)
            cls = hidden[layout.first_tokens].float().cpu().numpy()
            if not model.has_sparse:
                return cls, [np.zeros(length, dtype=np.float32) for length in lengths]
            weights = model.token_weights(hidden).float().cpu().numpy()
        return cls, np.split(weights, np.cumsum(lengths)[:-1])

    @cached_property
    def _float32_model(self) -> GTEModel:
        return self._load_float32()


def pack_tokens(device: torch.device) -> int:
    """The token budget of a pack on a device."""
    return _PACK_TOKENS.get(device.type, _PACK_TOKENS_ELSEWHERE)


def _non_finite(cls: NDArray[np.float32], weights: Sequence[NDArray[np.float32]]) -> list[int]:
    """Indices of the texts with a NaN or an infinity in either vector."""
    return [
        i
        for i, of_text in enumerate(weights)
        if not (np.isfinite(cls[i]).all() and np.isfinite(of_text).all())
    ]
