"""Dense modules: matrices that project the pooled state, as their files describe them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from gte_core.checkpoint.files import exists, read_json_object
from gte_core.exceptions import ConfigError

if TYPE_CHECKING:
    from gte_core.checkpoint.modules import Module

Activation = Literal["identity", "tanh"]

MATRIX_FILE = "model.safetensors"
# sentence-transformers begins the name of a module's folder with its place and its class.
MATRIX_PATTERN = f"*_Dense*/{MATRIX_FILE}"

_ACTIVATIONS: Mapping[str, Activation] = {
    "torch.nn.Identity": "identity",
    "torch.nn.modules.linear.Identity": "identity",
    "torch.nn.Tanh": "tanh",
    "torch.nn.modules.activation.Tanh": "tanh",
}
_SIZED_FOLDER = re.compile(r"(.*_)([1-9][0-9]{0,5})")
_LARGEST_SIZE = 2**17


@dataclass(frozen=True, slots=True)
class DenseModule:
    """``activation(matrix · state + bias)``.

    Attributes:
        directory: holds ``config.json`` and ``model.safetensors``.
        in_features: size of the pooled state.
        out_features: size of what it makes of it.
        bias: whether there is one.
        activation: what is done to every component at last.
    """

    directory: Path
    in_features: int
    out_features: int
    bias: bool
    activation: Activation

    @property
    def matrix_file(self) -> Path:
        """Where the matrix is."""
        return self.directory / MATRIX_FILE


def read_dense(module: Module, hidden_size: int) -> DenseModule:
    """What a ``Dense`` module says, checked; ``ConfigError`` for what is not computed."""
    settings = module.settings
    for name in ("module_input_name", "module_output_name"):
        module.require(name, "sentence_embedding")
    module.require("use_residual", False)
    if settings.get("in_features") != hidden_size:
        raise module.refusal("in_features", f"{hidden_size}, the size of the pooled state")
    size, bias = settings.get("out_features"), settings.get("bias", True)
    if type(size) is not int or not 1 <= size <= _LARGEST_SIZE:
        raise module.refusal("out_features", f"an integer from 1 to {_LARGEST_SIZE}")
    if not isinstance(bias, bool):
        raise module.refusal("bias", "true or false")
    activation = settings.get("activation_function", "torch.nn.Tanh")
    if not isinstance(activation, str) or activation not in _ACTIVATIONS:
        raise module.refusal("activation_function", " or ".join(map(repr, _ACTIVATIONS)))
    return DenseModule(module.file.parent, hidden_size, size, bias, _ACTIVATIONS[activation])


def read_sizes(module: Module, listed: DenseModule) -> Mapping[int, DenseModule]:
    """Matrices by size, where those of other sizes stand beside the listed one; else none.

    Their folders are named alike up to the size at the end: ``2_Dense_1024``, ``2_Dense_512``.
    """
    found = {listed.out_features: listed}
    for size, folder in _siblings(listed):
        file = folder / "config.json"
        beside = replace(module, file=file, settings=read_json_object(file, ConfigError))
        found[size] = read_dense(beside, listed.in_features)
        if found[size].out_features != size:
            raise beside.refusal("out_features", f"{size}, as the folder's name says")
    return dict(sorted(found.items())) if len(found) > 1 else {}


def _siblings(listed: DenseModule) -> Iterator[tuple[int, Path]]:
    """Size and folder of the matrices that are there in full beside the listed one."""
    own = _SIZED_FOLDER.fullmatch(listed.directory.name)
    if own is None or int(own[2]) != listed.out_features:
        return
    for folder in sorted(listed.directory.parent.iterdir()):
        named = _SIZED_FOLDER.fullmatch(folder.name)
        if named is None or named[1] != own[1] or folder == listed.directory:
            continue
        if exists(folder / "config.json") and exists(folder / MATRIX_FILE):
            yield int(named[2]), folder
