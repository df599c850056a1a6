"""Collections whose dense and sparse vectors come from two models, on every engine."""

from dataclasses import replace

import pytest

from gte_core import CollectionMismatch, Fingerprint, PairedEncoder, shared_encoder
from gte_integrations._index.recorded import RecordedEncoder

DOCUMENTS = [("a", "oak pine"), ("b", "elm oak"), ("c", "yew")]
OTHER = Fingerprint("other", "1" * 40, 128, "int8")


@pytest.fixture
def pair(make_encoder):
    return PairedEncoder(
        dense=make_encoder(has_sparse=False, query_prefix="yew "),
        sparse=make_encoder(has_dense=False, fingerprint=OTHER),
    )


@pytest.fixture
def index(place, pair):
    index = place.open(pair)
    index.create()
    index.add(DOCUMENTS)
    return index


def test_both_halves_are_searched(index, pair):
    [hits] = index.search("oak")
    assert pair.dense.calls == {"encode_available": 2}
    assert pair.sparse.calls == {"encode_available": 2}
    assert hits == index.search("oak", mode="hybrid")[0]
    dense = pair.encode_dense("oak", role="query")[0]
    weights = pair.encode_sparse("oak", role="query").toarray()[0]
    for hit in hits:
        both = pair.encode(hit.text)
        assert hit.dense_score == pytest.approx(float(both.dense[0] @ dense), abs=1e-5)
        score = float(both.sparse.toarray()[0] @ weights)
        assert hit.sparse_score == (pytest.approx(score, abs=1e-5) if score else None)


def test_either_half_is_searched_alone(index, pair):
    pair.dense.calls.clear()
    pair.sparse.calls.clear()
    index.search("oak", mode="dense")
    index.search("oak", mode="sparse")
    assert (pair.dense.calls, pair.sparse.calls) == ({"encode_dense": 1}, {"encode_sparse": 1})


def test_both_models_are_recorded(place, index, pair):
    metadata = index.metadata()
    assert metadata == index.vectorizer.metadata()
    assert (metadata["model"], metadata["query_prefix"]) == ("hash", "yew ")
    assert [
        metadata[f"sparse_{key}"] for key in ("model", "revision", "max_length", "numeric")
    ] == [
        "other",
        "1" * 40,
        128,
        "int8",
    ]
    assert (metadata["sparse_name"], metadata["sparse_query_prefix"]) == ("other", "")
    assert RecordedEncoder(metadata).fingerprint == pair.fingerprint
    index.close()
    with place.open(shared_encoder(pair)) as again:
        assert again.vectorizer.metadata() == metadata
        assert again.add(DOCUMENTS).unchanged == 3
    with place.open(RecordedEncoder(metadata)) as again:
        assert again.count() == 3


def test_another_sparse_half_is_a_mismatch(place, index, pair, make_encoder):
    index.close()
    changed = replace(OTHER, max_length=64)
    other = PairedEncoder(dense=pair.dense, sparse=make_encoder(fingerprint=changed))
    with pytest.raises(
        CollectionMismatch, match=r"sparse_max_length: the collection has 128, .*64"
    ):
        place.open(other).create()


def test_a_pair_and_one_model_do_not_fit(place, index, pair, make_encoder):
    index.close()
    with pytest.raises(
        CollectionMismatch, match=r"sparse_model: the collection has 'other', .*None"
    ):
        place.open(make_encoder()).create()
    alone = place.open(make_encoder(), "alone")
    alone.create()
    assert not any(key.startswith("sparse_") for key in alone.metadata())
    alone.close()
    with pytest.raises(
        CollectionMismatch, match=r"sparse_model: the collection has None, .*'other'"
    ):
        place.open(pair, "alone").create()
