"""Dropout where the original has it; the layers of the core compute without."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn.functional import dropout

from gte_core.network.layers import Embeddings
from gte_core.network.model import EncoderStack


@dataclass(frozen=True)
class _Dropout:
    """A forward hook that drops some of what a module gives while it is trained."""

    probability: float

    def __call__(self, module: nn.Module, _: object, output: Tensor) -> Tensor:
        if not module.training:
            return output
        return dropout(output, self.probability, training=True)


def add_dropout(embeddings: Embeddings, encoder: EncoderStack, probability: float) -> None:
    """Let embeddings, attention and MLP drop some of what they give while they train."""
    if not probability:
        return
    embeddings.register_forward_hook(_Dropout(probability))
    for layer in encoder.layer:
        for name in ("attention", "mlp"):
            layer.get_submodule(name).register_forward_hook(_Dropout(probability))


def is_observed(module: nn.Module) -> bool:
    """Whether somebody else has hooks on a module or its own ``forward`` for it."""
    hooks = (*module._forward_hooks.values(), *module._forward_pre_hooks.values())
    return "forward" in vars(module) or any(not isinstance(hook, _Dropout) for hook in hooks)
