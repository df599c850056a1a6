"""``gte delete``: take documents out of a collection."""

from typing import Annotated

import typer

from gte_integrations.cli import output
from gte_integrations.cli.filters import engine_filter, naming_filter
from gte_integrations.cli.models import open_without_model
from gte_integrations.cli.options import (
    ApiKeyFile,
    AsJson,
    Collection,
    DryRun,
    Filter,
    From,
    Yes,
    given_ids,
)
from gte_integrations.cli.removal import Removal


def delete(
    ids: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[ID]...",
            help="Ids of documents, or - for stdin, one a line; the integer 5 is written int:5.",
        ),
    ] = None,
    *,
    store: From,
    collection: Collection,
    filter: Filter = None,  # noqa: A002
    yes: Yes = False,
    dry_run: DryRun = False,
    api_key_file: ApiKeyFile = None,
    as_json: AsJson = False,
) -> None:
    """Take documents out of a collection, by their ids or by a filter. No model is loaded.

    With --filter it says what would go, and asks.
    """
    if bool(ids) == (filter is not None):
        raise typer.BadParameter("Give ids or --filter, one of both.")
    store = store.with_key(api_key_file)
    condition = engine_filter(store.engine, filter)
    wanted = list(given_ids(ids or []))
    with naming_filter(filter), open_without_model(store, collection) as index:
        if filter is None:
            removal = Removal.of(store, collection, index.get(wanted))
        else:
            removal = Removal.of(store, collection, index.documents(filter=condition))
        for missing in set(wanted).difference(removal.ids):
            output.note(f"{missing} is not there{_hint(missing)}.")
        if removal.is_agreed(yes=yes or filter is None, dry_run=dry_run, as_json=as_json):
            by_ids = filter is None
            removed = index.delete(removal.ids) if by_ids else index.delete(filter=condition)
            removal.show_done(removed, index.count(), as_json=as_json)


def _hint(missing: str | int) -> str:
    is_number = isinstance(missing, str) and missing.removeprefix("-").isdecimal()
    return f"; the integer is written int:{missing}" if is_number else ""
