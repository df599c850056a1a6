"""Two layouts that do not see each other: a directory of ours, and one of ``QdrantClient(path=…)``.

Ours keeps a collection in ``<name>/`` with a ``gte.json``; the client's local mode keeps
``meta.json`` and ``collection/<name>/storage.sqlite``.
"""

from __future__ import annotations

import json
from pathlib import Path

from gte_core import CollectionMismatch

RECORD = "gte.json"


def refuse_clients(location: Path, collection: str) -> None:
    """``CollectionMismatch`` where a new collection of ours would stand beside the client's.

    A ``meta.json`` among collections of ours is no hindrance: the client leaves one wherever it
    was opened once.
    """
    theirs = _of_client(location)
    if theirs is None or (collection not in theirs and collections_of(location)):
        return
    raise CollectionMismatch(
        f"{str(location)!r} is a directory of QdrantClient(path=...), with {_listed(theirs)}; the "
        "embedded engine cannot read what qdrant-client keeps there. Pass "
        f"QdrantClient(path={str(location)!r}) itself as location, or choose another directory."
    )


def refuse_ours(location: Path, collection: str) -> None:
    """``CollectionMismatch`` where a new collection of the client's would stand beside ours."""
    ours = collections_of(location)
    if ours:
        raise CollectionMismatch(
            f"The QdrantClient has no collection {collection!r}, and its path {str(location)!r} is "
            f"a directory of QdrantHybridIndex, with {_listed(ours)}; qdrant-client cannot read "
            f"what the embedded engine keeps there. Pass {str(location)!r} itself as location, or "
            "choose another path for the client."
        )


def _of_client(location: Path) -> list[str] | None:
    """The collections of the client's local mode, None if the directory is none of its own."""
    try:
        return sorted(json.loads((location / "meta.json").read_bytes())["collections"])
    except (OSError, ValueError, LookupError, TypeError):
        return None


def collections_of(location: Path) -> list[str]:
    """The collections of ours in a directory, sorted."""
    return sorted(record.parent.name for record in location.glob(f"*/{RECORD}"))


def _listed(collections: list[str]) -> str:
    shown = ", ".join(map(repr, collections[:5])) + (", ..." if len(collections) > 5 else "")
    return f"the collections {shown}" if collections else "no collections yet"
