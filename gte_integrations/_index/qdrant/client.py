"""What is used of qdrant-client, in one place. A directory is served without."""

from __future__ import annotations

import grpc  # type: ignore[import-untyped]
import httpx
from qdrant_client import AsyncQdrantClient, QdrantClient, models
from qdrant_client.common.client_exceptions import QdrantException, ResourceExhaustedResponse
from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

from gte_integrations._index.qdrant.embedded import edge

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
