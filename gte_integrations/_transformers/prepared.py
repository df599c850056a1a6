"""The fastest kernels for the weights that a model of transformers holds, made at first use.

The kernels of a CPU keep weights in an order of their own. The model's parameters stay ordinary
ones, which anybody may move, cast, load or train; so every pass looks whether they changed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Self

from torch import Tensor, nn

from gte_core import GTEConfig, GTEModel
from gte_core.network.kernels import GatedLinear, choose_kernels
from gte_core.network.layers import Embeddings
from gte_core.network.model import EncoderStack
from gte_integrations._transformers.dropout import is_observed

_PLAIN = (nn.Linear, GatedLinear)


class _State(NamedTuple):
    """What tells whether a parameter is what it was."""

    place: int
    version: int
    sample: float  # for what is written through ``.data``, which has no version

    @classmethod
    def of(cls, tensor: Tensor) -> _State:
        version = 0 if tensor.is_inference() else tensor._version
        return cls(tensor.data_ptr(), version, tensor.flatten()[tensor.numel() // 2].item())


class Kernels:
    """The kernels of one model; copied and pickled without them."""

    def __init__(self) -> None:
        self._made: tuple[Mapping[str, _State], GTEModel] | None = None

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return type(self)()

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), ()

    def encoder(
        self, config: GTEConfig, embeddings: Embeddings, encoder: EncoderStack
    ) -> EncoderStack:
        """What computes the layers: with kernels where there are any, else ``encoder`` itself."""
        scale = embeddings.LayerNorm.weight
        if choose_kernels(scale.dtype, scale.device) is None or not _is_plain(encoder):
            self._made = None
            return encoder
        weights = {f"encoder.{name}": p.detach() for name, p in encoder.named_parameters()}
        states = {name: _State.of(weight) for name, weight in weights.items()}
        made = self._made
        if made is None or states != made[0]:
            weights |= {
                f"embeddings.{name}": p.detach() for name, p in embeddings.named_parameters()
            }
            made = self._made = states, GTEModel.sharing(config, weights)
        return made[1].encoder


def _is_plain(encoder: nn.Module) -> bool:
    """Whether the layers are ours, in one type: no adapters, no quantized products, no hooks."""
    modules = list(encoder.modules())
    products = [module for module in modules if hasattr(module, "in_features")]
    return (
        all(type(product) in _PLAIN for product in products)
        and len({parameter.dtype for parameter in encoder.parameters()}) == 1
        and not any(is_observed(module) for module in modules)
    )
