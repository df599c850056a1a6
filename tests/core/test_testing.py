import pytest

from gte_core import GTEEmbedder, GTEModel
from gte_core.testing import random_checkpoint, word_tokenizer


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
