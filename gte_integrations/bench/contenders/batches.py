"""The batch sizes that peers are measured at, each under the name of a variant."""

from __future__ import annotations

from collections.abc import Sequence

_SIZES = {"cuda": (32, 128), "cpu": (32, 8, 4, 1)}


def batch_variants(device: str) -> tuple[str, ...]:
    """The peers' usual 32, and what may suit the device better."""
    sizes = _SIZES.get(device.partition(":")[0], (32,))
    return tuple(f"batch {size}" for size in sizes)


def batch_size(variant: str) -> int:
    """The number in the name of a variant."""
    return int(variant.removeprefix("batch "))


def distinct(variants: Sequence[str], texts_a_call: int) -> list[str]:
    """Leave out batch sizes that would not split a call otherwise than one before them."""
    kept: dict[int, str] = {}
    for variant in variants:
        kept.setdefault(min(batch_size(variant), texts_a_call), variant)
    return list(kept.values())
