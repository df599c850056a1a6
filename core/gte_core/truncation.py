"""Warnings and errors about texts that are longer than ``max_length``."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from gte_core.exceptions import TruncationError
from gte_core.texts import NameOf, as_text, named
from gte_core.tokenizer import TokenizedText


@dataclass(frozen=True, slots=True)
class WindowedCall:
    """What errors about the texts of a call need to know.

    Attributes:
        max_length: tokens of a text that are read.
        name_of: index of a text -> what to call it.
        place_of: index of a text -> index in what the caller gave.
        is_stream: whether texts further on must not be read for an error's sake.
    """

    max_length: int
    name_of: NameOf = as_text
    place_of: Callable[[int], int] = int
    is_stream: bool = False

    def name(self, first: int, row: int) -> str:
        """What to call a row of the window that begins at ``first``."""
        return self.name_of(first + row)

    def refusal(self, cut_off: Sequence[int]) -> TruncationError:
        """The error about texts that are too long."""
        places = dict.fromkeys(map(self.place_of, cut_off))
        return too_long(named(cut_off, self.name_of), places, self.max_length)


def too_long(names: str, indices: Iterable[int], max_length: int) -> TruncationError:
    """The error about texts that are longer than ``max_length``."""
    return TruncationError(
        f"{names}: longer than max_length={max_length} tokens. Split the text, raise max_length, "
        "or choose on_truncation='warn'.",
        indices,
    )


def truncated(window: Sequence[TokenizedText], first: int) -> list[int]:
    """Indices of the texts of a window that were too long; ``first`` is that of its first text."""
    return [first + row for row, text in enumerate(window) if text.truncated]


def all_truncated(ready: Iterable[Sequence[TokenizedText]], first: int) -> Iterator[int]:
    """``truncated`` of all windows that are left."""
    for window in ready:
        yield from truncated(window, first)
        first += len(window)


def warn_truncated(log: logging.Logger, count: int, max_length: int) -> None:
    """Say once how many texts of a call were cut, and what to do."""
    log.warning(
        "%d text(s) were longer than max_length=%d tokens and were cut; split them, raise "
        "max_length, or pass on_truncation='ignore'.",
        count,
        max_length,
    )
