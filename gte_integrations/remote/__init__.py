"""Encoders behind HTTP, which every index and adapter takes in the place of a local model.

::

    encoder = TEIEncoder("http://localhost:8080")
    with QdrantHybridIndex("./index", "docs", encoder) as index:
        index.create()
        index.add([("a", "The seed catalogue"), ("b", "Rules of the chess club")])
"""

from gte_integrations.remote.base import RemoteError
from gte_integrations.remote.dashscope import DashScopeEncoder
from gte_integrations.remote.openai import OpenAIEncoder
from gte_integrations.remote.tei import TEIEncoder

__all__ = ["DashScopeEncoder", "OpenAIEncoder", "RemoteError", "TEIEncoder"]
