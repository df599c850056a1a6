"""``read_documents``: a stream of documents from files and folders, in bounded memory."""

from __future__ import annotations

import codecs
import csv
import difflib
import json
import logging
import math
import os
import reprlib
import stat
import textwrap
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import date, time
from decimal import Decimal
from itertools import chain
from pathlib import Path
from typing import IO, Any
from uuid import UUID

from gte_integrations._index.document import Document, Unreadable

AnyPath = str | os.PathLike[str]

_PARQUET_ROWS = 256
_LARGEST_FIELD = 2**31 - 1

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Source:
    """One file to read.

    Attributes:
        path: where it is.
        origin: the folder that ``name`` is relative to, in full.
        name: its path below what was given.
        prefix: what derived ids begin with, before the name.
        twin: another file of the same run with the same name, if there is one.
    """

    path: Path
    origin: str
    name: str
    prefix: str = ""
    twin: Path | None = None


@dataclass(frozen=True, slots=True)
class _Row:
    """One row of a file: where it begins, its number, and its fields."""

    where: str
    number: int
    fields: Mapping[str, Any]


def read_documents(
    paths: AnyPath | Iterable[AnyPath], *, id_prefix: str = ""
) -> Iterator[Document | Unreadable]:
    """Read .jsonl, .csv, .parquet, .txt and .md files, and folders of them, one by one.

    A row of a .jsonl, .csv or .parquet file has a ``text``, may have an ``id`` (else it is the
    file's name and the row's number), and its other fields are the payload. A .txt or .md file is
    one document: its id is its path below the folder that was given, and its payload holds the
    path as ``source``. Folders are read in sorted order with their subfolders; hidden files and
    links to folders are left out, and files of other kinds are named in a logged warning.

    A derived id is relative to the folder that was given, or that the given file is in; this folder
    is the document's ``origin``. ``id_prefix`` is put before derived ids.

    Paths are checked by the call itself, which raises ``FileNotFoundError`` or ``ValueError``;
    files are opened only when their turn comes. A row or a file that cannot be read comes as
    :class:`Unreadable`, whose error names the file, and the line or row.
    """
    given = [paths] if isinstance(paths, (str, os.PathLike)) else paths
    found = chain.from_iterable(_expand(Path(path)) for path in given)
    sources = _name_twins(replace(source, prefix=id_prefix) for source in found)
    return chain.from_iterable(map(_read, sources))


def decoded_lines(stream: IO[bytes], name: str | Path) -> Iterator[tuple[int, str]]:
    """Yield ``(number, line)`` of UTF-8, line ends kept; ``ValueError`` naming a bad line."""
    for number, line in enumerate(stream, 1):
        yield number, _decode(line, name, number)


def _kind(path: Path) -> str:
    return path.suffix.lower()


# Finding the files


def _expand(path: Path) -> list[_Source]:
    """Find the files that a given path stands for."""
    if path.is_dir():
        return _expand_folder(path)
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist{_names_nearby(path)}")
    if _kind(path) not in _READABLE:
        raise ValueError(
            f"{path}: cannot read {_kind(path) or 'a file without suffix'}; {_ALLOWED}"
        )
    return [_Source(path, str(path.parent.resolve()), path.name)]


def _expand_folder(folder: Path) -> list[_Source]:
    files = list(_visible_files(folder))
    readable = [file for file in files if _kind(file) in _READABLE or file.is_dir()]
    if not readable:
        raise ValueError(f"{folder}: nothing to read in this folder; {_ALLOWED}")
    kinds = Counter(_kind(file) for file in files if not file.is_dir())
    others = [
        f"{kinds[kind]} {kind or 'without suffix'}" for kind in sorted(kinds.keys() - _READABLE)
    ]
    if others:
        _log.warning("%s: left out files of other kinds: %s.", folder, ", ".join(others))
    origin = str(folder.resolve())
    return [_Source(file, origin, file.relative_to(folder).as_posix()) for file in readable]


def _visible_files(folder: Path) -> Iterator[Path]:
    for entry in sorted(folder.iterdir()):
        if entry.name.startswith("."):
            continue
        if not entry.is_dir() or not os.access(entry, os.R_OK | os.X_OK):
            yield entry
        elif not entry.is_symlink():
            yield from _visible_files(entry)


def _name_twins(sources: Iterable[_Source]) -> list[_Source]:
    """Drop files that were given twice, and let different files of one name know each other."""
    once: dict[Path, _Source] = {}
    paths: defaultdict[str, list[Path]] = defaultdict(list)
    for source in sources:
        if once.setdefault(_real(source.path), source) is source:
            paths[source.name].append(source.path)
    return [
        replace(source, twin=next((p for p in paths[source.name] if p != source.path), None))
        for source in once.values()
    ]


def _real(path: Path) -> Path:
    try:
        return path.resolve()
    except RuntimeError:  # links that lead to one another: reading says so
        return path.absolute()


def _names_nearby(path: Path) -> str:
    missing = path
    while not missing.parent.exists():
        missing = missing.parent
    folder = missing.parent
    if not folder.is_dir():
        return f"; {folder} is a file."
    close = difflib.get_close_matches(missing.name, [entry.name for entry in folder.iterdir()])
    nearby = ", ".join(str(folder / name) for name in close)
    return f"; did you mean {nearby}?" if nearby else f"; no name like it is in {folder.resolve()}."


# Reading them


def _read(source: _Source) -> Iterator[Document | Unreadable]:
    """The documents of a file. What goes wrong with one of them leaves the others."""
    try:
        _check_regular(source.path)
        if _kind(source.path) in _TEXTS:
            yield _read_text(source)
            return
        for row in _ROWS[_kind(source.path)](source.path):
            yield row if isinstance(row, Unreadable) else _row_document(source, row)
    except (OSError, ValueError) as error:
        yield Unreadable(error)


def _check_regular(path: Path) -> None:
    """Raise for what cannot be read as a file; a pipe would be waited for without end."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise ValueError(f"{path}: is no regular file, or a folder that cannot be opened.")


def _jsonl_rows(path: Path) -> Iterator[_Row | Unreadable]:
    with path.open("rb") as file:
        filled = ((line, raw) for line, raw in enumerate(file, 1) if not _is_blank(raw, line))
        # A bad line is counted too: mended, it must not shift the ids behind it.
        for number, (line, raw) in enumerate(filled, 1):
            where = f"{path}, line {line}"
            try:
                text = _decode(raw, path, line)
                yield _Row(where, number, _parse(text.rstrip("\r\n"), where))
            except ValueError as error:
                yield Unreadable(error)


def _is_blank(raw: bytes, line: int) -> bool:
    return not _without_mark(raw, line).decode("utf-8", "replace").strip()


def _parse(line: str, where: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(
            f"{where}: not JSON ({error.msg} at column {error.colno}); "
            "every line of a .jsonl file must be one whole JSON object."
        ) from error
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{where}: JSON that cannot be read ({error}).") from error
    if not isinstance(row, dict):
        raise ValueError(
            f"{where}: found {_shown(row)}; a line must be a JSON object with a 'text', "
            'such as {"id": "1", "text": "..."}.'
        )
    return row


def _csv_rows(path: Path) -> Iterator[_Row | Unreadable]:
    with path.open("rb") as file:
        rows = _csv_fields(_escaped(file), path)
        line, first = next(rows, (0, []))
        if not first:
            return
        _check_utf8(first, path, line)
        header = _header(f"{path}, line {line}", first)
        for number, (line, fields) in enumerate(rows, 1):
            where = f"{path}, line {line}"
            try:
                if len(fields) != len(header):
                    raise ValueError(
                        f"{where}: found {len(fields)} fields, but the header has {len(header)}; "
                        "put fields that hold commas or line breaks in quotes."
                    )
                _check_utf8(fields, path, line)
                yield _Row(where, number, dict(zip(header, fields, strict=True)))
            except ValueError as error:
                yield Unreadable(error)


def _csv_fields(lines: Iterable[str], path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield ``(line where it begins, fields)`` of every row that is not empty."""
    # The limit is one for the process; raising it takes nothing from any other reader.
    csv.field_size_limit(_LARGEST_FIELD)
    reader = csv.reader(lines, strict=True)
    line = 1
    try:
        for fields in reader:
            if fields:
                yield line, fields
            line = reader.line_num + 1
    except csv.Error as error:
        raise ValueError(
            f"{path}, line {line}: not CSV ({error}), so the file is not read further; "
            "check its quotes: a quote inside a quoted field is written twice."
        ) from error


def _escaped(file: IO[bytes]) -> Iterator[str]:
    """Lines in which bytes that are not UTF-8 are escaped, so that their row alone is refused."""
    for line, raw in enumerate(file, 1):
        yield _without_mark(raw, line).decode("utf-8", "surrogateescape")


def _check_utf8(fields: list[str], path: Path, line: int) -> None:
    """Raise ``ValueError`` naming the line of a row if a field holds escaped bytes."""
    row = ",".join(fields)
    try:
        row.encode()
    except UnicodeEncodeError:
        _decode(row.encode("utf-8", "surrogateescape"), path, line)


def _header(where: str, names: list[str]) -> list[str]:
    header = [name.strip() or f"column_{number}" for number, name in enumerate(names, 1)]
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise ValueError(f"{where}: the column {twice[0]!r} appears twice; rename one.")
    _check_has_text(header, where, "Fields are separated by commas; the first row names them.")
    return header


def _parquet_rows(path: Path) -> Iterator[_Row]:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise ImportError(
            f"{path}: reading .parquet needs pyarrow; pip install 'gte-integrations[parquet]'"
        ) from error
    if path.stat().st_size == 0:
        return
    number = 0
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=_PARQUET_ROWS):
                for row in batch.to_pylist():
                    number += 1
                    plain = {name: _plain(value) for name, value in row.items()}
                    yield _Row(f"{path}, row {number}", number, plain)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise ValueError(
            f"{path}: not a Parquet file that can be read beyond row {number} ({error})."
        ) from error


def _plain(value: Any) -> Any:
    """Turn a Parquet value into one that JSON has, as every other kind of file gives."""
    if isinstance(value, (date, time)):
        return value.isoformat()
    if isinstance(value, (Decimal, UUID)):
        return str(value)
    if isinstance(value, float) and math.isnan(value):
        return None
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    return value


def _read_text(source: _Source) -> Document:
    text = _decode(source.path.read_bytes(), source.path, 1)
    origin = {"source": source.path.as_posix()}
    return Document(_derived_id(source), text, origin, source.origin)


_TEXTS = frozenset({".md", ".txt"})
_ROWS: Mapping[str, Callable[[Path], Iterator[_Row | Unreadable]]] = {
    ".csv": _csv_rows,
    ".jsonl": _jsonl_rows,
    ".parquet": _parquet_rows,
}
_READABLE = sorted({*_TEXTS, *_ROWS})
_ALLOWED = f"allowed are {', '.join(_READABLE)} and folders of them."


# What they share


def _decode(raw: bytes, name: str | Path, line: int) -> str:
    """Decode UTF-8 that begins on the given line."""
    try:
        return _without_mark(raw, line).decode("utf-8")
    except UnicodeDecodeError as error:
        line += raw.count(b"\n", 0, error.start)
        utf16 = raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        raise ValueError(
            f"{name}, line {line}: byte 0x{raw[error.start]:02x} is not UTF-8"
            f"{' (this looks like UTF-16)' if utf16 else ''}; "
            "save it as UTF-8, for instance with iconv."
        ) from error


def _without_mark(raw: bytes, line: int) -> bytes:
    """The bytes without the mark that may open a file."""
    return raw.removeprefix(codecs.BOM_UTF8) if line == 1 else raw


def _check_has_text(names: Iterable[str], where: str, hint: str = "") -> None:
    if "text" not in (found := list(names)):
        shown = textwrap.shorten(", ".join(map(repr, found)), 200, placeholder=" ...")
        raise ValueError(
            f"{where}: no 'text' among the fields found ({shown}); "
            f"name the one to be searched 'text'. {hint}".rstrip()
        )


def _row_document(source: _Source, row: _Row) -> Document | Unreadable:
    try:
        _check_has_text(row.fields, row.where)
        text = row.fields["text"]
        if not isinstance(text, str):
            raise ValueError(f"{row.where}: 'text' must be a string, found {_shown(text)}.")
        payload = {name: value for name, value in row.fields.items() if name not in {"id", "text"}}
        row_id = row.fields.get("id")
        if row_id in (None, ""):
            return Document(_derived_id(source, row.number), text, payload, source.origin)
        return Document(_given_id(row_id, row.where), text, payload)
    except ValueError as error:
        return Unreadable(error)


def _given_id(row_id: Any, where: str) -> str | int:
    if isinstance(row_id, bool) or not isinstance(row_id, (str, int)):
        raise ValueError(f"{where}: 'id' must be a string or an integer, found {_shown(row_id)}.")
    return row_id


def _derived_id(source: _Source, number: int | None = None) -> str:
    if source.twin is not None:
        raise ValueError(
            f"{source.path} and {source.twin} would give the same ids, which begin with "
            f"{source.name!r}; give the folder that holds both, or rows with an 'id'."
        )
    name = f"{source.prefix}{source.name}"
    return name if number is None else f"{name}:{number}"


def _shown(value: Any) -> str:
    return f"{type(value).__name__} {reprlib.repr(value)}"
