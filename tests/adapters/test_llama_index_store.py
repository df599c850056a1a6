import pickle

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from llama_index.core import Document, StorageContext, VectorStoreIndex
from llama_index.core.ingestion import IngestionPipeline
from llama_index.core.schema import (
    ImageNode,
    IndexNode,
    MetadataMode,
    NodeRelationship,
    RelatedNodeInfo,
    TextNode,
)
from llama_index.core.vector_stores import MetadataFilter, MetadataFilters
from llama_index.core.vector_stores.types import (
    BasePydanticVectorStore,
    FilterCondition,
    FilterOperator,
    VectorStoreQuery,
    VectorStoreQueryMode,
)
from llama_index.core.vector_stores.utils import build_metadata_filter_fn
from pydantic import ValidationError
from qdrant_client import AsyncQdrantClient, QdrantClient

from gte_core import MissingHeadError
from gte_integrations.llama_index import GTEEmbedding, GTEVectorStore
from gte_integrations.milvus import MilvusHybridIndex
from gte_integrations.qdrant import QdrantHybridIndex

on_one_engine = pytest.mark.parametrize("place", ["memory"], indirect=True)
TEXTS = ["wind and rain", "rain and snow", "snow and ice", "ice and fire"]
EQ, NE, GT, GTE, LT, LTE = (FilterOperator(sign) for sign in ("==", "!=", ">", ">=", "<", "<="))
IN, NIN, ANY, ALL = (FilterOperator(name) for name in ("in", "nin", "any", "all"))
CONTAINS, EMPTY = FilterOperator.CONTAINS, FilterOperator.IS_EMPTY


def node(text, name, source=None, /, **metadata):
    relationships = {}
    if source is not None:
        relationships[NodeRelationship.SOURCE] = RelatedNodeInfo(node_id=source)
    return TextNode(text=text, id_=name, metadata=metadata, relationships=relationships)


def where(key, operator, value):
    return MetadataFilters(filters=[MetadataFilter(key=key, value=value, operator=operator)])


@pytest.fixture
def store(index):
    return GTEVectorStore(index=index)


@pytest.fixture
def filled(store):
    nodes = [node(text, "abcd"[n], f"doc{n // 2}", n=n) for n, text in enumerate(TEXTS)]
    assert store.add(nodes) == ["a", "b", "c", "d"]
    return store


def ids(nodes):
    return [node.node_id for node in nodes]


def query(text="snow and ice", **options):
    return VectorStoreQuery(query_str=text, **{"similarity_top_k": 2} | options)


@on_one_engine
def test_it_is_what_llama_index_takes_for_a_vector_store(store, index):
    assert isinstance(store, BasePydanticVectorStore)
    assert (store.stores_text, store.client, store.class_name()) == (True, index, "GTEVectorStore")
    assert "index" not in store.to_dict()
    assert f"index={index!r}" in repr(store)
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        GTEVectorStore(index=index, collection="docs")


def test_nodes_come_back_whole(store):
    nodes = [
        node("wind", "a", "doc", id=1, text="t", deep={"x": [1, None]}, none=None, tags=[]),
        IndexNode(text="rain", id_="b", index_id="other", metadata={"lang": "en"}),
        ImageNode(text="snow", id_="c", image_url="https://example.org/snow.png"),
        node("ice", "d", metadata_id="x"),
        TextNode(text="fire", id_="int:5", start_char_idx=3, text_template="{content}!"),
    ]
    nodes[0].excluded_embed_metadata_keys = ["deep", "none"]
    store.add(nodes)
    found = store.get_nodes(["a", "b", "c", "d", "int:5", "gone"])
    assert [type(one) for one in found[:3]] == [TextNode, IndexNode, ImageNode]
    assert [one.to_dict() for one in found] == [one.to_dict() for one in nodes]


@on_one_engine
def test_the_model_reads_what_llama_index_embeds(store, encoder):
    written = node("wind", "a", title="Weather", secret="no")
    written.excluded_embed_metadata_keys = ["secret"]
    store.add([written])
    assert encoder.texts == [written.get_content(MetadataMode.EMBED)]
    assert "Weather" in encoder.texts[0]
    assert "no" not in encoder.texts[0].split()


@on_one_engine
def test_documents_of_the_index_are_nodes(index, store):
    index.add([("a", "wind", {"lang": "en"}), (7, "rain")])
    [found] = store.get_nodes(["a"])
    assert (found.text, found.metadata) == ("wind", {"lang": "en"})
    assert sorted(ids(store.get_nodes())) == ["a", "int:7"]
    store.delete_nodes(["int:7"])
    assert index.count() == 1


@on_one_engine
def test_nodes_may_come_one_by_one(store):
    assert store.add(node(text, text) for text in TEXTS[:2]) == TEXTS[:2]
    with pytest.raises(TypeError, match="nodes holds 'wind', a str, but must be a list of nodes"):
        store.add(["wind"])
    assert store.index.count() == 2


@on_one_engine
def test_half_of_a_surrogate_pair_in_a_text_is_read_as_the_model_does(store):
    store.add([node("wind \ud800", "a")])
    assert store.get_nodes(["a"])[0].text == "wind \ufffd"


@pytest.mark.parametrize("place", ["edge", "milvus"], indirect=True)
def test_it_cannot_be_pickled_and_stays_whole(filled):
    with pytest.raises(TypeError, match="holds an open index, which cannot be pickled; open"):
        pickle.dumps(filled)
    assert len(filled.get_nodes()) == 4


def test_an_index_is_what_it_is_over():
    with pytest.raises(TypeError, match="index is a str, but must be a QdrantHybridIndex or a"):
        GTEVectorStore(index="docs")


@on_one_engine
@pytest.mark.parametrize(
    ("mode", "engine_mode"),
    [("default", "dense"), ("sparse", "sparse"), ("text_search", "sparse"), ("hybrid", "hybrid")],
)
async def test_modes(index, filled, mode, engine_mode):
    found = filled.query(query("rain", similarity_top_k=3, mode=VectorStoreQueryMode(mode)))
    [hits] = index.search(["rain"], limit=3, mode=engine_mode)
    assert (found.ids, found.similarities) == ([h.id for h in hits], [h.score for h in hits])
    assert ids(found.nodes) == found.ids
    again = await filled.aquery(query("rain", similarity_top_k=3, mode=VectorStoreQueryMode(mode)))
    assert again.ids == found.ids


@on_one_engine
def test_alpha_weighs_ranks(filled):
    hybrid = {"mode": VectorStoreQueryMode.HYBRID, "similarity_top_k": 4}
    dense = filled.query(query("rain", similarity_top_k=4))
    sparse = filled.query(query("rain", similarity_top_k=4, mode=VectorStoreQueryMode.SPARSE))
    assert filled.query(query("rain", alpha=1.0, **hybrid)).ids == dense.ids
    by_words = filled.query(query("rain", alpha=0.0, **hybrid)).ids
    assert by_words[: len(sparse.ids)] == sparse.ids
    assert len(filled.query(query("rain", hybrid_top_k=1, **hybrid)).ids) == 1
    with pytest.raises(ValueError, match=r"alpha is 2.0, but must be from 0 \(sparse\) to 1"):
        filled.query(query(alpha=2.0, **hybrid))


async def test_maximal_marginal_relevance(store):
    texts = ["wind wind", "wind wind wind", "wind rain", "snow"]
    store.add([node(text, text) for text in texts])
    mode = VectorStoreQueryMode.MMR
    found = store.query(query("wind", mode=mode, mmr_threshold=0.3))
    assert found.ids[0] in texts[:2]
    assert found.ids[1] not in texts[:2]
    assert (await store.aquery(query("wind", mode=mode, mmr_threshold=0.3))).ids == found.ids
    alike = store.query(query("wind", mode=mode, mmr_threshold=1.0))
    assert sorted(alike.ids) == texts[:2]
    assert len(store.query(query("wind", mode=mode, similarity_top_k=5000)).ids) == 4
    with pytest.raises(ValueError, match="mmr_threshold is 7, but must be from 0"):
        store.query(query(mode=mode, mmr_threshold=7))
    with pytest.raises(ValueError, match="mode is 'sparse', but maximal marginal relevance goes"):
        store.query(query(mode=mode), mode="sparse")


@on_one_engine
def test_what_a_query_must_have(filled):
    with pytest.raises(ValueError, match="query_str is None, but the index encodes queries"):
        filled.query(VectorStoreQuery())
    with pytest.raises(ValueError, match="embeddings has dense vectors of 1 comp"):
        filled.query(VectorStoreQuery(query_embedding=[0.5]))
    with pytest.raises(ValueError, match="must be one of 'default', 'mmr', 'sparse'"):
        filled.query(query(mode=VectorStoreQueryMode.SVM))
    with pytest.raises(TypeError, match="fetch"):
        filled.query(query(), fetch=3)


async def test_filters_of_all_kinds_come_together(place, filled):
    few = {"similarity_top_k": 9, "filters": where("n", LT, 3)}
    assert sorted(filled.query(query(**few)).ids) == ["a", "b", "c"]
    assert sorted(filled.query(query(doc_ids=["doc0"], **few)).ids) == ["a", "b"]
    assert sorted(filled.query(query(node_ids=["b", "d"], **few)).ids) == ["b"]
    assert len(filled.query(query(node_ids=[], doc_ids=[], **few)).ids) == 3
    filled.index.add([("e", "sleet", {"n": 1, "lang": "en"})])
    english = place.filter("lang", "en")
    assert filled.query(query(similarity_top_k=9), filter=english).ids == ["e"]
    assert sorted(ids(filled.get_nodes(filters=where("n", GTE, 2)))) == ["c", "d"]
    assert ids(await filled.aget_nodes(["a", "c"], where("n", GTE, 2))) == ["c"]


async def test_deleting(filled):
    filled.delete("doc0")
    assert sorted(ids(filled.get_nodes())) == ["c", "d"]
    await filled.async_add([node("hail", "e", "doc2"), node("fog", "f", "doc3")])
    await filled.adelete("doc1")
    assert sorted(ids(await filled.aget_nodes())) == ["e", "f"]
    filled.delete_nodes(["e", "f"], where("ref_doc_id", EQ, "doc2"))
    assert ids(await filled.aget_nodes(["f", "e"])) == ["f"]
    await filled.adelete_nodes(["f"])
    assert filled.get_nodes() == []
    filled.add([node("wind", "a")])
    with pytest.raises(TypeError, match="neither of ids and filter"):
        filled.delete_nodes()
    for nothing in ([], [MetadataFilters(filters=[], condition="not")]):
        with pytest.raises(ValueError, match="filters hold no condition, so every node would be"):
            filled.delete_nodes(filters=MetadataFilters(filters=nothing))
    with pytest.raises(TypeError, match="ids is 'abc', a single str"):
        await filled.adelete_nodes("abc", where("ref_doc_id", EQ, "None"))
    with pytest.raises(TypeError, match="id of a document is None, a NoneType, but must be a str"):
        filled.delete(None)
    assert ids(filled.get_nodes()) == ["a"]


async def test_clearing(filled):
    filled.clear()
    assert filled.get_nodes() == []
    filled.add([node("wind", "a")])
    await filled.aclear()
    assert filled.get_nodes() == []


async def test_over_an_async_client(encoder):
    client = AsyncQdrantClient(":memory:")
    store = GTEVectorStore(index=QdrantHybridIndex(client, "docs", encoder))
    await store.index.acreate()
    await store.async_add([node(text, text, "doc", n=n) for n, text in enumerate(TEXTS)])
    found = await store.aquery(query(filters=where("n", LT, 3)))
    assert found.ids[0] == "snow and ice"
    assert len(await store.aget_nodes(filters=where("n", LT, 3))) == 3
    await store.adelete("doc")
    assert await store.aget_nodes() == []
    await client.close()


# ------------------------------------------------------------------ filters

METADATA = [
    {},
    {"lang": "en", "n": 1, "f": 1.5},
    {"lang": "de", "n": 2.0, "tags": ["a", "b"]},
    {"lang": "", "n": 3, "tags": ["b"], "id": "x"},
    {"lang": 'q"uo\\te', "n": None, "tags": []},
    {"lang": "lit'q\nnl é", "f": -0.25, "tags": ["a", "c"], "a.b": "x", "in": "kw", "a b": 5},
    {"n": 2**53 + 1, "nums": [1, 2], "lang": "English, and more"},
]
LANGUAGES = sorted({str(one["lang"]) for one in METADATA if "lang" in one} | {"fr"})
NUMBERS = [-1, 0.5, 1, 1.5, 2, 2.0, 3, 2**53 + 1]


def conditions():
    def of(keys, operators, values):
        return st.builds(
            lambda key, operator, value: MetadataFilter(key=key, operator=operator, value=value),
            st.sampled_from(keys),
            st.sampled_from(operators),
            values,
        )

    texts, numbers = st.sampled_from(LANGUAGES), st.sampled_from(NUMBERS)
    tags = st.sampled_from("abcd")
    return st.one_of(
        of(["lang", "a.b", "in", "id", "gone"], [EQ, NE], texts | st.sampled_from(["x", "kw"])),
        of(["lang", "gone"], [IN, NIN], st.lists(texts, max_size=3)),
        of(["n", "f", "a b", "gone"], [EQ, NE], numbers),
        of(["n", "f", "a b", "gone"], [GT, GTE, LT, LTE], st.sampled_from(NUMBERS[:-1])),
        of(["n", "f"], [IN, NIN], st.lists(st.sampled_from([1, 2, 3, 2**53 + 1]), max_size=3)),
        of(["tags", "gone"], [ANY], st.lists(tags, max_size=2)),
        of(["tags", "gone"], [ALL], st.lists(tags, min_size=1, max_size=2)),
        of(["tags", "gone"], [CONTAINS], tags),
        of(["nums"], [CONTAINS], st.sampled_from([1, 3])),
        of(["lang", "n", "tags", "gone"], [EMPTY], st.none()),
    )


def meets(metadata, filters):
    """What LlamaIndex' own store says, which takes no nested filters."""
    if isinstance(filters, MetadataFilter):
        alone = MetadataFilters(filters=[filters])
        return build_metadata_filter_fn(lambda _: metadata, alone)("")
    parts = [meets(metadata, part) for part in filters.filters]
    if filters.condition == FilterCondition.NOT:
        return not any(parts)
    return any(parts) if filters.condition == FilterCondition.OR else all(parts)


@pytest.fixture(scope="module")
def stores(tmp_path_factory, make_encoder):
    places = [
        (QdrantHybridIndex, tmp_path_factory.mktemp("qdrant")),
        (QdrantHybridIndex, QdrantClient(":memory:")),
        (MilvusHybridIndex, tmp_path_factory.mktemp("milvus") / "x.db"),
    ]
    opened = [kind(place, "docs", make_encoder()) for kind, place in places]
    stores = [GTEVectorStore(index=index) for index in opened]
    for store in stores:
        store.index.create()
        store.add([node(f"text {n}", str(n), **given) for n, given in enumerate(METADATA)])
    yield stores
    for index in opened:
        index.close()
    places[1][1].close()


def found_by(store, filters):
    return sorted(store.query(query("text", similarity_top_k=20, filters=filters)).ids)


@given(
    st.builds(
        lambda filters, condition: MetadataFilters(filters=filters, condition=condition),
        st.lists(
            conditions()
            | st.builds(
                lambda filters, condition: MetadataFilters(filters=filters, condition=condition),
                st.lists(conditions(), min_size=1, max_size=2),
                st.sampled_from(FilterCondition),
            ),
            min_size=1,
            max_size=3,
        ),
        st.sampled_from(FilterCondition),
    )
)
@settings(max_examples=60)
def test_filters_mean_what_llama_index_says(stores, filters):
    expected = [str(n) for n, metadata in enumerate(METADATA) if meets(metadata, filters)]
    for store in stores:
        assert found_by(store, filters) == expected, store.index.engine


def test_no_filters_are_no_condition(stores):
    for store in stores:
        assert len(found_by(store, MetadataFilters(filters=[]))) == len(METADATA)


ODD = ["a b", "é", 'q"uo', "a.b", "in"]


def test_odd_keys_and_texts_in_filters(make_place, tmp_path, encoder):
    controls = "\0\t\n\x1f\x7f\\u0001"
    for engine in ("edge", "memory", "milvus"):
        place = make_place(engine, tmp_path)
        store = GTEVectorStore(index=place.open(encoder))
        store.index.create()
        odd = dict.fromkeys(ODD, controls)
        store.add([node("x", "1", **odd), node("x", "2", **{key: [controls] for key in ODD})])
        for key in ODD:
            if engine == "milvus":
                assert found_by(store, where(key, IN, ["z", controls])) == ["1"]
                assert found_by(store, where(key, NIN, [controls])) == ["2"]
            elif '"' in key:
                with pytest.raises(ValueError, match="it finds no key with a quotation mark"):
                    found_by(store, where(key, EQ, controls))
            else:
                assert found_by(store, where(key, IN, ["z", controls])) == ["1", "2"]
        place.close()


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("\ud800", "holds half of a surrogate pair"),
        (float("inf"), "numbers must be finite"),
        (2**63, "integers must have 64 bits at most"),
    ],
)
def test_what_no_document_has_is_no_value(stores, value, message):
    for store in stores:
        with pytest.raises(ValueError, match=message):
            found_by(store, where("n", EQ, value))


def test_numbers_below_zero_are_items_too(stores):
    for store in stores:
        assert found_by(store, where("nums", CONTAINS, -1)) == []


def test_filters_must_be_filters(stores):
    for store in stores:
        with pytest.raises(TypeError, match=r"filters is a list, but must be MetadataFilters\("):
            store.get_nodes(filters=where("n", EQ, 1).filters)
        with pytest.raises(TypeError, match=r"filter is a dict, but .*must be a"):
            store.query(query(filters=where("n", EQ, 1)), filter={"n": 1})


def test_texts_are_compared_by_milvus_alone(stores):
    for store in stores:
        within, after = where("lang", "text_match", "glis"), where("lang", GT, "en")
        if store.index.engine == "milvus":
            assert found_by(store, within) == ["6"]
            assert found_by(store, after) == ["4", "5"]
            with pytest.raises(ValueError, match="cannot be put to Milvus: %, _ and a backslash"):
                found_by(store, where("lang", "text_match", "50%"))
        else:
            with pytest.raises(ValueError, match="cannot be put to Qdrant: it finds words"):
                found_by(store, within)
            with pytest.raises(ValueError, match="cannot be put to Qdrant: it orders numbers"):
                found_by(store, after)
        with pytest.raises(ValueError, match="'text_match_insensitive' 'EN' cannot be put to"):
            found_by(store, where("lang", "text_match_insensitive", "EN"))


@pytest.mark.parametrize(
    ("operator", "value", "allowed"),
    [("==", ["en"], "a single"), ("in", "en", "a list"), ("all", [], "at least one")],
)
def test_a_value_must_fit_its_operator(stores, operator, value, allowed):
    for store in stores:
        with pytest.raises(ValueError, match=f"'lang' '{operator}' has the value.*{allowed}"):
            found_by(store, where("lang", operator, value))


# ------------------------------------------------------------------ in LlamaIndex


@pytest.mark.parametrize("engine", ["edge", "milvus"])
async def test_a_vector_store_index_at_one_pass_a_text(engine, make_place, tmp_path, encoded):
    place = make_place(engine, tmp_path)
    with place.open("demo") as index:
        index.create()
        store = GTEVectorStore(index=index)
        documents = [
            Document(text=text, id_=f"doc{n}", metadata={"n": n}) for n, text in enumerate(TEXTS)
        ]
        embedding = GTEEmbedding(model_name="demo")
        nodes = VectorStoreIndex.from_documents(
            documents,
            storage_context=StorageContext.from_defaults(vector_store=store),
            embed_model=embedding,
        )
        read = [text for texts in encoded for text in texts]
        assert sorted(read) == sorted(d.get_content(MetadataMode.EMBED) for d in documents)
        encoded.clear()
        retriever = nodes.as_retriever(
            similarity_top_k=2, vector_store_query_mode="hybrid", filters=where("n", GT, 1)
        )
        found = retriever.retrieve("snow and ice")
        assert [one.node.ref_doc_id for one in found] == ["doc2", "doc3"]
        assert ids(await retriever.aretrieve("snow and ice")) == ids(found)
        assert encoded == [["snow and ice"]]
        nodes.delete_ref_doc("doc2")
        opened = VectorStoreIndex.from_vector_store(store, embed_model=embedding)
        assert {one.text for one in opened.as_retriever(similarity_top_k=9).retrieve("snow")} == {
            text for text in TEXTS if text != "snow and ice"
        }


@on_one_engine
def test_an_ingestion_pipeline_writes_to_it(store, encoder):
    pipeline = IngestionPipeline(
        transformations=[GTEEmbedding(encoder=encoder)], vector_store=store, disable_cache=True
    )
    pipeline.run(documents=[Document(text=text) for text in TEXTS])
    assert {one.text for one in store.get_nodes()} == set(TEXTS)


async def test_where_there_are_no_dense_vectors_the_default_is_sparse(place, make_encoder):
    encoder = make_encoder(has_dense=False)
    index = place.open(encoder)
    index.create()
    store = GTEVectorStore(index=index)
    store.add([node(text, "abcd"[n], n=n) for n, text in enumerate(TEXTS)])
    for options in ({}, {"mode": VectorStoreQueryMode.SPARSE}):
        assert store.query(query("n: 3 fire", **options)).ids[0] == "d"
        assert (await store.aquery(query("n: 3 fire", **options))).ids[0] == "d"
    for mode in (VectorStoreQueryMode.MMR, VectorStoreQueryMode.HYBRID):
        with pytest.raises(MissingHeadError, match='hash gives none; search with mode="sparse"'):
            store.query(query(mode=mode))
    embedding = GTEEmbedding(encoder=encoder)
    nodes = VectorStoreIndex.from_vector_store(store, embed_model=embedding)
    assert ids(nodes.as_retriever(similarity_top_k=1).retrieve("n: 3 fire")) == ["d"]
    with pytest.raises(MissingHeadError, match="'hash' has no dense vectors"):
        nodes.insert(Document(text="rain"))


@pytest.mark.parametrize("mode", [VectorStoreQueryMode.DEFAULT, VectorStoreQueryMode.MMR])
async def test_a_query_without_a_text_goes_by_its_embedding(filled, mode):
    [vector] = filled.index.vectorizer.encoder.encode_dense(["oak"], role="query").tolist()
    expected = filled.query(VectorStoreQuery(query_str="oak", mode=mode, similarity_top_k=2))
    query = VectorStoreQuery(query_embedding=vector, mode=mode, similarity_top_k=2)
    for found in (filled.query(query), await filled.aquery(query)):
        assert found.ids == expected.ids
    sparse = VectorStoreQuery(query_embedding=vector, mode=VectorStoreQueryMode.SPARSE)
    with pytest.raises(ValueError, match="Without it, the modes 'default' and 'mmr' search by"):
        filled.query(sparse)
