"""``gte index``: read files into a collection."""

import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.table import Table
from rich.text import Text

from gte_integrations.cli import output
from gte_integrations.cli.messages import in_options
from gte_integrations.cli.models import label, load_model, recorded_sizes
from gte_integrations.cli.options import (
    AsJson,
    Collection,
    ModelOptions,
    QueryPrefix,
    ReadingOptions,
    To,
    given_documents,
    group_of,
    with_options,
)
from gte_integrations.cli.stores import open_index, read_metadata

if TYPE_CHECKING:
    from gte_integrations._index.fusion import DocumentId
    from gte_integrations._index.reports import IndexReport

_MOST_REASONS = 20
_MOST_IDS = 5


@with_options(ReadingOptions, ModelOptions)
def index(
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="PATH",
            help="Files (.jsonl, .json, .csv, .parquet, .txt, .md) and folders of them, or - for "
            "JSON lines of stdin, each with an id.",
        ),
    ],
    *,
    to: To,
    collection: Collection,
    batch_size: Annotated[
        int, typer.Option(min=1, metavar="N", help="Documents encoded and written together.")
    ] = 256,
    on_error: Annotated[
        Literal["raise", "skip"],
        typer.Option(
            metavar="WHAT", help="raise or skip, where a path, file or document cannot be indexed."
        ),
    ] = "raise",
    moved_from: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Where the files were before they moved; its documents are taken over.",
        ),
    ] = None,
    query_prefix: QueryPrefix = None,
    as_json: AsJson = False,
    **given: Any,
) -> None:
    """Read files into a collection, which is made if there is none.

    Unchanged documents are not encoded again: an interrupted run goes on where it stopped.
    """
    documents = given_documents(paths, group_of(ReadingOptions, given), on_error)
    options = group_of(ModelOptions, given)
    metadata = read_metadata(to, collection)
    _note_other_prefix(query_prefix, metadata)
    embedder = load_model(options, query_prefix=query_prefix, metadata=metadata)
    sizes = recorded_sizes(metadata, embedder, options.dimensions)
    with open_index(to, collection, embedder, sizes) as target:
        target.create()
        report = target.add(
            documents,
            batch_size=batch_size,
            on_error=on_error,
            show_progress=sys.stderr.isatty(),
            moved_from=None if moved_from is None else moved_from.resolve(),
        )
        total = target.count()
    report.skipped = [(of, in_options(reason)) for of, reason in report.skipped]
    if as_json:
        place = {"store": str(to), "collection": collection, "model": label(embedder)}
        output.write_json({**place, **asdict(report), "count": total})
    else:
        output.show(_report_grid(report, total, f"{collection} in {to}", label(embedder)))


def _note_other_prefix(given: str | None, metadata: Mapping[str, Any] | None) -> None:
    """Say that a collection keeps the query prefix that it was made with."""
    if given is not None and metadata is not None and given != metadata.get("query_prefix"):
        recorded = metadata.get("query_prefix") or ""
        output.note(
            f"The collection was made with the query prefix {recorded!r}, which is kept; give "
            "--query-prefix to gte search."
        )


def _report_grid(report: "IndexReport", total: int, where: str, model: str) -> Table:
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


def _worth_a_look(report: "IndexReport") -> Iterator[tuple[str, str]]:
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


def _some_ids(ids: "list[DocumentId]", count: int) -> str:
    named = [str(document_id) for document_id in ids[:_MOST_IDS]]
    return f"{count:,}: " + ", ".join([*named, "…"] if count > len(named) else named)
