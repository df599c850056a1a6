"""What a killed process leaves in a database of Milvus Lite, and the engine does not clean up."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_LOG = re.compile(r"wal_(?:data|delta)_(\d+)\.arrow")
_UNFINISHED = {"schema.json.tmp"}  # what a killed create_collection leaves, if anything


def remove_unfinished(database: Path, collection: str) -> None:
    """Remove a collection without a schema: to the engine it is none, yet in the way of one."""
    directory = database / "collections" / collection
    if not directory.is_dir() or {path.name for path in directory.iterdir()} - _UNFINISHED:
        return  # with anything more in it, it is not ours to remove
    for path in directory.iterdir():
        path.unlink()
    directory.rmdir()


def remove_stored_logs(database: Path) -> None:
    """Remove logs whose rows are stored, as a flush does at its end if it is not killed before.

    The engine would read them again when it opens the database, and have each of the rows twice.
    """
    with _alone(database) as alone:
        if alone:
            for collection in database.glob("collections/*"):
                _remove_stored_logs(collection)


def _remove_stored_logs(collection: Path) -> None:
    from milvus_lite.storage.manifest import Manifest

    active = Manifest.load(str(collection)).active_wal_number or 0
    for path in collection.glob("wal/*"):
        log = _LOG.fullmatch(path.name)
        if log and int(log[1]) < active:
            path.unlink()


@contextmanager
def _alone(database: Path) -> Iterator[bool]:
    """Hold the engine's own lock, if nobody has the database open and there is a lock to hold."""
    lock = database / "LOCK"
    if fcntl is None or not lock.exists():
        yield False
        return
    with lock.open("r+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
        else:
            yield True  # closing the file lets go
