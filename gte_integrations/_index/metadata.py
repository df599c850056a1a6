"""What a collection records about its making, and whether an index fits to it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from gte_core import CollectionMismatch

if TYPE_CHECKING:
    from gte_integrations._index.store import Store

Metadata = dict[str, str | int | bool | None]
Quantization = Literal["float32", "float16", "int8"]
"""How an engine keeps dense vectors; the public argument is called ``storage``."""


def recorded_metadata(store: Store[Any]) -> Metadata | None:
    """The metadata of a store's collection, None if there is none.

    Raises ``CollectionMismatch`` if the collection was made by something else.
    """
    found = store.describe()
    if found is not None:
        _check_recorded(store.name, found, "collection")
    return found


def read_metadata(store: Store[Any]) -> Metadata | None:
    """``recorded_metadata`` of a store that is opened for nothing else, and closed again."""
    try:
        return recorded_metadata(store)
    finally:
        store.close()


def list_collections(store: Store[Any]) -> list[str]:
    """The collections beside the store's own; it is opened for nothing else, and closed again."""
    try:
        return store.collections()
    finally:
        store.close()


def compare_metadata(
    name: str, expected: Metadata, found: Metadata, kind: str = "collection"
) -> None:
    """Raise ``CollectionMismatch`` with every difference, one a line.

    A key that an old collection lacks is no difference.
    """
    _check_recorded(name, found, kind)
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


def _check_recorded(name: str, found: Metadata, kind: str) -> None:
    if not is_recorded(found):
        adoptable = ", or adopt() it if a vectorizer filled it" if kind == "collection" else ""
        raise CollectionMismatch(
            f"{name} exists, but holds no record of the model that filled it, so this library did "
            f"not make it; use another {kind}{adoptable}."
        )
