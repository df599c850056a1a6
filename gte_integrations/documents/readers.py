"""``read_documents``: a stream of documents from files and folders, in bounded memory."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from itertools import chain
from pathlib import Path
from typing import IO

from gte_integrations._index.checks import check_choice
from gte_integrations._index.document import Document, Unreadable
from gte_integrations._index.ingest import OnError
from gte_integrations._index.rows import read_row
from gte_integrations.documents.layout import Layout
from gte_integrations.documents.rows import (
    TEXT_COLUMN,
    Row,
    csv_rows,
    json_lines,
    json_rows,
    jsonl_rows,
    parquet_rows,
    read_text,
)
from gte_integrations.documents.sources import (
    Source,
    check_link,
    ending,
    find_sources,
    name_twins,
    spelled,
)

AnyPath = str | os.PathLike[str]
_Documents = Iterator[Document | Unreadable]


def read_documents(
    paths: AnyPath | Iterable[AnyPath],
    *,
    id_prefix: str = "",
    on_error: OnError = "raise",
    layout: Layout = Layout(),  # noqa: B008
) -> _Documents:
    """Read .jsonl, .json, .csv, .parquet, .txt and .md files, and folders of them, one by one.

    A row of a .jsonl, .csv or .parquet file, or an object in the array of a .json file, has a
    ``text``, may have an ``id`` (else it is the file's name and the row's number), and its other
    fields are the payload. A .txt or .md file is one document: its id is its path below the folder
    that was given, and its payload holds the path as ``source``, relative to the working directory
    if it is below, else absolute. Folders are read in sorted order with their subfolders; hidden
    files and links to folders are left out, and files of other kinds are named in a logged warning.

    A derived id is relative to the folder that was given, or that the given file is in; this folder
    is the document's ``origin``.

    Files are opened only when their turn comes. A row or a file that cannot be read comes as
    ``Unreadable``, whose error names the file, and the line or row.

    Args:
        paths: one path or many; they are looked up by the call itself.
        id_prefix: put before derived ids.
        on_error: what to do about a path where there is nothing to read: "raise" its
            ``FileNotFoundError`` or ``ValueError``, or "skip" it, so that it comes as
            ``Unreadable``, too. If there is nothing to read in any path, that is raised.
        layout: how the files are written.
    """
    check_choice("on_error", on_error, OnError)
    sources: list[Source] = []
    nothing: list[Unreadable] = []
    for path in [paths] if isinstance(paths, (str, os.PathLike)) else paths:
        try:
            sources += find_sources(Path(path), _READERS)
        except (OSError, ValueError) as error:
            if on_error == "raise":
                raise
            nothing.append(Unreadable(error))
    if nothing and not sources:
        raise nothing[0].error
    read = partial(_read, id_prefix=id_prefix, layout=layout)
    return chain(nothing, chain.from_iterable(map(read, name_twins(sources))))


def read_lines(file: IO[bytes], name: str, layout: Layout) -> _Documents:
    """Read JSON objects as of a .jsonl file from what is no file, such as stdin.

    Each needs an ``id``, for there is no file to call it after.
    """
    for row in json_lines(file, name, layout):
        try:
            yield row if isinstance(row, Unreadable) else _row_document(None, row, "")
        except ValueError as error:
            yield Unreadable(error)


def _read(source: Source, id_prefix: str, layout: Layout) -> _Documents:
    """Read the documents of a file. What goes wrong with one of them leaves the others."""
    try:
        _check_regular(source.path)
        yield from _READERS[ending(source.path)](source, id_prefix, layout)
    except ValueError as error:
        yield Unreadable(error)
    except OSError as error:
        # What the system raises shows a number, such as [Errno 13], where the path should be.
        named = f"{source.path}: {error.strerror}."
        yield Unreadable(type(error)(named) if error.strerror else error)


def _check_regular(path: Path) -> None:
    """Raise for what cannot be read as a file; a pipe would be waited for without end."""
    check_link(path)
    if not stat.S_ISREG(path.stat().st_mode):
        raise ValueError(f"{path}: is no regular file, or a folder that cannot be opened.")


def _text_document(source: Source, id_prefix: str, layout: Layout) -> _Documents:
    text = read_text(source.path, layout)
    payload = {"source": spelled(source.path)}
    yield Document(_derived_id(source, id_prefix), text, payload, source.origin)


def _row_documents(
    rows: Callable[[Path, Layout], Iterator[Row | Unreadable]],
    source: Source,
    id_prefix: str,
    layout: Layout,
) -> _Documents:
    for row in rows(source.path, layout):
        try:
            yield row if isinstance(row, Unreadable) else _row_document(source, row, id_prefix)
        except ValueError as error:
            yield Unreadable(error)


def _row_document(source: Source | None, row: Row, id_prefix: str) -> Document:
    row_id, text, payload = read_row(row.fields, row.where, TEXT_COLUMN)
    if row_id is not None:
        return Document(row_id, text, payload)
    if source is None:
        raise ValueError(f"{row.where}: no 'id', which rows that come from no file need.")
    derived = f"{_derived_id(source, id_prefix)}:{row.number}"
    return Document(derived, text, payload, source.origin)


def _derived_id(source: Source, id_prefix: str) -> str:
    if source.twin is not None:
        raise ValueError(
            f"{source.path} and {source.twin} would give the same ids, which begin with "
            f"{source.name!r}; give the folder that holds both, or rows with an 'id'."
        )
    return f"{id_prefix}{source.name}"


# Which kinds of file there are, and what reads them.
_READERS: Mapping[str, Callable[[Source, str, Layout], _Documents]] = {
    ".csv": partial(_row_documents, csv_rows),
    ".json": partial(_row_documents, json_rows),
    ".jsonl": partial(_row_documents, jsonl_rows),
    ".md": _text_document,
    ".parquet": partial(_row_documents, parquet_rows),
    ".txt": _text_document,
}
