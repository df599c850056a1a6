"""Prompts go before queries and documents as the checkpoint says, and its length is kept."""

import asyncio
import json
import pickle
import runpy
import shutil
from pathlib import Path

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer

from gte_core import (
    ConfigError,
    EncoderSettings,
    Fingerprint,
    GTEEmbedder,
    GTEReranker,
    as_encoder,
    shared_encoder,
)
from gte_core.checkpoint.prompts import Prompts, read_max_seq_length, read_prompts
from gte_core.testing import HashEncoder, random_checkpoint

ARCTIC = {"query": "query: "}
STELLA = {
    "s2p_query": "Instruct: Retrieve what answers the query.\nQuery: ",
    "s2s_query": "Instruct: Retrieve what says the same.\nQuery: ",
}
TEXTS = ["w1 w2 w3", "w4", "print a booklet"]


@pytest.fixture(scope="module")
def native(tmp_path_factory):
    """A checkpoint in the form that sentence-transformers reads too."""
    folder = tmp_path_factory.mktemp("native")
    benchmarks = Path(__file__).parents[2] / "examples" / "benchmarks"
    write = runpy.run_path(str(benchmarks / "native_form.py"))["write_native_form"]
    return write(random_checkpoint(folder / "source", task=None), folder / "native")


@pytest.fixture
def with_prompts(native, tmp_path):
    """``with_prompts(prompts, default)`` makes a checkpoint with these."""

    def write(prompts, default=None, **transformer):
        directory = tmp_path / "checkpoint"
        shutil.copytree(native, directory)
        settings = {"prompts": prompts, "default_prompt_name": default}
        (directory / "config_sentence_transformers.json").write_text(json.dumps(settings))
        if transformer:
            (directory / "sentence_bert_config.json").write_text(json.dumps(transformer))
        return directory

    return write


def load(directory, **options):
    return GTEEmbedder.from_pretrained(directory, dtype="float32", **options)


def theirs(directory):
    return SentenceTransformer(str(directory), device="cpu")


def assert_same(ours, expected):
    np.testing.assert_allclose(ours, expected, atol=2e-5)


@pytest.mark.parametrize("shared", [False, True])
def test_arctic_equals_sentence_transformers_without_being_told(with_prompts, shared):
    directory = with_prompts(ARCTIC)
    embedder, model = load(directory), theirs(directory)
    encoder = shared_encoder(embedder) if shared else embedder
    queries = encoder.encode_dense(TEXTS, role="query")
    assert_same(queries, model.encode_query(TEXTS))
    assert_same(encoder.encode_dense(TEXTS[:1], role="query"), queries[:1])
    assert_same(encoder.encode_dense(TEXTS), model.encode_document(TEXTS))
    assert np.abs(queries - encoder.encode_dense(TEXTS)).max() > 0.01


def test_stella_takes_its_prompt_for_retrieval_or_the_one_that_is_named(with_prompts):
    directory = with_prompts(STELLA)
    model = theirs(directory)
    for name, given in (("s2p_query", {}), ("s2s_query", {"prompt_name": "s2s_query"})):
        ours = load(directory, **given)
        assert ours.query_prefix == STELLA[name]
        expected = model.encode_query(TEXTS, prompt_name=name)
        assert_same(ours.encode_dense(TEXTS, role="query"), expected)
        assert_same(ours.encode_dense(TEXTS), model.encode_document(TEXTS))


def test_documents_get_their_prompt_in_every_verb(with_prompts):
    directory = with_prompts({"query": "w8 ", "document": "w9 "})
    ours, plain = load(directory), load(directory, query_prefix="")
    expected = theirs(directory).encode_document(TEXTS)
    encoder = shared_encoder(ours)
    for found in (
        ours.encode_available(TEXTS).dense,
        encoder.encode_dense(TEXTS),
        asyncio.run(encoder.aencode_dense(TEXTS)),
    ):
        assert_same(found, expected)
    assert (plain.query_prefix, plain.document_prefix) == ("", "w9 ")
    assert ours.count_tokens("w1").tolist() == [4]
    assert plain.count_tokens("w1", role="query").tolist() == [3]
    pairs = [("w1", "w2")]
    cosine = float(ours.encode_dense("w1", role="query")[0] @ ours.encode_dense("w2")[0])
    assert ours.compute_scores(pairs, sparse_weight=0)[0] == pytest.approx(cosine, abs=1e-5)


def test_an_explanation_puts_each_prefix_before_its_own_text(tmp_path):
    directory = random_checkpoint(tmp_path / "checkpoint")
    prompts = {"prompts": {"query": "w8 ", "document": "w9 "}}
    (directory / "config_sentence_transformers.json").write_text(json.dumps(prompts))
    ours = load(directory)
    explained = ours.explain("w1", "w2")
    cosine = float(ours.encode_dense("w1", role="query")[0] @ ours.encode_dense("w2")[0])
    assert explained.dense_score == pytest.approx(cosine, abs=1e-5)


NONE = {"query": "", "document": ""}  # which sentence-transformers writes into every file


@pytest.mark.parametrize(
    ("prompts", "default", "query", "document"),
    [
        ({}, None, "", ""),
        (NONE, None, "", ""),
        (ARCTIC, None, "query: ", ""),
        (STELLA | {"query": "q: "}, None, "q: ", ""),
        (NONE | STELLA, None, STELLA["s2p_query"], ""),
        ({"document": "d", "passage": "p", "corpus": "c"}, None, "", "d"),
        ({"corpus": "c", "passage": "p"}, None, "", "p"),
        ({"corpus": "c"}, None, "", "c"),
        ({"retrieval": "r"}, None, "", ""),
        ({"retrieval": "r"}, "retrieval", "r", "r"),
        (ARCTIC | {"retrieval": "r"}, "retrieval", "query: ", "r"),
        (NONE | {"retrieval": "r"}, "retrieval", "", ""),
    ],
)
def test_whose_a_prompt_is(with_prompts, prompts, default, query, document):
    found = read_prompts(with_prompts(prompts, default))
    assert (found.query_prefix(), found.document_prefix) == (query, document)
    assert found.query_prefix("given") == "given"


def test_the_default_prompt_equals_theirs(with_prompts):
    directory = with_prompts({"retrieval": "w7 w8 "}, "retrieval")
    ours, expected = load(directory), theirs(directory).encode(TEXTS)
    assert_same(ours.encode_dense(TEXTS), expected)
    assert_same(ours.encode_dense(TEXTS, role="query"), expected)


def test_a_name_that_is_not_there_is_refused_with_those_that_are(with_prompts, small_checkpoint):
    directory = with_prompts(STELLA)
    message = "prompt_name is 'query', but this checkpoint has the prompts 's2p_query', 's2s_query'"
    with pytest.raises(ValueError, match=message):
        load(directory, prompt_name="query")
    encoder = shared_encoder(EncoderSettings(model=str(directory), prompt_name="query"))
    with pytest.raises(ValueError, match=message):
        encoder.encode_dense("w1")
    with pytest.raises(ValueError, match="this checkpoint has no prompts; pass query_prefix"):
        load(small_checkpoint, prompt_name="query")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"prompts": ["query: "]}, r"prompts is \['query: '\], but must be at most 1,000 texts"),
        ({"prompts": {str(n): "" for n in range(1001)}}, "prompts is .* at most 1,000 texts"),
        ({"prompts": {"query": None}}, "prompt 'query' is None, but must be a text"),
        ({"prompts": {"query": "x" * 10_001}}, "prompt 'query' is 'x.*at most 10,000 characters"),
        ({"prompts": {"query": "\ud800"}}, "prompt 'query' is .* must be a text"),
        ({"default_prompt_name": "query"}, r"default_prompt_name is 'query', .* null, or one of"),
        ({"default_prompt_name": ["query"]}, r"default_prompt_name is \['query'\]"),
    ],
)
def test_a_file_that_holds_something_else_is_refused(tmp_path, settings, message):
    file = tmp_path / "config_sentence_transformers.json"
    file.write_text(json.dumps(settings))
    with pytest.raises(ConfigError, match=rf"config_sentence_transformers\.json: {message}"):
        read_prompts(tmp_path)


def test_what_is_used_is_shown_and_known(with_prompts):
    directory = with_prompts(ARCTIC | {"document": "d: "}, max_seq_length=77)
    embedder = load(directory)
    for shown in (repr(embedder), repr(shared_encoder(embedder))):
        assert "max_length=77" in shown
        assert "query_prefix='query: '" in shown
    assert "document_prefix='d: '" in repr(embedder)
    assert embedder.fingerprint.document_prefix == "d: "
    assert str(embedder.fingerprint).endswith(" max_length=77 float document_prefix='d: '")
    again = pickle.loads(pickle.dumps(embedder))
    assert (repr(again), again.settings) == (repr(embedder), embedder.settings)


def test_a_shared_encoder_finds_its_prefixes_when_it_loads(with_prompts):
    directory = with_prompts(STELLA | {"document": "d: "}, max_seq_length=77)
    settings = EncoderSettings(model=str(directory), dtype="float32", prompt_name="s2s_query")
    encoder = shared_encoder(settings)
    assert "max_length=None" in repr(encoder)
    assert (encoder.query_prefix, encoder.document_prefix) == (STELLA["s2s_query"], "d: ")
    assert "max_length=77" in repr(encoder)
    other = shared_encoder(EncoderSettings(model=str(directory), dtype="float32", max_length=77))
    assert other.embedder is encoder.embedder
    assert other.query_prefix == STELLA["s2p_query"]
    found = [each.encode_dense("w1", role="query") for each in (encoder, other)]
    assert np.abs(found[0] - found[1]).max() > 0.01


@pytest.mark.parametrize(
    ("transformer", "tokenizer", "expected"),
    [
        ({"max_seq_length": 77}, 99, 77),
        ({"max_seq_length": 10**6}, 99, 8192),
        ({"max_seq_length": None}, 99, 99),
        ({"do_lower_case": False}, 10**30, 8192),
        ({"do_lower_case": False}, None, 8192),
    ],
)
def test_as_much_is_read_as_sentence_transformers_reads(
    with_prompts, transformer, tokenizer, expected
):
    directory = with_prompts({}, **transformer)
    path = directory / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"model_max_length": tokenizer}))
    embedder = load(directory)
    assert embedder.max_length == expected
    assert embedder.fingerprint.max_length == expected
    assert load(directory, max_length=9000).max_length == 9000


def test_positions_are_the_limit_where_no_file_says_more(tmp_path):
    directory = random_checkpoint(tmp_path / "checkpoint", {"max_position_embeddings": 300})
    assert load(directory).max_length == 300
    pairs = random_checkpoint(
        tmp_path / "pairs", {"max_position_embeddings": 300}, task="sequence_classification"
    )
    (pairs / "sentence_bert_config.json").write_text('{"max_seq_length": 9}')
    query, long = "w1", " ".join(["w2"] * 50)
    own = GTEReranker.from_pretrained(pairs, dtype="float32")
    given = GTEReranker.from_pretrained(pairs, dtype="float32", max_length=9)
    whole = GTEReranker.from_pretrained(pairs, dtype="float32", max_length=300)
    assert own.score([(query, long)]) == given.score([(query, long)])
    assert own.score([(query, long)]) != whole.score([(query, long)])


@pytest.mark.parametrize("value", [0, 4, -1, True, "77", 77.0])
def test_a_length_that_is_none_is_refused(tmp_path, value):
    (tmp_path / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": value}))
    with pytest.raises(ConfigError, match=r"bert_config\.json: max_seq_length is .* from 5, or"):
        read_max_seq_length(tmp_path)


def test_encoders_written_before_documents_had_a_prefix_are_completed():
    class WithRoles:
        """As an encoder of a development version: with roles, but without the new property."""

        def __init__(self):
            self.hashes = HashEncoder(query_prefix="query: ")

        def __getattr__(self, name):
            if name in ("hashes", "document_prefix"):
                raise AttributeError(name)
            return getattr(self.hashes, name)

    own = WithRoles()
    encoder = as_encoder(own)
    assert encoder is not own
    assert encoder.document_prefix == ""
    for verb in ("encode_dense", "encode_sparse"):
        ours, theirs = getattr(encoder, verb), getattr(own.hashes, verb)
        for role in ("query", "document"):
            assert (ours("oak", role=role) != theirs("oak", role=role)).sum() == 0


def test_a_fingerprint_of_a_former_version_has_no_prefix():
    former = Fingerprint.__new__(Fingerprint)
    former.__setstate__(["model", None, 8192, "float"])
    assert former == Fingerprint("model", None, 8192)
    assert former != Fingerprint("model", None, 8192, document_prefix="passage: ")
    assert Prompts().document_prefix == ""
