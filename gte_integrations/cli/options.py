"""Arguments and options that several commands of ``gte`` share."""

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from inspect import Signature, signature
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from gte_integrations.cli.stores import StoreLocation


def _store_location(text: str) -> StoreLocation:
    try:
        return StoreLocation.parse(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


def _store_option(*names: str) -> Any:
    return typer.Option(
        *names,
        parser=_store_location,
        metavar="STORE",
        help="Where the collection is: qdrant:DIR, milvus:FILE.db, or the URL of a server, "
        "qdrant+http://HOST:PORT or milvus+http://HOST:PORT.",
    )


To = Annotated[StoreLocation, _store_option("--to")]
From = Annotated[StoreLocation, _store_option("--from", "--to")]
ApiKeyFile = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="A file with the key of the server; by default QDRANT_API_KEY or MILVUS_TOKEN of the "
        "environment is read.",
    ),
]
Collection = Annotated[
    str, typer.Option("--collection", "-c", metavar="NAME", help="The name of the collection.")
]
Device = Annotated[
    str | None,
    typer.Option(
        metavar="DEVICE", help="cpu, cuda, cuda:N or mps; by default a GPU if there is one."
    ),
]
QueryPrefix = Annotated[
    str | None,
    typer.Option(
        metavar="TEXT",
        help="What the model wants before a query, such as 'query: ' for arctic-embed; by default "
        "what was given when the collection was made.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Write JSON lines, for programs.")]
Texts = Annotated[
    list[str], typer.Argument(metavar="TEXT", help="Texts, or - for stdin, one a line.")
]
Queries = Annotated[
    list[str], typer.Argument(metavar="QUERY", help="Queries, or - for stdin, one a line.")
]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelOptions:
    """The model as the options say it; None for what they do not say."""

    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            metavar="MODEL",
            help="A hub id, a directory, or 'demo', the small bundled model; by default that of "
            "the collection, if there is one, else Alibaba-NLP/gte-multilingual-base.",
        ),
    ] = None
    revision: Annotated[
        str | None, typer.Option(metavar="REV", help="Branch, tag or commit on the hub.")
    ] = None
    device: Device = None
    dtype: Annotated[
        str | None,
        typer.Option(
            metavar="TYPE",
            help="auto (the default), float32, bfloat16 or float16, which can share a collection; "
            "int8 (x86) or float8 (Hopper), each with collections of its own, where it is the "
            "default.",
        ),
    ] = None
    max_length: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Tokens of a text that are read; by default as many as in the collection, else "
            "8192.",
        ),
    ] = None
    on_truncation: Annotated[
        Literal["warn", "error", "ignore"] | None,
        typer.Option(
            metavar="WHAT",
            help="warn (the default), error or ignore, where a text is longer than --max-length.",
        ),
    ] = None
    dimensions: Annotated[
        int | None,
        typer.Option(
            "--dimensions",
            "-d",
            min=1,
            metavar="N",
            help="Size of the dense vectors; by default the collection's, else the model's own.",
        ),
    ] = None


def with_model_options(command: Callable[..., None]) -> Callable[..., None]:
    """Show typer the fields of ``ModelOptions`` in place of a command's ``**model_options``."""
    *own, _ = signature(command).parameters.values()
    shown = Signature([*own, *signature(ModelOptions).parameters.values()])
    command.__signature__ = shown  # type: ignore[attr-defined]
    return command


def given_texts(texts: list[str]) -> Iterator[str]:
    """Yield the texts of the command line, or the lines of stdin in the place of ``-``."""
    if texts != ["-"]:
        yield from texts
        return
    from gte_integrations.documents.rows import decode

    for number, line in enumerate(sys.stdin.buffer, 1):
        yield decode(line, "stdin", number).rstrip("\r\n")
