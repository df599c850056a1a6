"""The model of a command: as the options say, else as the collection records it, else default."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from gte_integrations.cli.output import note
from gte_integrations.cli.remote_models import is_remote, open_remote, refuse_recorded
from gte_integrations.cli.stores import (
    Sizes,
    StoreLocation,
    no_collection,
    open_index,
    read_metadata,
)

if TYPE_CHECKING:
    from gte_core import Capabilities, Encoder, GTEEmbedder, SharedReranker
    from gte_integrations._index.index import HybridIndex
    from gte_integrations._index.metadata import Metadata, Quantization
    from gte_integrations.cli.options import ModelOptions, QueryOptions, RerankOptions
    from gte_integrations.remote.encoder import RemoteEncoder

DEFAULT_MODEL = "Alibaba-NLP/gte-multilingual-base"

_DTYPES = {"int8": "int8", "fp8": "float8"}  # for each numeric family but that of all floats
_DEMO = "demo"
_DEMO_OF_0_1_0 = "sha256:54e9c90383248c63"  # 0.1.0 recorded its content, not its name


def load_model(
    options: ModelOptions,
    *,
    query: QueryOptions | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> GTEEmbedder | RemoteEncoder:
    """Load the model that the options name, or else the one that filled a collection.

    One behind HTTP is asked for nothing yet.

    Args:
        options: what was given of the model.
        query: what was given of queries, None for a command without any.
        metadata: what the collection records, None if there is no collection.
    """
    if is_remote(options.model):
        return open_remote(options, query, metadata)
    given = asdict(options) | ({} if query is None else asdict(query))
    arguments = {} if metadata is None else _recorded(metadata, options.model)
    if given.get("prompt_name") is not None:
        arguments.pop("query_prefix", None)
    arguments |= {name: value for name, value in given.items() if value is not None}
    model = arguments.pop("model", DEFAULT_MODEL)
    if sys.stderr.isatty():
        note(f"Loading {model} …")
    from gte_core import GTEEmbedder

    return GTEEmbedder.from_pretrained(model, **arguments)


def with_sparse_half(
    embedder: GTEEmbedder | RemoteEncoder, options: ModelOptions, metadata: Mapping[str, Any] | None
) -> Encoder:
    """The pair that filled a collection, of which this is the dense half; else the model itself.

    A model that was asked for stands alone.
    """
    from gte_integrations._index.metadata import sparse_half

    recorded = sparse_half(metadata or {})
    if not recorded or options.model is not None:
        return embedder
    from gte_core import PairedEncoder

    others = replace(options, revision=None, max_length=None, dimensions=None)
    return PairedEncoder(dense=embedder, sparse=load_model(others, metadata=recorded))


def reranker_of(options: RerankOptions, device: str | None) -> SharedReranker | None:
    """The reranker that the options name, loaded at first use; None if they ask for none."""
    if not options.rerank and options.reranker is None:
        if options.rerank_depth is not None:
            raise typer.BadParameter("--rerank-depth goes with --rerank or --reranker.")
        return None
    from gte_core import RerankerSettings, shared_reranker

    settings = RerankerSettings(device=device)
    if options.reranker is not None:
        settings = replace(settings, model=options.reranker)
    return shared_reranker(settings)


def recorded_sizes(
    metadata: Mapping[str, Any] | None, embedder: Encoder, dimensions: int | None
) -> Sizes:
    """How a collection keeps its vectors, as far as the options and the model allow.

    Differences are left to the index, whose error names all of them. ``dimensions`` is the value
    of ``--dimensions``, which the model has already.
    """
    if metadata is None:
        return Sizes()
    size = embedder.dimensions if dimensions is None else dimensions
    coarse = metadata.get("coarse_dimensions")
    fits = coarse is not None and coarse < size
    storage: Quantization = metadata.get("storage") or "float32"  # None without dense vectors
    return Sizes(dimensions, coarse if fits else None, storage)


def recorded(store: StoreLocation, collection: str) -> Metadata:
    """What a collection records; ``StoreError`` if there is none."""
    metadata = read_metadata(store, collection)
    if metadata is None:
        raise no_collection(store, collection)
    return metadata


@contextmanager
def open_without_model(store: StoreLocation, collection: str) -> Iterator[HybridIndex[Any]]:
    """Open a collection for what needs no model; ``StoreError`` if there is none."""
    from gte_integrations._index.recorded import RecordedEncoder

    metadata = recorded(store, collection)
    encoder = RecordedEncoder(metadata)
    sizes = recorded_sizes(metadata, encoder, None)
    with open_index(store, collection, encoder, sizes) as index:
        yield index


def label(model: GTEEmbedder | RemoteEncoder | Capabilities) -> str:
    """Name a model as results do."""
    return _label(model.model, model.revision)


def recorded_label(metadata: Mapping[str, Any]) -> str:
    """Name the model of a collection as results do."""
    revision = metadata.get("revision")
    # With a commit it is a hub model, also where it was read from a directory.
    return _label(metadata["model" if revision or "name" not in metadata else "name"], revision)


def _label(model: str, revision: str | None) -> str:
    if model in (_DEMO, _DEMO_OF_0_1_0):
        return "demo model"
    return f"{model}{f'@{revision[:12]}' if revision else ''}"


def _recorded(metadata: Mapping[str, Any], model: str | None) -> dict[str, Any]:
    """The arguments of ``from_pretrained`` that a collection records.

    ``model`` is the value of ``--model``: another model keeps its own revision.
    """
    found = {
        "max_length": metadata.get("max_length"),
        "dtype": _DTYPES.get(metadata.get("numeric", "")),
        "query_prefix": metadata.get("query_prefix"),
    }
    name = metadata.get("name", metadata["model"])
    if model is None:
        found["model"] = _findable(name, metadata.get("revision"))
    if model in (None, name) and not Path(name).is_dir():
        found["revision"] = metadata.get("revision")
    # An empty prefix was the default before models had prompts of their own, so it says nothing.
    return {argument: value for argument, value in found.items() if value}


def _findable(name: str, revision: str | None) -> str:
    """The recorded name of a model; an error that says what to do if it cannot be loaded."""
    if name == _DEMO_OF_0_1_0:
        return _DEMO
    refuse_recorded(name)
    if name.startswith("sha256:"):
        raise ValueError(
            f"The collection records what its model contains, {name}, but not where it is; pass "
            "its directory as --model."
        )
    if revision and not Path(name).is_absolute() and Path(name).is_dir():
        raise ValueError(
            f"The collection was filled with {name!r} of the hub, but the directory {name!r} here "
            "would be read in its place; go to another directory, or rename it."
        )
    if Path(name).is_absolute() and not Path(name).is_dir():
        raise FileNotFoundError(
            f"The collection was filled with the model in {name!r}, but that directory is gone; "
            "pass the one where the model is now as --model."
        )
    return name
