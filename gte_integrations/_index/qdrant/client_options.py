"""How a client is made, and what may be asked of it beyond our arguments, by its own names."""

from __future__ import annotations

from collections.abc import Mapping
from inspect import signature
from typing import Any

from gte_integrations._index.checks import check_key, check_options, refuse_for
from gte_integrations._index.qdrant.client import AsyncQdrantClient, QdrantClient, httpx

# Without what the arguments of an index say, and what would make ``add`` fail or unsafe.
_LOCATION = {"location", "url", "host", "path", "base_url", "api_key", "kwargs"}
_OURS = {"collection_name", "vectors_config", "sparse_vectors_config", "metadata", "kwargs", "self"}
CLIENT_OPTIONS = frozenset(signature(QdrantClient).parameters)
CLIENT_OPTIONS |= frozenset(signature(httpx.Client).parameters)  # to which it hands on the rest
CLIENT_OPTIONS -= _LOCATION
COLLECTION_OPTIONS = frozenset(signature(QdrantClient.create_collection).parameters)
COLLECTION_OPTIONS -= {*_OURS, "quantization_config", "sharding_method"}


def client_at(
    location: object, api_key: str | None, client_options: Mapping[str, Any] | None
) -> QdrantClient | AsyncQdrantClient:
    """The client that was given, or one that is connected to a URL."""
    if isinstance(location, (QdrantClient, AsyncQdrantClient)):
        own = f"a {type(location).__name__}, which has its own"
        refuse_for(own, api_key=api_key, client_options=client_options)
        return location
    if not isinstance(location, str):
        raise TypeError(
            f"location is a {type(location).__name__}, but must be a directory, a URL, a "
            "QdrantClient or an AsyncQdrantClient."
        )
    if api_key is not None:
        check_key("api_key", api_key)
    options = check_options("client_options", client_options, CLIENT_OPTIONS)
    return QdrantClient(url=location, api_key=api_key, **{"check_compatibility": False, **options})
