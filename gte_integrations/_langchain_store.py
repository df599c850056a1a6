"""LangChain's vector store over a hybrid index; ``gte_integrations.langchain`` shows it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal
from uuid import uuid4

from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.runnables import run_in_executor
from langchain_core.vectorstores import VectorStore

from gte_integrations._index.checks import check_count, check_ids
from gte_integrations._index.rows import plain
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
    from gte_integrations._index.index import HybridIndex
    from gte_integrations._index.records import StoredDocument
    from gte_integrations._index.search import Hit
    from gte_integrations.langchain import GTEEmbeddings
    from gte_integrations.milvus import MilvusHybridIndex
    from gte_integrations.qdrant import QdrantHybridIndex


class GTEVectorStore(VectorStore):
    """A ``QdrantHybridIndex`` or ``MilvusHybridIndex`` as LangChain's vector store.

    It searches by all vectors that the collection has, unless ``mode`` says otherwise. The options
    of a search are those of ``index.search``: ``filter`` in the engine's own language, ``mode``,
    ``fusion``, ``candidates`` and so on; those of adding are those of ``index.add``. All else is
    refused.

    An id is a string here, and ``"int:1"`` the integer 1 of the index. A metadata key that an
    index takes for itself, such as ``id``, is stored, and filtered by, as ``metadata_id``. Dates in
    metadata become texts in ISO 8601, and NaN None. A text of white space alone is not stored.

    Args:
        index: made by its ``create``, or by ``from_texts``.
    """

    def __init__(self, index: HybridIndex[Any]) -> None:
        self.index = check_index(index)

    def __repr__(self) -> str:
        return f"GTEVectorStore({self.index!r})"

    @classmethod
    def from_texts(  # type: ignore[override]  # a place is needed
        cls,
        texts: list[str],
        embedding: Embeddings,
        metadatas: list[dict[str, Any]] | None = None,
        *,
        location: Any,
        collection: str,
        engine: Literal["qdrant", "milvus"] = "qdrant",
        ids: list[str] | None = None,
        **index_options: Any,
    ) -> GTEVectorStore:
        """A store with these texts, in a collection that is made if it is not there.

        Args:
            texts: what is added.
            embedding: the model, and the size of the dense vectors.
            metadatas: one for each text.
            location: as of an index: a directory, a file ``"./name.db"`` of Milvus Lite, a URL, or
                a client.
            collection: its name.
            engine: whose index it is.
            ids: one for each text; made up where there is none.
            index_options: further arguments of the index, such as ``storage``.
        """
        store = cls._opened(embedding, engine, location, collection, index_options)
        with _closed_on_error(store.index):
            store.index.create()
            store.add_texts(texts, metadatas, ids=ids)
        return store

    @classmethod
    async def afrom_texts(  # type: ignore[override]  # a place is needed
        cls,
        texts: list[str],
        embedding: Embeddings,
        metadatas: list[dict[str, Any]] | None = None,
        *,
        location: Any,
        collection: str,
        engine: Literal["qdrant", "milvus"] = "qdrant",
        ids: list[str] | None = None,
        **index_options: Any,
    ) -> GTEVectorStore:
        """``from_texts`` off the event loop."""
        store = await run_in_executor(
            None, cls._opened, embedding, engine, location, collection, index_options
        )
        with _closed_on_error(store.index):
            await store.index.acreate()
            await store.aadd_texts(texts, metadatas, ids=ids)
        return store

    @classmethod
    def from_documents(
        cls, documents: Iterable[Document], embedding: Embeddings, **options: Any
    ) -> GTEVectorStore:
        """``from_texts`` with the texts, metadata and ids of documents."""
        return super().from_documents(_listed(documents), embedding, **options)

    @classmethod
    async def afrom_documents(
        cls, documents: Iterable[Document], embedding: Embeddings, **options: Any
    ) -> GTEVectorStore:
        """``from_documents`` off the event loop."""
        return await super().afrom_documents(_listed(documents), embedding, **options)

    @classmethod
    def _opened(
        cls,
        embedding: Embeddings,
        engine: str,
        location: Any,
        collection: str,
        options: dict[str, Any],
    ) -> GTEVectorStore:
        from gte_integrations.langchain import GTEEmbeddings

        if not isinstance(embedding, GTEEmbeddings):
            raise TypeError(
                f"embedding is a {type(embedding).__name__}, but must be a GTEEmbeddings, whose "
                "model gives an index both its vectors; GTEEmbeddings(encoder=...) takes another."
            )
        options = {"dimensions": embedding.dimensions} | options
        return cls(_index_class(engine)(location, collection, embedding.encoder, **options))

    @cached_property
    def embeddings(self) -> GTEEmbeddings:
        """The index's own encoder and size."""
        from gte_integrations.langchain import GTEEmbeddings

        vectorizer = self.index.vectorizer
        size = vectorizer.dimensions or None  # there may be no dense vectors
        return GTEEmbeddings(encoder=vectorizer.encoder, dimensions=size)

    def add_texts(
        self,
        texts: Iterable[str],
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: list[str] | None = None,
        **options: Any,
    ) -> list[str]:
        """Add texts, or replace those with the same ids; return an id for each.

        An id that is not given, or None, is made up: texts without ids are added once more by each
        call, also by one that is repeated after an error. What is left out, as by
        ``on_error="skip"``, has an id too.
        """
        given, rows = _rows(texts, metadatas, ids)
        self.index.add(rows, **options)
        return given

    async def aadd_texts(
        self,
        texts: Iterable[str],
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: list[str] | None = None,
        **options: Any,
    ) -> list[str]:
        """``add_texts`` off the event loop."""
        given, rows = await run_in_executor(None, _rows, texts, metadatas, ids)
        await self.index.aadd(rows, **options)
        return given

    def add_documents(self, documents: Iterable[Document], **options: Any) -> list[str]:
        """``add_texts`` with the texts, metadata and ids of documents."""
        return super().add_documents(_listed(documents), **options)

    async def aadd_documents(self, documents: Iterable[Document], **options: Any) -> list[str]:
        """``add_documents`` off the event loop."""
        return await super().aadd_documents(_listed(documents), **options)

    def delete(self, ids: list[str] | None = None, **options: Any) -> bool:
        """Remove documents by their ids, those there are, or all that match ``filter=``.

        ``TypeError`` for neither and for both.
        """
        self.index.delete(None if ids is None else to_index_ids(ids), **options)
        return True

    async def adelete(self, ids: list[str] | None = None, **options: Any) -> bool:
        """``delete`` off the event loop."""
        await self.index.adelete(None if ids is None else to_index_ids(ids), **options)
        return True

    def get_by_ids(self, ids: Sequence[str], /) -> list[Document]:
        """Documents in the order of the ids, each once; those that are not there are left out."""
        return [_as_document(found) for found in self.index.get(to_index_ids(ids))]

    async def aget_by_ids(self, ids: Sequence[str], /) -> list[Document]:
        """``get_by_ids`` off the event loop."""
        return [_as_document(found) for found in await self.index.aget(to_index_ids(ids))]

    def similarity_search(self, query: str, k: int = 4, **options: Any) -> list[Document]:
        """The ``k`` best documents, best first."""
        return [found for found, _ in self.similarity_search_with_score(query, k, **options)]

    async def asimilarity_search(self, query: str, k: int = 4, **options: Any) -> list[Document]:
        """``similarity_search`` off the event loop."""
        found = await self.asimilarity_search_with_score(query, k, **options)
        return [document for document, _ in found]

    def similarity_search_with_score(
        self, query: str, k: int = 4, **options: Any
    ) -> list[tuple[Document, float]]:
        """The same with the scores that the ranking goes by; the higher, the better."""
        [hits] = self.index.search([query], **_limited(k, options))
        return [(_as_document(hit), score_of(hit)) for hit in hits]

    async def asimilarity_search_with_score(
        self, query: str, k: int = 4, **options: Any
    ) -> list[tuple[Document, float]]:
        """``similarity_search_with_score`` off the event loop."""
        [hits] = await self.index.asearch([query], **_limited(k, options))
        return [(_as_document(hit), score_of(hit)) for hit in hits]

    def similarity_search_by_vector(
        self, embedding: list[float], k: int = 4, **options: Any
    ) -> list[Document]:
        """The ``k`` best by a query's dense vector, as ``embeddings.embed_query`` gives it."""
        wanted = _limited(k, _dense(options))
        [hits] = self.index.search_vectors(one_query("embedding", embedding), **wanted)
        return list(map(_as_document, hits))

    async def asimilarity_search_by_vector(
        self, embedding: list[float], k: int = 4, **options: Any
    ) -> list[Document]:
        """``similarity_search_by_vector`` off the event loop."""
        wanted = _limited(k, _dense(options))
        [hits] = await self.index.asearch_vectors(one_query("embedding", embedding), **wanted)
        return list(map(_as_document, hits))

    def _similarity_search_with_relevance_scores(
        self, query: str, k: int = 4, **options: Any
    ) -> list[tuple[Document, float]]:
        """Of a dense search, whose cosines below 0 count as 0; hybrid scores have no upper end."""
        found = self.similarity_search_with_score(query, k, **_dense(options))
        return [(document, min(max(score, 0.0), 1.0)) for document, score in found]

    async def _asimilarity_search_with_relevance_scores(
        self, query: str, k: int = 4, **options: Any
    ) -> list[tuple[Document, float]]:
        found = await self.asimilarity_search_with_score(query, k, **_dense(options))
        return [(document, min(max(score, 0.0), 1.0)) for document, score in found]

    def max_marginal_relevance_search(
        self,
        query: str,
        k: int = 4,
        fetch_k: int = 20,
        lambda_mult: float = 0.5,
        **options: Any,
    ) -> list[Document]:
        """``k`` documents, relevant and unlike each other, of the ``fetch_k`` best by dense vector.

        ``lambda_mult`` is 1 for relevance alone and 0 for diversity alone. The vectors are those
        that are stored.
        """
        wanted = _diverse(k, fetch_k, lambda_mult, options)
        [hits] = self.index.search([query], **wanted)
        stored = self.index.get([hit.id for hit in hits], with_vectors=True)
        return [_as_document(hit) for hit in most_diverse(hits, stored, k, lambda_mult)]

    async def amax_marginal_relevance_search(
        self,
        query: str,
        k: int = 4,
        fetch_k: int = 20,
        lambda_mult: float = 0.5,
        **options: Any,
    ) -> list[Document]:
        """``max_marginal_relevance_search`` off the event loop."""
        wanted = _diverse(k, fetch_k, lambda_mult, options)
        [hits] = await self.index.asearch([query], **wanted)
        stored = await self.index.aget([hit.id for hit in hits], with_vectors=True)
        return [_as_document(hit) for hit in most_diverse(hits, stored, k, lambda_mult)]

    def max_marginal_relevance_search_by_vector(
        self,
        embedding: list[float],
        k: int = 4,
        fetch_k: int = 20,
        lambda_mult: float = 0.5,
        **options: Any,
    ) -> list[Document]:
        """``max_marginal_relevance_search`` by a query's dense vector."""
        wanted = _diverse(k, fetch_k, lambda_mult, options)
        [hits] = self.index.search_vectors(one_query("embedding", embedding), **wanted)
        stored = self.index.get([hit.id for hit in hits], with_vectors=True)
        return [_as_document(hit) for hit in most_diverse(hits, stored, k, lambda_mult)]

    async def amax_marginal_relevance_search_by_vector(
        self,
        embedding: list[float],
        k: int = 4,
        fetch_k: int = 20,
        lambda_mult: float = 0.5,
        **options: Any,
    ) -> list[Document]:
        """``max_marginal_relevance_search_by_vector`` off the event loop."""
        wanted = _diverse(k, fetch_k, lambda_mult, options)
        [hits] = await self.index.asearch_vectors(one_query("embedding", embedding), **wanted)
        stored = await self.index.aget([hit.id for hit in hits], with_vectors=True)
        return [_as_document(hit) for hit in most_diverse(hits, stored, k, lambda_mult)]


def _index_class(engine: str) -> type[QdrantHybridIndex | MilvusHybridIndex]:
    if engine == "qdrant":
        from gte_integrations.qdrant import QdrantHybridIndex

        return QdrantHybridIndex
    if engine == "milvus":
        from gte_integrations.milvus import MilvusHybridIndex

        return MilvusHybridIndex
    raise ValueError(f"engine is {engine!r}, but must be 'qdrant' or 'milvus'.")


@contextmanager
def _closed_on_error(index: HybridIndex[Any]) -> Iterator[None]:
    """Nobody else can close an index that was opened here and is not given away."""
    try:
        yield
    except BaseException:
        index.close()
        raise


def _listed(documents: Iterable[Document]) -> list[Document]:
    """The documents, which LangChain reads more than once; ``TypeError`` for what is none."""
    listed = list(documents)
    for document in listed:
        if not isinstance(document, Document):
            raise TypeError(
                f"documents holds {document!r:.50}, a {type(document).__name__}, but must be a "
                'list of Documents, such as Document(page_content="...").'
            )
    return listed


def _rows(
    texts: Iterable[str], metadatas: list[dict[str, Any]] | None, ids: Sequence[str | None] | None
) -> tuple[list[str], list[tuple[Any, ...]]]:
    """An id for each text, and what an index adds."""
    if isinstance(texts, str):
        raise TypeError(f"texts is {texts!r:.50}, a single str; wrap it in a list.")
    check_ids("ids", ids)
    texts = list(texts)
    for name, given in (("metadatas", metadatas), ("ids", ids)):
        if given and len(given) != len(texts):
            raise ValueError(
                f"There are {len(given)} {name} for {len(texts)} texts; give one for each text, or "
                "leave them out."
            )
    names = [str(uuid4()) if name is None else name for name in ids or [None] * len(texts)]
    payloads = list(map(_payload, metadatas or [{}] * len(texts)))
    return names, list(zip(to_index_ids(names), texts, payloads, strict=True))


def _payload(metadata: object) -> dict[str, Any]:
    """Metadata as an index stores it, in values that JSON has."""
    if not isinstance(metadata, Mapping):
        raise TypeError(
            f"The metadata of a text is {metadata!r:.50}, a {type(metadata).__name__}, but must be "
            "a dict, {} for none."
        )
    return to_payload(plain(metadata))


def _limited(k: int, options: dict[str, Any]) -> dict[str, Any]:
    """Arguments of ``index.search`` for ``k`` hits."""
    if "limit" in options:
        raise ValueError("limit is set by k; pass k instead.")
    return options | {"limit": k}


def _diverse(k: int, fetch_k: int, lambda_mult: float, options: dict[str, Any]) -> dict[str, Any]:
    """Arguments of the search among whose hits maximal marginal relevance chooses."""
    check_count("k", k)
    check_share("lambda_mult", lambda_mult, "0 (diversity alone) to 1 (relevance alone)")
    return _limited(max(fetch_k, k), _dense(options))


def _dense(options: dict[str, Any]) -> dict[str, Any]:
    """Options of a search whose scores are cosines."""
    for name in options.keys() & {"mode", "rerank"}:
        raise ValueError(
            f"{name} is {options[name]!r}, but this search goes by the cosine of dense vectors; "
            f"leave {name} out, or use similarity_search_with_score, which takes it."
        )
    return options | {"mode": "dense"}


def _as_document(found: Hit | StoredDocument) -> Document:
    """The document as it was added."""
    return Document(
        id=from_index_id(found.id), page_content=found.text, metadata=from_payload(found.payload)
    )
