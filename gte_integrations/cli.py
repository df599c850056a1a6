"""``gte``: index files, search them, and look at vectors, from the command line."""

import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from inspect import Signature, signature
from itertools import chain, islice, tee
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

from gte_core import GTEError, __version__

try:
    import typer
    from typer.core import TyperGroup

    from gte_integrations import _cli_output as output
except ImportError as error:
    raise ImportError("gte needs typer and rich; pip install 'gte-integrations[cli]'") from error

from gte_integrations._cli_stores import StoreError, StoreLocation, open_index
from gte_integrations.bench import ContenderName, WorkloadName

if TYPE_CHECKING:
    from gte_core import GTEEmbedder

DEFAULT_MODEL = "Alibaba-NLP/gte-multilingual-base"
DEFAULT_MAX_LENGTH = 8192
DEFAULT_CANDIDATES = 100

_INTERRUPTED = 130
_EXPECTED = (GTEError, ImportError, OSError, StoreError, ValueError)
_DENSE_BATCH = 64


class _Commands(TyperGroup):
    """The commands; turns what a user can do something about into one line and an exit status."""

    def invoke(self, ctx: Any) -> Any:
        output.accept_any_text()
        try:
            super().invoke(ctx)
            sys.stdout.flush()
        except BrokenPipeError:
            raise  # typer leaves quietly
        except KeyboardInterrupt:
            output.note("Interrupted.")
            raise typer.Exit(_INTERRUPTED) from None
        except Exception as error:
            if ctx.params["traceback"] or not isinstance(error, _EXPECTED):
                raise
            output.error_line(str(error) or type(error).__name__)
            raise typer.Exit(1) from error


# Options


def _store_location(text: str) -> StoreLocation:
    try:
        return StoreLocation.parse(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"gte-integrations {__version__}")
        raise typer.Exit


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
Collection = Annotated[
    str, typer.Option("--collection", "-c", metavar="NAME", help="The name of the collection.")
]
Model = Annotated[
    str,
    typer.Option(
        "--model",
        "-m",
        metavar="MODEL",
        help="A hub id, a directory, or 'demo', the small bundled model.",
    ),
]
Revision = Annotated[
    str | None,
    typer.Option("--revision", metavar="REV", help="Branch, tag or commit on the hub."),
]
Device = Annotated[
    str | None,
    typer.Option(
        "--device",
        metavar="DEVICE",
        help="cpu, cuda, cuda:N or mps; by default a GPU if there is one.",
    ),
]
DType = Annotated[
    str,
    typer.Option(
        "--dtype",
        metavar="TYPE",
        help="auto, float32, bfloat16 or float16, which can share a collection; int8 (x86) or "
        "float8 (Hopper), each with collections of its own.",
    ),
]
MaxLength = Annotated[
    int,
    typer.Option("--max-length", min=1, metavar="N", help="Tokens of a text that are read."),
]
Dimensions = Annotated[
    int | None,
    typer.Option(
        "--dimensions",
        "-d",
        min=1,
        metavar="N",
        help="Size of the dense vectors, by default the model's own.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Write JSON lines, for programs.")]
Texts = Annotated[
    list[str], typer.Argument(metavar="TEXT", help="Texts, or - for stdin, one a line.")
]
Queries = Annotated[
    list[str], typer.Argument(metavar="QUERY", help="Queries, or - for stdin, one a line.")
]

app = typer.Typer(
    cls=_Commands,
    help="Dense and sparse GTE vectors in one pass, and hybrid search in Qdrant and Milvus.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def _settings(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
    traceback: Annotated[
        bool, typer.Option("--traceback", help="Show where an error came from.")
    ] = False,
) -> None:
    pass


def _load(
    *,
    model: Model = DEFAULT_MODEL,
    revision: Revision = None,
    device: Device = None,
    dtype: DType = "auto",
    max_length: MaxLength = DEFAULT_MAX_LENGTH,
    dimensions: Dimensions = None,
) -> "GTEEmbedder":
    if sys.stderr.isatty():
        output.note(f"Loading {model} …")
    from gte_core import GTEEmbedder

    return GTEEmbedder.from_pretrained(
        model,
        revision=revision,
        device=device,
        dtype=dtype,
        max_length=max_length,
        dimensions=dimensions,
    )


def _with_model_options(command: Callable[..., None]) -> Callable[..., None]:
    """Show typer the options of ``_load`` in place of a command's ``**model_options``."""
    *own, _ = signature(command).parameters.values()
    shown = Signature([*own, *signature(_load).parameters.values()])
    command.__signature__ = shown  # type: ignore[attr-defined]
    return command


# Commands


@app.command()
@_with_model_options
def index(
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="PATH", help="Files (.jsonl, .csv, .parquet, .txt, .md) and folders of them."
        ),
    ],
    *,
    to: To,
    collection: Collection,
    batch_size: Annotated[
        int,
        typer.Option(
            "--batch-size", min=1, metavar="N", help="Documents encoded and written together."
        ),
    ] = 256,
    on_error: Annotated[
        Literal["raise", "skip"],
        typer.Option(
            "--on-error", metavar="WHAT", help="raise or skip, where a document cannot be indexed."
        ),
    ] = "raise",
    as_json: AsJson = False,
    **model_options: Any,
) -> None:
    """Read files into a collection, which is made if there is none.

    Unchanged documents are not encoded again: an interrupted run goes on where it stopped.
    """
    from gte_integrations._documents import read_documents

    documents = read_documents(paths)
    embedder = _load(**model_options)
    with open_index(to, collection, embedder) as target:
        target.create()
        report = target.add(
            documents, batch_size=batch_size, on_error=on_error, show_progress=sys.stderr.isatty()
        )
        total = target.count()
    if as_json:
        place = {"store": str(to), "collection": collection, "model": _label(embedder)}
        output.write_json({**place, **asdict(report), "count": total})
    else:
        output.show_report(report, total, f"{collection} in {to}", _label(embedder))


@app.command()
@_with_model_options
def search(
    queries: Queries,
    *,
    store: From,
    collection: Collection,
    limit: Annotated[
        int, typer.Option("--limit", "-n", min=1, metavar="N", help="Hits per query.")
    ] = 10,
    mode: Annotated[
        Literal["hybrid", "dense", "sparse"],
        typer.Option("--mode", metavar="MODE", help="Search by hybrid, dense or sparse vectors."),
    ] = "hybrid",
    explain: Annotated[
        bool, typer.Option("--explain", help="Show the tokens that a hit shares with the query.")
    ] = False,
    as_json: AsJson = False,
    **model_options: Any,
) -> None:
    """Search a collection, with the model and dimensions that it was filled with."""
    texts = list(_lines(queries))
    embedder = _load(**model_options)
    with open_index(store, collection, embedder) as source:
        candidates = max(limit, DEFAULT_CANDIDATES)
        rankings = source.search(texts, limit=limit, mode=mode, candidates=candidates)
    for text, hits in zip(texts, rankings, strict=True):
        found = [
            output.FoundDocument(hit, embedder.explain(text, hit.text).tokens if explain else None)
            for hit in hits
        ]
        if as_json:
            documents = [document.as_json() for document in found]
            output.write_json({"query": text, "model": _label(embedder), "hits": documents})
        else:
            output.show_hits(text, found, f"{mode} · {_label(embedder)}")


@app.command()
@_with_model_options
def encode(texts: Texts, *, as_json: AsJson = False, **model_options: Any) -> None:
    """Show the dense and the sparse vector of texts."""
    embedder = _load(**model_options)
    for encoded in _encoded(embedder, _lines(texts)):
        if as_json:
            output.write_json({"model": _label(embedder), **asdict(encoded)})
        else:
            output.show_encoded(encoded, _label(embedder))


@app.command()
@_with_model_options
def explain(
    query: Annotated[str, typer.Argument(metavar="QUERY", help="What was searched for.")],
    text: Annotated[str, typer.Argument(metavar="TEXT", help="What was found.")],
    *,
    as_json: AsJson = False,
    **model_options: Any,
) -> None:
    """Show why a text matches a query: both scores, and the tokens the two share."""
    embedder = _load(**model_options)
    explanation = embedder.explain(query, text)
    if as_json:
        score = {"model": _label(embedder), "score": explanation.score}
        output.write_json({**score, **asdict(explanation)})
    else:
        output.show_explanation(explanation, _label(embedder))


@app.command()
def bench(
    *,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            metavar="MODEL",
            help="A hub id, a directory, or 'demo'; by default the published model if it is in "
            "the local cache, else random weights of its shape.",
        ),
    ] = None,
    device: Device = None,
    contenders: Annotated[
        list[str] | None,
        typer.Option(
            "--contender",
            metavar="NAME",
            help=f"Who is measured, may be repeated: {', '.join(get_args(ContenderName))}; by "
            "default every one that is installed and makes sense on the device.",
        ),
    ] = None,
    workloads: Annotated[
        list[str] | None,
        typer.Option(
            "--workload",
            metavar="NAME",
            help=f"What is encoded, may be repeated: {', '.join(get_args(WorkloadName))}; by "
            "default all.",
        ),
    ] = None,
    rounds: Annotated[
        int, typer.Option("--rounds", min=1, metavar="N", help="Turns that every contender takes.")
    ] = 3,
    quick: Annotated[
        bool, typer.Option("--quick", help="A few texts, to see that all works.")
    ] = False,
    chart: Annotated[
        Path | None,
        typer.Option("--chart", metavar="FILE", help="Draw the speeds into a .png or .svg."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Write JSON, for programs.")] = False,
) -> None:
    """Measure the speed of the model on this machine, beside the peers that are installed."""
    from gte_integrations._cli_bench import bench_tables, chart_writer, exit_when_terminated
    from gte_integrations.bench.run import BenchSettings, run_bench

    write_chart = chart_writer(chart)
    chosen, wanted = tuple(contenders or ()), tuple(workloads or ())
    settings = BenchSettings(model, device, chosen, wanted, rounds, quick)
    with exit_when_terminated(), output.progress() as progress:
        report = run_bench(settings, progress)
    if as_json:
        output.write_json(report.as_json())
    else:
        output.show(*bench_tables(report))
    write_chart(report)


def main() -> None:
    """Run the command line; the entry point of ``gte``."""
    app(prog_name="gte")


# What they share


def _label(embedder: "GTEEmbedder") -> str:
    if embedder.model == "demo":
        return "demo model"
    return f"{embedder.model}{f'@{embedder.revision[:12]}' if embedder.revision else ''}"


def _lines(texts: list[str]) -> Iterator[str]:
    """The texts of the command line, or of stdin in their place."""
    if texts != ["-"]:
        yield from texts
        return
    from gte_integrations._documents import decoded_lines

    for _, line in decoded_lines(sys.stdin.buffer, "stdin"):
        yield line.rstrip("\r\n")


def _encoded(embedder: "GTEEmbedder", texts: Iterator[str]) -> Iterator[output.EncodedText]:
    """Encode a stream, keeping no more of it than the embedder does."""
    if not embedder.has_sparse:
        yield from _encoded_dense(embedder, texts)
        return
    given, kept = tee(texts)
    # A bar between the results on one terminal would only be in their way.
    bar = sys.stderr.isatty() and not sys.stdout.isatty()
    parts = embedder.encode_iter(given, show_progress=bar)
    for both, text in zip(chain.from_iterable(parts), kept, strict=True):
        dense, ids, weights = next(both.rows())
        tokens = [both.decode_token(token_id) for token_id in ids.tolist()]
        sparse = output.SparseVector(ids.tolist(), weights.tolist(), tokens)
        yield output.EncodedText(
            text, int(both.n_tokens[0]), bool(both.truncated[0]), dense.tolist(), sparse
        )


def _encoded_dense(embedder: "GTEEmbedder", texts: Iterable[str]) -> Iterator[output.EncodedText]:
    stream = iter(texts)
    while batch := list(islice(stream, _DENSE_BATCH)):
        vectors = embedder.encode_dense(batch)
        for text, dense in zip(batch, vectors.tolist(), strict=True):
            yield output.EncodedText(text, None, None, dense, None)


if __name__ == "__main__":
    main()
