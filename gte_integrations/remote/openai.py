"""``OpenAIEncoder``: vectors of OpenAI, or of any server that speaks its ``/v1/embeddings``."""

from __future__ import annotations

import base64
import os
from collections.abc import Sequence
from typing import Any, Literal, get_args

import numpy as np

from gte_core import Fingerprint, Role
from gte_integrations._retry import PERMANENT, TOO_LARGE, Failure, classify_http
from gte_integrations.remote.base import Connection, Key, RemoteError, positive
from gte_integrations.remote.encoder import (
    Description,
    Half,
    Part,
    RemoteEncoder,
    by_place,
    counts,
    dense_rows,
    shown,
)

EncodingFormat = Literal["base64", "float"]

_OPENAI = "https://api.openai.com/v1"
_KEY, _KEY_ELSEWHERE = "OPENAI_API_KEY", "OPENAI_COMPATIBLE_API_KEY"


def _classify(status: int, content: bytes, retry_after: str | None) -> Failure:
    """Classify a refusal; several servers say of too many texts that the batch size is wrong."""
    if status in {400, 422} and b"batch size" in content:
        return TOO_LARGE
    if status == 501:  # the model has no embeddings, which does not pass
        return PERMANENT
    return classify_http(status, content, retry_after)


def _classify_openai(status: int, content: bytes, retry_after: str | None) -> Failure:
    """The same of OpenAI itself, where a quota that is used up does not come back by waiting."""
    if b"insufficient_quota" in content:
        return PERMANENT
    return _classify(status, content, retry_after)


class OpenAIEncoder(RemoteEncoder):
    """An ``Encoder`` whose dense vectors OpenAI makes, or a server that speaks as it does.

    Such are vLLM, infinity, Ollama, LM Studio, text-embeddings-inference and the compatible mode of
    Alibaba Cloud. The name of the model that they answer with is looked at: if it changes, that is
    a ``RemoteError``. Whether a text was cut is not said; OpenAI and vLLM refuse one that is too
    long, Ollama and infinity cut it in silence.

    Args:
        model: its name there.
        base_url: up to ``/embeddings``, such as ``http://localhost:8000/v1``; by default
            ``OPENAI_BASE_URL`` of the environment, else OpenAI.
        api_key: by default ``OPENAI_API_KEY`` of the environment for OpenAI and the server of
            ``OPENAI_BASE_URL``; ``OPENAI_COMPATIBLE_API_KEY`` for one that ``base_url`` names, so
            that a key of OpenAI goes nowhere else.
        dimensions: a size of dense vectors, which the server is asked for; by default the model's
            own, for which one text is embedded.
        max_length: tokens of a text that are read, for the fingerprint; 0 where nobody says.
        max_texts: of one request.
        encoding_format: ``"base64"``, which is shorter, or ``"float"`` for servers that know no
            other; both are understood in answers.
        query_prefix: text that ``role="query"`` puts before each text.
        document_prefix: text that ``role="document"`` puts before each text.
        fingerprint: of the model; by default ``openai:`` and its name.
        timeout: seconds that one request may take.
        deadline: seconds that one call may take, with all its requests, retries and pauses.
        max_in_flight: requests at one time, of all callers of this object together.

    Raises:
        ValueError: an argument is none of these.
    """

    _max_bytes = 300_000  # OpenAI takes as many tokens, and a token is a byte at least

    def __init__(
        self,
        model: str,
        *,
        base_url: str | None = None,
        api_key: str | None = None,
        dimensions: int | None = None,
        max_length: int = 0,
        max_texts: int = 128,
        encoding_format: EncodingFormat = "base64",
        query_prefix: str = "",
        document_prefix: str = "",
        fingerprint: Fingerprint | None = None,
        timeout: float = 60.0,
        deadline: float = 600.0,
        max_in_flight: int = 8,
    ) -> None:
        if not model:
            raise ValueError("model is empty; pass the name that the server knows the model by.")
        if encoding_format not in get_args(EncodingFormat):
            raise ValueError(
                f"encoding_format is {encoding_format!r}; allowed are "
                f"{list(get_args(EncodingFormat))}."
            )
        url = base_url or os.environ.get("OPENAI_BASE_URL") or _OPENAI
        connection = Connection(
            url,
            Key(api_key, _KEY_ELSEWHERE if base_url not in {None, _OPENAI} else _KEY),
            timeout=timeout,
            deadline=deadline,
            max_in_flight=max_in_flight,
            classify=_classify_openai if url == _OPENAI else _classify,
        )
        super().__init__(connection, query_prefix, document_prefix)
        self._name = model
        self._size = dimensions
        self._max_texts = int(positive("max_texts", max_texts))
        self._encoding_format = encoding_format
        self._fingerprint = fingerprint or Fingerprint(
            f"openai:{model}", None, max_length, document_prefix=document_prefix
        )
        self._served: str | None = None

    def __repr__(self) -> str:
        return f"OpenAIEncoder({self._name!r}, base_url={self.connection.url!r})"

    async def _describe(self) -> Description:
        probe = None if self._size else await self._embed(["dimensions"])
        return Description(
            fingerprint=self._fingerprint,
            dimensions=self._size or (0 if probe is None else probe.shape[1]),
            has_sparse=False,
            vocab_size=0,
            max_texts=self._max_texts,
        )

    async def _ask(self, texts: Sequence[str], role: Role, halves: set[Half]) -> Part:
        body = await self._answer(texts)
        usage = body.get("usage")
        total = usage.get("prompt_tokens") if isinstance(usage, dict) else None
        return Part(
            dense=self._rows(body, len(texts)),
            sparse=None,
            n_tokens=counts(len(texts), total),
            truncated=np.zeros(len(texts), np.bool_),
        )

    async def _embed(self, texts: Sequence[str]) -> np.ndarray[Any, np.dtype[np.float64]]:
        return self._rows(await self._answer(texts), len(texts))

    async def _answer(self, texts: Sequence[str]) -> dict[str, Any]:
        request: dict[str, Any] = {
            "model": self._name,
            "input": texts,
            "encoding_format": self._encoding_format,
        }
        if self._size is not None:
            request["dimensions"] = self._size
        body = (await self.connection.post("/embeddings", request)).body
        if not isinstance(body, dict):
            raise RemoteError(
                f"{self.connection.url}/embeddings answered {shown(body)}, but OpenAI's form is an "
                "object with data; look at the address, which mostly ends with /v1."
            )
        self._check_same(body.get("model"))
        return body

    def _check_same(self, served: object) -> None:
        if not isinstance(served, str):
            return
        before, self._served = self._served, self._served or served
        if before not in {None, served}:
            raise RemoteError(
                f"{self.connection.url} answers by the model {served!r} now, before by {before!r}. "
                "Vectors of both must not meet in one collection; make a new encoder."
            )

    def _rows(self, body: dict[str, Any], n_texts: int) -> np.ndarray[Any, np.dtype[np.float64]]:
        where = f"{self.connection.url}/embeddings"
        rows = [
            _decoded(item.get("embedding"), where)
            for item in by_place(body.get("data"), "index", n_texts, where)
        ]
        return dense_rows(rows, n_texts, where)


def _decoded(embedding: object, where: str) -> object:
    """The numbers of an embedding, which a string holds as float32, little-endian, in base64."""
    if not isinstance(embedding, str):
        return embedding
    try:
        return np.frombuffer(base64.b64decode(embedding, validate=True), "<f4")
    except ValueError:
        raise RemoteError(
            f"{where} answered {shown(embedding)}, which is no float32 in base64; pass "
            'encoding_format="float".'
        ) from None
