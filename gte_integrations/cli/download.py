"""``gte download``: a model of the hub in a directory, for machines without network."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from gte_integrations.cli import completion, output
from gte_integrations.cli.options import AsJson

if TYPE_CHECKING:
    from gte_core import DownloadedModel


def download(
    model: Annotated[
        str,
        typer.Argument(metavar="MODEL", help="A hub id.", autocompletion=completion.models),
    ],
    directory: Annotated[
        Path, typer.Argument(metavar="DIR", help="A new directory, or one to go on with.")
    ],
    *,
    revision: Annotated[
        str | None,
        typer.Option(
            metavar="REV", help="Branch, tag or commit; by default the pin of a known model."
        ),
    ] = None,
    cache_dir: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Where downloads are kept; by default the Hugging Face cache."
        ),
    ] = None,
    local_files_only: Annotated[
        bool,
        typer.Option("--local-files-only", help="Never ask the hub; copy what is in the cache."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Put a model's files into a directory that loads without network, on other machines too."""
    from gte_core import download_model

    downloaded = download_model(
        model,
        directory,
        revision=revision,
        cache_dir=cache_dir,
        local_files_only=local_files_only,
    )
    if as_json:
        output.write_json({**asdict(downloaded), "directory": str(downloaded.directory)})
    else:
        output.show(_grid(downloaded))


def _grid(downloaded: "DownloadedModel") -> Table:
    grid = output.fields()
    model = f"{downloaded.model}@{downloaded.revision[:12]}"
    grid.add_row("Model", Text(model, overflow="fold"))
    grid.add_row("Size", f"{downloaded.size / 1e6:,.1f} MB")
    grid.add_row("Directory", Text(str(downloaded.directory), overflow="fold"))
    grid.add_row("Next", "Copy it to where it is needed, and give its path as --model there.")
    return grid
