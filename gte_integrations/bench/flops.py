"""What a pass costs: the multiplications and additions that the network itself needs."""

from __future__ import annotations

from collections.abc import Sequence

from gte_core import GTEConfig


def flops(config: GTEConfig, n_tokens: Sequence[int]) -> int:
    """Floating point operations of one pass over texts of these lengths.

    Two for every weight of a linear layer and token, and ``4 x length x hidden_size`` per token
    and layer for attention. Norms, activations and the heads are left out: they are below 1 %.
    """
    hidden = config.hidden_size
    # qkv and output projection; up, gate and down projection.
    weights = 4 * hidden * hidden + 3 * hidden * config.intermediate_size
    linear = 2 * weights * sum(n_tokens)
    attention = 4 * hidden * sum(length * length for length in n_tokens)
    return config.num_hidden_layers * (linear + attention)
