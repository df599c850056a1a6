"""The pieces of the encoder, each on packed tokens ``(total_tokens, hidden_size)``.

Module and parameter names are those of the original checkpoints.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gte_core.checkpoint.config import GTEConfig
from gte_core.network.attention import PackLayout, attend
from gte_core.network.kernels import GatedLinear

# A text of more tokens than a CPU's packs have goes through the MLP in parts: of 8,192 tokens, it
# would hold 200 MB.
_CPU_TOKENS = 2048
_CPU_ROWS = 512


@dataclass(frozen=True, slots=True)
class RotaryAngles:
    """cos and sin of every token's rotation angles.

    Attributes:
        cos: ``(total_tokens, 1, 1, head_dim)``, both halves the same.
        sin: ``(total_tokens, 1, 1, head_dim / 2)``.
    """

    cos: Tensor
    sin: Tensor

    @classmethod
    def at(cls, positions: Tensor, inverse_frequencies: Tensor, dtype: torch.dtype) -> RotaryAngles:
        """The angles at these positions, computed in float32 and kept in ``dtype``."""
        angles = positions.float()[:, None] * inverse_frequencies.to(positions.device)
        angles = angles[:, None, None]
        cos = angles.cos().to(dtype)
        return cls(torch.cat((cos, cos), dim=-1), angles.sin().to(dtype))

    def rotate(self, x: Tensor) -> Tensor:
        """Rotate ``(total_tokens, n, heads, head_dim)`` by position (RoFormer, NeoX halves)."""
        rotated = x * self.cos
        first, second = x.chunk(2, dim=-1)
        if x.requires_grad:  # gradients do not flow through parts that are written in place
            return rotated + torch.cat((-second * self.sin, first * self.sin), dim=-1)
        rotated_first, rotated_second = rotated.chunk(2, dim=-1)
        rotated_first.addcmul_(second, self.sin, value=-1)
        rotated_second.addcmul_(first, self.sin)
        return rotated


def _table(rows: int, size: int) -> nn.Embedding:
    """``nn.Embedding``, which on the meta device would import torch's compiler to draw numbers."""
    weight = torch.empty(rows, size)
    if not weight.is_meta:
        nn.init.normal_(weight)
    table: nn.Embedding = nn.Embedding.from_pretrained(weight, freeze=False)  # type: ignore[no-untyped-call]
    return table


class Embeddings(nn.Module):
    """Word and token-type embeddings, summed and normalised."""

    def __init__(self, config: GTEConfig) -> None:
        super().__init__()
        self.word_embeddings = _table(config.vocab_size, config.hidden_size)
        self.token_type_embeddings = (
            _table(config.type_vocab_size, config.hidden_size) if config.type_vocab_size else None
        )
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, given: Tensor, token_type_ids: Tensor | None) -> Tensor:
        """Embed ``(total_tokens,)`` ids; types are read only where the model knows two or more.

        Floats ``(total_tokens, hidden_size)`` stand for word embeddings that were looked up before.
        """
        embedded = given if given.is_floating_point() else self.word_embeddings(given)
        # The table may keep the type it is stored in, which need not be that of the activations.
        embedded = embedded.to(self.LayerNorm.weight.dtype)
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
        # No name holds query, key and value while the output is computed: they are the largest.
        out: Tensor = self.o_proj(attend(*self._project(hidden, rotary), layout).flatten(1))
        return out

    def compute_cls(self, hidden: Tensor, rotary: RotaryAngles, layout: PackLayout) -> Tensor:
        """Let the CLS token of every sequence see its sequence: ``(n, hidden_size)``."""
        query, key, value = self._project(hidden, rotary)
        query = query[layout.cls_indices]
        attended = attend(query, key, value, layout, query_layout=layout.cls_layout)
        out: Tensor = self.o_proj(attended.flatten(1))
        return out

    def _project(self, hidden: Tensor, rotary: RotaryAngles) -> tuple[Tensor, Tensor, Tensor]:
        """Rotated queries, rotated keys, and values, ``(total_tokens, heads, head_dim)`` each."""
        qkv = self.qkv_proj(hidden).unflatten(-1, (3, self.num_heads, -1))
        query, key = rotary.rotate(qkv[:, :2]).unbind(1)
        return query, key, qkv[:, 2]


class GatedMLP(nn.Module):
    """GELU-gated feed-forward network: ``down(gelu(gate) * up)``, exact erf GELU."""

    up_gate_kind: type[nn.Linear] = GatedLinear

    def __init__(self, hidden_size: int, intermediate_size: int) -> None:
        super().__init__()
        self.up_gate_proj = self.up_gate_kind(hidden_size, 2 * intermediate_size, bias=False)
        self.down_proj = nn.Linear(intermediate_size, hidden_size)

    def forward(self, hidden: Tensor) -> Tensor:
        """Transform every token by itself."""
        is_long = hidden.device.type == "cpu" and len(hidden) > _CPU_TOKENS
        if is_long and not self._needs_gradients(hidden):  # they keep all of it anyway
            out = torch.empty_like(hidden)
            for rows, found in zip(
                torch.split(hidden, _CPU_ROWS), torch.split(out, _CPU_ROWS), strict=True
            ):
                found.copy_(self.transform(rows))
            return out
        return self.transform(hidden)

    def _needs_gradients(self, hidden: Tensor) -> bool:
        trained = hidden.requires_grad or any(p.requires_grad for p in self.parameters())
        return trained and torch.is_grad_enabled()

    def transform(self, hidden: Tensor) -> Tensor:
        """``forward`` of a part that is computed at once."""
        out: Tensor = self.down_proj(self.up_gate_proj(hidden))
        return out


class EncoderLayer(nn.Module):
    """Attention and MLP, each with a residual and a LayerNorm behind it.

    Args:
        config: the shape of the network.
        mlp: the MLP, None for a new ``GatedMLP``.
    """

    def __init__(self, config: GTEConfig, mlp: GatedMLP | None = None) -> None:
        super().__init__()
        self.attention = Attention(config.hidden_size, config.num_attention_heads)
        self.attn_ln = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.mlp = mlp or GatedMLP(config.hidden_size, config.intermediate_size)
        self.mlp_ln = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, hidden: Tensor, rotary: RotaryAngles, layout: PackLayout) -> Tensor:
        """One post-norm transformer layer."""
        return self._add(hidden, self.attention(hidden, rotary, layout))

    def compute_cls(self, hidden: Tensor, rotary: RotaryAngles, layout: PackLayout) -> Tensor:
        """What ``forward`` gives for the CLS token of every sequence, ``(n, hidden_size)``."""
        attended = self.attention.compute_cls(hidden, rotary, layout)
        return self._add(hidden[layout.cls_indices], attended)

    def _add(self, hidden: Tensor, attended: Tensor) -> Tensor:
        """Both residuals, each with its LayerNorm, and the MLP between them."""
        hidden = self.attn_ln(attended.add_(hidden))
        hidden = self.mlp_ln(self.mlp(hidden).add_(hidden))
        return hidden


class Pooler(nn.Module):
    """``tanh(dense(CLS))``, in front of a sequence classifier."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.dense = nn.Linear(hidden_size, hidden_size)

    def forward(self, cls: Tensor) -> Tensor:
        """Pool ``(n, hidden_size)`` CLS states."""
        out: Tensor = torch.tanh(self.dense(cls))
        return out
