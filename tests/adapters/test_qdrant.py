"""What is Qdrant's own; what both indexes do is in test_index_contract.py."""

import json
import uuid

import numpy as np
import pytest

from gte_core import CollectionMismatch
from gte_integrations._index.qdrant.client import QdrantClient, edge, models
from gte_integrations._index.qdrant.points import point_id
from gte_integrations.qdrant import QdrantHybridIndex, QdrantVectorizer

DOCUMENTS = [("a", "oak pine", {"lang": "en"}), (2, "elm"), ("wordless", "!")]


@pytest.fixture
def client():
    client = QdrantClient(":memory:")
    yield client
    client.close()


def test_the_vectorizer_fills_a_collection_of_ones_own(client, encoder):
    vectorizer = QdrantVectorizer(encoder, dimensions=16)
    client.create_collection(
        "own",
        vectors_config=vectorizer.vectors_config(),
        sparse_vectors_config=vectorizer.sparse_vectors_config(),
    )
    client.upsert("own", vectorizer.points(DOCUMENTS))
    [searches] = vectorizer.prefetches("oak")
    found = client.query_points(
        "own", prefetch=searches, query=models.RrfQuery(rrf=models.Rrf(k=60)), limit=3
    )
    assert found.points[0].payload["_gte_id"] == "a"


def test_points_hold_the_vectors_the_id_and_the_payload(encoder):
    both = encoder.encode([text for _, text, *_ in DOCUMENTS])
    points = QdrantVectorizer(encoder).points(DOCUMENTS)
    np.testing.assert_array_equal(np.float32([p.vector["dense"] for p in points]), both.dense)
    assert points[0].vector["sparse"].indices == both.sparse[[0]].indices.tolist()
    assert points[0].payload.items() >= {"lang": "en", "text": "oak pine", "_gte_id": "a"}.items()
    assert points[1].payload["_gte_id"] == 2
    assert "sparse" not in points[2].vector


def test_prefetches_leave_out_what_finds_nothing(encoder, make_encoder):
    both, dense_only = QdrantVectorizer(encoder).prefetches(["oak", ""], candidates=7)
    assert [(search.using, search.limit) for search in both] == [("dense", 7), ("sparse", 7)]
    assert [search.using for search in dense_only] == ["dense"]
    [without_head] = QdrantVectorizer(make_encoder(has_sparse=False)).prefetches("oak")
    assert [search.using for search in without_head] == ["dense"]


def test_prefetches_are_nested_for_two_sizes(client, encoder):
    vectorizer = QdrantVectorizer(encoder, coarse_dimensions=8)
    [[dense, _]] = vectorizer.prefetches("oak", candidates=7)
    assert (dense.using, dense.prefetch.using, dense.prefetch.limit) == ("dense", "_gte_coarse", 28)
    client.create_collection(
        "own",
        vectors_config=vectorizer.vectors_config(),
        sparse_vectors_config=vectorizer.sparse_vectors_config(),
    )
    client.upsert("own", vectorizer.points(DOCUMENTS))
    found = client.query_points("own", prefetch=dense.prefetch, query=dense.query, using="dense")
    assert len(found.points) == 3


def test_a_model_without_a_sparse_head_has_no_sparse_configuration(make_encoder):
    vectorizer = QdrantVectorizer(make_encoder(has_sparse=False))
    assert vectorizer.sparse_vectors_config() == {}
    assert vectorizer.points([("a", "oak")])[0].vector.keys() == {"dense"}


def test_a_model_without_dense_vectors_has_no_dense_configuration(make_encoder):
    vectorizer = QdrantVectorizer(make_encoder(has_dense=False))
    assert vectorizer.vectors_config() == {}
    assert vectorizer.points([("a", "oak")])[0].vector.keys() == {"sparse"}
    prefetches = vectorizer.prefetches(["oak", ""])
    assert [[search.using for search in query] for query in prefetches] == [["sparse"], []]


def cuts_in_ties(encoder, texts, queries, depth):
    """For each kind, the rows of the queries whose best ``depth`` end between equal scores."""
    both, wanted = encoder.encode(texts), encoder.encode(queries)
    kinds = (wanted.dense @ both.dense.T, (wanted.sparse @ both.sparse.T).toarray())
    ends = [-np.sort(-scores, axis=1)[:, depth - 1 : depth + 1] for scores in kinds]
    return [
        [row for row, (last, next_one) in enumerate(end) if abs(last - next_one) < 1e-6 and last]
        for end in ends
    ]


def test_only_the_query_and_the_kind_that_tie_are_searched_further(client, encoder, monkeypatch):
    texts = [f"oak n{number}" for number in range(20)] + ["elm yew"] * 15
    queries = ["elm", "oak n3", "oak oak n3 yew", "oak n7 n3", "willow", "n5 n6 n8"]
    dense, sparse = cuts_in_ties(encoder, texts, queries, 5)
    assert set(dense) - set(sparse)
    assert set(sparse) - set(dense)
    assert set(range(6)) - {*dense, *sparse}
    index = QdrantHybridIndex(client, "docs", encoder)
    index.create()
    index.add(enumerate(texts))
    asked = []
    answer = client.query_batch_points

    def watched(collection, requests):
        asked.append(requests)
        return answer(collection, requests)

    monkeypatch.setattr(client, "query_batch_points", watched)
    index.search(queries, limit=5, candidates=5)
    every = encoder.encode(queries)
    first, again_dense, again_sparse = asked
    assert {request.limit for request in first} == {6}
    assert min(request.limit for request in [*again_dense, *again_sparse]) > 6
    np.testing.assert_array_equal([request.query for request in again_dense], every.dense[dense])
    assert [request.query.indices for request in again_sparse] == [
        every[row].sparse.indices.tolist() for row in sparse
    ]


def test_payload_that_is_not_asked_for_stays_in_the_store(client, encoder, monkeypatch):
    index = QdrantHybridIndex(client, "docs", encoder)
    index.create()
    index.add([("a", "oak", {"lang": "en", "large": 1})])
    retrieve, sent = client.retrieve, []
    monkeypatch.setattr(
        client, "retrieve", lambda *a, **given: sent.extend(retrieve(*a, **given)) or sent
    )
    assert index.search("oak", payload_keys=["lang"])[0][0].payload == {"lang": "en"}
    assert [point.payload.get("large") for point in sent] == [None]


def test_point_ids_never_change():
    assert point_id("a") == "0d98f4fd-a696-5602-8c64-98ec85a8e767"
    assert uuid.UUID(point_id("int:1")).version == 5


def test_vectors_are_stored_as_they_are(tmp_path, encoder):
    with QdrantHybridIndex(tmp_path, "docs", encoder) as index:
        index.create()
        index.add(DOCUMENTS)
    shard = edge.EdgeShard.load(str(tmp_path / "docs"))
    [stored] = shard.retrieve([point_id("a")], False, True)
    expected = encoder.encode("oak pine")
    np.testing.assert_array_equal(np.float32(stored.vector["dense"]), expected.dense[0])
    assert stored.vector["sparse"].indices == expected.sparse.indices.tolist()
    assert np.float32(stored.vector["sparse"].values).tolist() == expected.sparse.data.tolist()
    shard.close()


def test_half_size_vectors_are_stored_as_such(tmp_path, encoder):
    with QdrantHybridIndex(tmp_path, "docs", encoder, storage="float16") as index:
        index.create()
        index.add(DOCUMENTS)
    shard = edge.EdgeShard.load(str(tmp_path / "docs"))
    [stored] = shard.retrieve([point_id("a")], False, True)
    expected = np.float16(encoder.encode("oak pine").dense[0])
    np.testing.assert_array_equal(np.float32(stored.vector["dense"]), np.float32(expected))
    shard.close()


def test_int8_vectors_gather_and_full_ones_rank(tmp_path, encoder, monkeypatch):
    generator = np.random.default_rng(0)
    words = [f"w{number}" for number in range(300)]
    texts = [" ".join(generator.choice(words, 5)) for _ in range(3000)]
    small = edge.EdgeOptimizersConfig(indexing_threshold=10)  # KB, or nothing would be quantized
    config = edge.EdgeConfig
    monkeypatch.setattr(edge, "EdgeConfig", lambda **given: config(**given, optimizers=small))
    dense = encoder.encode(texts).dense
    expected = dense[:20] @ dense.T

    def largest_error_and_recall():
        found = index.search(texts[:20], mode="dense")
        errors = [
            abs(hit.score - scores[hit.id])
            for hits, scores in zip(found, expected, strict=True)
            for hit in hits
        ]
        right = [
            len({hit.id for hit in hits} & set(np.argsort(-scores)[:10].tolist()))
            for hits, scores in zip(found, expected, strict=True)
        ]
        return max(errors), sum(right) / 200

    with QdrantHybridIndex(tmp_path, "docs", encoder, storage="int8") as index:
        index.create()
        index.add(enumerate(texts))
        index.optimize()
        error, recall = largest_error_and_recall()
        assert error < 1e-5
        assert recall >= 0.95
    # The engine by itself answers with the scores of int8 vectors, so there was something to rank.
    shard = edge.EdgeShard.load(str(tmp_path / "docs"))
    query = edge.Query.Nearest(dense[0].tolist(), using="dense")
    found = shard.query(edge.QueryRequest(limit=10, query=query, with_payload=["_gte_id"]))
    shard.close()
    errors = [abs(point.score - expected[0][point.payload["_gte_id"]]) for point in found]
    assert max(errors) > 1e-4


@pytest.mark.parametrize(
    ("storage", "datatype", "quantization"),
    [("float32", None, None), ("float16", "float16", None), ("int8", None, "int8")],
)
def test_the_vectorizer_states_the_storage(encoder, storage, datatype, quantization):
    vectorizer = QdrantVectorizer(encoder, storage=storage, coarse_dimensions=8)
    for params in vectorizer.vectors_config().values():
        assert params.datatype == datatype
        quantized = params.quantization_config
        assert (quantized and quantized.scalar.type) == quantization
    [[dense, sparse]] = vectorizer.prefetches("oak")
    assert (dense.params is None) == (storage != "int8")
    assert sparse.params is None


def test_prefetches_of_int8_vectors_are_ranked_by_full_ones(encoder):
    [[dense, _]] = QdrantVectorizer(encoder, storage="int8").prefetches("oak")
    assert dense.params.quantization.model_dump() == {
        "ignore": False,
        "rescore": True,
        "oversampling": 2.0,
    }
    vectorizer = QdrantVectorizer(encoder, storage="int8", coarse_dimensions=8)
    [[dense, _]] = vectorizer.prefetches("oak")
    assert dense.params.quantization.ignore


def test_a_file_is_no_directory(tmp_path, encoder):
    file = tmp_path / "index"
    file.write_text("x")
    for location in (file, str(file)):
        with pytest.raises(NotADirectoryError, match="which is a file; name a directory"):
            QdrantHybridIndex(location, "docs", encoder)


@pytest.mark.parametrize("location", ["", "localhost:6333", ":memory:", "grpc://host", "file:///x"])
def test_what_looks_like_neither_directory_nor_url_is_refused(encoder, location):
    with pytest.raises(ValueError, match=r"must be a directory, a URL that begins with http://"):
        QdrantHybridIndex(location, "docs", encoder)


@pytest.mark.parametrize("location", [None, 3, object()])
def test_other_locations_are_refused(encoder, location):
    with pytest.raises(TypeError, match="must be a directory, a URL, a QdrantClient or an As"):
        QdrantHybridIndex(location, "docs", encoder)


def test_a_client_that_was_passed_in_stays_open(client, encoder):
    with QdrantHybridIndex(client, "docs", encoder) as index:
        index.create()
    assert client.collection_exists("docs")


def test_a_directory_that_is_open_elsewhere_says_so(tmp_path, encoder):
    with QdrantHybridIndex(tmp_path, "docs", encoder) as index:
        index.create()
        with pytest.raises(OSError, match=r"is open elsewhere; .*one process at a time"):
            QdrantHybridIndex(tmp_path, "docs", encoder).count()
    assert QdrantHybridIndex(tmp_path, "docs", encoder).count() == 0


def test_a_collection_made_by_something_else_is_refused(client, tmp_path, encoder):
    dense = models.VectorParams(size=32, distance=models.Distance.DOT)
    client.create_collection("docs", vectors_config={"dense": dense})
    with pytest.raises(CollectionMismatch, match="holds no record of the model"):
        QdrantHybridIndex(client, "docs", encoder).create()

    params = edge.EdgeVectorParams(32, edge.Distance.Dot)
    (tmp_path / "docs").mkdir()
    shard = edge.EdgeShard.create(str(tmp_path / "docs"), edge.EdgeConfig({"dense": params}))
    point = edge.Point(1, {"dense": [0.0] * 32})
    shard.update(edge.UpdateOperation.upsert_points([point]))
    shard.close()
    with pytest.raises(CollectionMismatch, match="holds no record of the model"):
        QdrantHybridIndex(tmp_path, "docs", encoder).create()


def test_the_metric_is_verified(client, encoder):
    QdrantHybridIndex(client, "docs", encoder).create()
    record = client.get_collection("docs").config.metadata
    client.delete_collection("docs")
    client.create_collection(
        "docs",
        vectors_config={"dense": models.VectorParams(size=32, distance=models.Distance.EUCLID)},
        sparse_vectors_config={"sparse": models.SparseVectorParams()},
        metadata=record,
    )
    with pytest.raises(CollectionMismatch, match="metric: the collection has 'Euclid', this index"):
        QdrantHybridIndex(client, "docs", encoder).create()


def test_create_goes_on_where_it_was_killed(tmp_path, encoder):
    with QdrantHybridIndex(tmp_path, "docs", encoder) as index:
        index.create()
    (tmp_path / "docs" / "gte.json").unlink()
    with QdrantHybridIndex(tmp_path, "docs", encoder) as index:
        index.create()
        index.add(DOCUMENTS)
        assert index.count() == 3


def test_a_record_that_lacks_what_is_recorded_today_is_no_difference(tmp_path, encoder):
    with QdrantHybridIndex(tmp_path, "docs", encoder) as index:
        index.create()
        index.add(DOCUMENTS)
    record = tmp_path / "docs" / "gte.json"
    recorded = json.loads(record.read_text())
    del recorded["storage"]
    record.write_text(json.dumps(recorded))
    with QdrantHybridIndex(tmp_path, "docs", encoder) as index:
        index.create()
        assert index.count() == 3


def test_nothing_is_made_before_create(tmp_path, encoder):
    index = QdrantHybridIndex(tmp_path / "new", "docs", encoder)
    with pytest.raises(LookupError, match="does not exist"):
        index.count()
    assert not (tmp_path / "new").exists()
