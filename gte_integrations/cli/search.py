"""``gte search``: the documents of a collection that answer a query."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Group, RenderableType
from rich.text import Text

from gte_integrations.cli import output
from gte_integrations.cli.filters import engine_filter, naming_filter
from gte_integrations.cli.models import (
    label,
    load_model,
    recorded,
    recorded_sizes,
    reranker_of,
    with_sparse_half,
)
from gte_integrations.cli.options import (
    ApiKeyFile,
    AsJson,
    Collection,
    Filter,
    From,
    ModelOptions,
    Queries,
    QueryOptions,
    RerankOptions,
    given_texts,
    group_of,
    with_options,
)
from gte_integrations.cli.stores import open_index

if TYPE_CHECKING:
    from gte_core import TokenContribution
    from gte_integrations._index.fusion import DocumentId
    from gte_integrations._index.index import HybridIndex
    from gte_integrations._index.search import Hit

    _Tokens = Mapping[DocumentId, Sequence[TokenContribution]]

_PARTS = ("Dense", "Sparse")


@with_options(ModelOptions, QueryOptions, RerankOptions)
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
            metavar="MODE",
            help="Search by hybrid, dense or sparse vectors; by default all that there are.",
        ),
    ] = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Show the tokens that a hit shares with the query.")
    ] = False,
    filter: Filter = None,  # noqa: A002
    api_key_file: ApiKeyFile = None,
    as_json: AsJson = False,
    **given: Any,
) -> None:
    """Search a collection, with the model that it was filled with."""
    store = store.with_key(api_key_file)
    texts = list(given_texts(queries))
    options, query = group_of(ModelOptions, given), group_of(QueryOptions, given)
    rerank = group_of(RerankOptions, given)
    reranker = reranker_of(rerank, options.device)
    condition = engine_filter(store.engine, filter)
    metadata = recorded(store, collection)
    embedder = load_model(options, query=query, metadata=metadata)
    if query == QueryOptions() and metadata.get("query_prefix") == "":
        _note_prefix(embedder.query_prefix)
    encoder = with_sparse_half(embedder, options, metadata)
    sizes = recorded_sizes(metadata, embedder, options.dimensions)
    with naming_filter(filter), open_index(store, collection, encoder, sizes) as source:
        mode = mode or source.vectorizer.default_mode
        rankings = source.search(
            texts,
            limit=limit,
            mode=mode,
            filter=condition,
            rerank=reranker,
            rerank_depth=rerank.rerank_depth,
        )
        shared = [
            _shared_tokens(source, text, hits) if explain else {}
            for text, hits in zip(texts, rankings, strict=True)
        ]
    about = f"{mode} · {label(embedder)}"
    if reranker is not None:
        about += f" · reranked by {reranker.model}"
    for text, hits, tokens in zip(texts, rankings, shared, strict=True):
        if as_json:
            found = [_as_json(hit, tokens.get(hit.id)) for hit in hits]
            output.write_json({"query": text, "model": label(embedder), "hits": found})
        else:
            output.show(*_ranking(text, hits, tokens, about))


def _note_prefix(prefix: str) -> None:
    """Say that the model puts a prefix before queries, where it does."""
    if prefix:
        output.note(
            f"The collection records no query prefix; the model's own, {prefix!r}, goes before "
            "queries. Give --query-prefix '' for none."
        )


def _shared_tokens(source: "HybridIndex[Any]", query: str, hits: "list[Hit]") -> "_Tokens":
    """The tokens that each hit shares with the query; none if it was deleted since the search."""
    found = source.explain_all(query, [hit.id for hit in hits])
    return {hit.id: found[hit.id].tokens if hit.id in found else () for hit in hits}


def _as_json(hit: "Hit", tokens: "Sequence[TokenContribution] | None") -> dict[str, Any]:
    explained = {} if tokens is None else {"tokens": [asdict(token) for token in tokens]}
    return {**asdict(hit), **explained}


def _ranking(
    query: str, hits: "list[Hit]", tokens: "_Tokens", about: str
) -> Iterator[RenderableType]:
    """The hits of one query as a table, and what is said before it."""
    narrow = output.is_narrow()
    reranked = any(hit.rerank_score is not None for hit in hits)
    scores = ("Rerank", "Score") if reranked else ("Score",)
    table = output.table("#", *scores, *([] if narrow else _PARTS), text="Document")
    table.leading, table.expand = 1, True
    for rank, hit in enumerate(hits, 1):
        table.add_row(
            Text(str(rank), style="dim"),
            *([_part(hit.rerank_score)] if reranked else []),
            Text(f"{hit.score:.4f}", style="bold"),
            *([] if narrow else map(_part, _part_scores(hit))),
            _document_cell(hit, tokens.get(hit.id, ()), with_parts=narrow),
        )
    yield Text(output.one_line(query), style="bold")
    yield Text(about, style="dim")
    yield table if table.row_count else output.nothing("Nothing found.")


def _document_cell(hit: "Hit", tokens: "Sequence[TokenContribution]", *, with_parts: bool) -> Group:
    lines: list[RenderableType] = [
        Text(output.one_line(str(hit.id)), style="cyan", overflow="fold"),
        output.Snippet(hit.text),
    ]
    if with_parts:
        parts = zip(_PARTS, _part_scores(hit), strict=True)
        named = (Text.assemble((f"{name.lower()} ", "dim"), _part(score)) for name, score in parts)
        lines.append(Text(" · ").join(named))
    if tokens:
        weights = [(token.token, token.contribution) for token in tokens]
        lines.append(Text.assemble(("shared  ", "dim"), output.token_list(weights)))
    return Group(*lines)


def _part_scores(hit: "Hit") -> tuple[float | None, float | None]:
    return hit.dense_score, hit.sparse_score


def _part(score: float | None) -> Text:
    return Text("–", style="dim") if score is None else Text(f"{score:.4f}")
