"""What ``gte index`` and ``gte reindex`` say of what they did."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from itertools import islice
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from gte_integrations.cli import output
from gte_integrations.cli.messages import in_options

if TYPE_CHECKING:
    from gte_integrations._index.fusion import DocumentId
    from gte_integrations._index.reports import IndexReport
    from gte_integrations.cli.stores import StoreLocation

_MOST_REASONS = 20
_MOST_IDS = 5


def show_report(
    report: IndexReport,
    total: int,
    store: StoreLocation,
    collection: str,
    model: str,
    *,
    as_json: bool,
) -> None:
    """Say what was added, where to, and by which model."""
    report.skipped = [(of, in_options(reason)) for of, reason in report.skipped]
    if as_json:
        place = {"store": str(store), "collection": collection, "model": model}
        output.write_json({**place, **asdict(report), "count": total})
    else:
        output.show(_grid(report, total, f"{collection} in {store}", model))


def _grid(report: IndexReport, total: int, where: str, model: str) -> Table:
    """What was added, and where to."""
    counts = {
        "new": report.written,
        "replaced": report.replaced,
        "unchanged": report.unchanged,
        "duplicate": report.duplicates,
        "empty": report.empty,
        "skipped": len(report.skipped),
    }
    done = ", ".join(f"{count:,} {name}" for name, count in counts.items() if count)
    gone = f" · {report.deleted:,} deleted" if report.deleted else ""
    grid = output.fields()
    grid.add_row("Documents", Text.assemble((done or "none", "bold"), f"{gone} · {total:,} in all"))
    grid.add_row("Collection", Text(where))
    grid.add_row("Model", Text(model))
    grid.add_row("Tokens", f"{report.n_tokens:,} encoded in {report.seconds_encoding:.1f} s")
    for name, line in _worth_a_look(report):
        grid.add_row(name, Text(output.one_line(line), style="yellow", overflow="fold"))
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
