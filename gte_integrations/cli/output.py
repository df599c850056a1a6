"""How ``gte`` writes: tables for people, JSON lines for programs.

Texts of other scripts come last in their line: a terminal that sets Arabic from right to left
would take the numbers behind it along.
"""

from __future__ import annotations

import io
import json
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from gte_integrations._index.masking import masked

# Also what turns the direction of writing.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]+")
_LINE_END = re.compile(r"(?<![.,:;])\s*\n\s*")
_LINE_PADDING = re.compile(r" +$", re.MULTILINE)
_SNIPPET_LINES = 2
_NARROW = 72
_MOST_TOKENS = 8


def accept_any_text() -> None:
    """Let stdout escape characters that its encoding lacks, as JSON escapes lone surrogates."""
    if sys.stdout is None:  # it was closed before the start
        sys.stdout = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115  until the end
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


# For programs


def write_json(value: Mapping[str, Any]) -> None:
    """Write one line of JSON."""
    ascii_only = sys.stdout.encoding.lower() != "utf-8"
    sys.stdout.write(json.dumps(value, ensure_ascii=ascii_only) + "\n")


# For people: what is printed


def show(*parts: RenderableType) -> None:
    """Print tables and texts on stdout, one below the other; piped, without spaces at the ends."""
    console = Console(highlight=False)
    if console.is_terminal:
        for part in parts:
            console.print(part)
        return
    with console.capture() as capture:
        for part in parts:
            console.print(part)
    sys.stdout.write(_LINE_PADDING.sub("", capture.get()))


def is_narrow(needed: int = _NARROW) -> bool:
    """Whether there is less room than needed, by default for three columns of numbers and texts."""
    return Console().width < needed


def note(message: str) -> None:
    """Say something on stderr that is not a result."""
    _stderr().print(Text(message, style="dim"), soft_wrap=True)


def error_line(message: str) -> None:
    """Say on one line of stderr what went wrong."""
    clauses = _LINE_END.sub("; ", message.strip())
    line = Text.assemble(("error: ", "bold red"), masked(one_line(clauses)))
    _stderr().print(line, soft_wrap=True)


@contextmanager
def progress() -> Iterator[Callable[[str], None]]:
    """Something to call with what is going on; only a terminal shows it, on one line."""
    console = _stderr()
    if not console.is_terminal:
        yield lambda message: None
        return
    with console.status("") as status:
        yield lambda message: status.update(Text(message, style="dim"))


def _stderr() -> Console:
    return Console(stderr=True, highlight=False)


# For people: what it is made of


def fields() -> Table:
    """A grid of names and values, one pair a row."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(ratio=1)
    return grid


def table(*numbers: str, text: str) -> Table:
    """A table without rows: columns of numbers, then one of texts."""
    drawn = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in numbers:
        drawn.add_column(name, justify="right", no_wrap=True)
    drawn.add_column(text, ratio=1)
    return drawn


def nothing(message: str) -> Padding:
    """What stands in the place of a table without rows."""
    return Padding(Text(message, "dim"), (1, 2))


@dataclass(frozen=True, slots=True)
class Snippet:
    """The beginning of a text, in as many lines as a table has room for."""

    text: str
    style: str = ""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width = options.max_width
        text = Text(one_line(self.text[: 4 * _SNIPPET_LINES * width]), self.style)
        lines = text.wrap(console, width)
        if len(lines) > _SNIPPET_LINES:
            last = lines[_SNIPPET_LINES - 1]
            last.rstrip()
            last.truncate(width - 2)
            last.append(" …")
        yield from lines[:_SNIPPET_LINES]


def token_list(weights: list[tuple[str, float]]) -> Text:
    """The first tokens with their weights, on one line."""
    named = (
        Text.assemble((readable(token), "green"), (f" {weight:.2f}", "dim"))
        for token, weight in weights[:_MOST_TOKENS]
    )
    listed = Text(" · ").join(named)
    return listed.append(" · …", "dim") if len(weights) > _MOST_TOKENS else listed


def readable(token: str) -> str:
    """Drop the mark that begins a word in the vocabulary."""
    return one_line(token.replace("▁", " ")) or repr(token)


def one_line(text: str) -> str:
    """Put a text on one line, without the codes that could steer the terminal."""
    return " ".join(_CONTROL.sub(" ", text).split())
