"""The weights of a checkpoint -> their final place and type, one tensor at a time."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gte_core.checkpoint.weights import Checkpoint
from gte_core.network.kernels import Kernels

_ENCODER = "encoder."
_HEADS = ("classifier.", "pooler.", "lm_head.")
_DECODER = "lm_head.decoder.weight"
_TABLE = "embeddings.word_embeddings.weight"


@dataclass(frozen=True, slots=True)
class Placement:
    """Where weights go, in which type, and which kernels compute with them.

    Attributes:
        device: where the model computes.
        dtype: of the activations, and of every parameter but those named below.
        head_dtype: of the heads, which cost little and whose rounding shows. The decoder of a
            language model, as large as the word embeddings, is of the activations' type.
        kernels: what computes the encoder's products and keeps their weights; None for torch's
            own layers.
        table_stays_mapped: whether a CPU reads word embeddings from the file, in their stored type.
            They are 63 % of the published model, and a text needs a few rows of them.
    """

    device: torch.device
    dtype: torch.dtype
    head_dtype: torch.dtype
    kernels: Kernels | None = None
    table_stays_mapped: bool = False

    def fill(self, model: nn.Module, checkpoint: Checkpoint) -> None:
        """Give every parameter of a model on the meta device its weights."""
        for path, module in list(model.named_modules()):
            names = [f"{path}.{name}" for name, _ in module.named_parameters(recurse=False)]
            if self.kernels and isinstance(module, nn.Linear) and path.startswith(_ENCODER):
                model.set_submodule(path, self._product(module, names, self.kernels, checkpoint))
            else:
                tensors = {name.rpartition(".")[2]: self._read(name, checkpoint) for name in names}
                module.load_state_dict(tensors, strict=False, assign=True)

    def _read(self, name: str, checkpoint: Checkpoint) -> Tensor:
        if self.table_stays_mapped and name == _TABLE and self.device.type == "cpu":
            return checkpoint.mapped(name)
        is_head = name.startswith(_HEADS) and name != _DECODER
        dtype = self.head_dtype if is_head else self.dtype
        return checkpoint.copy(name, device=self.device, dtype=dtype)

    def _product(
        self, module: nn.Linear, names: list[str], kernels: Kernels, checkpoint: Checkpoint
    ) -> nn.Module:
        weight, *biases = names
        bias = self._read(biases[0], checkpoint) if biases else None
        stored = checkpoint.copy(weight, device=self.device, dtype=kernels.weight_dtype)
        return kernels.replace(module, stored, bias)
