"""Arguments and options that several commands of ``gte`` share."""

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from inspect import Signature, signature
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

import typer

from gte_integrations.cli import completion
from gte_integrations.cli.stores import StoreLocation

if TYPE_CHECKING:
    from gte_integrations._index.document import Document, Unreadable
    from gte_integrations._index.fusion import DocumentId
    from gte_integrations.documents.layout import Layout

T = TypeVar("T")

_STDIN = Path("-")
_AS_UTF8 = "save it as UTF-8, for instance with iconv."


def _store_location(text: str) -> StoreLocation:
    try:
        return StoreLocation.parse(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


def _store_option(*names: str) -> Any:
    return typer.Option(
        *names,
        parser=_store_location,
        autocompletion=completion.stores,
        metavar="STORE",
        help="Where the collection is: qdrant:DIR, milvus:FILE.db, or the URL of a server, "
        "qdrant+http://HOST:PORT or milvus+http://HOST:PORT.",
    )


# Of a command that reads one store and writes another; elsewhere, --to is understood for both.
Source = Annotated[StoreLocation, _store_option("--from")]
To = Annotated[StoreLocation, _store_option("--to")]
From = Annotated[StoreLocation, _store_option("--from", "--to")]
FromOrNothing = Annotated[StoreLocation | None, _store_option("--from", "--to")]
ApiKeyFile = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="A file with the key of the server; by default QDRANT_API_KEY or MILVUS_TOKEN of the "
        "environment is read.",
    ),
]
Collection = Annotated[
    str,
    typer.Option(
        "--collection",
        "-c",
        metavar="NAME",
        help="The name of the collection.",
        autocompletion=completion.collections,
    ),
]
Filter = Annotated[
    str | None,
    typer.Option(
        "--filter",
        metavar="FILTER",
        help="Only documents whose payload meets a condition of the engine: JSON of a Qdrant "
        'filter, \'{"must": [{"key": "lang", "match": {"value": "en"}}]}\', or an expression of '
        "Milvus, 'lang == \"en\"'.",
    ),
]
BatchSize = Annotated[
    int, typer.Option(min=1, metavar="N", help="Documents encoded and written together.")
]
OnError = Annotated[
    Literal["raise", "skip"],
    typer.Option(
        metavar="WHAT", help="raise or skip, where a path, file or document cannot be indexed."
    ),
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Remove without asking.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would go, and remove nothing.")]
Device = Annotated[
    str | None,
    typer.Option(
        metavar="DEVICE", help="cpu, cuda, cuda:N or mps; by default a GPU if there is one."
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
            help="A hub id, a directory, or 'demo', the small bundled model; a server, as "
            "tei+http://HOST:PORT or openai+http://HOST:PORT/v1#NAME; or a cloud's, as openai:NAME "
            "or dashscope:NAME. By default that of the collection, if there is one, else "
            "Alibaba-NLP/gte-multilingual-base.",
            autocompletion=completion.models,
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
            "as the model says.",
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


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryOptions:
    """What goes before a query, as the options say it; None for what they do not say."""

    query_prefix: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT",
            help="Text put before a query, '' for none; by default what the collection records, "
            "else the model's own prompt.",
        ),
    ] = None
    prompt_name: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="The name of the model's prompt to put there, such as s2s_query."
        ),
    ] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RerankOptions:
    """How the best hits are ranked anew, as the options say it."""

    rerank: Annotated[
        bool,
        typer.Option("--rerank", help="Rank the best hits anew by a reranker, on their texts."),
    ] = False
    reranker: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            help="The reranker, a hub id or a directory, in place of "
            "Alibaba-NLP/gte-multilingual-reranker-base; goes without --rerank.",
        ),
    ] = None
    rerank_depth: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="N", help="Hits that are ranked anew; by default --limit, at least 50."
        ),
    ] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadingOptions:
    """How files are read, as the options say it."""

    id_prefix: Annotated[
        str,
        typer.Option(
            metavar="PREFIX", help="Put before ids that are made of paths, to tell folders apart."
        ),
    ] = ""
    text_column: Annotated[
        str, typer.Option(metavar="NAME", help="The column, or key, of the texts.")
    ] = "text"
    id_column: Annotated[
        str, typer.Option(metavar="NAME", help="The column, or key, of the ids.")
    ] = "id"
    encoding: Annotated[
        str, typer.Option(metavar="NAME", help="What the files are written in, such as cp1252.")
    ] = "utf-8"
    delimiter: Annotated[
        str,
        typer.Option(metavar="CHAR", help="What separates the fields of .csv files; \\t is a tab."),
    ] = ","

    @property
    def layout(self) -> "Layout":
        """The same for the readers."""
        from gte_integrations.documents.layout import Layout

        delimiter = self.delimiter.replace("\\t", "\t")
        return Layout(self.text_column, self.id_column, self.encoding, delimiter)


def with_options(*groups: type) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Show typer the fields of dataclasses of options in place of a command's ``**options``."""

    def shown(command: Callable[..., None]) -> Callable[..., None]:
        *own, _ = signature(command).parameters.values()
        named = (option for group in groups for option in signature(group).parameters.values())
        command.__signature__ = Signature([*own, *named])  # type: ignore[attr-defined]
        return command

    return shown


def group_of(group: type[T], options: dict[str, Any]) -> T:
    """The options of one group, out of those of several."""
    return group(**{field.name: options[field.name] for field in fields(group)})  # type: ignore[arg-type]


def given_texts(texts: list[str]) -> Iterator[str]:
    """Yield the texts of the command line, and the lines of stdin in the place of ``-``."""
    from gte_integrations.documents.rows import decode

    for text in texts:
        if text != "-":
            yield text
            continue
        for number, line in enumerate(sys.stdin.buffer, 1):
            yield decode(line, "stdin", number, _AS_UTF8).rstrip("\r\n")


def given_ids(keys: list[str]) -> "Iterator[DocumentId]":
    """Yield the ids of the command line, and those of stdin in the place of ``-``."""
    return (given_id(key) for key in given_texts(keys) if key)


def given_id(key: str) -> "DocumentId":
    """The id that was typed: a string, or an integer as ``int:5``."""
    from gte_integrations._index.ids import key_to_id

    try:
        return key_to_id(key)
    except ValueError:
        raise ValueError(f"{key!r} is no integer id; the string is written str:{key}.") from None


def given_documents(
    paths: list[Path], reading: ReadingOptions, on_error: Literal["raise", "skip"]
) -> "Iterator[Document | Unreadable]":
    """The documents of files and folders, and JSON lines of stdin where one of them is ``-``."""
    from gte_integrations.documents.readers import read_documents, read_lines

    files, has_stdin = without_stdin(paths)
    layout = reading.layout
    documents = read_documents(files, id_prefix=reading.id_prefix, on_error=on_error, layout=layout)
    return chain(documents, read_lines(sys.stdin.buffer, "stdin", layout) if has_stdin else ())


def without_stdin(paths: list[Path]) -> tuple[list[Path], bool]:
    """The paths but ``-``, and whether that is one of them."""
    files = [path for path in paths if path != _STDIN]
    return files, len(files) < len(paths)
