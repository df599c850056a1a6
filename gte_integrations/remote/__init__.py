"""Models behind HTTP, which every index and adapter takes in the place of a local one.

::

    encoder = TEIEncoder("http://localhost:8080")
    with QdrantHybridIndex("./index", "docs", encoder) as index:
        index.create()
        index.add([("a", "The seed catalogue"), ("b", "Rules of the chess club")])
"""

from gte_integrations.remote.base import RemoteError
from gte_integrations.remote.dashscope import DashScopeEncoder
from gte_integrations.remote.dashscope_reranker import DashScopeReranker
from gte_integrations.remote.openai import OpenAIEncoder
from gte_integrations.remote.tei import TEIEncoder
from gte_integrations.remote.tei_reranker import TEIReranker

__all__ = [
    "DashScopeEncoder",
    "DashScopeReranker",
    "OpenAIEncoder",
    "RemoteError",
    "TEIEncoder",
    "TEIReranker",
]
