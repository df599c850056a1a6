"""The safetensors files of a model directory, under one set of names.

Only safetensors are opened: nothing from a model directory is imported or unpickled.

Checkpoints of this architecture come in several key layouts. Parameters are named here as in the
original code without its prefix; the tables below say how the other layouts map onto that.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from gte_core.config import Task
from gte_core.exceptions import WeightsError
from gte_core.files import read_json_object

# Longest first: transformers saves "new.gte." when it has loaded "new.".
_PREFIXES = ("new.gte.", "new.", "gte.")

# transformers' own names -> the original's.
_RENAMES = (
    (re.compile(r"^layers\."), "encoder.layer."),
    (re.compile(r"\.self_attn\."), ".attention."),
    (re.compile(r"\.post_attention_layernorm\."), ".attn_ln."),
    (re.compile(r"\.post_mlp_layernorm\."), ".mlp_ln."),
)

# Parameters that some files hold in parts, to be stacked along the first axis in this order.
_STACKED = {"qkv_proj": ("q_proj", "k_proj", "v_proj"), "up_gate_proj": ("up_proj", "gate_proj")}
_WHOLE_OF = {part: whole for whole, parts in _STACKED.items() for part in parts}

# Present in some files, read by none of our heads: the language model's head and rotary tables.
_IGNORED = re.compile(r"lm_head\.|.*(rotary_emb\.|inv_freq$|position_ids$)")

_LAYER = re.compile(r"encoder\.layer\.(\d+)\.")
_BLOCK_NUMBERS = 2**24  # read of a tensor at once
_FLOATS = ("F16", "BF16", "F32", "F64")
_PICKLES = (".bin", ".pt", ".pth", ".pkl", ".ckpt")


class Checkpoint:
    """The tensors of a model directory under their original names, read one at a time.

    Files are mapped only while a tensor is read, so that what was read counts towards the memory
    of the process once, not twice.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        # name -> part -> where it is stored; the part of a tensor stored whole is its own name.
        self._stored: dict[str, dict[str, _StoredTensor]] = {}
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
        tensors = [stored.rows() for stored in self._parts(name)]
        return torch.cat(tensors) if len(tensors) > 1 else tensors[0]

    def copy(self, name: str, *, device: torch.device, dtype: torch.dtype) -> Tensor:
        """A tensor in memory of its own, its parts stacked.

        A copy, even of the right type: the file's own memory is not aligned for the CPU's kernels,
        which costs speed and makes the last bits depend on the file's layout.
        """
        out = torch.empty(self._shape(name), device=device, dtype=dtype)
        filled = 0
        for stored in self._parts(name):
            for rows in stored.blocks():
                out[filled : filled + len(rows)] = rows
                filled += len(rows)
        return out

    def check_layers(self, expected: int) -> None:
        """:class:`WeightsError` unless there are this many layers, before any is built."""
        numbers = {int(found[1]) for name in self._stored if (found := _LAYER.match(name))}
        if len(numbers) != expected or numbers != set(range(len(numbers))):
            raise WeightsError(
                f"{self._directory} has weights of {len(numbers)} layers, but config.json wants "
                f"{expected}, numbered from 0. Check that both come from the same checkpoint."
            )

    def check(self, expected: Mapping[str, tuple[int, ...]]) -> None:
        """:class:`WeightsError` listing every missing, unexpected and misshapen tensor at once."""
        missing = [gap for name in expected for gap in self._gaps(name)]
        unexpected = [
            stored.key
            for name in self._stored.keys() - expected.keys()
            for stored in self._stored[name].values()
        ]
        misshapen = [
            f"{name} is {shape}, config.json wants {expected[name]}"
            for name in expected
            if not self._gaps(name) and (shape := self._shape(name)) != expected[name]
        ]
        problems = {
            "missing": missing,
            "unexpected": unexpected + self._duplicates,
            "of another shape": misshapen,
        }
        if any(problems.values()):
            found = [f"{kind}: {_listing(names)}." for kind, names in problems.items() if names]
            raise WeightsError(
                f"The weights in {self._directory} do not match config.json. {' '.join(found)} "
                "Check that both come from the same checkpoint."
            )

    def _index(self, path: Path) -> None:
        for stored in _stored_tensors(path):
            key = stored.key
            name, part = _original_name(key)
            if _IGNORED.match(name):
                continue
            if stored.dtype not in _FLOATS:
                raise WeightsError(
                    f"{key} in {path} is stored as {stored.dtype}; supported are "
                    f"{', '.join(_FLOATS)}. Quantized checkpoints cannot be loaded."
                )
            if self._stored.setdefault(name, {}).setdefault(part, stored) is not stored:
                self._duplicates.append(key)

    def _parts(self, name: str) -> list[_StoredTensor]:
        found = self._stored[name]
        return [found[part] for part in _stacking(name, found)]

    def _gaps(self, name: str) -> list[str]:
        found = self._stored.get(name, {})
        return [part for part in _stacking(name, found) if part not in found]

    def _shape(self, name: str) -> tuple[int, ...]:
        """The shape once stacked; parts that cannot be stacked keep that of the odd one."""
        shapes = [stored.shape for stored in self._parts(name)]
        odd = next((shape for shape in shapes if shape != shapes[0]), None)
        if len(shapes) == 1 or odd is not None:
            return shapes[0] if odd is None else odd
        return (len(shapes) * shapes[0][0], *shapes[0][1:])


@dataclass(frozen=True, slots=True)
class _StoredTensor:
    """One tensor in a file."""

    path: Path
    key: str
    shape: tuple[int, ...]
    dtype: str

    def rows(self, start: int = 0, stop: int | None = None) -> Tensor:
        """Rows of it, in the file's own memory, which stays mapped as long as they are kept."""
        with safe_open(self.path, framework="pt") as file:
            rows: Tensor = file.get_slice(self.key)[start:stop]
        return rows

    def blocks(self) -> Iterator[Tensor]:
        """All rows, in blocks of bounded size."""
        step = max(1, _BLOCK_NUMBERS // max(1, math.prod(self.shape[1:])))
        for start in range(0, self.shape[0], step):
            yield self.rows(start, start + step)


def _stored_tensors(path: Path) -> Iterator[_StoredTensor]:
    try:
        with safe_open(path, framework="pt") as file:
            for key in file.keys():  # noqa: SIM118  not a dict: it has no __iter__
                header = file.get_slice(key)
                yield _StoredTensor(path, key, tuple(header.get_shape()), header.get_dtype())
    except (SafetensorError, OSError) as error:
        raise WeightsError(
            f"{path} is not a readable safetensors file ({error}). Download it again."
        ) from error


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


def weight_files(directory: Path) -> list[Path]:
    """The safetensors files of a model directory; :class:`WeightsError` if it has none."""
    single = directory / "model.safetensors"
    index = directory / "model.safetensors.index.json"
    if single.exists():
        return [single]
    if index.exists():
        return _shards(index)
    pickles = sorted(p.name for p in directory.iterdir() if p.suffix in _PICKLES)
    if pickles:
        raise WeightsError(
            f"{directory} holds {', '.join(pickles)} but no model.safetensors. Only safetensors "
            "are read, because other formats can run code when opened; convert the weights first."
        )
    raise WeightsError(
        f"{directory} holds neither model.safetensors nor model.safetensors.index.json. "
        "Check the path, or download the weights."
    )


def _shards(index: Path) -> list[Path]:
    weight_map = read_json_object(index, WeightsError).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise WeightsError(
            f"{index} is not a valid index of shards: weight_map is {weight_map!r}. Download it "
            "again."
        )
    names = sorted(set(map(str, weight_map.values())))
    for name in names:
        if Path(name).name != name or not name.endswith(".safetensors"):
            raise WeightsError(
                f"{index} names {name!r}; a shard is a *.safetensors file beside the index."
            )
        if not (index.parent / name).exists():
            raise WeightsError(f"{index} names {name}, which is missing. Download it too.")
    return [index.parent / name for name in names]


def _listing(names: list[str], limit: int = 20) -> str:
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(sorted(names)[:limit]) + more
