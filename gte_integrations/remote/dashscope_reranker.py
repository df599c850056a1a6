"""``DashScopeReranker``: scores of Alibaba Cloud's rerankers, such as gte-rerank-v2."""

from __future__ import annotations

import os
from collections.abc import Sequence

from gte_integrations.remote.base import Connection, Key
from gte_integrations.remote.dashscope import BASE_URL, KEY_VARIABLE, checked_body
from gte_integrations.remote.reranker import Limits, RemoteReranker, in_order

_PATH = "/services/rerank/text-rerank/text-rerank"
_MOST_DOCUMENTS = 500
_MOST_TOKENS = {"qwen3-rerank": 120_000}
_MOST_TOKENS_OF_OTHERS = 30_000  # as gte-rerank-v2
_BYTES_PER_TOKEN = 2  # rather too few: a request with more tokens is refused


class DashScopeReranker(RemoteReranker):
    """A ``Reranker`` whose scores Alibaba Cloud gives, from 0 to 1.

    The service cuts texts beyond 4,000 tokens, and does not say so.

    Args:
        model: its name there.
        base_url: up to ``/services``; by default ``DASHSCOPE_HTTP_BASE_URL`` of the environment,
            else that of mainland China. Keys are of one region.
        api_key: by default ``DASHSCOPE_API_KEY`` of the environment.
        timeout: seconds that one request may take.
        deadline: seconds that one call may take, with all its requests, retries and pauses.
        max_in_flight: requests at one time, of all callers of this object together.

    Raises:
        ValueError: an argument is none of these.
    """

    def __init__(
        self,
        model: str = "gte-rerank-v2",
        *,
        base_url: str | None = None,
        api_key: str | None = None,
        timeout: float = 60.0,
        deadline: float = 600.0,
        max_in_flight: int = 8,
    ) -> None:
        super().__init__(
            Connection(
                base_url or os.environ.get("DASHSCOPE_HTTP_BASE_URL") or BASE_URL,
                Key(api_key, KEY_VARIABLE),
                timeout=timeout,
                deadline=deadline,
                max_in_flight=max_in_flight,
            )
        )
        self.model = model

    def __repr__(self) -> str:
        return f"DashScopeReranker({self.model!r}, base_url={self.connection.url!r})"

    async def _limits(self) -> Limits:
        tokens = _MOST_TOKENS.get(self.model, _MOST_TOKENS_OF_OTHERS)
        return Limits(_MOST_DOCUMENTS, _BYTES_PER_TOKEN * tokens)

    async def _ask(self, query: str, documents: Sequence[str]) -> list[float]:
        body = {
            "model": self.model,
            "input": {"query": query, "documents": documents},
            "parameters": {"return_documents": False},
        }
        answer = (await self.connection.post(_PATH, body)).body
        where = f"{self.connection.url}{_PATH}"
        results = checked_body(answer, where).get("results")
        return in_order(results, "relevance_score", len(documents), where)
