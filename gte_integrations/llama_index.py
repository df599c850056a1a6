"""GTE in LlamaIndex: an embed model, a vector store and a retriever over an index, a reranker.

::

    Settings.embed_model = GTEEmbedding(model_name="demo", dimensions=128)

Objects with the same model settings share one loaded model and one cache of both vectors, built
together or apart: a text costs one forward pass, whichever of them asks first.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import fields
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

try:
    from llama_index.core.base.embeddings.base import BaseEmbedding
    from llama_index.core.bridge.pydantic import ConfigDict, Field, PrivateAttr, model_validator
    from llama_index.core.callbacks import CBEventType, EventPayload
    from llama_index.core.instrumentation import get_dispatcher  # type: ignore[attr-defined]
    from llama_index.core.instrumentation.events.rerank import ReRankEndEvent, ReRankStartEvent
    from llama_index.core.postprocessor.types import BaseNodePostprocessor
    from llama_index.core.retrievers import BaseRetriever
    from llama_index.core.schema import (
        BaseNode,
        MetadataMode,
        NodeWithScore,
        QueryBundle,
        TextNode,
    )
except ImportError as error:
    raise ImportError(
        "gte_integrations.llama_index needs llama-index-core; "
        "pip install 'gte-integrations[llama-index]'"
    ) from error

from gte_core import (
    CachingEncoder,
    EncoderSettings,
    OnTruncation,
    Reranker,
    RerankerSettings,
    SharedEncoder,
    SharedReranker,
    TruncationSide,
    as_encoder,
    shared_encoder,
    shared_reranker,
)
from gte_core.ranking import checked_scores
from gte_integrations._encoder_fields import (
    GivenEncoder,
    GivenReranker,
    name_of_reranker,
    refuse_foreign,
    refuse_settings_beside,
    repr_arguments,
    with_later_fields,
)
from gte_integrations._llama_index_store import GTEVectorStore
from gte_integrations._vector_store import check_searches

__all__ = ["GTEEmbedding", "GTEHybridRetriever", "GTERerank", "GTEVectorStore"]

_dispatcher = get_dispatcher(__name__)
# The fields that are settings of a model, which is called ``model_name`` here.
_SETTINGS = [field.name for field in fields(EncoderSettings) if field.name != "model"]
_OF_A_MODEL = {"model_name", *_SETTINGS} - {"dimensions"}
_RERANKER_SETTINGS = [field.name for field in fields(RerankerSettings) if field.name != "model"]
_OF_A_RERANKER = {"model_name", *_RERANKER_SETTINGS}


class GTEEmbedding(BaseEmbedding):
    """Dense GTE vectors for LlamaIndex: unit length, ``dimensions`` components.

    ``model_name`` is the ``model`` of ``GTEEmbedder.from_pretrained``; the other settings are its
    arguments. In place of all but ``dimensions``, ``encoder`` takes what ``gte_core.as_encoder``
    takes: a loaded ``GTEEmbedder``, or any other object that satisfies ``Encoder``.

    What changes vectors is in ``to_dict()``, and so in every pipeline's cache key; where and how
    fast they are computed is not. Of an encoder without settings it holds the fingerprint, from
    which ``from_dict`` cannot make it again.

    ``qdrant_options()`` and ``milvus_options()`` make a vector store hybrid.
    """

    model_config = ConfigDict(
        extra="forbid",
        protected_namespaces=("pydantic_model_",),
        arbitrary_types_allowed=True,
        validate_assignment=True,
    )

    model_name: str = Field(default=EncoderSettings().model)
    revision: str | None = None
    dimensions: int | None = Field(default=None, ge=1, strict=True)
    max_length: int | None = None
    query_prefix: str | None = None
    prompt_name: str | None = None
    device: str | None = Field(default=None, exclude=True)
    dtype: str = Field(default="auto", exclude=True)
    on_truncation: OnTruncation = Field(default="warn", exclude=True)
    deterministic: bool = Field(default=False, exclude=True)
    torch_compile: bool = Field(default=False, exclude=True)
    cache_dir: str | None = Field(default=None, exclude=True)
    local_files_only: bool = Field(default=False, exclude=True)
    embed_batch_size: int = Field(default=64, gt=0, le=2048, exclude=True)
    num_workers: int | None = Field(default=None, exclude=True)
    embeddings_cache: Any | None = Field(default=None, exclude=True)
    given_encoder: GivenEncoder = Field(default=None, alias="encoder", exclude=True, repr=False)

    _encoder: CachingEncoder | None = PrivateAttr(default=None)
    _no_foreign = model_validator(mode="before")(refuse_foreign)

    @model_validator(mode="after")
    def _one_model(self) -> GTEEmbedding:
        if self.given_encoder is not None:
            refuse_settings_beside(self.given_encoder, _OF_A_MODEL & self.model_fields_set)
            self.__dict__["model_name"] = self.given_encoder.model
        self._settings()  # refuses what makes no sense together
        return self

    def _settings(self) -> EncoderSettings:
        settings = {name: getattr(self, name) for name in _SETTINGS if name != "dimensions"}
        return EncoderSettings(model=self.model_name, **settings)

    def __setattr__(self, name: str, value: Any) -> None:
        # Before pydantic, which sets a field before it validates the whole.
        refuse_settings_beside(self.given_encoder, _OF_A_MODEL & {name})
        super().__setattr__(name, value)

    def __repr_args__(self) -> Iterable[tuple[str | None, Any]]:
        return repr_arguments(self, super().__repr_args__(), _OF_A_MODEL)

    def __reduce__(self) -> tuple[Any, ...]:
        # What was set, and not the callbacks of this process.
        names = self.model_fields_set - {"callback_manager", "rate_limiter", "given_encoder"}
        given = {} if self.given_encoder is None else {"encoder": self.given_encoder}
        return partial(type(self), **{name: getattr(self, name) for name in names} | given), ()

    def to_dict(self, **options: Any) -> dict[str, Any]:
        """What makes it again, as far as it changes vectors; see the class."""
        found = super().to_dict(**options)
        encoder = self.given_encoder
        if isinstance(encoder, SharedEncoder):
            settings = encoder.settings.arguments()
            settings["dimensions"] = self.dimensions or settings["dimensions"]
            found |= {name: settings[name] for name in _SETTINGS if name in found}
        elif encoder is not None:
            found |= {"encoder": str(encoder.fingerprint), "query_prefix": encoder.query_prefix}
        if found.get("prompt_name") is None:  # so that keys of former versions stay
            found.pop("prompt_name", None)
        return found

    @classmethod
    def from_dict(cls, data: dict[str, Any], **options: Any) -> GTEEmbedding:
        """Make it again; ``encoder=`` gives an encoder again that has no settings.

        ``ValueError`` without that encoder, and with another.
        """
        if "encoder" in data and "encoder" not in options:
            raise ValueError(
                f"This GTEEmbedding was made with an encoder ({data['encoder']}) that a dict "
                "cannot hold; pass it again: from_dict(data, encoder=...)."
            )
        if "encoder" in data:
            given = as_encoder(options["encoder"]).fingerprint
            if str(given) != data["encoder"]:
                raise ValueError(
                    f"encoder is {given}, but this GTEEmbedding was made with {data['encoder']}; "
                    "pass that one, or make another GTEEmbedding(encoder=...)."
                )
        if "encoder" in options:
            data = {name: value for name, value in data.items() if name not in _OF_A_MODEL}
        return super().from_dict(data, **options)

    @classmethod
    def class_name(cls) -> str:
        """The name under which it is serialised."""
        return "GTEEmbedding"

    @property
    def encoder(self) -> CachingEncoder:
        """The encoder in use, with a cache that all who use it share; nothing is loaded by asking.

        The one that was given, or the one that all objects of these settings share.
        """
        # Held here, and looked up again, because fields can be set.
        self._encoder = self.given_encoder or shared_encoder(self._settings())
        return self._encoder

    def qdrant_options(self) -> dict[str, Any]:
        """Arguments that make a ``QdrantVectorStore`` hybrid, at one pass a text."""
        from gte_integrations.llama_index_qdrant import store_options

        return store_options(self.encoder)

    def milvus_options(self) -> dict[str, Any]:
        """Arguments of a ``GTEMilvusVectorStore``, which is hybrid at one pass a text."""
        return {"embedding": self}

    def _get_query_embedding(self, query: str) -> list[float]:
        dense = self.encoder.encode_dense(query, role="query", dimensions=self.dimensions)
        return _as_lists(dense)[0]

    async def _aget_query_embedding(self, query: str) -> list[float]:
        encode = self.encoder.aencode_dense
        return _as_lists(await encode(query, role="query", dimensions=self.dimensions))[0]

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._get_text_embeddings([text])[0]

    async def _aget_text_embedding(self, text: str) -> list[float]:
        [vector] = await self._aget_text_embeddings([text])
        return vector

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return _as_lists(self.encoder.encode_dense(texts, dimensions=self.dimensions))

    async def _aget_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        vectors = await self.encoder.aencode_dense(texts, dimensions=self.dimensions)
        return await asyncio.to_thread(_as_lists, vectors)


class GTEHybridRetriever(BaseRetriever):
    """Retrieves from a ``QdrantHybridIndex`` or ``MilvusHybridIndex``, or anything that searches.

    A node's score is what the ranking goes by; ``dense_score`` and ``sparse_score`` come in its
    metadata, where the payload has no keys of these names. After a ``rerank`` the score is the
    reranker's, and the former one comes there too, as ``retrieval_score``.

    Args:
        index: has ``search(queries, limit=..., **search_options)``, one list of hits per query.
        similarity_top_k: how many nodes.
        search_options: passed to ``search``: ``mode``, ``fusion``, ``candidates``,
            ``filter``, ``payload_keys``, ``offset``, ``score_threshold``, ``group_by``,
            ``rerank``, ``rerank_depth``.
    """

    def __init__(
        self, index: Any, *, similarity_top_k: int = 4, search_options: dict[str, Any] | None = None
    ) -> None:
        self._index = check_searches(index)
        if "limit" in (search_options or {}):
            raise ValueError("limit is set by similarity_top_k; pass that instead.")
        self._options = {"limit": similarity_top_k} | (search_options or {})
        super().__init__()

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        [hits] = self._index.search([query_bundle.query_str], **self._options)
        return [_as_node(hit) for hit in hits]

    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        queries = [query_bundle.query_str]
        if hasattr(self._index, "asearch"):
            [hits] = await self._index.asearch(queries, **self._options)
        else:
            search = partial(self._index.search, queries, **self._options)
            [hits] = await asyncio.to_thread(search)
        return [_as_node(hit) for hit in hits]


class GTERerank(BaseNodePostprocessor):
    """Keeps the nodes that the GTE reranker finds most relevant, best first; loaded at first use.

    A node's score becomes the reranker's raw logit; with ``keep_retrieval_score`` the former one
    stays in its metadata. Other settings are arguments of ``GTEReranker.from_pretrained``; in
    place of them, ``reranker`` takes what ``gte_core.as_reranker`` takes: a loaded
    ``GTEReranker``, or any other object that satisfies ``Reranker``.

    ``to_dict()`` holds the name of an object's model, not the object; give ``from_dict`` that
    again as ``reranker=``.
    """

    model_config = ConfigDict(extra="forbid", arbitrary_types_allowed=True)

    model_name: str = Field(default=RerankerSettings().model)
    revision: str | None = None
    max_length: int | None = None
    truncation_side: TruncationSide = "right"
    top_n: int = Field(default=2, ge=1)
    keep_retrieval_score: bool = False
    device: str | None = Field(default=None, exclude=True)
    dtype: str = Field(default="auto", exclude=True)
    torch_compile: bool = Field(default=False, exclude=True)
    cache_dir: str | None = Field(default=None, exclude=True)
    local_files_only: bool = Field(default=False, exclude=True)
    given_reranker: GivenReranker = Field(default=None, alias="reranker", exclude=True, repr=False)

    _reranker: Reranker | None = PrivateAttr(default=None)
    _no_foreign = model_validator(mode="before")(refuse_foreign)

    @model_validator(mode="after")
    def _one_model(self) -> GTERerank:
        if self.given_reranker is not None:
            refuse_settings_beside(
                self.given_reranker, _OF_A_RERANKER & self.model_fields_set, "reranker"
            )
            self.__dict__["model_name"] = name_of_reranker(self.given_reranker)
        if isinstance(self.given_reranker, SharedReranker):
            settings = self.given_reranker.settings
            self.__dict__ |= {name: getattr(settings, name) for name in _RERANKER_SETTINGS}
        return self

    def __setattr__(self, name: str, value: Any) -> None:
        refuse_settings_beside(self.given_reranker, _OF_A_RERANKER & {name}, "reranker")
        super().__setattr__(name, value)

    def __repr_args__(self) -> Iterable[tuple[str | None, Any]]:
        return repr_arguments(self, super().__repr_args__(), _OF_A_RERANKER)

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(with_later_fields(type(self), state))

    @classmethod
    def class_name(cls) -> str:
        """The name under which it is serialised."""
        return "GTERerank"

    @classmethod
    def from_dict(cls, data: dict[str, Any], **options: Any) -> GTERerank:
        """Make it again, with the object in ``reranker=`` in place of the model's settings."""
        if options.get("reranker") is not None:
            data = {name: value for name, value in data.items() if name not in _OF_A_RERANKER}
        return super().from_dict(data, **options)

    @property
    def reranker(self) -> Reranker:
        """The reranker in use; nothing is loaded by asking.

        The one that was given, or the one that all objects of these settings share.
        """
        # Held here, and looked up again, because fields can be set.
        reranker: Reranker | None = self.given_reranker
        if reranker is None:
            settings = {name: getattr(self, name) for name in _RERANKER_SETTINGS}
            reranker = shared_reranker(RerankerSettings(model=self.model_name, **settings))
        self._reranker = reranker
        return reranker

    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        if query_bundle is None:
            raise ValueError("GTERerank ranks by a query; pass query_bundle or query_str.")
        _dispatcher.event(
            ReRankStartEvent(
                query=query_bundle, nodes=nodes, top_n=self.top_n, model_name=self.model_name
            )
        )
        payload: dict[str, Any] = {
            EventPayload.NODES: nodes,
            EventPayload.MODEL_NAME: self.model_name,
            EventPayload.QUERY_STR: query_bundle.query_str,
            EventPayload.TOP_K: self.top_n,
        }
        with self.callback_manager.event(CBEventType.RERANKING, payload=payload) as event:
            ranked = self._ranked(nodes, query_bundle.query_str)
            event.on_end(payload={EventPayload.NODES: ranked})
        _dispatcher.event(ReRankEndEvent(nodes=ranked))
        return ranked

    def _ranked(self, nodes: list[NodeWithScore], query: str) -> list[NodeWithScore]:
        if not nodes:
            return []
        texts = [node.node.get_content(metadata_mode=MetadataMode.EMBED) for node in nodes]
        given = self.reranker.score([(query, text) for text in texts])
        scores = checked_scores(given, len(texts)).tolist()
        ranked = [
            NodeWithScore(
                node=_remembering(node) if self.keep_retrieval_score else node.node, score=score
            )
            for node, score in zip(nodes, scores, strict=True)
        ]
        return sorted(ranked, key=lambda node: -node.get_score())[: self.top_n]


def _remembering(found: NodeWithScore) -> BaseNode:
    """A copy of a node that keeps its retrieval score where no model reads it."""
    node = found.node.model_copy(deep=True)
    node.metadata["retrieval_score"] = found.score
    node.excluded_embed_metadata_keys.append("retrieval_score")
    node.excluded_llm_metadata_keys.append("retrieval_score")
    return node


def _as_node(hit: Any) -> NodeWithScore:
    scores = {"dense_score": hit.dense_score, "sparse_score": hit.sparse_score}
    score, reranked = hit.score, getattr(hit, "rerank_score", None)
    if reranked is not None:
        scores["retrieval_score"], score = score, reranked
    node = TextNode(
        id_=str(hit.id),
        text=hit.text,
        metadata={**scores, **hit.payload},
        excluded_embed_metadata_keys=list(scores),
        excluded_llm_metadata_keys=list(scores),
    )
    return NodeWithScore(node=node, score=score)


def _as_lists(vectors: NDArray[np.float32]) -> list[list[float]]:
    lists: list[list[float]] = vectors.tolist()
    return lists
