"""The rows of .jsonl, .json, .csv and .parquet files, one by one.

A row that cannot be read is yielded as ``Unreadable``, so that the rows behind it are still read;
what ends the reading of a file is raised. Each error names the file, and the line or row.
"""

from __future__ import annotations

import codecs
import csv
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import IO, Any

from gte_integrations._index.document import Unreadable
from gte_integrations._index.rows import check_has_text, plain, shown
from gte_integrations.documents.layout import Layout

_PARQUET_ROWS = 256  # read at once
TEXT_COLUMN = "Or pass its name as text_column."
_DELIMITERS = ";\t|,"  # those that are usual
_ENCODED = "save it as UTF-8, or pass what it is written in, such as encoding='{}'."
_LARGEST_FIELD = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a file: where it begins, its number from 1, and its fields."""

    where: str
    number: int
    fields: Mapping[str, Any]


def jsonl_rows(path: Path, layout: Layout) -> Iterator[Row | Unreadable]:
    """Read a JSON object from every line that is not blank."""
    with path.open("rb") as file:
        yield from json_lines(file, path, layout)


def json_lines(file: IO[bytes], name: str | Path, layout: Layout) -> Iterator[Row | Unreadable]:
    """``jsonl_rows`` of a file that is open; ``name`` is what errors call it."""
    lines = enumerate(layout.lines(file, name), 1)
    filled = ((line, raw) for line, raw in lines if not _is_blank(raw, line))
    # A bad line is counted too: once it is mended, the ids behind it must not change.
    for number, (line, raw) in enumerate(filled, 1):
        where = f"{name}, line {line}"
        try:
            fields = _parse(decode(raw, name, line).rstrip("\r\n"), where)
            yield Row(where, number, layout.renamed(fields, where))
        except ValueError as error:
            yield Unreadable(error)


def json_rows(path: Path, layout: Layout) -> Iterator[Row | Unreadable]:
    """Read the objects of a JSON array, which is held in memory as a whole."""
    content = read_text(path, layout)
    try:
        items = json.loads(content) if content.strip() else []
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"{path}: not JSON ({error}); a .json file must be one array of objects, and a .jsonl "
            "file has an object on every line."
        ) from error
    if not isinstance(items, list):
        raise ValueError(
            f"{path}: found {shown(items)}; a .json file must be an array of objects, such as "
            '[{"id": "1", "text": "..."}].'
        )
    for number, item in enumerate(items, 1):
        where = f"{path}, item {number}"
        try:
            yield Row(where, number, layout.renamed(_checked_row(item, where, "an item"), where))
        except ValueError as error:
            yield Unreadable(error)


def csv_rows(path: Path, layout: Layout) -> Iterator[Row | Unreadable]:
    """Read rows of fields, which the first row names."""
    with path.open("rb") as file:
        rows = _csv_fields(_escaped(layout.lines(file, path)), path, layout.delimiter)
        line, first = next(rows, (0, []))
        if not first:
            return
        _check_utf8(first, path, line)
        header = _header(f"{path}, line {line}", first, layout)
        for number, (line, fields) in enumerate(rows, 1):
            where = f"{path}, line {line}"
            try:
                if len(fields) != len(header):
                    raise ValueError(
                        f"{where}: found {len(fields)} fields, but the header has {len(header)}; "
                        "put fields that hold delimiters or line breaks in quotes."
                    )
                _check_utf8(fields, path, line)
                yield Row(where, number, dict(zip(header, fields, strict=True)))
            except ValueError as error:
                yield Unreadable(error)


def parquet_rows(path: Path, layout: Layout) -> Iterator[Row | Unreadable]:
    """Read rows, their values made into those that JSON has."""
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
            batches = file.iter_batches(batch_size=_PARQUET_ROWS)
            rows = chain.from_iterable(batch.to_pylist() for batch in batches)
            for number, row in enumerate(rows, 1):
                yield _parquet_row(f"{path}, row {number}", number, plain(row), layout)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise ValueError(
            f"{path}: not a Parquet file that can be read beyond row {number} ({error})."
        ) from error


def read_text(path: Path, layout: Layout) -> str:
    """All of a file; ``ValueError`` naming the line of a bad byte."""
    with path.open("rb") as file:
        return decode(b"".join(layout.lines(file, path)), path, 1)


def decode(raw: bytes, name: str | Path, line: int, advice: str = _ENCODED) -> str:
    """Decode UTF-8 that begins on the given line; ``ValueError`` naming the line of a bad byte.

    ``advice`` is what to do about it, with ``{}`` for an encoding.
    """
    try:
        return _without_mark(raw, line).decode("utf-8")
    except UnicodeDecodeError as error:
        line += raw.count(b"\n", 0, error.start)
        utf16 = raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        raise ValueError(
            f"{name}, line {line}: byte 0x{raw[error.start]:02x} is not UTF-8"
            f"{' (this looks like UTF-16)' if utf16 else ''}; "
            f"{advice.format('utf-16' if utf16 else 'cp1252')}"
        ) from error


def _without_mark(raw: bytes, line: int) -> bytes:
    """Remove the byte order mark, which only the first line of a file may begin with."""
    return raw.removeprefix(codecs.BOM_UTF8) if line == 1 else raw


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
    return _checked_row(row, where, "a line")


def _checked_row(row: Any, where: str, kind: str) -> dict[str, Any]:
    if not isinstance(row, dict):
        raise ValueError(
            f"{where}: found {shown(row)}; {kind} must be a JSON object with a 'text', "
            'such as {"id": "1", "text": "..."}.'
        )
    return row


def _parquet_row(
    where: str, number: int, fields: dict[str, Any], layout: Layout
) -> Row | Unreadable:
    try:
        return Row(where, number, layout.renamed(fields, where))
    except ValueError as error:
        return Unreadable(error)


def _csv_fields(
    lines: Iterable[str], path: Path, delimiter: str
) -> Iterator[tuple[int, list[str]]]:
    """Yield ``(line where it begins, fields)`` of every row that is not empty."""
    # This limit holds for the whole process; raising it takes nothing from other readers.
    csv.field_size_limit(_LARGEST_FIELD)
    reader = csv.reader(lines, strict=True, delimiter=delimiter)
    line = 1
    try:
        for fields in reader:
            if fields:
                yield line, fields
            line = reader.line_num + 1
    except csv.Error as error:
        if "new-line character" in str(error):
            raise ValueError(
                f"{path}, line {line}: has carriage returns (CR) alone, which end no line here; "
                "save it with line ends of Unix (LF) or Windows (CR LF)."
            ) from error
        raise ValueError(
            f"{path}, line {line}: not CSV ({error}), so the file is not read further; "
            "check its quotes: a quote inside a quoted field is written twice."
        ) from error


def _escaped(lines: Iterable[bytes]) -> Iterator[str]:
    """Yield lines with bytes that are not UTF-8 escaped, so that only their row is refused."""
    for line, raw in enumerate(lines, 1):
        yield _without_mark(raw, line).decode("utf-8", "surrogateescape")


def _check_utf8(fields: list[str], path: Path, line: int) -> None:
    """Raise ``ValueError`` naming the line of the first escaped byte in a row."""
    row = ",".join(fields)
    try:
        row.encode()
    except UnicodeEncodeError:
        decode(row.encode("utf-8", "surrogateescape"), path, line)


def _header(where: str, names: list[str], layout: Layout) -> list[str]:
    header = [name.strip() or f"column_{number}" for number, name in enumerate(names, 1)]
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise ValueError(f"{where}: the column {twice[0]!r} appears twice; rename one.")
    separated = "commas" if layout.delimiter == "," else repr(layout.delimiter)
    others = (mark for mark in _DELIMITERS if mark != layout.delimiter)
    likely = next(
        (mark for mark in others if mark in names[0]), "," if separated != "commas" else ";"
    )
    hint = (
        f"Fields are separated by {separated}, else pass for instance delimiter={likely!r}; the "
        "first row names them."
    )
    header = list(layout.renamed(dict.fromkeys(header), where, hint))
    check_has_text(header, where, f"{TEXT_COLUMN} {hint}")
    return header
