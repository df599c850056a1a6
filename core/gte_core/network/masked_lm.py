"""The head of a masked language model: the states of tokens -> logits over the vocabulary."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu

from gte_core.checkpoint.config import GTEConfig

# Logits that are computed at once: a CPU's are 16 MB, a GPU's fill it.
_LOGITS_AT_ONCE = {"cpu": 2**22}
_LOGITS_AT_ONCE_ELSEWHERE = 2**26


class Decoder(nn.Module):
    """The product with the vocabulary; its matrix is that of the word embeddings where it is tied.

    Args:
        config: the shape of the network.
        tied: whether it has no matrix of its own.
    """

    def __init__(self, config: GTEConfig, *, tied: bool) -> None:
        super().__init__()
        shape = config.vocab_size, config.hidden_size
        self.weight = None if tied else nn.Parameter(torch.empty(shape))
        self.bias = nn.Parameter(torch.empty(config.vocab_size))


class MaskedLMHead(nn.Module):
    """``decoder(LayerNorm(gelu(dense(h))))``, exact erf GELU.

    Args:
        config: the shape of the network.
        tied: whether the decoder's matrix is that of the word embeddings.
    """

    def __init__(self, config: GTEConfig, *, tied: bool) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.decoder = Decoder(config, tied=tied)

    def transform(self, hidden: Tensor) -> Tensor:
        """What goes into the decoder, of the same shape as the states."""
        states: Tensor = self.norm(gelu(self.dense(hidden.to(self.dense.weight.dtype))))
        return states

    def logits(self, hidden: Tensor, word_embeddings: Tensor) -> Iterator[tuple[int, Tensor]]:
        """Logits of all tokens for a block of the vocabulary at a time, never for all of it.

        Args:
            hidden: states of tokens, ``(total_tokens, hidden_size)``.
            word_embeddings: ``(vocab_size, hidden_size)``, for a decoder that is tied to them.

        Yields:
            The first token id of a block, and its logits, float32 ``(total_tokens, block)``, which
            the next block overwrites.
        """
        matrix = word_embeddings if self.decoder.weight is None else self.decoder.weight
        states = self.transform(hidden).to(matrix.dtype)
        at_once = _LOGITS_AT_ONCE.get(hidden.device.type, _LOGITS_AT_ONCE_ELSEWHERE)
        step = min(len(matrix), max(1, at_once // max(1, len(hidden))))
        # The same memory for all blocks: with what is kept of each in between, an allocator finds
        # no room for the next one, and in a thread of its own glibc gives none of it back.
        products = states.new_empty(len(states) * step)
        sums = products if products.dtype == torch.float32 else products.float()
        for first in range(0, len(matrix), step):
            rows, bias = matrix[first : first + step], self.decoder.bias[first : first + step]
            shape = len(states), len(rows)
            product, logits = (flat[: math.prod(shape)].view(shape) for flat in (products, sums))
            torch.mm(states, rows.T, out=product)
            yield first, logits.copy_(product).add_(bias)
