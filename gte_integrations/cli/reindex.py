"""``gte reindex``: fill a collection of another model, size or engine from one that is there."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from gte_integrations.cli.models import (
    label,
    load_model,
    open_without_model,
    recorded,
    recorded_sizes,
    with_sparse_half,
)
from gte_integrations.cli.options import (
    ApiKeyFile,
    AsJson,
    BatchSize,
    Collection,
    ModelOptions,
    OnError,
    QueryPrefix,
    Source,
    To,
    with_options,
)
from gte_integrations.cli.reports import show_report
from gte_integrations.cli.stores import Sizes, StoreLocation, open_index, read_metadata


@with_options(ModelOptions)
def reindex(
    *,
    store: Source,
    collection: Collection,
    to: To,
    to_collection: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="The name of the new collection; by default the same."),
    ] = None,
    alias: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="An alias that leads to the new collection once it is filled."
        ),
    ] = None,
    batch_size: BatchSize = 256,
    on_error: OnError = "raise",
    api_key_file: ApiKeyFile = None,
    to_api_key_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="The same for the server of --to, where it is another one."
        ),
    ] = None,
    query_prefix: QueryPrefix = None,
    as_json: AsJson = False,
    **model_options: Any,
) -> None:
    """Encode a collection's documents again, into one of another model, size or engine.

    The model and sizes that are not given are those of the new collection if it is there, else
    those of the old one. What is there unchanged is not encoded again: an interrupted run goes on.
    """
    target = to_collection or collection
    if (store, collection) == (to, target):
        raise ValueError(f"{collection} in {store} is both old and new; give --to-collection.")
    if alias is not None and to.engine == "qdrant" and not to.is_url:
        raise ValueError(
            f"--alias is {alias!r}, but a Qdrant directory has no aliases; leave it out."
        )
    store, to = _with_keys(store, to, api_key_file, to_api_key_file)
    options = ModelOptions(**model_options)
    old = recorded(store, collection)
    new = read_metadata(to, target)
    embedder = load_model(options, query_prefix=query_prefix, metadata=new or old)
    encoder = with_sparse_half(embedder, options, new or old)
    if new is None and options.model is not None:
        sizes = Sizes()
    else:
        sizes = recorded_sizes(new or old, embedder, options.dimensions)
    if new is None and store.engine != to.engine:  # which need not keep vectors as the old one does
        sizes = replace(sizes, storage="float32")
    with (
        open_without_model(store, collection) as source,
        open_index(to, target, encoder, sizes) as filled,
    ):
        filled.create()
        report = source.reindex(
            to=filled, batch_size=batch_size, on_error=on_error, show_progress=sys.stderr.isatty()
        )
        total = filled.count()
        if alias is not None:
            filled.switch_alias(alias)
    show_report(report, total, to, target, label(embedder), as_json=as_json)


def _with_keys(
    store: StoreLocation, to: StoreLocation, file: Path | None, to_file: Path | None
) -> tuple[StoreLocation, StoreLocation]:
    """Both with the keys of their servers; no server is sent the key of another."""
    if to.is_url and (not store.is_url or store.location == to.location):
        to_file = to_file or file
    is_for_to = to.is_url and not store.is_url
    return store.with_key(None if is_for_to else file), to.with_key(to_file)
