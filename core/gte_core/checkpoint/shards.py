"""Which files hold a model's weights: one, or the shards that an index names. Needs no torch."""

from __future__ import annotations

import re
from pathlib import Path

from gte_core.checkpoint.files import exists, listing, read_json_object, shown
from gte_core.exceptions import WeightsError

_SHARD = re.compile(r"[\w.-]{1,200}\.safetensors")
_PICKLES = (".bin", ".pt", ".pth", ".pkl", ".ckpt")


def weight_files(directory: Path) -> list[Path]:
    """The safetensors files of a model directory; ``WeightsError`` if it has none."""
    single = directory / "model.safetensors"
    index = directory / "model.safetensors.index.json"
    if exists(single):
        return [single]
    if exists(index):
        return _shards(index)
    if pickles := _pickles(directory):
        raise WeightsError(
            f"{directory} holds {listing(pickles)} but no model.safetensors. Only safetensors "
            "are read, because other formats can run code when opened; convert the weights first."
        )
    raise WeightsError(
        f"{directory} holds neither model.safetensors nor model.safetensors.index.json. "
        "Check the path, or download the weights."
    )


def _pickles(directory: Path) -> list[str]:
    try:
        return [path.name for path in directory.iterdir() if path.suffix in _PICKLES]
    except OSError as error:
        raise WeightsError(f"{directory} cannot be read ({error}). Check the path.") from error


def _shards(index: Path) -> list[Path]:
    weight_map = read_json_object(index, WeightsError).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise WeightsError(
            f"{index} is not a valid index of shards: weight_map is {shown(weight_map)}. Download "
            "it again."
        )
    for name in weight_map.values():
        if not isinstance(name, str) or not _SHARD.fullmatch(name):
            raise WeightsError(
                f"{index} names {shown(name)}; a shard is a *.safetensors file beside the index."
            )
    names = sorted(set(weight_map.values()))
    for name in names:
        if not exists(index.parent / name):
            raise WeightsError(f"{index} names {name}, which is missing. Download it too.")
    return [index.parent / name for name in names]
