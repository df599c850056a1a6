"""What a checkpoint is, as a table of at least 60 columns."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from gte_integrations.cli import output
from gte_integrations.cli.models import label

if TYPE_CHECKING:
    from gte_core import Capabilities

_SPARSE = {
    "tokens": "a weight for every token of the text",
    "vocabulary": "weights of the whole vocabulary",
}


def capabilities_grid(found: Capabilities) -> Table:
    """A checkpoint's names and values; a line for what it has, none for what it lacks."""
    grid = output.fields()
    for name, value in _lines(found):
        grid.add_row(name, Text(output.one_line(value), overflow="fold"))
    return grid


def _lines(found: Capabilities) -> Iterator[tuple[str, str]]:
    yield "Model", label(found)
    understood = f", understood as {found.understood_as}" if found.understood_as else ""
    yield "Class", f"{found.architecture}{understood}"
    yield "Gives", _gives(found)
    if found.refusal and not found.is_reranker:
        yield "Why not", found.refusal
    if found.pooling:
        yield "Pooling", found.pooling.upper() if found.pooling == "cls" else found.pooling
    if found.has_dense:
        yield "Dense", f"{found.dimensions:,} · {_sizes(found)}"
    if found.sparse:
        yield "Sparse", f"{_SPARSE[found.sparse]} · {found.sparse_width:,} wide"
    if found.max_length:
        yield "Reads", f"{found.max_length:,} tokens"
    yield from _texts(found)
    if found.n_parameters:
        yield "Parameters", f"{found.n_parameters:,}"
    if found.licence:
        yield "Licence", found.licence


def _texts(found: Capabilities) -> Iterator[tuple[str, str]]:
    """How queries and documents differ, and what else may be put before a text."""
    if found.queries_are_looked_up:
        yield "Queries", "looked up in a table, without a pass"
    if found.query_prefix:
        yield "Queries", f"begin with {found.query_prefix!r}"
    if found.document_prefix:
        yield "Documents", f"begin with {found.document_prefix!r}"
    for number, (name, prompt) in enumerate(found.prompts.items()):
        yield "Prompts" if number == 0 else "", f"{name}: {prompt!r}"


def _gives(found: Capabilities) -> str:
    if found.is_reranker:
        return "a score for a pair of texts, through GTEReranker; no vectors"
    kinds = [name for name in ("dense", "sparse") if getattr(found, f"has_{name}")]
    return f"{' and '.join(kinds)} vectors" if kinds else "no vectors here"


def _sizes(found: Capabilities) -> str:
    if found.sizes:
        return f"a matrix for each of {', '.join(f'{size:,}' for size in found.sizes)}"
    return "or any size from 1 on"
