"""``gte explain``: why a text matches a query."""

from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import RenderableType
from rich.text import Text

from gte_core import MissingHeadError
from gte_integrations.cli import output
from gte_integrations.cli.models import DEFAULT_MODEL, label, load_model
from gte_integrations.cli.options import (
    AsJson,
    ModelOptions,
    QueryOptions,
    given_texts,
    group_of,
    with_options,
)

if TYPE_CHECKING:
    from gte_core import Explanation, GTEEmbedder


@with_options(ModelOptions, QueryOptions)
def explain(
    query: Annotated[str, typer.Argument(metavar="QUERY", help="What was searched for.")],
    text: Annotated[
        str, typer.Argument(metavar="TEXT", help="What was found, or - for stdin, one a line.")
    ],
    *,
    as_json: AsJson = False,
    **given: Any,
) -> None:
    """Show why a text matches a query: both scores, and the tokens the two share."""
    from gte_core import GTEEmbedder

    options = group_of(ModelOptions, given)
    embedder = load_model(options, query=group_of(QueryOptions, given))
    if not isinstance(embedder, GTEEmbedder):
        raise ValueError(
            f"--model is {options.model!r}, a server, but scores are explained by a model that is "
            "loaded here; pass a hub id or a directory, or search a collection with --explain."
        )
    if not embedder.has_sparse:
        raise MissingHeadError(
            f"{label(embedder)} gives dense vectors alone, so no tokens explain its scores; choose "
            f"a --model with a sparse head, such as {DEFAULT_MODEL}."
        )
    for found in given_texts([text]):
        _show(embedder, query, found, as_json=as_json)


def _show(embedder: "GTEEmbedder", query: str, text: str, *, as_json: bool) -> None:
    explanation = embedder.explain(query, text)
    if as_json:
        score = {"model": label(embedder), "score": explanation.score}
        output.write_json({**score, **asdict(explanation)})
    else:
        output.show(*_parts(explanation, label(embedder)))


def _parts(explanation: "Explanation", about: str) -> Iterator[RenderableType]:
    """The parts of a score, and the tokens behind its sparse part."""
    parts = (
        f" = {explanation.dense_weight:g} × dense {explanation.dense_score:.4f}"
        f" + {explanation.sparse_weight:g} × sparse {explanation.sparse_score:.4f}"
    )
    score = (f"score {explanation.score:.4f}", "bold")
    gap = "\n" if output.is_narrow() else "   "
    yield Text.assemble(score, parts, (f"{gap}{about}", "dim"))
    table = output.table("Contribution", "Query", "Text", text="Token")
    for token in explanation.tokens:
        numbers = (token.contribution, token.query_weight, token.document_weight)
        readable = Text(output.readable(token.token), style="green")
        table.add_row(*(f"{number:.4f}" for number in numbers), readable)
    yield table if table.row_count else output.nothing("No token in common.")
