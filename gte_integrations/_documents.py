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

from gte_integrations._indexing import Document

AnyPath = str | os.PathLike[str]

_PARQUET_ROWS = 256
_LARGEST_FIELD = 2**31 - 1

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Source:
    """One file to read.

    Attributes:
        path: where it is.
        name: its path below what was given; derived ids begin with it.
        twin: another file of the same run with the same name, if there is one.
    """

    path: Path
    name: str
    twin: Path | None = None


def read_documents(paths: AnyPath | Iterable[AnyPath]) -> Iterator[Document]:
    """Read .jsonl, .csv, .parquet, .txt and .md files, and folders of them, one by one.

    A row of a .jsonl, .csv or .parquet file has a ``text``, may have an ``id`` (else it is the
    file's name and the row's number), and its other fields are the payload. A .txt or .md file is
    one document: its id is its path below the folder that was given, and its payload holds the
    path as ``source``. Folders are read in sorted order with their subfolders; hidden files and
    links to folders are left out, and files of other kinds are named in a logged warning.

    Paths are checked by the call itself, files are opened only when their turn comes. Raises
    ``FileNotFoundError`` or ``ValueError`` naming the file, and the line or row.
    """
    given = [paths] if isinstance(paths, (str, os.PathLike)) else paths
    sources = _name_twins(chain.from_iterable(_expand(Path(path)) for path in given))
    return chain.from_iterable(_READERS[_kind(source.path)](source) for source in sources)


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
    if _kind(path) not in _READERS:
        raise ValueError(
            f"{path}: cannot read {_kind(path) or 'a file without suffix'}; {_ALLOWED}"
        )
    return [_Source(path, path.name)]


def _expand_folder(folder: Path) -> list[_Source]:
    files = list(_visible_files(folder))
    readable = [file for file in files if _kind(file) in _READERS]
    if not readable:
        raise ValueError(f"{folder}: nothing to read in this folder; {_ALLOWED}")
    kinds = Counter(map(_kind, files))
    others = [
        f"{kinds[kind]} {kind or 'without suffix'}"
        for kind in sorted(kinds.keys() - _READERS.keys())
    ]
    if others:
        _log.warning("%s: left out files of other kinds: %s.", folder, ", ".join(others))
    return [_Source(file, file.relative_to(folder).as_posix()) for file in readable]


def _visible_files(folder: Path) -> Iterator[Path]:
    for entry in sorted(folder.iterdir()):
        if entry.name.startswith("."):
            continue
        if not entry.is_dir():
            yield entry
        elif not entry.is_symlink():
            yield from _visible_files(entry)


def _name_twins(sources: Iterable[_Source]) -> list[_Source]:
    """Drop files that were given twice, and let different files of one name know each other."""
    once: dict[Path, _Source] = {}
    paths: defaultdict[str, list[Path]] = defaultdict(list)
    for source in sources:
        if once.setdefault(source.path.resolve(), source) is source:
            paths[source.name].append(source.path)
    return [
        replace(source, twin=next((p for p in paths[source.name] if p != source.path), None))
        for source in once.values()
    ]


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


def _read_jsonl(source: _Source) -> Iterator[Document]:
    with source.path.open("rb") as file:
        lines = decoded_lines(file, source.path)
        filled = ((line, text) for line, text in lines if text.strip())
        for number, (line, text) in enumerate(filled, 1):
            where = f"{source.path}, line {line}"
            row = _parse(text.rstrip("\r\n"), where)
            yield _row_document(source, where, number, row)


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


def _read_csv(source: _Source) -> Iterator[Document]:
    with source.path.open("rb") as file:
        rows = _csv_rows((line for _, line in decoded_lines(file, source.path)), source.path)
        first = next(rows, None)
        if first is None:
            return
        header = _header(*first)
        for number, (where, fields) in enumerate(rows, 1):
            if len(fields) != len(header):
                raise ValueError(
                    f"{where}: found {len(fields)} fields, but the header has {len(header)}; "
                    "put fields that hold commas or line breaks in quotes."
                )
            row = dict(zip(header, fields, strict=True))
            yield _row_document(source, where, number, row)


def _csv_rows(lines: Iterable[str], path: Path) -> Iterator[tuple[str, list[str]]]:
    """Yield ``(where it begins, fields)`` of every row that is not empty."""
    # The limit is one for the process; raising it takes nothing from any other reader.
    csv.field_size_limit(_LARGEST_FIELD)
    reader = csv.reader(lines, strict=True)
    where = f"{path}, line 1"
    try:
        for fields in reader:
            if fields:
                yield where, fields
            where = f"{path}, line {reader.line_num + 1}"
    except csv.Error as error:
        raise ValueError(
            f"{where}: not CSV ({error}); "
            "check its quotes: a quote inside a quoted field is written twice."
        ) from error


def _header(where: str, names: list[str]) -> list[str]:
    header = [name.strip() or f"column_{number}" for number, name in enumerate(names, 1)]
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise ValueError(f"{where}: the column {twice[0]!r} appears twice; rename one.")
    _check_has_text(header, where, "Fields are separated by commas; the first row names them.")
    return header


def _read_parquet(source: _Source) -> Iterator[Document]:
    for number, row in enumerate(_parquet_rows(source.path), 1):
        plain = {name: _plain(value) for name, value in row.items()}
        yield _row_document(source, f"{source.path}, row {number}", number, plain)


def _parquet_rows(path: Path) -> Iterator[dict[str, Any]]:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise ImportError(
            f"{path}: reading .parquet needs pyarrow; pip install 'gte-integrations[parquet]'"
        ) from error
    if path.stat().st_size == 0:
        return
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=_PARQUET_ROWS):
                yield from batch.to_pylist()
    except (pa.ArrowException, OSError, ValueError) as error:
        raise ValueError(f"{path}: not a Parquet file that can be read ({error}).") from error


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


def _read_text(source: _Source) -> Iterator[Document]:
    text = _decode(source.path.read_bytes(), source.path, 1)
    if text.strip():
        yield Document(_derived_id(source), text, {"source": source.path.as_posix()})


_READERS: Mapping[str, Callable[[_Source], Iterator[Document]]] = {
    ".csv": _read_csv,
    ".jsonl": _read_jsonl,
    ".md": _read_text,
    ".parquet": _read_parquet,
    ".txt": _read_text,
}
_ALLOWED = f"allowed are {', '.join(_READERS)} and folders of them."


# What they share


def _decode(raw: bytes, name: str | Path, line: int) -> str:
    """Decode UTF-8 that begins on the given line, without the mark that may open a file."""
    if line == 1:
        raw = raw.removeprefix(codecs.BOM_UTF8)
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        line += raw.count(b"\n", 0, error.start)
        utf16 = raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        raise ValueError(
            f"{name}, line {line}: byte 0x{raw[error.start]:02x} is not UTF-8"
            f"{' (this looks like UTF-16)' if utf16 else ''}; "
            "save it as UTF-8, for instance with iconv."
        ) from error


def _check_has_text(names: Iterable[str], where: str, hint: str = "") -> None:
    if "text" not in (found := list(names)):
        shown = textwrap.shorten(", ".join(map(repr, found)), 200, placeholder=" ...")
        raise ValueError(
            f"{where}: no 'text' among the fields found ({shown}); "
            f"name the one to be searched 'text'. {hint}".rstrip()
        )


def _row_document(source: _Source, where: str, number: int, row: dict[str, Any]) -> Document:
    _check_has_text(row, where)
    payload = {name: value for name, value in row.items() if name not in {"id", "text"}}
    text, row_id = row["text"], row.get("id")
    if not isinstance(text, str):
        raise ValueError(f"{where}: 'text' must be a string, found {_shown(text)}.")
    if row_id in (None, ""):
        return Document(_derived_id(source, number), text, payload)
    if isinstance(row_id, bool) or not isinstance(row_id, (str, int)):
        raise ValueError(f"{where}: 'id' must be a string or an integer, found {_shown(row_id)}.")
    return Document(row_id, text, payload)


def _derived_id(source: _Source, number: int | None = None) -> str:
    if source.twin is not None:
        raise ValueError(
            f"{source.path} and {source.twin} would give the same ids, which begin with "
            f"{source.name!r}; give the folder that holds both, or rows with an 'id'."
        )
    return source.name if number is None else f"{source.name}:{number}"


def _shown(value: Any) -> str:
    return f"{type(value).__name__} {reprlib.repr(value)}"
