"""What may be given as documents: an iterable of them, or a table, known by its shape.

pandas, Polars and PyArrow are not imported: whoever has a table has its library.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from gte_integrations._index.document import Document, Unreadable, is_document
from gte_integrations._index.rows import check_has_text, listed, plain, read_row

_ROWS_AT_ONCE = 256


def documents_of(given: Any) -> Iterable[object]:
    """The documents of a table, or of any other iterable, which is returned as it is.

    Raises ``TypeError`` for a single document where several are expected, and ``ValueError`` for a
    table without the columns ``id`` and ``text``.
    """
    if hasattr(given, "columns"):
        for method, read in _READERS.items():
            if hasattr(given, method):
                return _TableDocuments(given, read)
    if isinstance(given, (str, bytes)) or is_document(given):
        raise TypeError(
            f"documents is a single {type(given).__name__}, but must be an iterable of "
            "documents, or a table; wrap it in a list."
        )
    if not (hasattr(given, "__iter__") or hasattr(given, "__getitem__")):
        raise TypeError(
            f"documents is a {type(given).__name__}, but must be an iterable of documents, or a "
            "table."
        )
    documents: Iterable[object] = given
    return documents


@dataclass(frozen=True, slots=True)
class _TableDocuments:
    """The documents of a table, read some rows at a time: it is never copied as a whole."""

    table: Any
    read: Callable[[Any, int], list[dict[Any, Any]]]

    def __post_init__(self) -> None:
        kind = f"The {type(self.table).__name__}"
        names = list(getattr(self.table, "column_names", self.table.columns))  # Arrow's, or others'
        check_has_text(names, kind)
        if "id" not in names:
            raise ValueError(
                f"{kind}: no 'id' among the columns found ({listed(names)}); name the one that "
                "tells documents apart 'id'. In pandas, reset_index() makes a column of the index."
            )
        twice = [name for name in names if names.count(name) > 1]
        if twice:
            raise ValueError(f"{kind}: the column {twice[0]!r} appears twice; rename one.")

    def __len__(self) -> int:
        return len(self.table)

    def __iter__(self) -> Iterator[Document | Unreadable]:
        for start in range(0, len(self), _ROWS_AT_ONCE):
            for number, fields in enumerate(self.read(self.table, start), start):
                where = f"Row {number} (the first is 0) of the {type(self.table).__name__}"
                yield self._document(fields, where)

    def _document(self, fields: Mapping[Any, Any], where: str) -> Document | Unreadable:
        fields = plain(fields)
        try:
            row_id, text, payload = read_row(fields, where)
            if row_id is None:
                raise ValueError(f"{where}: 'id' is empty; give every row an id.")
            return Document(row_id, text, payload)
        except ValueError as error:
            row_id = fields["id"]
            return Unreadable(error, row_id if type(row_id) in {str, int} else None)


def _arrow(table: Any, start: int) -> list[dict[Any, Any]]:
    rows: list[dict[Any, Any]] = table.slice(start, _ROWS_AT_ONCE).to_pylist()
    return rows


def _polars(table: Any, start: int) -> list[dict[Any, Any]]:
    rows: list[dict[Any, Any]] = table.slice(start, _ROWS_AT_ONCE).to_dicts()
    return rows


def _pandas(table: Any, start: int) -> list[dict[Any, Any]]:
    rows: list[dict[Any, Any]] = table.iloc[start : start + _ROWS_AT_ONCE].to_dict("records")
    return rows


# The method that only a table of this library has -> what reads its rows from one on.
_READERS = {"to_pylist": _arrow, "to_dicts": _polars, "iloc": _pandas}
