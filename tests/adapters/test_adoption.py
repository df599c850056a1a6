"""``adopt``: what a vectorizer filled through somebody's own client, on every engine."""

import json
from dataclasses import replace

import pytest

from gte_core import CollectionMismatch, CollectionNotFound

DOCUMENTS = [
    ("a", "oak pine", {"lang": "en"}),
    (2, "elm é"),
    ("wordless", "!"),
    *((f"n{number}", f"yew n{number} ash") for number in range(20)),
]
QUERIES = ["oak", "the n7 yew"]


class Filled:
    """A collection that a client of the user's filled with what a vectorizer gives."""

    def __init__(self, place):
        self.place = place

    def fill(self, encoder, documents=DOCUMENTS, change=lambda item: item, **options):
        """Fill it; ``change`` may spoil a point or row before it is written."""
        fill = {"edge": self.in_directory, "memory": self.in_qdrant}.get(
            self.place.engine, self.in_milvus
        )
        fill(encoder, documents, change, options)

    def in_qdrant(self, encoder, documents, change, options):
        from gte_integrations.qdrant import QdrantVectorizer

        vectorizer = QdrantVectorizer(encoder, **options)
        client = self.place.location
        client.create_collection(
            "docs",
            vectors_config=vectorizer.vectors_config(),
            sparse_vectors_config=vectorizer.sparse_vectors_config(),
            metadata={"owner": "somebody"},
        )
        if documents:
            client.upsert("docs", [change(point) for point in vectorizer.points(documents)])

    def in_directory(self, encoder, documents, change, options):
        import qdrant_edge as edge

        from gte_integrations.qdrant import QdrantVectorizer

        vectorizer = QdrantVectorizer(encoder, **options)
        path = self.place.location / "docs"
        path.mkdir(parents=True)
        dense = {
            name: edge.EdgeVectorParams(config.size, edge.Distance.Dot)
            for name, config in vectorizer.vectors_config().items()
        }
        sparse = dict.fromkeys(vectorizer.sparse_vectors_config(), edge.EdgeSparseVectorParams())
        shard = edge.EdgeShard.create(str(path), edge.EdgeConfig(dense, sparse))
        points = [change(point) for point in vectorizer.points(documents)] if documents else []
        own = [edge.Point(point.id, as_edge(point.vector), point.payload) for point in points]
        if own:
            shard.update(edge.UpdateOperation.upsert_points(own))
        shard.close()

    def in_milvus(self, encoder, documents, change, options):
        from gte_integrations.milvus import MilvusClient, MilvusVectorizer

        vectorizer = MilvusVectorizer(encoder, **options)
        client = MilvusClient(str(self.place.location))
        client.create_collection(
            "docs", schema=vectorizer.schema(), index_params=vectorizer.index_params()
        )
        if documents:
            client.insert("docs", [change(row) for row in vectorizer.rows(documents)])
        client.close()


def as_edge(vectors):
    import qdrant_edge as edge

    sparse = vectors.get("sparse")
    own = {} if sparse is None else {"sparse": edge.SparseVector(sparse.indices, sparse.values)}
    return {**vectors, **own}


@pytest.fixture
def theirs(place):
    if place.prefix:
        pytest.skip("makes its collection in a place of its own")
    return Filled(place)


def spoil_dense(item):
    vectors = item if isinstance(item, dict) else item.vector
    vectors["dense"] = list(reversed(list(vectors["dense"])))
    return item


def spoil_sparse(item):
    if isinstance(item, dict):
        item["sparse"] = {7: 1.0}
    else:
        from qdrant_client import models

        item.vector["sparse"] = models.SparseVector(indices=[7], values=[1.0])
    return item


@pytest.mark.parametrize(
    ("options", "halves"),
    [
        ({}, {}),
        ({"dimensions": 16, "coarse_dimensions": 8}, {"has_sparse": False}),
        ({}, {"has_dense": False}),
    ],
)
def test_what_a_vectorizer_filled_becomes_an_index(theirs, place, make_encoder, options, halves):
    encoder = make_encoder(**halves)
    theirs.fill(encoder, **options)
    coarse = options.get("coarse_dimensions")
    index = place.open(encoder, coarse_dimensions=coarse)
    with pytest.raises(CollectionMismatch, match=r"or adopt\(\) it if a vectorizer filled it"):
        index.count()
    encoder.calls.clear()
    encoder.texts.clear()
    index.adopt()
    assert (encoder.calls.total(), len(encoder.texts)) == (1, 8)
    assert index.metadata() == index.vectorizer.metadata()
    assert index.vectorizer.dimensions == options.get("dimensions", encoder.dimensions)
    assert index.add(DOCUMENTS).unchanged == len(DOCUMENTS)
    index.close()
    with place.open(encoder, coarse_dimensions=coarse) as again:
        assert again.search(QUERIES[1])[0][0].id == "n7"
        with place.open(encoder, "ours", **options) as ours:
            ours.create()
            ours.add(DOCUMENTS)
            for hits, others in zip(again.search(QUERIES), ours.search(QUERIES), strict=True):
                assert [hit.id for hit in hits] == [hit.id for hit in others]
                scores = [hit.score for hit in others]
                assert [hit.score for hit in hits] == pytest.approx(scores, abs=1e-6)


def test_an_empty_collection_of_the_right_schema_is_adopted(theirs, place, encoder):
    theirs.fill(encoder, documents=[])
    encoder.calls.clear()
    index = place.open(encoder)
    index.adopt()
    assert (index.count(), encoder.calls.total()) == (0, 0)
    assert index.add(DOCUMENTS).written == len(DOCUMENTS)


@pytest.mark.parametrize(("spoil", "kind"), [(spoil_dense, "dense"), (spoil_sparse, "sparse")])
def test_other_vectors_are_refused_and_nothing_is_written(theirs, place, encoder, spoil, kind):
    theirs.fill(encoder, change=spoil)
    index = place.open(encoder)
    message = rf"the {kind} vector of document .* has a cosine of -?0\.\d{{4}} to the one that hash"
    for _ in range(2):
        with pytest.raises(CollectionMismatch, match=message):
            index.adopt()
    with pytest.raises(CollectionMismatch, match="holds no record of the model"):
        index.metadata()


def test_another_schema_is_refused(theirs, place, encoder, make_encoder):
    theirs.fill(encoder, dimensions=16)
    index = place.open(make_encoder(has_sparse=False), dimensions=8)
    with pytest.raises(CollectionMismatch, match="was built differently") as caught:
        index.adopt()
    assert str(caught.value).splitlines()[1:-1] == [
        "  dimensions: the collection has 16, this index needs 8",
        "  sparse: the collection has True, this index needs False",
    ]
    index.close()
    two_sizes = place.open(encoder, coarse_dimensions=4)
    with pytest.raises(
        CollectionMismatch, match=r"coarse_dimensions: the collection has None, .*4"
    ):
        two_sizes.adopt()


def test_a_recorded_collection_is_verified_and_left_as_it_is(place, index, encoder, make_encoder):
    index.add(DOCUMENTS)
    recorded = index.metadata()
    encoder.calls.clear()
    index.adopt()
    index.close()
    renamed = replace(encoder.fingerprint, model="other/model")
    other = place.open(make_encoder(fingerprint=renamed))
    with pytest.raises(CollectionMismatch, match="model: the collection has 'hash', this index"):
        other.adopt()
    assert other.metadata() == recorded
    assert not encoder.calls


async def test_there_must_be_a_collection(place, encoder):
    with pytest.raises(CollectionNotFound, match=r"does not exist; call create\(\) first"):
        place.open(encoder).adopt()
    with pytest.raises(CollectionNotFound, match="does not exist"):
        await place.open(encoder).aadopt()


@pytest.mark.parametrize("place", ["memory"], indirect=True)
def test_points_of_another_library_lack_what_ours_have(place, encoder):
    from qdrant_client import models

    client = place.location
    unnamed = models.VectorParams(size=32, distance=models.Distance.DOT)
    client.create_collection("docs", vectors_config=unnamed)
    client.upsert("docs", [models.PointStruct(id=1, vector=[0.1] * 32, payload={"text": "oak"})])
    with pytest.raises(
        CollectionMismatch, match="lacks 'dense', 'sparse', '_gte_id', '_gte_hash', which every"
    ):
        place.open(encoder).adopt()


@pytest.mark.parametrize("place", ["milvus"], indirect=True)
def test_rows_of_another_library_lack_what_ours_have(place, encoder):
    from gte_integrations.milvus import MilvusClient

    client = MilvusClient(str(place.location))
    client.create_collection("docs", dimension=32)
    client.close()
    with pytest.raises(
        CollectionMismatch, match="lacks 'dense', 'sparse', 'id', 'text', '_gte_hash', which every"
    ):
        place.open(encoder).adopt()


@pytest.mark.parametrize("place", ["memory"], indirect=True)
def test_what_else_is_recorded_stays(theirs, place, encoder):
    theirs.fill(encoder)
    place.open(encoder).adopt()
    metadata = place.location.get_collection("docs").config.metadata
    assert metadata.keys() == {"owner", "gte"}
    assert metadata["owner"] == "somebody"


@pytest.mark.parametrize("place", ["edge"], indirect=True)
def test_a_directory_whose_record_was_lost_is_adopted(place, index, encoder):
    index.add(DOCUMENTS)
    index.close()
    record = place.location / "docs" / "gte.json"
    before = json.loads(record.read_bytes())
    record.write_bytes(b"")
    with pytest.raises(CollectionMismatch, match=r"or remove it and adopt\(\) the collection"):
        index.adopt()
    record.unlink()
    index.adopt()
    assert json.loads(record.read_bytes()) == before
    assert index.count() == len(DOCUMENTS)
