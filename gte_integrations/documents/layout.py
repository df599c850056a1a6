"""``Layout``: how files are written that are not written as this library would."""

from __future__ import annotations

import codecs
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any

_CHUNK = 2**20


@dataclass(frozen=True, slots=True)
class Layout:
    """How files are written. ``ValueError`` for what cannot be.

    Attributes:
        text_column: the column, or key, of the texts.
        id_column: that of the ids.
        encoding: of all but Parquet files, by its name in Python.
        delimiter: one character, which separates the fields of a .csv file.
    """

    text_column: str = "text"
    id_column: str = "id"
    encoding: str = "utf-8"
    delimiter: str = ","

    def __post_init__(self) -> None:
        if self.text_column == self.id_column:
            raise ValueError(
                f"text_column and id_column are both {self.text_column!r}, but must be two columns."
            )
        if len(self.delimiter) != 1 or self.delimiter in '\r\n"':
            raise ValueError(
                f"delimiter is {self.delimiter!r}, but must be one character, such as ';' or a "
                "tab, and no quote or line break."
            )
        try:
            "".encode(self.encoding)
        except LookupError as error:
            raise ValueError(
                f"encoding is {self.encoding!r}, which Python does not know; pass a name such as "
                "'utf-8', 'utf-16', 'latin-1' or 'cp1252'."
            ) from error

    def renamed(self, fields: Mapping[str, Any], where: str, hint: str = "") -> Mapping[str, Any]:
        """The fields with the chosen ones called ``text`` and ``id``.

        Another field of that name becomes ``column_text`` or ``column_id``. ``ValueError`` that
        begins with ``where`` and ends with ``hint`` if a field that was chosen is not there.
        """
        names: dict[str, str] = {}
        for option, chosen, name in (
            ("text_column", self.text_column, "text"),
            ("id_column", self.id_column, "id"),
        ):
            if chosen == name:
                continue
            if chosen not in fields:
                found = textwrap.shorten(", ".join(map(repr, fields)), 200, placeholder=" ...")
                raise ValueError(
                    f"{where}: no {chosen!r} among the fields found ({found}); pass one of those "
                    f"as {option}. {hint}".rstrip()
                )
            names |= {chosen: name, name: names.get(name, f"column_{name}")}
        return {names.get(name, name): value for name, value in fields.items()} if names else fields

    def lines(self, file: IO[bytes], name: str | Path) -> Iterator[bytes]:
        """The lines of a file in UTF-8, whatever it is written in; ``name`` is for errors."""
        if self.encoding.lower().replace("_", "-") in {"utf-8", "utf8"}:
            yield from file  # a wrong byte is found where its line is known
            return
        chunks = iter(partial(file.read, _CHUNK), b"")
        rest = ""
        try:
            for text in codecs.iterdecode(chunks, self.encoding):
                *whole, rest = (rest + text).split("\n")
                yield from (f"{line}\n".encode() for line in whole)
            if rest:
                yield rest.encode()
        except UnicodeError as error:
            raise ValueError(
                f"{name}: not written in {self.encoding} ({error}); pass the right encoding, such "
                "as encoding='utf-8'."
            ) from error
