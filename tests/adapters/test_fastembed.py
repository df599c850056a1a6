"""``fastembed``: both vectors through ``models.Document``; needs an environment with FastEmbed."""

import numpy as np
import pytest
from qdrant_client import QdrantClient, models

from gte_core import EncoderSettings, shared_encoder

pytest.importorskip("fastembed")

from gte_integrations.fastembed import register_fastembed

TEXTS = [f"text number {number}" for number in range(50)]


@pytest.fixture(autouse=True)
def registries():
    """FastEmbed as it was before the test."""
    from fastembed import SparseTextEmbedding, TextEmbedding

    kept = [
        (family, list(family.EMBEDDINGS_REGISTRY))
        for family in (TextEmbedding, SparseTextEmbedding)
    ]
    yield
    for family, registry in kept:
        family.EMBEDDINGS_REGISTRY[:] = registry


@pytest.fixture
def client():
    client = QdrantClient(":memory:", local_inference_batch_size=8)
    sizes = {"dense": 32, "short": 8}
    client.create_collection(
        "docs",
        vectors_config={
            name: models.VectorParams(size=size, distance=models.Distance.DOT)
            for name, size in sizes.items()
        },
        sparse_vectors_config={"sparse": models.SparseVectorParams()},
    )
    yield client
    client.close()


def point(number, text, dense, sparse):
    vector = {
        "dense": models.Document(text=text, model=dense),
        "short": models.Document(text=text, model=dense, options={"dimensions": 8}),
        "sparse": models.Document(text=text, model=sparse),
    }
    return models.PointStruct(id=number, vector=vector)


def test_documents_get_the_encoders_vectors(client, make_encoder):
    encoder = make_encoder(query_prefix="query: ")
    names = register_fastembed(encoder)
    assert names == ("hash", "hash-sparse")
    client.upload_points("docs", [point(n, text, *names) for n, text in enumerate(TEXTS)])
    both = encoder.encode(TEXTS)
    for stored in client.retrieve("docs", list(range(50)), with_vectors=True):
        np.testing.assert_array_equal(np.float32(stored.vector["dense"]), both.dense[stored.id])
        short = both.with_dimensions(8).dense[stored.id]
        np.testing.assert_allclose(stored.vector["short"], short, atol=1e-6)
        sparse = both.sparse[[stored.id]]
        assert stored.vector["sparse"].indices == sparse.indices.tolist()
        assert np.float32(stored.vector["sparse"].values).tolist() == sparse.data.tolist()


def test_queries_get_the_models_prefix(client, make_encoder):
    encoder = make_encoder(query_prefix="query: ")
    dense, sparse = register_fastembed(encoder, name="mine")
    client.upload_points("docs", [point(n, text, dense, sparse) for n, text in enumerate(TEXTS)])
    encoder.texts.clear()
    for model, using in ((dense, "dense"), (sparse, "sparse")):
        question = models.Document(text="number 7", model=model)
        assert client.query_points("docs", query=question, using=using).points
    assert encoder.texts == ["query: number 7"]


def test_a_shared_encoder_makes_one_pass_for_both(encoded):
    encoder = shared_encoder(EncoderSettings(model="demo"))
    dense, sparse = register_fastembed(encoder)
    client = QdrantClient(":memory:", local_inference_batch_size=25)
    client.create_collection(
        "docs",
        vectors_config={
            "dense": models.VectorParams(size=encoder.dimensions, distance=models.Distance.DOT)
        },
        sparse_vectors_config={"sparse": models.SparseVectorParams()},
    )
    documents = [
        models.PointStruct(
            id=number,
            vector={
                "dense": models.Document(text=text, model=dense),
                "sparse": models.Document(text=text, model=sparse),
            },
        )
        for number, text in enumerate(TEXTS)
    ]
    client.upsert("docs", documents)
    assert sorted(text for texts in encoded for text in texts) == sorted(TEXTS)
    client.close()


def test_a_name_gets_the_latest_encoder_and_fastembeds_own_stay(make_encoder):
    from fastembed import TextEmbedding

    before = len(TextEmbedding.EMBEDDINGS_REGISTRY)
    for size in (16, 32):
        register_fastembed(make_encoder(dimensions=size), name="mine")
    assert TextEmbedding.get_embedding_size("mine") == 32
    assert len(TextEmbedding.EMBEDDINGS_REGISTRY) == before + 1
    with pytest.raises(ValueError, match=r"name is 'BAAI/bge-small-en-v1\.5', but FastEmbed has"):
        register_fastembed(make_encoder(), name="BAAI/bge-small-en-v1.5")


def test_without_a_sparse_head_there_is_no_sparse_name(make_encoder):
    assert register_fastembed(make_encoder(has_sparse=False)) == ("hash", None)


def test_without_dense_vectors_there_is_no_dense_name(make_encoder):
    from fastembed import SparseTextEmbedding, TextEmbedding

    before = len(TextEmbedding.EMBEDDINGS_REGISTRY)
    encoder = make_encoder(has_dense=False)
    assert register_fastembed(encoder, name="words") == (None, "words-sparse")
    assert len(TextEmbedding.EMBEDDINGS_REGISTRY) == before
    [vector] = SparseTextEmbedding("words-sparse").embed("oak pine")
    assert vector.indices.tolist() == encoder.encode_sparse("oak pine").indices.tolist()


def test_one_text_is_one_vector(encoder):
    from fastembed import SparseTextEmbedding, TextEmbedding

    dense, sparse = register_fastembed(encoder)
    assert [vector.shape for vector in TextEmbedding(dense).embed("oak")] == [(32,)]
    assert [len(vector.indices) for vector in SparseTextEmbedding(sparse).embed(["oak", ""])] == [
        1,
        0,
    ]
    assert len(list(TextEmbedding(dense).passage_embed(iter(TEXTS)))) == 50
    with pytest.raises(ValueError, match="dimensions is 33, but must be from 1 to 32"):
        TextEmbedding(dense, dimensions=33)


def test_fastembeds_own_arguments_are_taken(encoder):
    from fastembed import SparseTextEmbedding, TextEmbedding

    for family, name in zip(
        (TextEmbedding, SparseTextEmbedding), register_fastembed(encoder), strict=True
    ):
        model = family(
            name,
            cache_dir="/nowhere",
            threads=2,
            providers=["CPUExecutionProvider"],
            cuda=False,
            device_ids=[0],
            lazy_load=True,
            local_files_only=True,
            specific_model_path="/nowhere",
        )
        assert len(list(model.embed(TEXTS, batch_size=8, parallel=1))) == 50
        assert len(list(model.query_embed(TEXTS, batch_size=8, parallel=None))) == 50
        for call in (model.embed, model.query_embed, model.passage_embed):
            for parallel in (0, 2):
                with pytest.raises(ValueError, match=f"parallel is {parallel}, but a model of reg"):
                    list(call(TEXTS, parallel=parallel))
        with pytest.raises(TypeError, match="unexpected keyword argument 'dimension'"):
            family(name, dimension=8)


def test_a_batch_has_at_least_one_text(encoder):
    from fastembed import TextEmbedding

    model = TextEmbedding(register_fastembed(encoder)[0])
    with pytest.raises(ValueError, match="batch_size is 0, but must be at least 1"):
        list(model.embed(["oak"], batch_size=0))
    with pytest.raises(ValueError, match="batch_size is 0, but must be at least 1"):
        model.token_count(["oak"], batch_size=0)


def test_tokens_are_counted_without_a_pass(encoded):
    from fastembed import SparseTextEmbedding, TextEmbedding

    settings = EncoderSettings(model="demo", max_length=16, on_truncation="ignore")
    shared = shared_encoder(settings)
    texts = [*TEXTS, "", "Rechtschreibung prüfen " * 40]
    for encoder in (shared, shared.embedder):
        dense, sparse = register_fastembed(encoder, name="counted")
        for model in (TextEmbedding(dense), SparseTextEmbedding(sparse)):
            counts = [model.token_count(texts, batch_size=7), model.token_count(iter(texts))]
            assert encoded == []
            assert counts == [shared.embedder.encode(texts).n_tokens.sum()] * 2
            assert model.token_count("") == 2
            encoded.clear()


def test_tokens_of_any_encoder_are_counted(encoder):
    from fastembed import TextEmbedding

    dense, _ = register_fastembed(encoder)
    assert TextEmbedding(dense).token_count(["oak", "oak elm"]) == 3 + 4
