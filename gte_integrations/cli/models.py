"""The model of a command: as the options say, else as the collection records it, else default."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gte_integrations.cli.output import note
from gte_integrations.cli.stores import Sizes

if TYPE_CHECKING:
    from gte_core import GTEEmbedder
    from gte_integrations.cli.options import ModelOptions

DEFAULT_MODEL = "Alibaba-NLP/gte-multilingual-base"

_DTYPES = {"int8": "int8", "fp8": "float8"}  # of the numeric families; all floats are one
_DEMO = "demo"
_DEMO_OF_0_1_0 = "sha256:54e9c90383248c63"  # which recorded no names


def load_model(
    options: ModelOptions,
    *,
    query_prefix: str | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> GTEEmbedder:
    """Load the model that the options name, or else the one that filled a collection.

    Args:
        options: what was given.
        query_prefix: what was given.
        metadata: of the collection, None if there is none.
    """
    given = {**asdict(options), "query_prefix": query_prefix}
    arguments = {} if metadata is None else _recorded(metadata, options.model)
    arguments |= {name: value for name, value in given.items() if value is not None}
    model = arguments.pop("model", DEFAULT_MODEL)
    if sys.stderr.isatty():
        note(f"Loading {model} …")
    from gte_core import GTEEmbedder

    return GTEEmbedder.from_pretrained(model, **arguments)


def recorded_sizes(
    metadata: Mapping[str, Any] | None, embedder: GTEEmbedder, options: ModelOptions
) -> Sizes:
    """How a collection keeps its vectors, as far as the options and the model allow.

    What differs is left for the index to say, which names all of it.
    """
    if metadata is None:
        return Sizes()
    dimensions, coarse = embedder.dimensions, metadata.get("coarse_dimensions")
    if options.dimensions is None:
        dimensions = min(dimensions, metadata.get("dimensions", dimensions))
    fits = coarse is not None and coarse < dimensions
    return Sizes(dimensions, coarse if fits else None, metadata.get("storage", "float32"))


def label(embedder: GTEEmbedder) -> str:
    """What results call a model."""
    if embedder.model == _DEMO:
        return "demo model"
    return f"{embedder.model}{f'@{embedder.revision[:12]}' if embedder.revision else ''}"


def _recorded(metadata: Mapping[str, Any], model: str | None) -> dict[str, Any]:
    """Arguments of ``from_pretrained`` that a collection records; ``model`` is what was given."""
    found = {
        "max_length": metadata.get("max_length"),
        "dtype": _DTYPES.get(metadata.get("numeric", "")),
        "query_prefix": metadata.get("query_prefix"),
    }
    name = metadata.get("name", metadata["model"])
    if model is None:
        found["model"] = _findable(name)
    if model in (None, name):
        found["revision"] = metadata.get("revision")
    return {argument: value for argument, value in found.items() if value}


def _findable(name: str) -> str:
    """The recorded name of a model, if there is hope of loading it."""
    if name == _DEMO_OF_0_1_0:
        return _DEMO
    if name.startswith("sha256:"):
        raise ValueError(
            f"The collection records what its model contains, {name}, but not where it is; pass "
            "its directory as --model."
        )
    if Path(name).is_absolute() and not Path(name).is_dir():
        raise FileNotFoundError(
            f"The collection was filled with the model in {name!r}, but that directory is gone; "
            "pass the one where the model is now as --model."
        )
    return name
