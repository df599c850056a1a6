"""The fastest kernels for the weights that a model of transformers holds, made at first use.

The kernels of a CPU keep weights in an order of their own. The model's parameters stay ordinary
ones, which anybody may move, cast, load or train; so every pass looks whether they changed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn

from gte_core import GTEConfig
from gte_core.network.kernels import choose_kernels
from gte_core.network.model import EncoderStack
from gte_integrations._transformers.dropout import is_observed


class _State(NamedTuple):
    """What tells whether a parameter is what it was, unless it is written through ``.data``."""

    place: int
    version: int

    @classmethod
    def of(cls, tensor: Tensor) -> _State:
        return cls(tensor.data_ptr(), 0 if tensor.is_inference() else tensor._version)


@dataclass(frozen=True)
class _Made:
    """Kernels, and what they were made of."""

    states: Mapping[str, _State]
    samples: Tensor
    encoder: EncoderStack


class Kernels:
    """The kernels of one model; copied and pickled without them.

    Args:
        kinds: the modules that have kernels, or need none.
    """

    def __init__(self, kinds: Iterable[type[nn.Module]]) -> None:
        self._kinds = frozenset(kinds)
        self._made: _Made | None = None

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return type(self)(self._kinds)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._kinds,)

    def encoder(self, config: GTEConfig, encoder: EncoderStack, hidden: Tensor) -> EncoderStack:
        """What computes the layers: with kernels where there are any, else ``encoder`` itself.

        Args:
            config: the shape of the network.
            encoder: the layers.
            hidden: what goes into the first of them.
        """
        if not self._are_for(encoder, hidden):
            self._made = None
            return encoder
        weights = {f"encoder.{name}": p.detach() for name, p in encoder.named_parameters()}
        states = {name: _State.of(weight) for name, weight in weights.items()}
        samples = _sampled(weights.values())
        made = self._made
        if made is None or states != made.states or not samples.equal(made.samples):
            config = replace(config, num_hidden_layers=len(encoder.layer))
            made = self._made = _Made(states, samples, EncoderStack.sharing(config, weights))
        return made.encoder

    def _are_for(self, encoder: nn.Module, hidden: Tensor) -> bool:
        """Whether there are kernels, and the layers are ours, of one type and in one place.

        They are not with adapters, quantized products or hooks.
        """
        place = hidden.dtype, hidden.device
        return (
            choose_kernels(*place) is not None
            and all((weight.dtype, weight.device) == place for weight in encoder.parameters())
            and all(type(module) in self._kinds for module in encoder.modules())
            and not any(is_observed(module) for module in encoder.modules())
        )


def _sampled(weights: Iterable[Tensor]) -> Tensor:
    """Some elements of all matrices, at least one of every row and nearly every column.

    They show what is written through ``.data``, which has no version.
    """
    matrices = (weight for weight in weights if weight.ndim == 2)
    return torch.cat([each.flatten()[:: max(1, min(each.shape) - 1)] for each in matrices])
