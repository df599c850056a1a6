"""GTE in LangChain: embeddings, a vector store and a retriever over a hybrid index, a reranker.

::

    embeddings = GTEEmbeddings(model="demo", dimensions=128)
    store = GTEVectorStore.from_texts(texts, embeddings, location="./index", collection="help")

Objects with the same model settings share one loaded model and one cache of both vectors, built
together or apart: a text costs one forward pass, whichever of them asks first.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import fields
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from numpy.typing import NDArray
from typing_extensions import deprecated

try:
    from langchain_core.callbacks import (
        AsyncCallbackManagerForRetrieverRun,
        CallbackManagerForRetrieverRun,
        Callbacks,
    )
    from langchain_core.cross_encoders import BaseCrossEncoder
    from langchain_core.documents import BaseDocumentCompressor, Document
    from langchain_core.embeddings import Embeddings
    from langchain_core.retrievers import BaseRetriever
    from langchain_core.runnables import run_in_executor
    from pydantic import (
        BaseModel,
        BeforeValidator,
        ConfigDict,
        Field,
        PrivateAttr,
        model_validator,
    )
except ImportError as error:
    raise ImportError(
        "gte_integrations.langchain needs langchain-core; pip install 'gte-integrations[langchain]'"
    ) from error

from gte_core import Reranker, RerankerSettings, TruncationSide, shared_reranker
from gte_core.ranking import checked_scores
from gte_integrations._encoder_fields import (
    EncoderFields,
    GivenReranker,
    Text,
    check_query,
    name_of_reranker,
    refuse_foreign,
    refuse_settings_beside,
    repr_arguments,
    with_later_fields,
)
from gte_integrations._langchain_store import GTEVectorStore
from gte_integrations._vector_store import check_searches

if TYPE_CHECKING:
    from gte_integrations.langchain_milvus import GTEMilvusSparse
    from gte_integrations.langchain_qdrant import GTEQdrantSparse

__all__ = [
    "GTECompressor",
    "GTECrossEncoder",
    "GTEEmbeddings",
    "GTEHybridRetriever",
    "GTEVectorStore",
]


_OF_A_RERANKER = {field.name for field in fields(RerankerSettings)}


class GTEEmbeddings(EncoderFields, Embeddings):
    """Dense GTE vectors for LangChain: unit length, ``dimensions`` components.

    ``qdrant_options()`` and ``milvus_options()`` make a vector store hybrid.
    """

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Dense vectors of texts; ``[]`` for none."""
        return _as_lists(self.encoder.encode_dense(texts, dimensions=self.dimensions))

    def embed_query(self, text: str) -> list[float]:
        """Dense vector of a query, its prefix put before it where the model wants one."""
        check_query(text)
        dense = self.encoder.encode_dense(text, role="query", dimensions=self.dimensions)
        return _as_lists(dense)[0]

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        """``embed_documents`` off the event loop; calls that wait together share a batch."""
        vectors = await self.encoder.aencode_dense(texts, dimensions=self.dimensions)
        return await run_in_executor(None, _as_lists, vectors)

    async def aembed_query(self, text: str) -> list[float]:
        """``embed_query`` off the event loop; calls that wait together share a batch."""
        check_query(text)
        dense = await self.encoder.aencode_dense(text, role="query", dimensions=self.dimensions)
        return _as_lists(dense)[0]

    @property
    def cache_namespace(self) -> str:
        """For ``CacheBackedEmbeddings(namespace=...)``: differs wherever vectors would."""
        size = self.encoder.dimensions if self.dimensions is None else self.dimensions
        identity = f"{self.encoder.fingerprint} {size} {self.encoder.query_prefix}"
        return f"gte-{size}-{hashlib.sha256(identity.encode()).hexdigest()[:24]}"

    def qdrant_options(self) -> dict[str, Any]:
        """Arguments that make a ``QdrantVectorStore`` hybrid, at one pass a text."""
        from gte_integrations.langchain_qdrant import store_options

        return store_options(self)

    def milvus_options(self) -> dict[str, Any]:
        """Arguments that make a ``Milvus`` hybrid, at one pass a text."""
        from gte_integrations.langchain_milvus import store_options

        return store_options(self)

    @deprecated("qdrant_sparse is deprecated; pass **qdrant_options() to QdrantVectorStore.")
    def qdrant_sparse(self) -> GTEQdrantSparse:
        """Deprecated: the ``sparse_embedding`` of ``qdrant_options``."""
        sparse: GTEQdrantSparse = self.qdrant_options()["sparse_embedding"]
        return sparse

    @deprecated("milvus_sparse is deprecated; pass **milvus_options() to Milvus.")
    def milvus_sparse(self) -> GTEMilvusSparse:
        """Deprecated: the second ``embedding_function`` of ``milvus_options``."""
        sparse: GTEMilvusSparse = self.milvus_options()["embedding_function"][1]
        return sparse


class GTEHybridRetriever(BaseRetriever):
    """Retrieves from a ``QdrantHybridIndex`` or ``MilvusHybridIndex``, or anything that searches.

    Scores come in the metadata as ``score``, ``dense_score`` and ``sparse_score``, where the
    payload has no keys of these names; after a ``rerank`` with ``rerank_score``, by which the
    documents are ordered.

    Attributes:
        index: has ``search(queries, limit=..., **search_options)``, one list of hits per query.
        k: how many documents.
        search_options: passed to ``search``: ``mode``, ``fusion``, ``candidates``,
            ``filter``, ``payload_keys``, ``offset``, ``score_threshold``, ``group_by``,
            ``rerank``, ``rerank_depth``.

    ``k`` and search options may also be given per call: ``retriever.invoke(query, k=2)``.
    """

    model_config = ConfigDict(extra="forbid", arbitrary_types_allowed=True)

    index: Annotated[Any, BeforeValidator(check_searches)]
    k: int = Field(default=4, ge=1)
    search_options: dict[str, Any] = Field(default_factory=dict)

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun, **options: Any
    ) -> list[Document]:
        [hits] = self.index.search([query], **self._options(options))
        return [_as_document(hit) for hit in hits]

    async def _aget_relevant_documents(
        self, query: str, *, run_manager: AsyncCallbackManagerForRetrieverRun, **options: Any
    ) -> list[Document]:
        merged = self._options(options)
        if hasattr(self.index, "asearch"):
            [hits] = await self.index.asearch([query], **merged)
        else:
            [hits] = await run_in_executor(None, partial(self.index.search, [query], **merged))
        return [_as_document(hit) for hit in hits]

    def _options(self, options: dict[str, Any]) -> dict[str, Any]:
        """What ``search`` is called with; it refuses names that it does not know."""
        merged = self.search_options | options
        if "limit" in merged:
            raise ValueError("limit is set by k; pass k instead.")
        return {name: value for name, value in merged.items() if name != "k"} | {
            "limit": merged.get("k", self.k)
        }


class GTECrossEncoder(BaseModel, BaseCrossEncoder):
    """The GTE reranker as LangChain's cross-encoder; loaded at first use.

    The fields are arguments of ``GTEReranker.from_pretrained``, described there. In place of them,
    ``reranker`` takes what ``gte_core.as_reranker`` takes: a loaded ``GTEReranker``, or any other
    object that satisfies ``Reranker``.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    model: Text = RerankerSettings().model
    revision: str | None = None
    device: Text | None = None
    dtype: Text = "auto"
    max_length: int | None = None
    torch_compile: bool = False
    cache_dir: Text | None = None
    local_files_only: bool = False
    truncation_side: TruncationSide = "right"
    given_reranker: GivenReranker = Field(default=None, alias="reranker", exclude=True, repr=False)

    _reranker: Reranker | None = PrivateAttr(default=None)
    _no_foreign = model_validator(mode="before")(refuse_foreign)

    @model_validator(mode="after")
    def _one_model(self) -> GTECrossEncoder:
        if self.given_reranker is not None:
            refuse_settings_beside(
                self.given_reranker, _OF_A_RERANKER & self.model_fields_set, "reranker"
            )
            self.__dict__["model"] = name_of_reranker(self.given_reranker)
        return self

    def __repr_args__(self) -> Iterable[tuple[str | None, Any]]:
        return repr_arguments(self, super().__repr_args__(), _OF_A_RERANKER)

    def __setstate__(self, state: dict[Any, Any]) -> None:
        super().__setstate__(with_later_fields(type(self), state))

    @property
    def reranker(self) -> Reranker:
        """The reranker in use; nothing is loaded by asking.

        The one that was given, or the one that all objects of these settings share.
        """
        # Held here, and looked up again, because a copy may have other settings.
        reranker: Reranker | None = self.given_reranker
        if reranker is None:
            reranker = shared_reranker(RerankerSettings(**self.model_dump()))
        self._reranker = reranker
        return reranker

    def score(self, text_pairs: list[tuple[str, str]]) -> list[float]:
        """Relevance of each (query, document) pair; a raw logit, where the reranker is ours."""
        if not text_pairs:
            return []
        given = self.reranker.score(text_pairs)
        scores: list[float] = checked_scores(given, len(text_pairs)).tolist()
        return scores


class GTECompressor(BaseDocumentCompressor):
    """Keeps the documents that a cross-encoder finds most relevant, best first.

    Scores come in the metadata as ``relevance_score``. In place of ``cross_encoder``, ``reranker``
    takes what ``gte_core.as_reranker`` takes: the name of a model, or an object.
    """

    cross_encoder: BaseCrossEncoder = Field(default_factory=GTECrossEncoder)
    top_n: int = Field(default=3, ge=1)
    given_reranker: GivenReranker = Field(default=None, alias="reranker", exclude=True, repr=False)

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    @model_validator(mode="after")
    def _one_cross_encoder(self) -> GTECompressor:
        if self.given_reranker is not None:
            refuse_settings_beside(
                self.given_reranker, {"cross_encoder"} & self.model_fields_set, "reranker"
            )
            self.__dict__["cross_encoder"] = GTECrossEncoder(reranker=self.given_reranker)
        return self

    def __setstate__(self, state: dict[Any, Any]) -> None:
        super().__setstate__(with_later_fields(type(self), state))

    def compress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks | None = None
    ) -> Sequence[Document]:
        """The ``top_n`` most relevant documents, copied, with their scores."""
        if not documents:
            return []
        scores = self.cross_encoder.score([(query, d.page_content) for d in documents])
        ranked = sorted(zip(scores, documents, strict=True), key=lambda pair: -pair[0])
        return [
            document.model_copy(
                update={"metadata": document.metadata | {"relevance_score": float(score)}}
            )
            for score, document in ranked[: self.top_n]
        ]


def _as_document(hit: Any) -> Document:
    scores = {"score": hit.score, "dense_score": hit.dense_score, "sparse_score": hit.sparse_score}
    if getattr(hit, "rerank_score", None) is not None:
        scores["rerank_score"] = hit.rerank_score
    return Document(page_content=hit.text, metadata={**scores, **hit.payload}, id=str(hit.id))


def _as_lists(vectors: NDArray[np.float32]) -> list[list[float]]:
    """Python lists of Python floats, the only numbers that all stores take."""
    lists: list[list[float]] = vectors.tolist()
    return lists
