import asyncio

import pytest

from gte_core import GTEEmbedder, GTEModel, MissingHeadError
from gte_core.testing import HashEncoder, random_checkpoint, word_tokenizer


def test_a_random_checkpoint_can_be_encoded_with(tmp_path):
    path = random_checkpoint(tmp_path, {"hidden_size": 32, "vocab_size": 300}, prefix="")
    both = GTEEmbedder.from_pretrained(path).encode("w1 w2")
    assert (both.dense.shape, both.sparse.shape) == ((1, 32), (1, 300))


def test_the_seed_decides_the_weights(tmp_path):
    one, same, other = (
        GTEModel.from_pretrained(random_checkpoint(tmp_path / name, seed=seed))
        for name, seed in (("a", 0), ("b", 0), ("c", 1))
    )
    assert one.classifier.weight.equal(same.classifier.weight)
    assert not one.classifier.weight.equal(other.classifier.weight)


def test_the_initializer_range_is_the_standard_deviation(tmp_path):
    path = random_checkpoint(tmp_path, initializer_range=0.02)
    model = GTEModel.from_pretrained(path)
    assert model.embeddings.word_embeddings.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert model.embeddings.LayerNorm.weight.mean().item() == pytest.approx(1, abs=0.02)


def test_fewer_pieces_than_the_vocabulary_has_room_for(tmp_path):
    path = random_checkpoint(tmp_path, n_pieces=200)
    embedder = GTEEmbedder.from_pretrained(path)
    assert (embedder.tokenizer.largest_id, embedder.vocab_size) == (199, 512)


def test_a_reranker(tmp_path):
    path = random_checkpoint(tmp_path, task="sequence_classification")
    assert GTEModel.from_pretrained(path).task == "sequence_classification"


def test_too_small_a_vocabulary():
    with pytest.raises(ValueError, match="vocab_size is 50, but must be at least 100"):
        word_tokenizer(50)


def test_hashes_without_dense_vectors_have_the_same_sparse_ones():
    sparse = HashEncoder(has_dense=False)
    assert (sparse.has_dense, sparse.has_sparse, sparse.dimensions) == (False, True, 0)
    both = sparse.encode_available(["oak elm", ""])
    assert both.dense.shape == (2, 0)
    whole = HashEncoder().encode(["oak elm", ""])
    for matrix in (both.sparse, sparse.encode_sparse(["oak elm", ""])):
        assert (matrix != whole.sparse).nnz == 0
    assert both.n_tokens.tolist() == [4, 2]


def test_dense_vectors_of_hashes_without_are_refused():
    sparse = HashEncoder(has_dense=False)
    for ask in (
        sparse.encode,
        sparse.encode_dense,
        lambda text: asyncio.run(sparse.aencode(text)),
        lambda text: sparse.encode_available(text, dimensions=8),
    ):
        with pytest.raises(MissingHeadError, match=r"'hash' has no dense vectors.*encode_sparse"):
            ask("oak")
    with pytest.raises(ValueError, match="has_dense and has_sparse are both False"):
        HashEncoder(has_dense=False, has_sparse=False)
