"""What a collection records about its making, and whether an index fits to it."""

from __future__ import annotations

from typing import Literal

from gte_core import CollectionMismatch

Metadata = dict[str, str | int | bool | None]
Quantization = Literal["float32", "float16", "int8"]
"""How an engine keeps dense vectors; the public argument is called ``storage``."""


def compare_metadata(
    name: str, expected: Metadata, found: Metadata, kind: str = "collection"
) -> None:
    """Raise ``CollectionMismatch`` with every difference, one a line.

    A key that an old collection lacks is no difference.
    """
    check_recorded(name, found, kind)
    # Recorded where there is one, so an encoder without it says nothing.
    check_alike(name, {"document_prefix": "", **expected}, found, kind)


def check_alike(name: str, expected: Metadata, found: Metadata, kind: str = "collection") -> None:
    """``compare_metadata`` where it does not matter whether the model was recorded."""
    differences = [
        f"  {key}: the {kind} has {found.get(key)!r}, this index needs {value!r}"
        + (f"; load the model with max_length={found[key]}" if key == "max_length" else "")
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
