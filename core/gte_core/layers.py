"""The pieces of the encoder, each on packed tokens ``(total_tokens, hidden_size)``.

Module and parameter names are those of the original checkpoints.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu

from gte_core.attention import PackLayout, attend
from gte_core.config import GTEConfig


@dataclass(frozen=True, slots=True)
class RotaryAngles:
    """cos and sin of every token's rotation angles, ``(total_tokens, 1, head_dim)`` each."""

    cos: Tensor
    sin: Tensor

    @classmethod
    def at(cls, positions: Tensor, inverse_frequencies: Tensor, dtype: torch.dtype) -> RotaryAngles:
        """The angles at these positions; computed in float32, kept in the activations' type."""
        half = positions.float()[:, None] * inverse_frequencies.to(positions.device)
        angles = torch.cat((half, half), dim=-1)[:, None]
        return cls(angles.cos().to(dtype), angles.sin().to(dtype))

    def rotate(self, x: Tensor) -> Tensor:
        """Turn ``x`` (total_tokens, heads, head_dim) by its positions (RoFormer, NeoX halves)."""
        first, second = x.chunk(2, dim=-1)
        return x * self.cos + torch.cat((-second, first), dim=-1) * self.sin


class Embeddings(nn.Module):
    """Word and token-type embeddings, summed and normalised."""

    def __init__(self, config: GTEConfig) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(config.vocab_size, config.hidden_size)
        self.token_type_embeddings = (
            nn.Embedding(config.type_vocab_size, config.hidden_size)
            if config.type_vocab_size
            else None
        )
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, input_ids: Tensor, token_type_ids: Tensor | None) -> Tensor:
        """Embed ``(total_tokens,)`` ids; types are read only where the model knows two or more."""
        embedded: Tensor = self.word_embeddings(input_ids)
        if self.token_type_embeddings is not None:
            if token_type_ids is None or self.token_type_embeddings.num_embeddings < 2:
                embedded = embedded + self.token_type_embeddings.weight[0]
            else:
                embedded = embedded + self.token_type_embeddings(token_type_ids)
        out: Tensor = self.LayerNorm(embedded)
        return out


class Attention(nn.Module):
    """Multi-head self-attention with rotary positions, within each sequence of the pack."""

    def __init__(self, hidden_size: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv_proj = nn.Linear(hidden_size, 3 * hidden_size)
        self.o_proj = nn.Linear(hidden_size, hidden_size)

    def forward(self, hidden: Tensor, rotary: RotaryAngles, layout: PackLayout) -> Tensor:
        """Let every token see the tokens of its own sequence."""
        qkv = self.qkv_proj(hidden).unflatten(-1, (3, self.num_heads, -1))
        query, key, value = qkv.unbind(1)
        attended = attend(rotary.rotate(query), rotary.rotate(key), value, layout)
        out: Tensor = self.o_proj(attended.flatten(1))
        return out


class GatedMLP(nn.Module):
    """GELU-gated feed-forward network: ``down(gelu(gate) * up)``, exact erf GELU."""

    def __init__(self, hidden_size: int, intermediate_size: int) -> None:
        super().__init__()
        self.up_gate_proj = nn.Linear(hidden_size, 2 * intermediate_size, bias=False)
        self.down_proj = nn.Linear(intermediate_size, hidden_size)

    def forward(self, hidden: Tensor) -> Tensor:
        """Transform every token by itself."""
        up, gate = self.up_gate_proj(hidden).chunk(2, dim=-1)
        out: Tensor = self.down_proj(gelu(gate) * up)
        return out


class EncoderLayer(nn.Module):
    """Attention and MLP, each with a residual and a LayerNorm behind it."""

    def __init__(self, config: GTEConfig) -> None:
        super().__init__()
        self.attention = Attention(config.hidden_size, config.num_attention_heads)
        self.attn_ln = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.mlp = GatedMLP(config.hidden_size, config.intermediate_size)
        self.mlp_ln = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, hidden: Tensor, rotary: RotaryAngles, layout: PackLayout) -> Tensor:
        """One post-norm transformer layer."""
        hidden = self.attn_ln(hidden + self.attention(hidden, rotary, layout))
        hidden = self.mlp_ln(hidden + self.mlp(hidden))
        return hidden


class Pooler(nn.Module):
    """``tanh(dense(CLS))``, in front of a sequence classifier."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.dense = nn.Linear(hidden_size, hidden_size)

    def forward(self, first_tokens: Tensor) -> Tensor:
        """Pool ``(n, hidden_size)`` CLS states."""
        out: Tensor = torch.tanh(self.dense(first_tokens))
        return out
