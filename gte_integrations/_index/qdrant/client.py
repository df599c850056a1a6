"""What is used of Qdrant's packages, in one place, and how to install them."""

from __future__ import annotations

try:
    import grpc  # type: ignore[import-untyped]
    import httpx
    import qdrant_edge as edge
    from qdrant_client import AsyncQdrantClient, QdrantClient, models
    from qdrant_client.common.client_exceptions import QdrantException, ResourceExhaustedResponse
    from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse
except ImportError as error:
    raise ImportError(
        "gte_integrations.qdrant needs the packages qdrant-client and qdrant-edge-py; install "
        "them with: pip install 'gte-integrations[qdrant]'"
    ) from error

__all__ = [
    "AsyncQdrantClient",
    "QdrantClient",
    "QdrantException",
    "ResourceExhaustedResponse",
    "ResponseHandlingException",
    "UnexpectedResponse",
    "edge",
    "grpc",
    "httpx",
    "models",
]
