"""``DashScopeEncoder``: vectors of Alibaba Cloud's models, by the API named DashScope."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gte_core import Fingerprint, Role
from gte_integrations._retry import TOO_LARGE, Failure, classify_http
from gte_integrations.remote.base import Connection, Key, RemoteError
from gte_integrations.remote.encoder import (
    Description,
    Half,
    Part,
    RemoteEncoder,
    TokenWeight,
    by_place,
    counts,
    dense_rows,
    shown,
)

BASE_URL = "https://dashscope.aliyuncs.com/api/v1"
KEY_VARIABLE = "DASHSCOPE_API_KEY"

_PATH = "/services/embeddings/text-embedding/text-embedding"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Model:
    """What Alibaba Cloud's pages say of a model; of one that they do not list, as little as can be.

    Attributes:
        sizes: of dense vectors, the default first; none where the server is to be asked.
        max_texts: of one request.
        max_length: tokens of a text that are read, 0 where nobody says.
        has_sparse: whether it gives sparse vectors.
    """

    sizes: tuple[int, ...] = ()
    max_texts: int = 10
    max_length: int = 0
    has_sparse: bool = False


_FIRST = _Model(sizes=(1536,), max_texts=25, max_length=2048)
_MODELS = {
    "text-embedding-v1": _FIRST,
    "text-embedding-v2": _FIRST,
    "text-embedding-v3": _Model(
        sizes=(1024, 768, 512, 256, 128, 64), max_length=8192, has_sparse=True
    ),
    "text-embedding-v4": _Model(
        sizes=(1024, 2048, 1536, 768, 512, 256, 128, 64), max_length=8192, has_sparse=True
    ),
    "qwen3.7-text-embedding": _Model(
        sizes=(1024, 2560, 2048, 1536, 768, 512, 256), max_texts=20, max_length=128_000
    ),
}


def classify(status: int, content: bytes, retry_after: str | None) -> Failure:
    """Classify a refusal of this cloud: too many texts are a batch size that is invalid."""
    if status == 400 and b"batch size" in content:
        return TOO_LARGE
    return classify_http(status, content, retry_after)


def checked_body(body: object, where: str) -> dict[str, Any]:
    """The output of an answer; ``RemoteError`` for a failure that the status does not show."""
    known = body if isinstance(body, dict) else {}
    output = known.get("output")
    if known.get("code") or not isinstance(output, dict):
        said = f"{known.get('message')} ({known.get('code')})" if known.get("code") else shown(body)
        raise RemoteError(f"{where} answered 200, but {said}.", status=200)
    return output


class DashScopeEncoder(RemoteEncoder):
    """An ``Encoder`` whose vectors a model of Alibaba Cloud makes: text-embedding-v1 to v4.

    From v3 on they are dense and sparse, of one request. The role of a text is sent as its
    ``text_type``. What a model gives is known here, not asked. The cloud does not say whether a
    text was cut.

    Args:
        model: its name there.
        base_url: up to ``/services``; by default ``DASHSCOPE_HTTP_BASE_URL`` of the environment,
            else that of mainland China. Keys are of one region.
        api_key: by default ``DASHSCOPE_API_KEY`` of the environment.
        dimensions: a size of dense vectors that the model offers, 1,024 by default from v3 on.
        instruct: how queries are to be understood, which v4 takes.
        query_prefix: text that ``role="query"`` puts before each text.
        document_prefix: text that ``role="document"`` puts before each text.
        fingerprint: of the model; by default ``dashscope:`` and its name.
        timeout: seconds that one request may take.
        deadline: seconds that one call may take, with all its requests, retries and pauses.
        max_in_flight: requests at one time, of all callers of this object together.

    Raises:
        ValueError: an argument is none of these, or the model does not offer that size.
    """

    def __init__(
        self,
        model: str,
        *,
        base_url: str | None = None,
        api_key: str | None = None,
        dimensions: int | None = None,
        instruct: str | None = None,
        query_prefix: str = "",
        document_prefix: str = "",
        fingerprint: Fingerprint | None = None,
        timeout: float = 60.0,
        deadline: float = 600.0,
        max_in_flight: int = 8,
    ) -> None:
        if not model:
            raise ValueError("model is empty; pass its name, such as text-embedding-v4.")
        known = _MODELS.get(model, _Model())
        if dimensions is not None and known.sizes and dimensions not in known.sizes:
            raise ValueError(
                f"dimensions is {dimensions!r}, but {model} offers "
                f"{', '.join(map(str, sorted(known.sizes)))}. A smaller size that a call or an "
                "index asks for is cut from that of the encoder."
            )
        connection = Connection(
            base_url or os.environ.get("DASHSCOPE_HTTP_BASE_URL") or BASE_URL,
            Key(api_key, KEY_VARIABLE),
            timeout=timeout,
            deadline=deadline,
            max_in_flight=max_in_flight,
            classify=classify,
        )
        super().__init__(connection, query_prefix, document_prefix)
        self._name = model
        self._model = known
        self._size = dimensions
        self._instruct = instruct
        self._fingerprint = fingerprint or Fingerprint(
            f"dashscope:{model}", None, known.max_length, document_prefix=document_prefix
        )
        self._tokens = _Tokens()
        self._decode_token = self._tokens

    def __repr__(self) -> str:
        return f"DashScopeEncoder({self._name!r})"

    async def _describe(self) -> Description:
        size = self._size or next(iter(self._model.sizes), 0)
        if not size:
            probe = await self._ask(["dimensions"], "document", {"dense"})
            size = 0 if probe.dense is None else probe.dense.shape[1]
        return Description(
            fingerprint=self._fingerprint,
            dimensions=size,
            has_sparse=self._model.has_sparse,
            vocab_size=None if self._model.has_sparse else 0,
            max_texts=self._model.max_texts,
        )

    async def _ask(self, texts: Sequence[str], role: Role, halves: set[Half]) -> Part:
        where = f"{self.connection.url}{_PATH}"
        body = (await self.connection.post(_PATH, self._request(texts, role, halves))).body
        found = checked_body(body, where).get("embeddings")
        items = by_place(found, "text_index", len(texts), where)
        usage = body.get("usage")
        total = usage.get("total_tokens") if isinstance(usage, dict) else None
        dense = [item.get("embedding") for item in items]
        return Part(
            dense=dense_rows(dense, len(texts), where) if "dense" in halves else None,
            sparse=[self._weights(item, where) for item in items] if "sparse" in halves else None,
            n_tokens=counts(len(texts), total),
            truncated=np.zeros(len(texts), np.bool_),
        )

    def _request(self, texts: Sequence[str], role: Role, halves: set[Half]) -> dict[str, Any]:
        parameters: dict[str, Any] = {"text_type": role}
        if self._size is not None:
            parameters["dimension"] = self._size
        if "sparse" in halves:  # with both, for what sparse ones alone look like is not published
            parameters["output_type"] = "dense&sparse"
        if self._instruct is not None and role == "query":
            parameters["instruct"] = self._instruct
        return {"model": self._name, "input": {"texts": texts}, "parameters": parameters}

    def _weights(self, item: dict[str, Any], where: str) -> list[TokenWeight]:
        """The weights of one text; their tokens are kept for ``token_weights``."""
        sparse = item.get("sparse_embedding")
        try:
            weights = [(int(one["index"]), float(one["value"])) for one in sparse or ()]
            self._tokens.keep({int(one["index"]): one.get("token") for one in sparse or ()})
        except (AttributeError, KeyError, TypeError, ValueError):
            sparse = None
        if sparse is None:
            raise RemoteError(
                f"{where} answered {shown(item)}, but must give sparse_embedding, a list of "
                "objects of index and value."
            )
        return weights


class _Tokens:
    """The strings of token ids, as far as answers told them."""

    def __init__(self) -> None:
        self._strings: dict[int, str] = {}

    def keep(self, found: dict[int, Any]) -> None:
        self._strings |= {i: token for i, token in found.items() if isinstance(token, str)}

    def __call__(self, token_id: int) -> str:
        return self._strings.get(token_id, str(token_id))
