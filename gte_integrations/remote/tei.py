"""``TEIEncoder``: vectors of a server of Hugging Face's text-embeddings-inference."""

from __future__ import annotations

import asyncio
import logging
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, get_args

import numpy as np

from gte_core import (
    Fingerprint,
    HybridEmbeddings,
    MissingHeadError,
    OnTruncation,
    Role,
    TruncationError,
)
from gte_core.texts import named
from gte_integrations._retry import TOO_LARGE, Failure, classify_http
from gte_integrations.remote.base import Connection, Key, RemoteError
from gte_integrations.remote.encoder import (
    Description,
    Half,
    Part,
    RemoteEncoder,
    TokenWeight,
    counts,
    dense_rows,
    shown,
)

logger = logging.getLogger(__name__)

KEY_VARIABLE = "TEI_API_KEY"

_SURE_SECONDS = 10.0  # that the server is taken to have the same model as before
_SPECIAL = 8  # more tokens than any tokenizer puts around a text
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_IDENTITY = ("model_id", "model_sha", "model_dtype", "model_type", "max_input_length")


def classify(status: int, content: bytes, retry_after: str | None) -> Failure:
    """Classify a refusal of this server; too many texts are 413 before version 1.9, then 422."""
    if status == 422 and b"batch size" in content:
        return TOO_LARGE
    return classify_http(status, content, retry_after)


class TEIEncoder(RemoteEncoder):
    """An ``Encoder`` whose vectors a server of text-embeddings-inference makes.

    The server is asked what it serves when that is first needed: dense vectors, or sparse ones
    where it pools by ``splade``. Of a model of the hub at a commit, the fingerprint is that of the
    local model, so that either searches what the other has indexed. The server is asked again
    while it is in use; another model is a ``RemoteError``.

    Args:
        url: of the server, such as ``http://localhost:8080``.
        api_key: of the server, by default ``TEI_API_KEY`` of the environment, if there is one.
        dimensions: a smaller size of dense vectors, which the server is asked for.
        vocab_size: width of the sparse vectors; the server does not say it.
        query_prefix: text that ``role="query"`` puts before each text.
        document_prefix: text that ``role="document"`` puts before each text.
        fingerprint: of the model, where the server's word is not what it should be.
        on_truncation: what happens when the server reads the beginning of a text alone. To know,
            texts that may be too long are counted by the server once more, not with ``"ignore"``.
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
        dimensions: int | None = None,
        vocab_size: int | None = None,
        query_prefix: str = "",
        document_prefix: str = "",
        fingerprint: Fingerprint | None = None,
        on_truncation: OnTruncation = "warn",
        timeout: float = 60.0,
        deadline: float = 600.0,
        max_in_flight: int = 8,
    ) -> None:
        if on_truncation not in get_args(OnTruncation):
            raise ValueError(
                f"on_truncation is {on_truncation!r}; allowed are {list(get_args(OnTruncation))}."
            )
        connection = Connection(
            url,
            Key(api_key, KEY_VARIABLE),
            timeout=timeout,
            deadline=deadline,
            max_in_flight=max_in_flight,
            classify=classify,
        )
        super().__init__(connection, query_prefix, document_prefix)
        self._size = dimensions
        self._vocab_size = vocab_size
        self._fingerprint = fingerprint
        self._on_truncation: OnTruncation = on_truncation
        self._info: dict[str, Any] = {}
        self._asked_at = -math.inf

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_asked_at": -math.inf}

    async def _describe(self) -> Description:
        await self._recognise()
        info = self._info
        is_sparse = _pooling(info, self.connection.url) == "splade"
        size = 0 if is_sparse else self._size or (await self._dense(["dimensions"])).shape[1]
        return Description(
            fingerprint=self._fingerprint or _fingerprint(info, self.document_prefix),
            dimensions=size,
            has_sparse=is_sparse,
            vocab_size=self._vocab_size if is_sparse else 0,
            max_texts=_positive(info.get("max_client_batch_size")) or 32,
        )

    async def _recognise(self) -> None:
        """Ask what is served, unless that was lately; ``RemoteError`` if it is something else."""
        now = asyncio.get_running_loop().time()
        if now - self._asked_at < _SURE_SECONDS and self._info:
            return
        self._asked_at = now  # so that the requests beside this one do not ask, too
        try:
            self._compare((await self.connection.get("/info")).body)
        except BaseException:
            self._asked_at = -math.inf
            raise

    def _compare(self, info: object) -> None:
        """Keep what is served, at first; ``RemoteError`` if it is not what was kept."""
        if not isinstance(info, dict) or "model_id" not in info:
            raise RemoteError(
                f"{self.connection.url}/info answered {shown(info)}, but a server of "
                "text-embeddings-inference names its model there; look at the address."
            )
        before, self._info = self._info, self._info or info
        different = [name for name in _IDENTITY if before and before.get(name) != info.get(name)]
        if different:
            raise RemoteError(
                f"{self.connection.url} serves another model now: "
                + ", ".join(
                    f"{name} {before.get(name)!r}, now {info.get(name)!r}" for name in different
                )
                + ". Vectors of both must not meet in one collection; make a new encoder."
            )

    async def _ask(self, texts: Sequence[str], role: Role, halves: set[Half]) -> Part:
        await self._recognise()
        path = "/embed" if "dense" in halves else "/embed_sparse"
        answer = await self.connection.post(path, self._body(texts))
        total = _positive(answer.headers.get("x-compute-tokens"))
        n_tokens = counts(len(texts), total)
        truncated = np.zeros(len(texts), np.bool_)
        where = f"{self.connection.url}{path}"
        for place, count in (await self._counted(texts, total)).items():
            n_tokens[place] = min(count, self._longest)
            truncated[place] = count > self._longest
        if "dense" in halves:
            dense = dense_rows(answer.body, len(texts), where)
            return Part(dense=dense, sparse=None, n_tokens=n_tokens, truncated=truncated)
        sparse = _sparse_rows(answer.body, len(texts), where)
        return Part(dense=None, sparse=sparse, n_tokens=n_tokens, truncated=truncated)

    def _body(self, texts: Sequence[str]) -> dict[str, Any]:
        body: dict[str, Any] = {"inputs": texts, "truncate": True}
        return body if self._size is None else body | {"dimensions": self._size}

    async def _dense(self, texts: Sequence[str]) -> np.ndarray[Any, np.dtype[np.float64]]:
        answer = await self.connection.post("/embed", self._body(texts))
        return dense_rows(answer.body, len(texts), f"{self.connection.url}/embed")

    @property
    def _longest(self) -> int:
        """Tokens of a text that the server reads, 0 where it does not say."""
        return _positive(self._info.get("max_input_length")) or 0

    async def _counted(self, texts: Sequence[str], total: int | None) -> dict[int, int]:
        """Tokens, by place, of the texts that may have been cut."""
        longest = self._longest
        if self._on_truncation == "ignore" or not longest or (total and total < longest):
            return {}
        # A token is a byte at least.
        long = [i for i, text in enumerate(texts) if len(text.encode()) + _SPECIAL > longest]
        if not long:
            return {}
        answer = await self.connection.post("/tokenize", {"inputs": [texts[i] for i in long]})
        if not isinstance(answer.body, list) or len(answer.body) != len(long):
            raise RemoteError(
                f"{self.connection.url}/tokenize answered {shown(answer.body)}, but must give the "
                f"tokens of {len(long)} texts; pass on_truncation='ignore' not to ask."
            )
        return {place: len(tokens) for place, tokens in zip(long, answer.body, strict=True)}

    def _reported(self, found: HybridEmbeddings) -> HybridEmbeddings:
        cut = np.flatnonzero(found.truncated).tolist()
        if not cut or self._on_truncation == "ignore":
            return found
        if self._on_truncation == "error":
            raise TruncationError(
                f"{named(cut)}: longer than the {self._longest} tokens that the server reads. "
                "Split the text, or choose on_truncation='warn'.",
                cut,
            )
        logger.warning(
            "%d text(s) were longer than the %d tokens that the server reads, and were cut; split "
            "them, or pass on_truncation='ignore'.",
            len(cut),
            self._longest,
        )
        return found


def _pooling(info: Mapping[str, Any], url: str) -> str:
    """How the model pools; ``MissingHeadError`` for one that gives no embedding."""
    kind = info.get("model_type")
    embedding = kind.get("embedding") if isinstance(kind, dict) else None
    if not isinstance(embedding, dict):
        raise MissingHeadError(
            f"{url} serves {info['model_id']!r}, which is no embedding model but {shown(kind)}; "
            "start the server with one that is."
        )
    return str(embedding.get("pooling"))


def _fingerprint(info: Mapping[str, Any], document_prefix: str) -> Fingerprint:
    """That of the local model where a commit says which that is; else the server's name for it."""
    model, commit = str(info["model_id"]), str(info.get("model_sha"))
    is_known = _HUB_ID.fullmatch(model) is not None and _COMMIT.fullmatch(commit) is not None
    return Fingerprint(
        model if is_known else f"tei:{model}",
        commit if is_known else None,
        _positive(info.get("max_input_length")) or 0,
        document_prefix=document_prefix,
    )


def _positive(number: object) -> int | None:
    """An integer above 0, also from a header; None for anything else."""
    text = str(number)
    return int(text) if text.isascii() and text.isdecimal() and int(text) > 0 else None


def _sparse_rows(body: object, n_texts: int, where: str) -> list[list[TokenWeight]]:
    try:
        rows = [[(int(one["index"]), float(one["value"])) for one in row] for row in body]  # type: ignore[attr-defined]
    except (KeyError, TypeError, ValueError):
        rows = []
    if len(rows) != n_texts:
        raise RemoteError(
            f"{where} answered {shown(body)}, but must give the weights of {n_texts} texts, as "
            "objects of index and value."
        )
    return rows
