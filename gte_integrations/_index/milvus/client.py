"""What is used of pymilvus, in one place, and how to install it."""

from __future__ import annotations

try:
    import grpc  # type: ignore[import-untyped]
    from pymilvus import (  # type: ignore[import-untyped]
        AnnSearchRequest,
        AsyncMilvusClient,
        CollectionSchema,
        DataType,
        MilvusClient,
        MilvusException,
    )
    from pymilvus.client.connection_manager import (  # type: ignore[import-untyped]
        AsyncConnectionManager,
        ConnectionManager,
    )
    from pymilvus.client.types import LoadState  # type: ignore[import-untyped]
except ImportError as error:
    raise ImportError(
        "gte_integrations.milvus needs the package pymilvus, 2.6.10 or newer; install it with: "
        "pip install 'gte-integrations[milvus]'"
    ) from error

__all__ = [
    "AnnSearchRequest",
    "AsyncConnectionManager",
    "AsyncMilvusClient",
    "CollectionSchema",
    "ConnectionManager",
    "DataType",
    "LoadState",
    "MilvusClient",
    "MilvusException",
    "grpc",
]
