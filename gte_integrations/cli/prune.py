"""``gte prune``: remove the documents that are in no file any more."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gte_integrations.cli.models import open_without_model
from gte_integrations.cli.options import (
    ApiKeyFile,
    AsJson,
    Collection,
    DryRun,
    From,
    ReadingOptions,
    Yes,
    given_documents,
    given_ids,
    group_of,
    with_options,
    without_stdin,
)
from gte_integrations.cli.removal import Removal

if TYPE_CHECKING:
    from gte_integrations._index.fusion import DocumentId


@with_options(ReadingOptions)
def prune(
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="PATH",
            help="All files and folders that the collection was made of, or - for the ids to keep "
            "on stdin, one a line; the integer 5 is written int:5.",
        ),
    ],
    *,
    store: From,
    collection: Collection,
    yes: Yes = False,
    dry_run: DryRun = False,
    api_key_file: ApiKeyFile = None,
    as_json: AsJson = False,
    **given: Any,
) -> None:
    """Remove every document that is not in the given files. No model is loaded.

    It says what would go, and asks. A file that cannot be read ends it, and nothing is removed.
    """
    store = store.with_key(api_key_file)
    keep = _kept(paths, group_of(ReadingOptions, given))
    if not keep:
        raise ValueError(
            "Nothing was given to keep, so every document would be removed; give what the "
            "collection was made of."
        )
    with open_without_model(store, collection) as index:
        gone = (document for document in index.documents() if document.id not in keep)
        removal = Removal.of(store, collection, gone)
        if removal.is_agreed(yes=yes, dry_run=dry_run, as_json=as_json):
            removed = index.delete(removal.ids)
            removal.show_done(removed, index.count(), as_json=as_json)


def _kept(paths: list[Path], reading: ReadingOptions) -> "set[DocumentId]":
    from gte_integrations._index.document import Unreadable

    files, has_stdin = without_stdin(paths)
    keep: set[DocumentId] = set(given_ids(["-"])) if has_stdin else set()
    for document in given_documents(files, reading, "raise"):
        if isinstance(document, Unreadable):
            raise document.error
        keep.add(document.id)
    return keep
