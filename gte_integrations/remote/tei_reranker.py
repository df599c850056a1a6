"""``TEIReranker``: scores of a server of Hugging Face's text-embeddings-inference."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gte_core import MissingHeadError, TruncationSide
from gte_core.texts import check_side
from gte_integrations.remote.base import Connection, Key, RemoteError
from gte_integrations.remote.reranker import Limits, RemoteReranker, in_order
from gte_integrations.remote.tei import KEY_VARIABLE, classify

_MOST_DOCUMENTS = 32  # of a server that does not say it
_MOST_BYTES = 1_900_000  # below the 2 MB that a server takes by default


class TEIReranker(RemoteReranker):
    """A ``Reranker`` whose scores a server of text-embeddings-inference gives.

    Scores are raw logits, as those of the same model loaded here. The server cuts pairs that are
    too long, and does not say so.

    Args:
        url: of the server, such as ``http://localhost:8080``.
        api_key: of the server, by default ``TEI_API_KEY`` of the environment, if there is one.
        truncation_side: the end that the texts of a pair lose where it is too long.
        timeout: seconds that one request may take.
        deadline: seconds that one call may take, with all its requests, retries and pauses.
        max_in_flight: requests at one time, of all callers of this object together.

    Raises:
        ValueError: an argument is none of these.
    """

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None = None,
        truncation_side: TruncationSide = "right",
        timeout: float = 60.0,
        deadline: float = 600.0,
        max_in_flight: int = 8,
    ) -> None:
        check_side(truncation_side)
        connection = Connection(
            url,
            Key(api_key, KEY_VARIABLE),
            timeout=timeout,
            deadline=deadline,
            max_in_flight=max_in_flight,
            classify=classify,
        )
        super().__init__(connection)
        self.model = connection.url
        self._side = truncation_side
        self._known: Limits | None = None

    async def _limits(self) -> Limits:
        if self._known is None:
            self._known = Limits(await self._most_documents(), _MOST_BYTES)
        return self._known

    async def _most_documents(self) -> int:
        """Ask what is served; ``MissingHeadError`` if that is no reranker."""
        info: Any = (await self.connection.get("/info")).body
        kind = info.get("model_type") if isinstance(info, dict) else None
        if not isinstance(kind, dict):
            raise RemoteError(
                f"{self.connection.url}/info does not say what kind of model it serves, as "
                "text-embeddings-inference does; look at the address."
            )
        if "reranker" not in kind:
            raise MissingHeadError(
                f"{self.connection.url} serves {info.get('model_id')!r}, which is no reranker but "
                f"{'/'.join(map(str, kind))}; start the server with one that is."
            )
        most = info.get("max_client_batch_size")
        return most if isinstance(most, int) and most > 0 else _MOST_DOCUMENTS

    async def _ask(self, query: str, documents: Sequence[str]) -> list[float]:
        body = {
            "query": query,
            "texts": documents,
            "raw_scores": True,
            "return_text": False,
            "truncate": True,
            "truncation_direction": self._side.capitalize(),
        }
        answer = await self.connection.post("/rerank", body)
        where = f"{self.connection.url}/rerank"
        return in_order(answer.body, "score", len(documents), where)
