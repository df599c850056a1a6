"""``gte encode``: the dense and the sparse vector of texts."""

import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import chain, tee
from typing import TYPE_CHECKING, Any

from rich.padding import Padding
from rich.text import Text

from gte_core.iteration import batched
from gte_integrations.cli import output
from gte_integrations.cli.models import label, load_model
from gte_integrations.cli.options import (
    AsJson,
    ModelOptions,
    Texts,
    given_texts,
    with_options,
)

if TYPE_CHECKING:
    from gte_core import GTEEmbedder, HybridEmbeddings
    from gte_integrations.remote.encoder import RemoteEncoder

_BATCH = 64
_MOST_VALUES = 6


@with_options(ModelOptions)
def encode(texts: Texts, *, as_json: AsJson = False, **model_options: Any) -> None:
    """Show the dense and the sparse vector of texts."""
    options = ModelOptions(**model_options)
    embedder = load_model(options)
    both = _encoded if embedder.has_sparse else _encoded_dense
    for encoded in both(embedder, given_texts(texts), options.dimensions):
        if as_json:
            output.write_json({"model": label(embedder), **asdict(encoded)})
        else:
            output.show(_vectors_grid(encoded, label(embedder)))


@dataclass(frozen=True, slots=True)
class _SparseVector:
    """Token ids in rising order, with a weight and a string each."""

    ids: list[int]
    weights: list[float]
    tokens: list[str]


@dataclass(frozen=True, slots=True)
class _EncodedText:
    """A text with its vectors, as JSON has them.

    A model without the sparse head gives ``dense`` alone, and None for the rest; one without dense
    vectors None for ``dense``.
    """

    text: str
    n_tokens: int | None
    truncated: bool | None
    dense: list[float] | None
    sparse: _SparseVector | None


def _encoded(
    embedder: "GTEEmbedder | RemoteEncoder", texts: Iterator[str], dimensions: int | None
) -> Iterator[_EncodedText]:
    """Encode a stream, keeping no more of it than the embedder does."""
    given, kept = tee(texts)
    parts = _in_parts(embedder, given, dimensions)
    for both, text in zip(chain.from_iterable(parts), kept, strict=True):
        dense, ids, weights = next(both.rows())
        tokens = [both.decode_token(token_id) for token_id in ids.tolist()]
        sparse = _SparseVector(ids.tolist(), weights.tolist(), tokens)
        counts = int(both.n_tokens[0]), bool(both.truncated[0])
        yield _EncodedText(text, *counts, dense.tolist() or None, sparse)


def _in_parts(
    embedder: "GTEEmbedder | RemoteEncoder", texts: Iterator[str], dimensions: int | None
) -> "Iterator[HybridEmbeddings]":
    from gte_core import GTEEmbedder

    if isinstance(embedder, GTEEmbedder):
        # A bar between the results on one terminal would only be in their way.
        bar = sys.stderr.isatty() and not sys.stdout.isatty()
        return embedder.encode_iter(texts, show_progress=bar)
    batches = batched(texts, _BATCH)
    return (embedder.encode_available(batch, dimensions=dimensions) for batch in batches)


def _encoded_dense(
    embedder: "GTEEmbedder | RemoteEncoder", texts: Iterator[str], dimensions: int | None
) -> Iterator[_EncodedText]:
    size: dict[str, Any] = {} if dimensions is None else {"dimensions": dimensions}
    for batch in batched(texts, _BATCH):
        vectors = embedder.encode_dense(batch, **size)
        for text, dense in zip(batch, vectors.tolist(), strict=True):
            yield _EncodedText(text, None, None, dense, None)


def _vectors_grid(encoded: _EncodedText, about: str) -> Padding:
    """One text's vectors in short."""
    grid = output.fields()
    grid.add_row("Text", output.Snippet(encoded.text, "bold"))
    grid.add_row("Model", Text(about, style="dim"))
    if encoded.n_tokens is not None:
        grid.add_row("Tokens", str(encoded.n_tokens))
    if (dense := encoded.dense) is not None:
        values = " ".join(f"{value:+.4f}" for value in dense[:_MOST_VALUES])
        more = " …" if len(dense) > _MOST_VALUES else ""
        grid.add_row("Dense", f"{len(dense)} dimensions: {values}{more}")
    if (sparse := encoded.sparse) is not None:
        weights = sorted(zip(sparse.tokens, sparse.weights, strict=True), key=lambda item: -item[1])
        counted = f"{len(weights)} tokens: " if weights else "no tokens"
        grid.add_row("Sparse", Text.assemble(counted, output.token_list(weights)))
    return Padding(grid, (0, 0, 1, 0))
