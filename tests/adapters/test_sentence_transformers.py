import json
import pickle

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer, SparseEncoder
from sentence_transformers.sentence_transformer.evaluation import InformationRetrievalEvaluator
from sentence_transformers.sentence_transformer.modules import Dense
from sentence_transformers.sparse_encoder.evaluation import SparseInformationRetrievalEvaluator

from gte_core import (
    EncoderSettings,
    GTEEmbedder,
    MissingHeadError,
    PairedEncoder,
    shared_encoder,
)
from gte_core.testing import HashEncoder, random_checkpoint, random_sparse_encoder
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


def write_pooling(directory, **fields):
    (directory / "1_Pooling" / "config.json").write_text(
        json.dumps({"embedding_dimension": 64} | fields)
    )


def add_matrices(directory, *sizes):
    """A Dense for each size, of which modules.json names the first."""
    modules = json.loads((directory / "modules.json").read_text())
    modules[2] |= {"path": f"2_Dense_{sizes[0]}", "type": "sentence_transformers.models.Dense"}
    (directory / "modules.json").write_text(json.dumps(modules))
    for size in sizes:
        (directory / f"2_Dense_{size}").mkdir()
        Dense(64, size, activation_function=torch.nn.Identity()).save(
            str(directory / f"2_Dense_{size}")
        )


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


PROMPTS = {"query": "w5 ", "document": "w6 ", "cluster": "w8 "}


@pytest.mark.parametrize("pooling", [{"pooling_mode": "cls"}, {"include_prompt": False}])
@pytest.mark.parametrize("default", [None, "cluster"])
def test_prompts_of_the_checkpoint_are_put_as_sentence_transformers_puts_them(
    directory, pooling, default
):
    write_pooling(directory, **pooling)
    settings = {"prompts": PROMPTS, "default_prompt_name": default}
    (directory / "config_sentence_transformers.json").write_text(json.dumps(settings))
    theirs = SentenceTransformer(str(directory), device="cpu")
    embedder = GTEEmbedder.from_pretrained(directory, dtype="float32")
    ours = GTESentenceTransformer(embedder)
    for found in (theirs, ours):
        asked = found.encode_query(TEXTS, normalize_embeddings=True)
        np.testing.assert_allclose(
            asked, embedder.encode_dense(TEXTS, role="query"), atol=TOLERANCE
        )
        answers = found.encode_document(TEXTS, normalize_embeddings=True)
        np.testing.assert_allclose(answers, embedder.encode_dense(TEXTS), atol=TOLERANCE)
    for given in ({}, {"prompt_name": "cluster"}, {"prompt_name": "document"}, {"prompt": "w9 "}):
        expected = theirs.encode(TEXTS, normalize_embeddings=True, **given)
        np.testing.assert_allclose(ours.encode(TEXTS, **given), expected, atol=TOLERANCE)


def test_another_prompt_of_the_checkpoint_may_be_the_encoders(directory):
    (directory / "config_sentence_transformers.json").write_text(json.dumps({"prompts": PROMPTS}))
    chosen = EncoderSettings(model=str(directory), dtype="float32", prompt_name="cluster")
    model = GTESentenceTransformer(shared_encoder(chosen))
    plain = SentenceTransformer(str(directory), device="cpu")
    for prompt_name, verb in (("cluster", model.encode_query), ("document", model.encode_document)):
        expected = plain.encode(TEXTS, prompt_name=prompt_name)
        np.testing.assert_allclose(verb(TEXTS), expected, atol=TOLERANCE)
    expected = plain.encode(TEXTS, prompt="w9 ")
    np.testing.assert_allclose(model.encode(TEXTS, prompt="w9 "), expected, atol=TOLERANCE)


@pytest.mark.parametrize("sizes", [(32,), (48, 32, 96)])
def test_matrices_are_those_of_the_checkpoint(directory, sizes):
    write_pooling(directory, pooling_mode="mean")
    add_matrices(directory, *sizes)
    embedder = GTEEmbedder.from_pretrained(directory, dtype="float32")
    plain = SentenceTransformer(str(directory), device="cpu")
    found = plain.encode(TEXTS, normalize_embeddings=True)
    np.testing.assert_allclose(found, embedder.encode_dense(TEXTS), atol=TOLERANCE)
    for size in sizes:
        expected = embedder.encode_dense(TEXTS, dimensions=size)
        model = GTESentenceTransformer(embedder, truncate_dim=size)
        assert model.get_embedding_dimension() == size
        np.testing.assert_allclose(model.encode(TEXTS), expected, atol=1e-6)
        found = GTESentenceTransformer(embedder).encode(TEXTS, truncate_dim=size)
        np.testing.assert_allclose(found, expected, atol=1e-6)
    for wrong in (97, 31) if len(sizes) > 1 else (33,):
        with pytest.raises(ValueError, match=rf"dimensions is {wrong}, but"):
            GTESentenceTransformer(embedder, truncate_dim=wrong)


def test_a_sparse_encoders_queries_are_looked_up(tmp_path):
    name = str(random_sparse_encoder(tmp_path / "sparse"))
    ours = shared_encoder(EncoderSettings(model=name, dtype="float32"))
    model = GTESparseEncoder(ours)
    expected = {
        role: ours.encode_sparse(TEXTS, role=role).toarray() for role in ("query", "document")
    }
    asked = model.encode_query(TEXTS, convert_to_sparse_tensor=False)
    np.testing.assert_allclose(asked.numpy(), expected["query"], atol=1e-6)
    for encode in (model.encode, model.encode_document):
        found = encode(TEXTS, convert_to_sparse_tensor=False).numpy()
        np.testing.assert_allclose(found, expected["document"], atol=1e-6)
    assert np.abs(expected["query"] - expected["document"]).max() > 0.01
    with pytest.raises(MissingHeadError, match="has no dense vectors"):
        GTESentenceTransformer(ours)
    with pytest.raises(ValueError, match=r"prompt is 'w9 ', but .* its queries are looked up"):
        model.encode(TEXTS, prompt="w9 ")


@pytest.mark.parametrize("wrap", [lambda pair: pair, shared_encoder])
def test_each_half_of_a_pair_is_its_own_encoder(wrap):
    dense = CountingEncoder(name="dense", query_prefix="q: ", document_prefix="d: ")
    sparse = CountingEncoder(name="sparse", query_prefix="ask: ")
    pair = wrap(PairedEncoder(dense=dense, sparse=sparse))
    vectors, weights = GTESentenceTransformer(pair), GTESparseEncoder(pair)
    expected = dense.encode_dense(["a b"], role="query")
    np.testing.assert_allclose(vectors.encode_query(["a b"]), expected, atol=1e-6)
    expected = dense.encode_dense(["a b"])
    np.testing.assert_allclose(vectors.encode_document(["a b"]), expected, atol=1e-6)
    assert sparse.n_texts == 0
    for verb, role in ((weights.encode_query, "query"), (weights.encode_document, "document")):
        expected = sparse.encode_sparse(["a b"], role=role).toarray()
        found = verb(["a b"], convert_to_sparse_tensor=False).numpy()
        np.testing.assert_allclose(found, expected, atol=1e-6)


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
