"""``gte index``: read files into a collection."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from gte_integrations.cli import output
from gte_integrations.cli.models import label, load_model, recorded_sizes, with_sparse_half
from gte_integrations.cli.options import (
    ApiKeyFile,
    AsJson,
    BatchSize,
    Collection,
    ModelOptions,
    OnError,
    QueryPrefix,
    ReadingOptions,
    To,
    given_documents,
    group_of,
    with_options,
)
from gte_integrations.cli.reports import show_report
from gte_integrations.cli.stores import open_index, read_metadata


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
    batch_size: BatchSize = 256,
    on_error: OnError = "raise",
    moved_from: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Where the files were before they moved; its documents are taken over.",
        ),
    ] = None,
    api_key_file: ApiKeyFile = None,
    query_prefix: QueryPrefix = None,
    as_json: AsJson = False,
    **given: Any,
) -> None:
    """Read files into a collection, which is made if there is none.

    Unchanged documents are not encoded again: an interrupted run goes on where it stopped.
    """
    to = to.with_key(api_key_file)
    documents = given_documents(paths, group_of(ReadingOptions, given), on_error)
    options = group_of(ModelOptions, given)
    metadata = read_metadata(to, collection)
    _note_other_prefix(query_prefix, metadata)
    embedder = load_model(options, query_prefix=query_prefix, metadata=metadata)
    encoder = with_sparse_half(embedder, options, metadata)
    sizes = recorded_sizes(metadata, embedder, options.dimensions)
    with open_index(to, collection, encoder, sizes) as target:
        target.create()
        report = target.add(
            documents,
            batch_size=batch_size,
            on_error=on_error,
            show_progress=sys.stderr.isatty(),
            moved_from=None if moved_from is None else moved_from.resolve(),
        )
        total = target.count()
    show_report(report, total, to, collection, label(embedder), as_json=as_json)


def _note_other_prefix(given: str | None, metadata: Mapping[str, Any] | None) -> None:
    """Say that a collection keeps the query prefix that it was made with."""
    if given is not None and metadata is not None and given != metadata.get("query_prefix"):
        recorded = metadata.get("query_prefix") or ""
        output.note(
            f"The collection was made with the query prefix {recorded!r}, which is kept; give "
            "--query-prefix to gte search."
        )
