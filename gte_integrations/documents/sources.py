"""The files that given paths stand for, and what their documents are called after."""

from __future__ import annotations

import difflib
import logging
import os
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Source:
    """One file to read.

    Attributes:
        path: where it is.
        origin: the absolute path of the folder that ``name`` is relative to.
        name: its path below this folder.
        twin: another file of the same run with the same name, if there is one.
    """

    path: Path
    origin: str
    name: str
    twin: Path | None = None


def find_sources(path: Path, endings: Collection[str]) -> list[Source]:
    """Find the files with one of the endings that a path stands for: a file, or a whole folder.

    Raises ``FileNotFoundError`` or ``ValueError`` if there is none.
    """
    allowed = f"allowed are {', '.join(sorted(endings))} and folders of them."
    if path.is_dir():
        return _find_in_folder(path, endings, allowed)
    check_link(path)
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist{_names_nearby(path)}")
    if ending(path) not in endings:
        raise ValueError(
            f"{path}: cannot read {ending(path) or 'a file without suffix'}; {allowed}"
        )
    return [Source(path, str(path.parent.resolve()), path.name)]


def ending(path: Path) -> str:
    """What tells the kind of a file, such as ``.txt``."""
    return path.suffix.lower()


def spelled(path: Path) -> str:
    """A path as payloads have it, however it was typed.

    It is relative to the working directory if it is below, as most paths are typed, else absolute.
    """
    whole = Path(os.path.abspath(path))  # noqa: PTH100 - links keep the names they have
    here = Path.cwd()
    return (whole.relative_to(here) if whole.is_relative_to(here) else whole).as_posix()


def name_twins(sources: Iterable[Source]) -> list[Source]:
    """Drop files that were given twice, and let different files of one name know each other."""
    once: dict[str, Source] = {}
    paths: defaultdict[str, list[Path]] = defaultdict(list)
    for source in sources:
        # Path.resolve raises where links lead to one another, which reading refuses in its turn.
        if once.setdefault(os.path.realpath(source.path), source) is source:
            paths[source.name].append(source.path)
    return [
        replace(source, twin=next((p for p in paths[source.name] if p != source.path), None))
        for source in once.values()
    ]


def check_link(path: Path) -> None:
    """Raise ``FileNotFoundError`` for a symbolic link to what is not there, or to itself."""
    if path.is_symlink() and not path.exists():
        raise FileNotFoundError(
            f"{path} is a symbolic link to {path.readlink()}, where no file is; mend or remove it."
        )


def _find_in_folder(folder: Path, endings: Collection[str], allowed: str) -> list[Source]:
    readable, others = [], Counter[str]()
    for file in _visible_files(folder):
        if ending(file) in endings or file.is_dir():
            readable.append(file)
        else:
            others[ending(file) or "without suffix"] += 1
    if not readable:
        raise ValueError(f"{folder}: nothing to read in this folder; {allowed}")
    if others:
        counted = ", ".join(f"{count} {ending}" for ending, count in sorted(others.items()))
        _log.warning("%s: left out files of other kinds: %s.", folder, counted)
    origin = str(folder.resolve())
    return [Source(file, origin, file.relative_to(folder).as_posix()) for file in readable]


def _visible_files(folder: Path) -> Iterator[Path]:
    """Yield all files below a folder, and the folders that cannot be opened."""
    for entry in sorted(folder.iterdir()):
        if entry.name.startswith("."):
            continue
        if not entry.is_dir() or not os.access(entry, os.R_OK | os.X_OK):
            yield entry
        elif _is_store(entry):
            _log.warning("%s: left out, for it is where an index keeps its documents.", entry)
        elif not entry.is_symlink():
            yield from _visible_files(entry)


def _is_store(folder: Path) -> bool:
    """Whether a folder is a collection in Qdrant's engine, or a database of Milvus Lite."""
    is_qdrant = (folder / "edge_config.json").exists() and (folder / "segments").is_dir()
    return is_qdrant or (folder.suffix == ".db" and (folder / "collections").is_dir())


def _names_nearby(path: Path) -> str:
    """Say what is there in place of a path that does not exist."""
    missing = path
    while not missing.parent.exists():
        missing = missing.parent
    folder = missing.parent
    if not folder.is_dir():
        return f"; {folder} is a file."
    close = difflib.get_close_matches(missing.name, [entry.name for entry in folder.iterdir()])
    nearby = ", ".join(str(folder / name) for name in close)
    return f"; did you mean {nearby}?" if nearby else f"; no name like it is in {folder.resolve()}."
