"""``gte``: index files, search them, and look at vectors, from the command line."""

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import chain, islice, tee
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from gte_core import GTEError, __version__

try:
    import typer
    from typer.core import TyperGroup

    from gte_integrations.cli import output
except ImportError as error:
    raise ImportError("gte needs typer and rich; pip install 'gte-integrations[cli]'") from error

from gte_integrations.cli.bench import bench
from gte_integrations.cli.models import label, load_model, recorded_sizes
from gte_integrations.cli.options import (
    AsJson,
    Collection,
    From,
    ModelOptions,
    Queries,
    QueryPrefix,
    Texts,
    To,
    with_model_options,
)
from gte_integrations.cli.stores import StoreError, no_collection, open_index, read_metadata

if TYPE_CHECKING:
    from gte_core import GTEEmbedder
    from gte_integrations._index.index import HybridIndex
    from gte_integrations._index.search import Hit


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
        except KeyboardInterrupt as error:
            output.note(" ".join(["Interrupted.", *_notes(error)]))
            raise typer.Exit(_INTERRUPTED) from None
        except Exception as error:
            if ctx.params["traceback"] or not isinstance(error, _EXPECTED):
                raise
            message = str(error) or type(error).__name__
            output.error_line("\n".join([message, *_notes(error)]))
            raise typer.Exit(1) from error


def _notes(error: BaseException) -> list[str]:
    """What was added to an error on its way, such as how far ``add`` came."""
    return list(getattr(error, "__notes__", []))


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"gte-integrations {__version__}")
        raise typer.Exit


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


# Commands


@app.command()
@with_model_options
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
    id_prefix: Annotated[
        str,
        typer.Option(
            "--id-prefix",
            metavar="PREFIX",
            help="Put before ids that are made of paths, to tell folders apart.",
        ),
    ] = "",
    moved_from: Annotated[
        Path | None,
        typer.Option(
            "--moved-from",
            metavar="FOLDER",
            help="Where the files were before they moved; its documents are taken over.",
        ),
    ] = None,
    query_prefix: QueryPrefix = None,
    as_json: AsJson = False,
    **model_options: Any,
) -> None:
    """Read files into a collection, which is made if there is none.

    Unchanged documents are not encoded again: an interrupted run goes on where it stopped.
    """
    from gte_integrations.documents.readers import read_documents

    documents = read_documents(paths, id_prefix=id_prefix)
    options = ModelOptions(**model_options)
    metadata = read_metadata(to, collection)
    _note_other_prefix(query_prefix, metadata)
    embedder = load_model(options, query_prefix=query_prefix, metadata=metadata)
    with open_index(
        to, collection, embedder, recorded_sizes(metadata, embedder, options)
    ) as target:
        target.create()
        report = target.add(
            documents,
            batch_size=batch_size,
            on_error=on_error,
            show_progress=sys.stderr.isatty(),
            moved_from=None if moved_from is None else moved_from.resolve(),
        )
        total = target.count()
    if as_json:
        place = {"store": str(to), "collection": collection, "model": label(embedder)}
        output.write_json({**place, **asdict(report), "count": total})
    else:
        output.show_report(report, total, f"{collection} in {to}", label(embedder))


@app.command()
@with_model_options
def search(
    queries: Queries,
    *,
    store: From,
    collection: Collection,
    limit: Annotated[
        int, typer.Option("--limit", "-n", min=1, metavar="N", help="Hits per query.")
    ] = 10,
    mode: Annotated[
        Literal["hybrid", "dense", "sparse"] | None,
        typer.Option(
            "--mode",
            metavar="MODE",
            help="Search by hybrid, dense or sparse vectors; by default all that there are.",
        ),
    ] = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Show the tokens that a hit shares with the query.")
    ] = False,
    query_prefix: QueryPrefix = None,
    as_json: AsJson = False,
    **model_options: Any,
) -> None:
    """Search a collection, with the model that it was filled with."""
    texts = list(_lines(queries))
    options = ModelOptions(**model_options)
    metadata = read_metadata(store, collection)
    if metadata is None:
        raise no_collection(store, collection)
    mode = mode or ("hybrid" if metadata["sparse"] else "dense")
    embedder = load_model(options, query_prefix=query_prefix, metadata=metadata)
    sizes = recorded_sizes(metadata, embedder, options)
    with open_index(store, collection, embedder, sizes) as source:
        rankings = source.search(texts, limit=limit, mode=mode)
        found = [
            _found(source, text, hits, explained=explain)
            for text, hits in zip(texts, rankings, strict=True)
        ]
    for text, documents in zip(texts, found, strict=True):
        if as_json:
            hits = [document.as_json() for document in documents]
            output.write_json({"query": text, "model": label(embedder), "hits": hits})
        else:
            output.show_hits(text, documents, f"{mode} · {label(embedder)}")


@app.command()
@with_model_options
def encode(texts: Texts, *, as_json: AsJson = False, **model_options: Any) -> None:
    """Show the dense and the sparse vector of texts."""
    embedder = load_model(ModelOptions(**model_options))
    for encoded in _encoded(embedder, _lines(texts)):
        if as_json:
            output.write_json({"model": label(embedder), **asdict(encoded)})
        else:
            output.show_encoded(encoded, label(embedder))


@app.command()
@with_model_options
def explain(
    query: Annotated[str, typer.Argument(metavar="QUERY", help="What was searched for.")],
    text: Annotated[str, typer.Argument(metavar="TEXT", help="What was found.")],
    *,
    query_prefix: QueryPrefix = None,
    as_json: AsJson = False,
    **model_options: Any,
) -> None:
    """Show why a text matches a query: both scores, and the tokens the two share."""
    embedder = load_model(ModelOptions(**model_options), query_prefix=query_prefix)
    explanation = embedder.explain(query, text)
    if as_json:
        score = {"model": label(embedder), "score": explanation.score}
        output.write_json({**score, **asdict(explanation)})
    else:
        output.show_explanation(explanation, label(embedder))


app.command()(bench)


def main() -> None:
    """Run the command line; the entry point of ``gte``."""
    app(prog_name="gte")


# What they share


def _found(
    source: "HybridIndex[Any]", query: str, hits: Sequence["Hit"], *, explained: bool
) -> list[output.FoundDocument]:
    if not explained:
        return [output.FoundDocument(hit, None) for hit in hits]
    explanations = source.explain_all(query, [hit.id for hit in hits])
    return [
        # One that was deleted since the search has nothing to show.
        output.FoundDocument(hit, explanations[hit.id].tokens if hit.id in explanations else ())
        for hit in hits
    ]


def _note_other_prefix(given: str | None, metadata: Mapping[str, Any] | None) -> None:
    """Say that a collection keeps the query prefix that it was made with."""
    if given is not None and metadata is not None and given != metadata.get("query_prefix"):
        recorded = metadata.get("query_prefix") or ""
        output.note(
            f"The collection was made with the query prefix {recorded!r}, which is kept; give "
            "--query-prefix to gte search."
        )


def _lines(texts: list[str]) -> Iterator[str]:
    """The texts of the command line, or of stdin in their place."""
    if texts != ["-"]:
        yield from texts
        return
    from gte_integrations.documents.readers import decoded_lines

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
