"""``gte info``: what a collection is, or which collections a store has."""

from collections import Counter
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from gte_core import CollectionMismatch
from gte_integrations.cli import output
from gte_integrations.cli.completion import collections
from gte_integrations.cli.models import open_without_model, recorded_label
from gte_integrations.cli.options import ApiKeyFile, AsJson, From
from gte_integrations.cli.stores import StoreError, StoreLocation, list_collections

if TYPE_CHECKING:
    from gte_integrations._index.metadata import Metadata

_GIVEN = "ids that were given"  # where there is no origin


def info(
    *,
    store: From,
    collection: Annotated[
        str | None,
        typer.Option(
            "--collection",
            "-c",
            metavar="NAME",
            help="The name of a collection; by default all of them are listed.",
            autocompletion=collections,
        ),
    ] = None,
    api_key_file: ApiKeyFile = None,
    as_json: AsJson = False,
) -> None:
    """Show what a collection is, or which collections a store has. No model is loaded."""
    store = store.with_key(api_key_file)
    if collection is None:
        _list(store, as_json=as_json)
        return
    with open_without_model(store, collection) as index:
        metadata = index.metadata() or {}
        count = index.count()
        origins = Counter(document.origin for document in index.documents()).most_common()
    if as_json:
        listed = [{"origin": origin, "count": number} for origin, number in origins]
        _write(store, collection, {**metadata, "count": count, "origins": listed})
    else:
        output.show(_grid(f"{collection} in {store}", metadata, count, origins))


def _list(store: StoreLocation, *, as_json: bool) -> None:
    names = list_collections(store)
    table = output.table("Documents", text="Collection")
    table.add_column("Model", ratio=1)
    for name in names:
        found = _summary(store, name)
        if as_json:
            _write(store, name, found)
        else:
            model = recorded_label(found) if found else "not made by gte"
            table.add_row(f"{found['count']:,}" if found else "–", Text(name), Text(model))
    if not as_json:
        output.show(table if names else output.nothing(f"No collections in {store}."))


def _summary(store: StoreLocation, collection: str) -> dict[str, Any]:
    """What a collection records, and its count; nothing of one that others made."""
    try:
        with open_without_model(store, collection) as index:
            return {**(index.metadata() or {}), "count": index.count()}
    except (CollectionMismatch, StoreError, ValueError):
        return {}


def _write(store: StoreLocation, collection: str, found: dict[str, Any]) -> None:
    output.write_json({"store": str(store), "collection": collection, **found})


def _grid(
    where: str, metadata: "Metadata", count: int, origins: list[tuple[str | None, int]]
) -> Table:
    from gte_integrations._index.metadata import sparse_half

    grid = output.fields()
    grid.add_row("Collection", Text(where, overflow="fold"))
    grid.add_row("Documents", f"{count:,}")
    grid.add_row("Model", _model(metadata))
    if sparse := sparse_half(metadata):
        grid.add_row("Sparse model", _model(sparse))
    if metadata.get("query_prefix"):
        grid.add_row("Query prefix", Text(repr(metadata["query_prefix"])))
    grid.add_row("Vectors", _vectors(metadata))
    for number, (origin, documents) in enumerate(origins):
        line = f"{documents:,}  {output.one_line(origin or _GIVEN)}"
        grid.add_row("From" if number == 0 else "", Text(line, overflow="fold"))
    return grid


def _model(metadata: "Metadata") -> Text:
    reads = f"reads {metadata['max_length']:,} tokens · {metadata.get('numeric', 'float')}"
    return Text(f"{recorded_label(metadata)} · {reads}", overflow="fold")


def _vectors(metadata: "Metadata") -> str:
    if not metadata["dimensions"]:
        return "sparse"
    coarse = metadata.get("coarse_dimensions")
    dense = f"dense {metadata['dimensions']}" + (f", gathered by {coarse}" if coarse else "")
    sparse = " and sparse" if metadata.get("sparse", True) else ""
    return f"{dense}{sparse} · kept as {metadata.get('storage', 'float32')}"
