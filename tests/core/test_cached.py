"""The cache before an encoder that is not ours: one call for both halves."""

import asyncio
import copy
import pickle

import numpy as np
import pytest

from gte_core import CachedEncoder, GTEEmbedder, MissingHeadError, shared_encoder
from gte_core.testing import HashEncoder


class Counting(HashEncoder):
    """Keeps the texts of its calls, and whether they came as documents or queries."""

    def __init__(self, **options):
        super().__init__(**options)
        self.asked = []

    def encode_available(self, texts, *, role="document", dimensions=None):
        self.asked.append((role, list(texts)))
        return super().encode_available(texts, role=role, dimensions=dimensions)


@pytest.fixture
def source():
    return Counting(query_prefix="query: ")


@pytest.fixture
def encoder(source):
    return shared_encoder(source)


def test_tokens_are_counted_by_who_can(small_checkpoint):
    embedder = GTEEmbedder.from_pretrained(small_checkpoint)
    counts = CachedEncoder(embedder).count_tokens(["w3", "w3 w4"], role="query")
    assert counts.tolist() == embedder.count_tokens(["w3", "w3 w4"], role="query").tolist()
    with pytest.raises(NotImplementedError, match=r"HashEncoder has no count_tokens; .* n_tokens"):
        CachedEncoder(HashEncoder()).count_tokens("w3")


def test_whichever_half_comes_second_is_free(source, encoder):
    dense = encoder.encode_dense(["oak", "elm", "oak"])
    sparse = encoder.encode_sparse(["elm", "oak"])
    assert source.asked == [("document", ["oak", "elm"])]
    np.testing.assert_array_equal(dense, source.encode_dense(["oak", "elm", "oak"]))
    expected = source.encode_sparse(["elm", "oak"])
    np.testing.assert_array_equal(sparse.toarray(), expected.toarray())


def test_roles_are_kept_apart_although_the_text_is_the_same(source, encoder):
    encoder.encode(["oak"])
    encoder.encode(["oak"], role="query")
    encoder.encode(["oak"], role="query")
    assert source.asked == [("document", ["oak"]), ("query", ["oak"])]


def test_the_awaited_verbs_share_the_cache(source, encoder):
    async def both():
        await encoder.aencode_dense(["oak"], role="query")
        return await encoder.aencode_sparse(["oak"], role="query")

    np.testing.assert_array_equal(
        asyncio.run(both()).toarray(), source.encode_sparse(["oak"], role="query").toarray()
    )
    assert len(source.asked) == 2  # the second is the line above


def test_smaller_sizes_are_cut_from_what_is_kept(source, encoder):
    encoder.encode("oak")
    np.testing.assert_allclose(
        encoder.encode_dense("oak", dimensions=8), source.encode_dense("oak", dimensions=8)
    )
    with pytest.raises(ValueError, match="dimensions is 65, but must be from 1 to 64"):
        encoder.encode("oak", dimensions=65)


def test_a_model_without_a_sparse_head():
    encoder = shared_encoder(HashEncoder(has_sparse=False))
    assert encoder.encode_available("oak").sparse.nnz == 0
    assert asyncio.run(encoder.aencode_dense("oak")).shape == (1, 64)
    with pytest.raises(MissingHeadError, match="'hash' has no sparse head"):
        encoder.encode("oak")
    with pytest.raises(MissingHeadError, match="'hash' has no sparse head"):
        asyncio.run(encoder.aencode("oak"))


def test_a_model_without_dense_vectors():
    source = Counting(has_dense=False)
    encoder = shared_encoder(source)
    assert (encoder.has_dense, encoder.dimensions) == (False, 0)
    sparse = encoder.encode_sparse(["oak", "elm"])
    assert (asyncio.run(encoder.aencode_sparse(["oak", "elm"])) != sparse).nnz == 0
    assert encoder.encode_available(["oak", "elm"]).dense.shape == (2, 0)
    assert len(source.asked) == 1
    for ask in (encoder.encode, encoder.encode_dense):
        with pytest.raises(MissingHeadError, match=r"'hash' has no dense vectors.*encode_sparse"):
            ask("oak")
    for ask in (encoder.aencode, encoder.aencode_dense):
        with pytest.raises(MissingHeadError, match=r"'hash' has no dense vectors.*encode_sparse"):
            asyncio.run(ask("oak"))


def test_one_for_each_encoder_as_long_as_somebody_holds_it(source, encoder):
    assert isinstance(encoder, CachedEncoder)
    assert shared_encoder(source) is encoder
    assert shared_encoder(encoder) is encoder
    assert shared_encoder(Counting()) is not encoder
    assert copy.deepcopy(encoder) is encoder


def test_pickles_as_the_encoder_it_is_for(encoder):
    again = pickle.loads(pickle.dumps(encoder))
    np.testing.assert_array_equal(again.encode_dense("oak"), encoder.encode_dense("oak"))


def test_the_strings_of_all_tokens_are_known_also_of_unpickled_parts():
    class Unpickled(HashEncoder):
        def encode_available(self, texts, **options):
            return pickle.loads(pickle.dumps(super().encode_available(texts, **options)))

    encoder = shared_encoder(Unpickled())
    encoder.encode("oak elm")
    both = encoder.encode(["yew", "oak elm"])
    assert [len(both.token_weights(i)) for i in range(2)] == [1, 2]


def test_an_encoder_must_give_one_vector_for_each_text():
    class Short(HashEncoder):
        def encode_available(self, texts, **options):
            return super().encode_available(texts[:1], **options)

    class Bare(HashEncoder):
        def encode_available(self, texts, **options):
            return super().encode_available(texts, **options).dense

    with pytest.raises(ValueError, match="gave 1 vectors for 2 texts, but must give one for each"):
        shared_encoder(Short()).encode_dense(["oak", "elm"])
    with pytest.raises(TypeError, match="gave a ndarray, but must give HybridEmbeddings"):
        shared_encoder(Bare()).encode_dense(["oak"])


def test_nothing_in_nothing_out(encoder):
    both = encoder.encode([])
    assert (both.dense.shape, both.sparse.shape) == ((0, 64), (0, 1024))
