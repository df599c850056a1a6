"""What ``gte`` writes: tables for people, JSON lines for programs.

Texts of other scripts come last in their line: a terminal that sets Arabic from right to left
would take the numbers behind it along.
"""

from __future__ import annotations

import io
import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from gte_integrations._index.masking import masked

if TYPE_CHECKING:
    from gte_core import Explanation, TokenContribution
    from gte_integrations._index.fusion import DocumentId
    from gte_integrations._index.reports import IndexReport
    from gte_integrations._index.search import Hit

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]+")
_LINE_END = re.compile(r"(?<![.,:;])\s*\n\s*")
_SNIPPET_LINES = 2
_MOST_TOKENS = 8
_MOST_VALUES = 6
_MOST_REASONS = 20
_MOST_IDS = 5


@dataclass(frozen=True, slots=True)
class EncodedText:
    """A text with its vectors, as JSON has them.

    A model without the sparse head gives ``dense`` alone, and None for the rest.
    """

    text: str
    n_tokens: int | None
    truncated: bool | None
    dense: list[float]
    sparse: SparseVector | None


@dataclass(frozen=True, slots=True)
class SparseVector:
    """Token ids in rising order, with a weight and a string each."""

    ids: list[int]
    weights: list[float]
    tokens: list[str]

    def heaviest(self) -> list[tuple[str, float]]:
        """Tokens and weights, the heaviest first."""
        return sorted(zip(self.tokens, self.weights, strict=True), key=lambda item: -item[1])


@dataclass(frozen=True, slots=True)
class FoundDocument:
    """A hit, with the tokens it shares with the query where they were asked for."""

    hit: Hit
    tokens: tuple[TokenContribution, ...] | None

    def as_json(self) -> dict[str, Any]:
        """Read the hit's fields as JSON has them."""
        found = asdict(self.hit)
        if self.tokens is not None:
            found["tokens"] = [asdict(token) for token in self.tokens]
        return found


@dataclass(frozen=True, slots=True)
class _Snippet:
    """The beginning of a text, in as many lines as a table has room for."""

    text: str
    style: str = ""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width = options.max_width
        text = Text(_one_line(self.text[: 4 * _SNIPPET_LINES * width]), self.style)
        lines = text.wrap(console, width)
        if len(lines) > _SNIPPET_LINES:
            last = lines[_SNIPPET_LINES - 1]
            last.rstrip()
            last.truncate(width - 2)
            last.append(" …")
        yield from lines[:_SNIPPET_LINES]


def accept_any_text() -> None:
    """Let stdout escape what its encoding lacks; in JSON that is the escape of a surrogate."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


# For programs


def write_json(value: Mapping[str, Any]) -> None:
    """Write one line of JSON."""
    ascii_only = sys.stdout.encoding.lower() != "utf-8"
    sys.stdout.write(json.dumps(value, ensure_ascii=ascii_only) + "\n")


# For people


def note(message: str) -> None:
    """Say something on stderr that is not a result."""
    Console(stderr=True, highlight=False).print(Text(message, style="dim"), soft_wrap=True)


@contextmanager
def progress() -> Iterator[Callable[[str], None]]:
    """Something to call with what is going on; only a terminal shows it, on one line."""
    console = Console(stderr=True, highlight=False)
    if not console.is_terminal:
        yield lambda message: None
        return
    with console.status("") as status:
        yield lambda message: status.update(Text(message, style="dim"))


def error_line(message: str) -> None:
    """Say on one line of stderr what went wrong."""
    clauses = _LINE_END.sub("; ", message.strip())
    line = Text.assemble(("error: ", "bold red"), masked(_one_line(clauses)))
    Console(stderr=True, highlight=False).print(line, soft_wrap=True)


def show(*parts: RenderableType) -> None:
    """Print tables and texts that were built elsewhere."""
    console = _console()
    for part in parts:
        console.print(part)


def show_report(report: IndexReport, total: int, where: str, model: str) -> None:
    """Say what was added, and where to."""
    console = _console()
    counts = {
        "new": report.written,
        "replaced": report.replaced,
        "unchanged": report.unchanged,
        "duplicate": report.duplicates,
        "empty": report.empty,
        "skipped": len(report.skipped),
    }
    done = ", ".join(f"{count:,} {name}" for name, count in counts.items() if count)
    speed = f"{report.n_tokens:,} encoded in {report.seconds_encoding:.1f} s"
    grid = fields()
    gone = f" · {report.deleted:,} deleted" if report.deleted else ""
    grid.add_row("Documents", Text.assemble((done or "none", "bold"), f"{gone} · {total:,} in all"))
    grid.add_row("Collection", Text(where))
    grid.add_row("Model", Text(model))
    grid.add_row("Tokens", speed)
    for name, line in _worth_a_look(report):
        grid.add_row(name, Text(_one_line(line), style="yellow", overflow="fold"))
    console.print(grid)


def show_hits(query: str, found: Iterable[FoundDocument], about: str) -> None:
    """Draw the hits of one query as a table."""
    console = _console()
    table = Table(box=box.SIMPLE_HEAD, leading=1, expand=True, pad_edge=False)
    table.add_column("#", justify="right", style="dim")
    for name in ("Score", "Dense", "Sparse"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("Document", ratio=1)
    for rank, document in enumerate(found, 1):
        hit = document.hit
        table.add_row(
            str(rank),
            Text(f"{hit.score:.4f}", style="bold"),
            _part(hit.dense_score),
            _part(hit.sparse_score),
            _document_cell(document),
        )
    console.print(Text(_one_line(query), style="bold"))
    console.print(Text(about, style="dim"))
    console.print(table if table.row_count else Padding(Text("Nothing found.", "dim"), (1, 2)))


def show_encoded(encoded: EncodedText, about: str) -> None:
    """Show one text's vectors in short."""
    values = " ".join(f"{value:+.4f}" for value in encoded.dense[:_MOST_VALUES])
    more = " …" if len(encoded.dense) > _MOST_VALUES else ""
    grid = fields()
    grid.add_row("Text", _Snippet(encoded.text, "bold"))
    grid.add_row("Model", Text(about, style="dim"))
    if encoded.n_tokens is not None:
        grid.add_row("Tokens", str(encoded.n_tokens))
    grid.add_row("Dense", f"{len(encoded.dense)} dimensions: {values}{more}")
    if encoded.sparse is not None:
        weights = encoded.sparse.heaviest()
        counted = f"{len(weights)} tokens: " if weights else "no tokens"
        grid.add_row("Sparse", Text.assemble(counted, _token_list(weights)))
    _console().print(Padding(grid, (0, 0, 1, 0)))


def show_explanation(explanation: Explanation, about: str) -> None:
    """Show the parts of a score, and the tokens behind its sparse part."""
    console = _console()
    parts = (
        f" = {explanation.dense_weight:g} × dense {explanation.dense_score:.4f}"
        f" + {explanation.sparse_weight:g} × sparse {explanation.sparse_score:.4f}"
    )
    score = (f"score {explanation.score:.4f}", "bold")
    console.print(Text.assemble(score, parts, (f"   {about}", "dim")))
    if not explanation.tokens:
        console.print(Padding(Text("No token in common.", "dim"), (1, 2)))
        return
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("Contribution", "Query", "Text"):
        table.add_column(name, justify="right")
    table.add_column("Token")
    for token in explanation.tokens:
        numbers = (token.contribution, token.query_weight, token.document_weight)
        readable = Text(_readable(token.token), style="green")
        table.add_row(*(f"{number:.4f}" for number in numbers), readable)
    console.print(table)


def _console() -> Console:
    return Console(highlight=False)


def fields() -> Table:
    """A grid of names and values, one pair a row."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(ratio=1)
    return grid


def _worth_a_look(report: IndexReport) -> Iterator[tuple[str, str]]:
    """What was not indexed, or in part; names of rows, and what they say."""
    if report.truncated:
        yield "Cut short", _some_ids(report.truncated_ids, report.truncated)
    if report.empty:
        yield "Empty", _some_ids(report.empty_ids, report.empty)
    for document_id, reason in islice(report.skipped, _MOST_REASONS):
        # Without an id, the reason says where it stands.
        yield "Skipped", reason if document_id is None else f"{document_id}: {reason}"
    if (more := len(report.skipped) - _MOST_REASONS) > 0:
        yield "", f"… and {more:,} more; --json names all"


def _some_ids(ids: list[DocumentId], count: int) -> str:
    named = [str(document_id) for document_id in ids[:_MOST_IDS]]
    return f"{count:,}: " + ", ".join([*named, "…"] if count > len(named) else named)


def _document_cell(document: FoundDocument) -> Group:
    lines: list[RenderableType] = [
        Text(_one_line(str(document.hit.id)), style="cyan", overflow="fold"),
        _Snippet(document.hit.text),
    ]
    if document.tokens:
        weights = [(token.token, token.contribution) for token in document.tokens]
        lines.append(Text.assemble(("shared  ", "dim"), _token_list(weights)))
    return Group(*lines)


def _token_list(weights: list[tuple[str, float]]) -> Text:
    named = (
        Text.assemble((_readable(token), "green"), (f" {weight:.2f}", "dim"))
        for token, weight in weights[:_MOST_TOKENS]
    )
    listed = Text(" · ").join(named)
    return listed.append(" · …", "dim") if len(weights) > _MOST_TOKENS else listed


def _part(score: float | None) -> Text:
    return Text("–", style="dim") if score is None else Text(f"{score:.4f}")


def _readable(token: str) -> str:
    """Drop the mark that begins a word in the vocabulary."""
    return _one_line(token.replace("▁", " ")) or repr(token)


def _one_line(text: str) -> str:
    """Put a text on one line, without the codes that could steer the terminal."""
    return " ".join(_CONTROL.sub(" ", text).split())
