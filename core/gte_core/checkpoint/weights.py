"""The safetensors files of a model directory, under one set of names.

Only safetensors are opened: nothing from a model directory is imported or unpickled.

Checkpoints of this architecture come in several key layouts. Parameters are named here as in the
original code without its prefix; the tables below say how the other layouts map onto that.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from gte_core.checkpoint.config import Task
from gte_core.checkpoint.files import listing, shortened, shown
from gte_core.checkpoint.shards import weight_files
from gte_core.checkpoint.tensors import FLOATS, StoredTensor, stored_tensors
from gte_core.exceptions import WeightsError

# Longest first: transformers saves "new.gte." when it has loaded "new.".
_PREFIXES = ("new.gte.", "new.", "gte.")

# transformers' own names -> the original's.
_RENAMES = (
    (re.compile(r"^layers\."), "encoder.layer."),
    (re.compile(r"\.self_attn\."), ".attention."),
    (re.compile(r"\.post_attention_layernorm\."), ".attn_ln."),
    (re.compile(r"\.post_mlp_layernorm\."), ".mlp_ln."),
    (re.compile(r"^lm_head\.layer_norm\."), "lm_head.norm."),
)

# Parameters that some files hold in parts, to be stacked along the first axis in this order.
_STACKED = {"qkv_proj": ("q_proj", "k_proj", "v_proj"), "up_gate_proj": ("up_proj", "gate_proj")}
_WHOLE_OF = {part: whole for whole, parts in _STACKED.items() for part in parts}

# Some files hold rotary tables, which nothing here reads, and the head of the language model.
_IGNORED = re.compile(r".*(rotary_emb\.|inv_freq$|position_ids$)")
_LM_HEAD = "lm_head."

# Six digits are enough: a tensor with a longer number is reported as unexpected.
_LAYER = re.compile(r"encoder\.layer\.([0-9]{1,6})\.")


class Checkpoint:
    """The tensors of a model directory under their original names, read one at a time.

    Tensors are read in blocks. Mapped, they would count twice towards the memory of the process.

    Args:
        directory: holds the safetensors.
        lm_head: whether the head of the language model is wanted, which is ignored otherwise.
    """

    def __init__(self, directory: Path, *, lm_head: bool = False) -> None:
        self._directory = directory
        self._has_lm_head = lm_head
        # name -> part -> where it is stored; the part of a tensor stored whole is its own name.
        self._stored: dict[str, dict[str, StoredTensor]] = {}
        self._duplicates: list[str] = []
        for path in weight_files(directory):
            self._index(path)

    def __contains__(self, name: str) -> bool:
        return name in self._stored

    @property
    def task(self) -> Task | None:
        """The head these weights hold, None for an encoder alone."""
        if "classifier.weight" not in self:
            return None
        pooled = "pooler.dense.weight" in self
        return "sequence_classification" if pooled else "token_classification"

    @property
    def num_labels(self) -> int:
        """Outputs of the classifier these weights hold, 1 if they hold none."""
        shape = self._shape("classifier.weight") if "classifier.weight" in self else ()
        return shape[0] if shape else 1

    def mapped(self, name: str) -> Tensor:
        """A tensor in the type it is stored in, left in the file where it is stored whole."""
        tensors = [stored.mapped() for stored in self._parts(name)]
        return torch.cat(tensors) if len(tensors) > 1 else tensors[0]

    def copy(self, name: str, *, device: torch.device, dtype: torch.dtype) -> Tensor:
        """A tensor in memory of its own, its parts stacked.

        It is a copy even of the right type: the file's own memory is not aligned for the CPU's
        kernels, which costs speed and makes the last bits depend on the file's layout.
        """
        out = torch.empty(self._shape(name), device=device, dtype=dtype)
        filled = 0
        for stored in self._parts(name):
            for rows in stored.blocks():
                out[filled : filled + len(rows)] = rows
                filled += len(rows)
        return out

    def check_layers(self, expected: int) -> None:
        """``WeightsError`` unless there are this many layers, before any is built."""
        numbers = {int(found[1]) for name in self._stored if (found := _LAYER.match(name))}
        if len(numbers) != expected or numbers != set(range(len(numbers))):
            raise WeightsError(
                f"{self._directory} has weights of {len(numbers)} layers, but config.json wants "
                f"{expected}, numbered from 0. Check that both come from the same checkpoint."
            )

    def check(self, expected: Mapping[str, tuple[int, ...]]) -> None:
        """``WeightsError`` listing every missing, unexpected and misshapen tensor at once."""
        missing = [gap for name in expected for gap in self._gaps(name)]
        unexpected = [
            stored.key
            for name in self._stored.keys() - expected.keys()
            for stored in self._stored[name].values()
        ]
        misshapen = [
            f"{name} is {shown(shape)}, config.json wants {expected[name]}"
            for name in expected
            if not self._gaps(name) and (shape := self._shape(name)) != expected[name]
        ]
        problems = {
            "missing": missing,
            "unexpected": unexpected + self._duplicates,
            "of another shape": misshapen,
        }
        if any(problems.values()):
            found = [f"{kind}: {listing(names)}." for kind, names in problems.items() if names]
            raise WeightsError(
                f"The weights in {self._directory} do not match config.json. {' '.join(found)} "
                "Check that both come from the same checkpoint."
            )

    def _index(self, path: Path) -> None:
        for stored in stored_tensors(path):
            key = stored.key
            name, part = _original_name(key)
            if _IGNORED.match(name) or (name.startswith(_LM_HEAD) and not self._has_lm_head):
                continue
            if stored.dtype not in FLOATS:
                raise WeightsError(
                    f"{shortened(key)} in {path} is stored as {stored.dtype}; supported are "
                    f"{', '.join(FLOATS)}. Quantized checkpoints cannot be loaded."
                )
            if self._stored.setdefault(name, {}).setdefault(part, stored) is not stored:
                self._duplicates.append(key)

    def _parts(self, name: str) -> list[StoredTensor]:
        found = self._stored[name]
        return [found[part] for part in _stacking(name, found)]

    def _gaps(self, name: str) -> list[str]:
        found = self._stored.get(name, {})
        return [part for part in _stacking(name, found) if part not in found]

    def _shape(self, name: str) -> tuple[int, ...]:
        """The shape of the stacked parts; if one has another shape than the first, its shape."""
        shapes = [stored.shape for stored in self._parts(name)]
        odd = next((shape for shape in shapes if shape != shapes[0]), None)
        if odd is not None:
            return odd
        if len(shapes) == 1 or not shapes[0]:
            return shapes[0]
        return (len(shapes) * shapes[0][0], *shapes[0][1:])


def _original_name(key: str) -> tuple[str, str]:
    """The original name of a stored tensor, and of the part of it that is stored."""
    name = key.removeprefix(next((p for p in _PREFIXES if key.startswith(p)), ""))
    for pattern, replacement in _RENAMES:
        name = pattern.sub(replacement, name)
    path, _, kind = name.rpartition(".")
    parent, _, leaf = path.rpartition(".")
    return (f"{parent}.{_WHOLE_OF[leaf]}.{kind}" if leaf in _WHOLE_OF else name), name


def _stacking(name: str, found: Iterable[str]) -> list[str]:
    """The parts that make up a tensor: itself if stored whole, or its pieces in order."""
    path, _, kind = name.rpartition(".")
    parent, _, leaf = path.rpartition(".")
    if name in found or not found or leaf not in _STACKED:
        return [name]
    return [f"{parent}.{part}.{kind}" for part in _STACKED[leaf]]
