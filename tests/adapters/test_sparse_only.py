"""Collections of a model without dense vectors, on every engine."""

import pytest

from gte_core import CollectionMismatch, HybridEmbeddings, MissingHeadError
from gte_integrations._index.recorded import RecordedEncoder

DOCUMENTS = [
    ("a", "oak pine", {"lang": "en"}),
    (2, "elm oak é", {"lang": "de"}),
    ("wordless", "!", {"lang": "en"}),
    *((f"n{number}", f"yew n{number} ash") for number in range(20)),
]
OF_DENSE = ("dimensions", "coarse_dimensions", "metric", "storage")


@pytest.fixture
def encoder(make_encoder):
    return make_encoder(has_dense=False, query_prefix="oak ")


@pytest.fixture
def index(place, encoder):
    index = place.open(encoder)
    index.create()
    assert index.add(DOCUMENTS).written == len(DOCUMENTS)
    return index


def test_it_is_searched_by_words_without_being_asked(index, encoder):
    encoder.calls.clear()
    [found, nothing] = index.search(["pine", "n7"], limit=3)
    assert encoder.calls == {"encode_sparse": 1}
    assert [hit.id for hit in found] == ["a", 2]
    assert nothing[0].id == "n7"
    [query] = encoder.encode_sparse("oak pine").toarray()
    for hit, text in zip(found, ("oak pine", "elm oak é"), strict=True):
        expected = float(encoder.encode_sparse(text).toarray()[0] @ query)
        assert hit.score == hit.sparse_score == pytest.approx(expected, abs=1e-5)
        assert hit.dense_score is None
    assert index.search(["pine", "n7"], limit=3, mode="sparse") == [found, nothing]
    assert [hit.id for hit in index.search("pine", group_by="lang")[0]] == ["a", 2]


def test_nothing_answers_a_query_without_words(place, make_encoder):
    index = place.open(make_encoder(has_dense=False))
    index.create()
    index.add(DOCUMENTS)
    assert index.search(["", "unknownword"]) == [[], []]


async def test_it_is_searched_by_vectors_that_are_there(index, encoder, make_encoder):
    expected = index.search(["pine", "n7"])
    encoder.calls.clear()
    queries = make_encoder(has_dense=False, query_prefix="oak ").encode_available(
        ["pine", "n7"], role="query"
    )
    assert index.search_vectors(queries) == expected
    assert await index.asearch_vectors(queries, mode="sparse") == expected
    assert not encoder.calls
    both = make_encoder(query_prefix="oak ").encode(["pine", "n7"], role="query")
    assert index.search_vectors(both) == expected
    with pytest.raises(MissingHeadError, match="mode='dense' needs dense vectors"):
        index.search_vectors(HybridEmbeddings.of_dense(both.dense))
    with pytest.raises(ValueError, match="mode is 'sparse', but embeddings has dense vectors alon"):
        index.search_vectors(HybridEmbeddings.of_dense(both.dense), mode="sparse")


def test_sparse_vectors_alone_search_any_collection_by_words(place, make_encoder):
    index = place.open(make_encoder())
    index.create()
    index.add(DOCUMENTS)
    queries = make_encoder(has_dense=False).encode_available("pine", role="query")
    assert index.search_vectors(queries) == index.search("pine", mode="sparse")
    with pytest.raises(ValueError, match="mode is 'hybrid', but embeddings has sparse vectors alo"):
        index.search_vectors(queries, mode="hybrid")


@pytest.mark.parametrize("mode", ["dense", "hybrid"])
def test_a_mode_that_needs_dense_vectors_is_refused(index, mode):
    message = f"mode='{mode}' needs dense vectors, but hash gives none; search with mode=\"sparse\""
    with pytest.raises(MissingHeadError, match=message):
        index.search("oak", mode=mode)


def test_documents_come_back_as_they_are_stored(index, encoder, place):
    [plain] = index.get(["a"])
    assert plain.dense is plain.token_ids is None
    [found, wordless] = index.get(["a", "wordless"], with_vectors=True)
    assert (found.text, found.payload) == ("oak pine", {"lang": "en"})
    assert (found.dense.shape, len(wordless.token_ids)) == ((0,), 0)
    row = encoder.encode_sparse("oak pine")
    assert found.token_ids.tolist() == row.indices.tolist()
    assert found.weights == pytest.approx(row.data)
    assert len(list(index.documents(with_vectors=True))) == len(DOCUMENTS)
    condition = place.filter("lang", "de")
    assert [one.id for one in index.documents(filter=condition)] == [2]
    assert [hit.id for hit in index.search("pine", filter=condition)[0]] == [2]


def test_a_score_is_explained_by_words_alone(index):
    [hit] = index.search("pine", limit=1)[0]
    explanation = index.explain("pine", hit.id)
    assert explanation.dense_score == 0
    assert explanation.sparse_score == pytest.approx(hit.score, abs=1e-5)
    assert len(explanation.tokens) == 2


def test_it_is_kept_like_any_other(place, index, encoder):
    index.optimize()
    index.close()
    index = place.open(encoder)
    index.create()
    assert index.add(DOCUMENTS).unchanged == len(DOCUMENTS)
    assert index.add([("a", "oak yew"), ("new", "pine")]).replaced == 1
    assert index.delete([2, "gone"]) == 1
    assert index.prune(["a", "new", "n7"]) == 20
    assert sorted(map(str, (one.id for one in index))) == ["a", "n7", "new"]
    assert [hit.id for hit in index.search("yew")[0]] == ["a", "n7"]
    index.drop()
    index.create()
    assert index.count() == 0


def test_an_origin_moves_without_encoding(place, encoder):
    from gte_integrations._index.document import Document

    index = place.open(encoder)
    index.create()
    index.add([Document("a", "oak", {"lang": "en"}, origin="here")])
    encoder.calls.clear()
    moved = [Document("a", "oak", {"lang": "en"}, origin="there")]
    assert index.add(moved, moved_from="here").unchanged == 1
    assert not encoder.calls
    assert index.get(["a"])[0].origin == "there"
    assert [hit.id for hit in index.search("")[0]] == ["a"]


def test_what_is_recorded(place, index, encoder):
    metadata = index.metadata()
    assert metadata == index.vectorizer.metadata()
    assert {key: metadata[key] for key in OF_DENSE} == dict.fromkeys(OF_DENSE)
    assert metadata["sparse"] is True
    assert "dimensions" not in repr(index.vectorizer)
    index.close()
    recorded = RecordedEncoder(
        place.index_type.read_metadata(place.location, f"{place.prefix}docs", **place.credentials)
    )
    assert (recorded.has_dense, recorded.has_sparse, recorded.dimensions) == (False, True, 0)
    with place.open(recorded) as again:
        assert again.count() == len(DOCUMENTS)
        assert again.prune(["a", 2]) == len(DOCUMENTS) - 2


def test_a_model_with_dense_vectors_does_not_fit_into_it(place, index, make_encoder):
    index.close()
    for other in (make_encoder(), make_encoder(has_sparse=False)):
        with pytest.raises(CollectionMismatch, match=r"dimensions: the collection has None, .* 32"):
            place.open(other).create()


def test_it_does_not_fit_into_a_collection_with_dense_vectors(place, encoder, make_encoder):
    for number, other in enumerate((make_encoder(), make_encoder(has_sparse=False))):
        index = place.open(other, f"docs{number}")
        index.create()
        index.close()
        with pytest.raises(CollectionMismatch, match=r"dimensions: the collection has 32, .* None"):
            place.open(encoder, f"docs{number}").create()


@pytest.mark.parametrize(
    "option", [{"dimensions": 8}, {"coarse_dimensions": 8}, {"storage": "float16"}]
)
def test_arguments_about_dense_vectors_are_refused(place, encoder, option):
    [(name, value)] = option.items()
    message = f"{name} is {value!r}, but hash gives sparse vectors alone; leave it out"
    with pytest.raises(ValueError, match=message):
        place.open(encoder, **option)


async def test_the_awaited_verbs(place, encoder):
    index = place.open(encoder)
    await index.acreate()
    await index.aadd(DOCUMENTS)
    assert [hit.id for hit in (await index.asearch("pine"))[0]] == ["a", 2]


def test_documents_move_to_a_model_with_other_vectors_and_back(place, index, make_encoder):
    both = place.open(make_encoder(), "both")
    both.create()
    assert index.reindex(to=both).written == len(DOCUMENTS)
    assert both.search("pine")[0][0].dense_score is not None
    words = place.open(make_encoder(has_dense=False), "words")
    words.create()
    assert both.reindex(to=words).written == len(DOCUMENTS)
    assert words.search("oak pine") == index.search("pine")
