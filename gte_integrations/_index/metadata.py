"""What a collection records about its making, and whether an index fits to it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from gte_core import CollectionMismatch, Fingerprint

Metadata = dict[str, str | int | bool | None]
Quantization = Literal["float32", "float16", "int8"]
"""How an engine keeps dense vectors; the public argument is called ``storage``."""
Kind = Literal["dense", "sparse"]
_OF_FINGERPRINT = ("model", "revision", "max_length", "numeric")
_SPARSE_HALF = "sparse_"  # before what is recorded of the model that gives the sparse vectors


def fingerprint_metadata(fingerprint: Fingerprint) -> Metadata:
    """What is recorded of a fingerprint; that of a pair's sparse half under keys of its own."""
    found: Metadata = {name: getattr(fingerprint, name) for name in _OF_FINGERPRINT}
    if fingerprint.sparse is None:
        return found
    return found | of_sparse_half(fingerprint_metadata(fingerprint.sparse))


def of_sparse_half(metadata: Metadata) -> Metadata:
    """The same under the keys that a pair's sparse half has in the metadata of the pair."""
    return {f"{_SPARSE_HALF}{key}": value for key, value in metadata.items()}


def sparse_half(metadata: Mapping[str, Any]) -> Metadata:
    """Undoes ``of_sparse_half``; {} if it was no pair that filled the collection."""
    mark = _SPARSE_HALF
    return {key.removeprefix(mark): metadata[key] for key in metadata if key.startswith(mark)}


def recorded_fingerprint(metadata: Mapping[str, Any]) -> Fingerprint:
    """The fingerprint that ``fingerprint_metadata`` recorded."""
    sparse = sparse_half(metadata)
    return Fingerprint(
        metadata["model"],
        metadata.get("revision"),
        metadata["max_length"],
        metadata.get("numeric", "float"),
        sparse=recorded_fingerprint(sparse) if sparse else None,
    )


def kinds_of(metadata: Metadata) -> tuple[Kind, ...]:
    """Which vectors a collection has; without dense ones, what says how they are kept is None."""
    has: dict[Kind, object] = {
        "dense": metadata["dimensions"],
        "sparse": metadata.get("sparse", True),
    }
    return tuple(kind for kind, there in has.items() if there)


def compare_metadata(
    name: str, expected: Metadata, found: Metadata, kind: str = "collection"
) -> None:
    """Raise ``CollectionMismatch`` with every difference, one a line.

    A key that an old collection lacks is no difference.
    """
    check_recorded(name, found, kind)
    check_alike(name, expected, found, kind)


def check_alike(name: str, expected: Metadata, found: Metadata, kind: str = "collection") -> None:
    """``compare_metadata`` where it does not matter whether the model was recorded."""
    # What is recorded of a pair alone is a difference also where one of both lacks it.
    no_pair = of_sparse_half(dict.fromkeys(_OF_FINGERPRINT))
    expected, found = no_pair | expected, no_pair | found
    differences = [
        f"  {key}: the {kind} has {found.get(key)!r}, this index needs {value!r}"
        for key, value in expected.items()
        if found.get(key, value) != value
    ]
    if differences:
        raise CollectionMismatch(
            f"{name} was built differently:\n"
            + "\n".join(differences)
            + f"\nUse the encoder and size it was built with, or another {kind}."
        )


def is_recorded(found: Metadata) -> bool:
    """Whether a collection says which model filled it."""
    return found.get("model") is not None


def check_recorded(name: str, found: Metadata, kind: str = "collection") -> None:
    """Raise ``CollectionMismatch`` unless a collection says which model filled it."""
    if not is_recorded(found):
        adoptable = ", or adopt() it if a vectorizer filled it" if kind == "collection" else ""
        raise CollectionMismatch(
            f"{name} exists, but holds no record of the model that filled it, so this library did "
            f"not make it; use another {kind}{adoptable}."
        )
