"""Encoders and rerankers behind HTTP, which are taken in the place of a local model."""

from gte_integrations.remote.base import RemoteError
from gte_integrations.remote.dashscope_reranker import DashScopeReranker
from gte_integrations.remote.tei_reranker import TEIReranker

__all__ = ["DashScopeReranker", "RemoteError", "TEIReranker"]
