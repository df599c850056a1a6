"""LlamaIndex' vector store over a hybrid index; ``gte_integrations.llama_index`` shows it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

from llama_index.core.bridge.pydantic import BeforeValidator, ConfigDict, Field
from llama_index.core.schema import BaseNode, MetadataMode, TextNode
from llama_index.core.vector_stores.types import (
    BasePydanticVectorStore,
    FilterOperator,
    MetadataFilter,
    MetadataFilters,
    VectorStoreQuery,
    VectorStoreQueryMode,
    VectorStoreQueryResult,
)
from llama_index.core.vector_stores.utils import metadata_dict_to_node, node_to_metadata_dict

from gte_core import HybridEmbeddings
from gte_integrations._index.fusion import RRF
from gte_integrations._index.ids import LONE_SURROGATE
from gte_integrations._index.search import MAX_DEPTH
from gte_integrations._llama_index_filters import check_filters, has_conditions
from gte_integrations._vector_store import (
    check_index,
    check_share,
    from_index_id,
    from_payload,
    most_diverse,
    one_query,
    score_of,
    to_index_ids,
    to_payload,
)

if TYPE_CHECKING:
    from gte_integrations._index.records import StoredDocument
    from gte_integrations._index.search import Hit

_MODES = {
    VectorStoreQueryMode.DEFAULT: "dense",
    VectorStoreQueryMode.MMR: "dense",
    VectorStoreQueryMode.SPARSE: "sparse",
    VectorStoreQueryMode.TEXT_SEARCH: "sparse",
    VectorStoreQueryMode.HYBRID: "hybrid",
}
_GATHERED = 4  # times the nodes wanted, of which maximal marginal relevance chooses
_NODE = "_node_content"


class GTEVectorStore(BasePydanticVectorStore):
    """A ``QdrantHybridIndex`` or ``MilvusHybridIndex`` as LlamaIndex' vector store.

    The index encodes by itself: nodes by the text that LlamaIndex embeds, metadata included, and
    queries by their ``query_str``. Where it and the embed model share an encoder, as those of the
    same model's name do, a node costs one pass all the same. A query's embedding is used where it
    has no text, in the modes "default" and "mmr", and is ignored otherwise.

    Nodes come back whole, without their embeddings. A document that the index was given elsewhere
    comes as a ``TextNode``, and one with the integer id 1 as ``"int:1"``. Query modes are
    "default" (dense, or sparse where there are no dense vectors), "sparse" and "text_search" (both
    sparse), "hybrid" and "mmr". In hybrid mode ``alpha`` weighs ranks, from 0 (sparse) to 1
    (dense); without it, scores are added by the model's own rule. Other arguments of
    ``index.search``, also a ``filter`` in the engine's own language, may be given as
    ``vector_store_kwargs`` of a retriever.

    Attributes:
        index: whose ``create`` was called.
    """

    model_config = ConfigDict(extra="forbid", arbitrary_types_allowed=True)

    stores_text: bool = True
    is_embedding_query: bool = False
    index: Annotated[Any, BeforeValidator(check_index)] = Field(exclude=True)

    def __getstate__(self) -> dict[str, Any]:
        # LlamaIndex would take the index out of this very store and pickle the rest.
        raise TypeError(
            "A GTEVectorStore holds an open index, which cannot be pickled; open the index where "
            "it is needed, GTEVectorStore(index=...)."
        )

    @classmethod
    def class_name(cls) -> str:
        """The name under which it is serialised."""
        return "GTEVectorStore"

    @property
    def client(self) -> Any:
        """The index."""
        return self.index

    def add(self, nodes: Sequence[BaseNode], **options: Any) -> list[str]:
        """Add nodes, or replace those with the same ids; return their ids.

        A node of white space alone is not stored. ``options`` are those of ``index.add``.
        """
        nodes = _listed(nodes)
        self.index.add(map(_as_document, nodes), **options)
        return [node.node_id for node in nodes]

    async def async_add(self, nodes: Sequence[BaseNode], **options: Any) -> list[str]:
        """``add`` off the event loop."""
        nodes = _listed(nodes)
        await self.index.aadd(map(_as_document, nodes), **options)
        return [node.node_id for node in nodes]

    def delete(self, ref_doc_id: str, **options: Any) -> None:
        """Remove all nodes of a document."""
        self.index.delete(filter=self._filter(_of_documents([ref_doc_id])), **options)

    async def adelete(self, ref_doc_id: str, **options: Any) -> None:
        """``delete`` off the event loop."""
        await self.index.adelete(filter=self._filter(_of_documents([ref_doc_id])), **options)

    def delete_nodes(
        self,
        node_ids: list[str] | None = None,
        filters: MetadataFilters | None = None,
        **options: Any,
    ) -> None:
        """Remove nodes by id, by filters, or those that meet both."""
        self.index.delete(**self._selected(node_ids, filters), **options)

    async def adelete_nodes(
        self,
        node_ids: list[str] | None = None,
        filters: MetadataFilters | None = None,
        **options: Any,
    ) -> None:
        """``delete_nodes`` off the event loop."""
        await self.index.adelete(**self._selected(node_ids, filters), **options)

    def get_nodes(
        self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None
    ) -> list[BaseNode]:
        """Nodes by id, in that order; by filters; those that meet both; or all."""
        if node_ids is not None and filters is None:
            return list(map(_as_node, self.index.get(to_index_ids(node_ids))))
        found = self.index.documents(filter=self._filter(filters, node_ids))
        return list(map(_as_node, found))

    async def aget_nodes(
        self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None
    ) -> list[BaseNode]:
        """``get_nodes`` off the event loop."""
        if node_ids is not None and filters is None:
            return list(map(_as_node, await self.index.aget(to_index_ids(node_ids))))
        found = self.index.adocuments(filter=self._filter(filters, node_ids))
        return [_as_node(document) async for document in found]

    def clear(self) -> None:
        """Remove everything: the collection is dropped and made again."""
        self.index.drop()
        self.index.create()

    async def aclear(self) -> None:
        """``clear`` off the event loop."""
        await self.index.adrop()
        await self.index.acreate()

    def query(self, query: VectorStoreQuery, **options: Any) -> VectorStoreQueryResult:
        """Nodes, best first, with the scores that the ranking goes by; the higher, the better."""
        searched = self._search_options(query, options)
        if query.query_str is None:
            [hits] = self.index.search_vectors(_vectors_of(query), **searched)
        else:
            [hits] = self.index.search([query.query_str], **searched)
        if query.mode == VectorStoreQueryMode.MMR:
            stored = self.index.get([hit.id for hit in hits], with_vectors=True)
            hits = _diverse(query, hits, stored)
        return _as_result(hits)

    async def aquery(self, query: VectorStoreQuery, **options: Any) -> VectorStoreQueryResult:
        """``query`` off the event loop."""
        searched = self._search_options(query, options)
        if query.query_str is None:
            [hits] = await self.index.asearch_vectors(_vectors_of(query), **searched)
        else:
            [hits] = await self.index.asearch([query.query_str], **searched)
        if query.mode == VectorStoreQueryMode.MMR:
            stored = await self.index.aget([hit.id for hit in hits], with_vectors=True)
            hits = _diverse(query, hits, stored)
        return _as_result(hits)

    def _search_options(self, query: VectorStoreQuery, options: dict[str, Any]) -> dict[str, Any]:
        """Arguments of ``index.search``."""
        mode = _MODES.get(query.mode)
        has_dense = self.index.vectorizer.encoder.has_dense
        if query.mode == VectorStoreQueryMode.DEFAULT and not has_dense:
            mode = "sparse"
        if mode is None:
            allowed = ", ".join(repr(known.value) for known in _MODES)
            raise ValueError(f"mode is {query.mode!r}, but must be one of {allowed}.")
        found: dict[str, Any] = {"mode": mode, "limit": _limit_of(query)}
        if query.mode == VectorStoreQueryMode.MMR:
            _check_diverse(query, options)
        if mode == "hybrid" and query.alpha is not None:
            check_share("alpha", query.alpha, "0 (sparse) to 1 (dense)")
            found["fusion"] = RRF(dense_weight=query.alpha, sparse_weight=1 - query.alpha)
        filters = query.filters
        if query.doc_ids:
            given = [] if filters is None else [filters]
            filters = MetadataFilters(filters=[*given, _of_documents(query.doc_ids)])
        # A retriever over a store that keeps its nodes asks for none of them when it means all.
        condition = self._filter(filters, query.node_ids or None, options.get("filter"))
        return found | options | {"filter": condition}

    def _selected(
        self, node_ids: list[str] | None, filters: MetadataFilters | None
    ) -> dict[str, Any]:
        """Arguments of ``index.delete``."""
        check_filters(filters)
        if node_ids is None and filters is not None and not has_conditions(filters):
            raise ValueError(
                "filters hold no condition, so every node would be removed; clear() does that, "
                "else give a MetadataFilter."
            )
        if filters is None:
            return {"ids": None if node_ids is None else to_index_ids(node_ids)}
        return {"filter": self._filter(filters, node_ids)}

    def _filter(
        self,
        filters: MetadataFilters | None,
        node_ids: list[str] | None = None,
        given: Any = None,
    ) -> Any:
        """All conditions together, in the engine's own language."""
        check_filters(filters)
        ids = None if node_ids is None else to_index_ids(node_ids)
        if self.index.engine == "milvus":
            from gte_integrations._llama_index_milvus_filters import milvus_filter

            return milvus_filter(filters, ids, given)
        from gte_integrations._llama_index_qdrant_filters import qdrant_filter

        return qdrant_filter(filters, ids, given)


def _vectors_of(query: VectorStoreQuery) -> HybridEmbeddings:
    """The query's own vector, which is dense, of a query without a text."""
    if query.query_embedding is None or _MODES[query.mode] != "dense":
        raise ValueError(
            f"query_str is None, but the index encodes queries by itself in the mode {query.mode}; "
            "pass the text, VectorStoreQuery(query_str=...). Without it, the modes 'default' and "
            "'mmr' search by a query_embedding."
        )
    return one_query("query_embedding", query.query_embedding)


def _limit_of(query: VectorStoreQuery) -> int:
    limit = query.similarity_top_k
    if query.mode == VectorStoreQueryMode.HYBRID:
        return query.hybrid_top_k or limit
    if query.mode == VectorStoreQueryMode.SPARSE:
        return query.sparse_top_k or limit
    if query.mode == VectorStoreQueryMode.MMR:
        return max(limit, min(_GATHERED * limit, MAX_DEPTH))
    return limit


def _listed(nodes: Sequence[BaseNode]) -> list[BaseNode]:
    """The nodes, to be read more than once; ``TypeError`` for what is none."""
    listed = list(nodes)
    for node in listed:
        if not isinstance(node, BaseNode):
            raise TypeError(
                f"nodes holds {node!r:.50}, a {type(node).__name__}, but must be a list of nodes, "
                'such as TextNode(text="...").'
            )
    return listed


def _of_documents(ref_doc_ids: list[str]) -> MetadataFilters:
    for ref_doc_id in ref_doc_ids:
        if not isinstance(ref_doc_id, str):
            raise TypeError(
                f"The id of a document is {ref_doc_id!r}, a {type(ref_doc_id).__name__}, but must "
                "be a str."
            )
    chosen = MetadataFilter(key="ref_doc_id", value=ref_doc_ids, operator=FilterOperator.IN)
    return MetadataFilters(filters=[chosen])


def _check_diverse(query: VectorStoreQuery, options: dict[str, Any]) -> None:
    if query.mmr_threshold is not None:
        ends = "0 (diversity alone) to 1 (relevance alone)"
        check_share("mmr_threshold", query.mmr_threshold, ends)
    if "mode" in options:
        raise ValueError(
            f"mode is {options['mode']!r}, but maximal marginal relevance goes by the cosine of "
            "dense vectors; leave mode out, or vector_store_query_mode."
        )


def _diverse(query: VectorStoreQuery, hits: list[Hit], stored: list[StoredDocument]) -> list[Hit]:
    threshold = 0.5 if query.mmr_threshold is None else query.mmr_threshold
    return most_diverse(hits, stored, query.similarity_top_k, threshold)


def _as_result(hits: list[Hit]) -> VectorStoreQueryResult:
    nodes = list(map(_as_node, hits))
    return VectorStoreQueryResult(
        nodes=nodes,
        similarities=list(map(score_of, hits)),
        ids=[node.node_id for node in nodes],
    )


def _as_document(node: BaseNode) -> tuple[Any, ...]:
    """What an index adds: the text to embed, and the node whole beside its metadata."""
    [document_id] = to_index_ids([node.node_id])
    text = node.get_content(metadata_mode=MetadataMode.EMBED)
    payload = to_payload(node_to_metadata_dict(node))
    payload[_NODE] = LONE_SURROGATE.sub("\ufffd", payload[_NODE])  # as the text beside it
    # To a filter, nothing and no list are what is missing, and Milvus knows no empty lists.
    kept = {key: value for key, value in payload.items() if value is not None and value != []}
    return document_id, text, kept


def _as_node(found: Hit | StoredDocument) -> BaseNode:
    metadata = from_payload(found.payload)
    if _NODE in metadata:
        return metadata_dict_to_node(metadata)
    return TextNode(id_=from_index_id(found.id), text=found.text, metadata=metadata)
