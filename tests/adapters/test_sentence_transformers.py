import json
import pickle

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer, SparseEncoder
from sentence_transformers.sentence_transformer.evaluation import InformationRetrievalEvaluator
from sentence_transformers.sparse_encoder.evaluation import SparseInformationRetrievalEvaluator

from gte_core import EncoderSettings, GTEEmbedder, MissingHeadError, shared_encoder
from gte_core.testing import HashEncoder, random_checkpoint
from gte_integrations.sentence_transformers import GTESentenceTransformer, GTESparseEncoder

TOLERANCE = 2e-5
TEXTS = ["w1 w2 w3", "w7", "", "w2 w2 w9 w11 w4"]


class CountingEncoder(HashEncoder):
    """Counts the texts that it encodes."""

    n_texts = 0

    def encode_available(self, texts, *, role="document", dimensions=None):
        both = super().encode_available(texts, role=role, dimensions=dimensions)
        self.n_texts += len(both)
        return both


@pytest.fixture
def directory(tmp_path):
    """A checkpoint with the files of sentence-transformers, as the published one has them."""
    directory = random_checkpoint(tmp_path / "model")
    names = ("Transformer", ""), ("Pooling", "1_Pooling"), ("Normalize", "2_Normalize")
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{name}"}
        for i, (name, path) in enumerate(names)
    ]
    (directory / "modules.json").write_text(json.dumps(modules))
    (directory / "1_Pooling").mkdir()
    pooling = {"word_embedding_dimension": 64, "pooling_mode_cls_token": True}
    pooling |= {"pooling_mode_mean_tokens": False}
    (directory / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    (directory / "sentence_bert_config.json").write_text('{"max_seq_length": 8192}')
    return directory


@pytest.fixture
def both_halves(directory):
    embedder = GTEEmbedder.from_pretrained(directory, dtype="float32")
    return embedder, GTESentenceTransformer(embedder), GTESparseEncoder(embedder)


@pytest.mark.parametrize("trust", [None, True])
def test_sentence_transformers_own_class_loads_the_model_type(directory, trust):
    given = {} if trust is None else {"trust_remote_code": trust}
    model = SentenceTransformer(str(directory), device="cpu", **given)
    ours = GTEEmbedder.from_pretrained(directory, dtype="float32").encode_dense(TEXTS)
    np.testing.assert_allclose(model.encode(TEXTS), ours, atol=TOLERANCE)
    np.testing.assert_allclose(model.encode(TEXTS, batch_size=1), ours, atol=TOLERANCE)


def test_its_shorter_vectors_need_to_be_normalized(directory):
    model = SentenceTransformer(str(directory), device="cpu", truncate_dim=16)
    ours = GTEEmbedder.from_pretrained(directory, dtype="float32", dimensions=16)
    assert np.linalg.norm(model.encode(TEXTS), axis=1).max() < 0.99
    found = model.encode(TEXTS, normalize_embeddings=True)
    np.testing.assert_allclose(found, ours.encode_dense(TEXTS), atol=TOLERANCE)


def test_it_is_trained_and_saved_as_any_other(directory, tmp_path):
    model = SentenceTransformer(str(directory), device="cpu")
    features = model.preprocess(["w1 w2", "w3"])
    before = model(dict(features))["sentence_embedding"]
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    before[0].dot(before[1]).backward()
    optimizer.step()
    after = model(dict(features))["sentence_embedding"]
    assert after[0].dot(after[1]) < before[0].dot(before[1])
    model.save_pretrained(str(tmp_path / "saved"))
    again = SentenceTransformer(str(tmp_path / "saved"), device="cpu")
    np.testing.assert_allclose(again.encode(TEXTS), model.encode(TEXTS), atol=1e-6)
    ours = GTEEmbedder.from_pretrained(tmp_path / "saved", dtype="float32")
    np.testing.assert_allclose(ours.encode_dense(TEXTS), model.encode(TEXTS), atol=TOLERANCE)


@pytest.mark.parametrize("truncate_dim", [None, 16])
def test_the_dense_half_has_length_one_at_every_size(both_halves, truncate_dim):
    embedder, dense, _ = both_halves
    found = dense.encode(TEXTS, truncate_dim=truncate_dim)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)
    expected = embedder.encode_dense(TEXTS, dimensions=truncate_dim)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert dense.get_embedding_dimension() == 64
    short = GTESentenceTransformer(embedder, truncate_dim=16)
    assert short.get_embedding_dimension() == 16
    expected = embedder.encode_dense("w7", dimensions=16)[0]
    np.testing.assert_allclose(short.encode("w7"), expected, atol=1e-6)


def test_the_sparse_half_is_ours_by_id(both_halves):
    embedder, _, sparse = both_halves
    found = sparse.encode(TEXTS)
    expected = embedder.encode_sparse(TEXTS).toarray()
    np.testing.assert_allclose(found.to_dense().numpy(), expected, atol=1e-5)
    assert sparse.get_embedding_dimension() == embedder.vocab_size
    decoded = dict(sparse.decode(found[0]))
    weights = embedder.encode(TEXTS[0]).token_weights(0)
    assert decoded == pytest.approx({token: weights[token] for token in decoded})
    assert sparse.max_seq_length == embedder.max_length


def test_both_objects_cost_one_pass_a_text():
    encoder = CountingEncoder()
    dense, sparse = GTESentenceTransformer(encoder), GTESparseEncoder(encoder)
    texts = [f"word{n} shared" for n in range(70)]
    dense.encode(texts)
    sparse.encode(texts, batch_size=7)
    assert encoder.n_texts == 70


def test_prompts_are_the_roles(directory):
    settings = EncoderSettings(model=str(directory), dtype="float32", query_prefix="w5 ")
    embedder = GTEEmbedder.from_pretrained(**settings.arguments())
    for model in (
        GTESentenceTransformer(shared_encoder(settings)),
        GTESentenceTransformer(embedder),
    ):
        asked, plain = embedder.encode_dense("w1", role="query"), embedder.encode_dense("w1")
        np.testing.assert_allclose(model.encode_query(["w1"]), asked, atol=1e-6)
        np.testing.assert_allclose(model.encode_document(["w1"]), plain, atol=1e-6)
        np.testing.assert_allclose(model.encode(["w1"]), plain, atol=1e-6)
        np.testing.assert_allclose(model.encode(["w1"], prompt_name="query"), asked, atol=1e-6)
        other = embedder.encode_dense("w9 w1")
        np.testing.assert_allclose(model.encode(["w1"], prompt="w9 "), other, atol=1e-6)
        np.testing.assert_allclose(model.encode_query(["w1"], prompt="w9 "), other, atol=1e-6)


def test_a_prompt_of_ones_own_is_refused_where_the_encoder_has_its_own():
    model = GTESentenceTransformer(HashEncoder(query_prefix="q: "))
    assert model.encode_query(["a"]).shape == (1, 64)
    with pytest.raises(ValueError, match="prompt is 'x: ', but this encoder puts '' before"):
        model.encode(["a"], prompt="x: ")


def evaluated(kind, model):
    queries = {str(n): f"word{n}" for n in range(8)}
    corpus = {str(n): f"word{n} and some more of it" for n in range(20)}
    evaluator = kind(queries, corpus, {n: {n} for n in queries}, show_progress_bar=False)
    return evaluator(model)


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support")
def test_evaluators_run():
    encoder = HashEncoder()
    for kind, model in (
        (InformationRetrievalEvaluator, GTESentenceTransformer(encoder)),
        (SparseInformationRetrievalEvaluator, GTESparseEncoder(encoder)),
    ):
        found = evaluated(kind, model)
        [ndcg] = [value for name, value in found.items() if name.endswith("cosine_ndcg@10")] or [
            value for name, value in found.items() if name.endswith("dot_ndcg@10")
        ]
        assert ndcg == 1.0


def test_pickles_are_the_encoders(directory):
    settings = EncoderSettings(model=str(directory), dtype="float32")
    dense = GTESentenceTransformer(shared_encoder(settings), truncate_dim=16)
    sparse = GTESparseEncoder(shared_encoder(settings), max_active_dims=2)
    stored = pickle.dumps((dense, sparse))
    assert len(stored) < 5000
    again, again_sparse = pickle.loads(stored)
    np.testing.assert_array_equal(again.encode(TEXTS), dense.encode(TEXTS))
    found = again_sparse.encode(TEXTS)
    found = found.to_dense()
    assert found.equal(sparse.encode(TEXTS).to_dense())
    assert (found > 0).sum(1).max() == 2


@pytest.mark.slow
def test_several_processes_give_the_same(directory):
    encoder = shared_encoder(EncoderSettings(model=str(directory), dtype="float32"))
    for model in (GTESentenceTransformer(encoder), SentenceTransformer(str(directory))):
        pool = model.start_multi_process_pool(["cpu", "cpu"])
        try:
            found = model.encode(TEXTS * 3, pool=pool, chunk_size=5)
        finally:
            model.stop_multi_process_pool(pool)
        np.testing.assert_allclose(found, model.encode(TEXTS * 3), atol=1e-6)


def test_what_it_cannot_do_is_said(directory, tmp_path):
    encoder = HashEncoder(has_sparse=False)
    with pytest.raises(MissingHeadError, match="has no sparse head"):
        GTESparseEncoder(encoder)
    with pytest.raises(ValueError, match="there is nothing to save"):
        GTESentenceTransformer(encoder).save_pretrained(str(tmp_path / "saved"))
    with pytest.raises(ValueError, match=r"dimensions is 65, but must be from 1 to 64"):
        GTESentenceTransformer(encoder).encode(["a"], truncate_dim=65)
    with pytest.raises(ValueError, match="does not use"):
        GTESentenceTransformer(encoder).encode(["a"], typo=1)
    assert issubclass(GTESparseEncoder, SparseEncoder)
