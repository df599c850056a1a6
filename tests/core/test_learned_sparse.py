"""Sparse encoders equal sentence-transformers' own modules, and all other forms are refused."""

import asyncio
import json
import logging
import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub.utils import filter_repo_objects
from safetensors.torch import load_file, save_file
from sentence_transformers import SparseEncoder

from gte_core import (
    ConfigError,
    GTEConfig,
    GTEEmbedder,
    GTEModel,
    MissingHeadError,
    NonFiniteError,
    TruncationError,
    WeightsError,
    shared_encoder,
)
from gte_core.checkpoint.modules import DESCRIPTION_PATTERNS, is_described
from gte_core.testing import random_checkpoint, random_sparse_encoder

BENCHMARKS = Path(__file__).parents[2] / "examples" / "benchmarks"
TEXTS = ["w1 w2 w3", "w4", "a b c <mask> w9 w9 w10", "", "w7 " * 300]
QUERY = "query_0_SparseStaticEmbedding"
POOLING = "document_1_SpladePooling"


def load(directory, **options):
    return GTEEmbedder.from_pretrained(directory, **{"dtype": "float32"} | options)


def edit(path, /, **fields):
    known = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(known | fields))


def as_theirs(directory):
    """The configurations that transformers reads; weights and description stay."""
    native = runpy.run_path(str(BENCHMARKS / "native_form.py"))["native_config"]
    config = native(GTEConfig.from_pretrained(directory))
    (directory / "config.json").write_text(
        json.dumps(config | {"architectures": ["GteForMaskedLM"]})
    )
    fields = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": 8192,
        "pad_token": "<pad>",
    }
    for file in directory.rglob("tokenizer_config.json"):
        edit(file, **fields)
    return directory


def assert_equal_to_theirs(directory, ours=None):
    ours = ours or load(directory)
    theirs = SparseEncoder(str(directory), device="cpu")
    for role, encode in (("document", theirs.encode_document), ("query", theirs.encode_query)):
        expected = encode(TEXTS, convert_to_tensor=True).to_dense().numpy().copy()
        expected[:, sorted(ours.tokenizer.dropped_ids)] = 0
        assert expected.any()
        found = ours.encode_sparse(TEXTS, role=role)
        alone = np.vstack([ours.encode_sparse(text, role=role).toarray() for text in TEXTS])
        np.testing.assert_allclose(found.toarray(), expected, atol=2e-5)
        np.testing.assert_allclose(alone, expected, atol=2e-5)
        assert (found.data > 0).all()
        assert found.has_canonical_format
        assert found.indices.dtype == np.int32


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return random_sparse_encoder(tmp_path_factory.mktemp("sparse"))


@pytest.fixture(scope="module")
def embedder(path):
    return load(path)


@pytest.fixture
def copy(path, tmp_path):
    return shutil.copytree(path, tmp_path / "copy")


@pytest.mark.parametrize("table", [True, False])
@pytest.mark.parametrize("activation", ["relu", "log1p_relu"])
def test_published_forms_equal_their_modules(tmp_path, activation, table):
    ours = load(random_sparse_encoder(tmp_path, activation=activation, table=table))
    assert (ours.look_up is not None) == table
    assert_equal_to_theirs(as_theirs(tmp_path), ours)
    assert_equal_to_theirs(tmp_path)


@pytest.mark.parametrize("table", [True, False])
def test_what_they_write_today_loads(tmp_path, table):
    theirs = SparseEncoder(str(as_theirs(random_sparse_encoder(tmp_path / "a", table=table))))
    theirs.save(str(tmp_path / "b"))
    assert (tmp_path / "b" / "config.json").exists() or table
    assert_equal_to_theirs(tmp_path / "b")


def test_a_network_in_a_folder_is_known_by_all_of_its_files(tmp_path):
    theirs = SparseEncoder(str(as_theirs(random_sparse_encoder(tmp_path / "a"))))
    theirs.save(str(tmp_path / "b"))
    shutil.move(tmp_path / "b" / "document_0_MLMTransformer", tmp_path / "b" / "document_0_Mine")
    text = (tmp_path / "b" / "router_config.json").read_text()
    (tmp_path / "b" / "router_config.json").write_text(
        text.replace("document_0_MLMTransformer", "document_0_Mine")
    )
    before = load(tmp_path / "b").fingerprint
    edit(tmp_path / "b" / "document_0_Mine" / "config.json", unused=1)
    assert load(tmp_path / "b").fingerprint != before


def test_a_table_by_token(copy):
    (copy / QUERY / "model.safetensors").unlink()
    idf = {"▁w1": 2.5, "▁w2": 0, "▁w3": -1, "<s>": 3, "nobody writes this": 4.0, "\ud800": 1}
    (copy / QUERY / "idf.json").write_text(json.dumps(idf))
    found = load(copy).encode_sparse(["w1 w2 w3 w1", "w5"], role="query")
    assert found.nnz == 1
    assert found[0].max() == 2.5


def test_no_special_token_carries_a_weight(embedder):
    special = [embedder.tokenizer.token_id(f"<{name}>") for name in ("s", "pad", "unk", "mask")]
    for role in ("document", "query"):
        found = embedder.encode_sparse("w1 <mask> \U0010fffd", role=role)
        assert found.nnz
        assert not found[:, special].nnz


def test_a_decoder_of_its_own(copy):
    weights = load_file(copy / "model.safetensors")
    table = weights["new.embeddings.word_embeddings.weight"]
    same = load(copy).encode_sparse(TEXTS)
    save_file(weights | {"lm_head.decoder.weight": table.clone()}, copy / "model.safetensors")
    np.testing.assert_array_equal(load(copy).encode_sparse(TEXTS).toarray(), same.toarray())
    save_file(weights | {"lm_head.decoder.weight": table + 0.5}, copy / "model.safetensors")
    assert abs(load(copy).encode_sparse(TEXTS) - same).max() > 0.01


def test_names_of_transformers(copy, embedder):
    renamed = {
        key.replace("lm_head.norm.", "lm_head.layer_norm."): weight
        for key, weight in load_file(copy / "model.safetensors").items()
    }
    save_file(renamed, copy / "model.safetensors")
    np.testing.assert_array_equal(
        load(copy).encode_sparse("w1").toarray(), embedder.encode_sparse("w1").toarray()
    )


@pytest.mark.parametrize("dtype", ["bfloat16", "int8"])
def test_other_types_stay_close(path, embedder, dtype):
    exact = embedder.encode_sparse(TEXTS).toarray()
    found = load(path, dtype=dtype).encode_sparse(TEXTS).toarray()
    cosines = (exact * found).sum(1) / np.linalg.norm(exact, axis=1) / np.linalg.norm(found, axis=1)
    assert cosines.min() > (0.9995 if dtype == "bfloat16" else 0.999)


def test_there_are_no_dense_vectors(embedder):
    assert not embedder.has_dense
    assert embedder.has_sparse
    assert embedder.dimensions == embedder.max_dimensions == 0
    for encode in (
        embedder.encode,
        embedder.encode_dense,
        shared_encoder(embedder).encode,
        shared_encoder(embedder).encode_dense,
        lambda text: embedder.encode_available(text, dimensions=8),
        lambda text: embedder.compute_scores([(text, text)]),
        lambda text: asyncio.run(embedder.aencode(text)),
    ):
        with pytest.raises(MissingHeadError, match="use encode_sparse"):
            encode("w1")
    with pytest.raises(MissingHeadError, match="use encode_sparse"):
        load(embedder.model, dimensions=8)


@pytest.mark.parametrize("role", ["document", "query"])
def test_every_verb_gives_the_same(embedder, role):
    expected = embedder.encode_sparse(TEXTS, role=role).toarray()
    shared = shared_encoder(embedder)

    async def awaited():
        both = await shared.aencode_available(TEXTS, role=role)
        return both, await shared.aencode_sparse(TEXTS, role=role)

    both, sparse = asyncio.run(awaited())
    parts = list(embedder.encode_iter(iter(TEXTS), role=role))
    for found in (
        both.sparse,
        sparse,
        shared.encode_sparse(TEXTS, role=role),
        *(encoder.encode_available(TEXTS, role=role).sparse for encoder in (embedder, shared)),
        type(both).concatenate(parts).sparse,
    ):
        np.testing.assert_allclose(found.toarray(), expected, atol=1e-5)
    assert both.dense.shape == (len(TEXTS), 0)
    assert both.n_tokens.tolist() == embedder.count_tokens(TEXTS, role=role).tolist()
    assert shared.encode_available([], role=role).sparse.shape == (0, embedder.vocab_size)
    assert embedder.encode_available([], role=role).dense.shape == (0, 0)
    assert shared.dimensions == 0


def test_scores_go_by_the_sparse_vectors(embedder):
    queries = embedder.encode_available("w1 w2", role="query")
    documents = embedder.encode_available(["w1 w3", "w2"])
    scores = queries.scores(documents, sparse_weight=1.0)
    assert scores == pytest.approx((queries.sparse @ documents.sparse.T).toarray())
    why = embedder.explain("w1 w2", "w1 w3")
    assert why.dense_score == 0
    assert why.sparse_score == pytest.approx(scores[0, 0])
    assert {token.token for token in why.tokens} <= {"▁w1", "▁w2"}
    assert why.tokens


def test_queries_are_looked_up_without_a_pass(embedder, watching_passes):
    passes = []
    with watching_passes(passes.append):
        for encoder in (embedder, shared_encoder(embedder)):
            encoder.encode_sparse(["w1", "w2"], role="query")
        assert not passes
        embedder.encode_sparse("w1")
    assert len(passes) == 1


def test_a_query_does_not_wait_behind_documents(embedder, stopped):
    shared = shared_encoder(embedder)
    with stopped(_Documents(shared), ["w11 w12", "w13"]):
        assert shared.encode_sparse("w1", role="query").nnz == 1
        assert asyncio.run(shared.aencode_sparse("w1", role="query")).nnz == 1


class _Documents:
    def __init__(self, encoder):
        self.encode = encoder.encode_sparse


def test_prefix_and_length_of_a_query(path, caplog):
    short = load(path, max_length=4, query_prefix="w9 ")
    found = short.encode_available("w1 w2 w3", role="query")
    assert found.n_tokens.tolist() == [4]
    assert found.truncated.all()
    assert set(found.token_weights(0)) == {"w9", "w1"}
    with caplog.at_level(logging.WARNING):
        again = shared_encoder(short).encode_available("w1 w2 w3", role="query")
    assert "longer than max_length=4" in caplog.text
    np.testing.assert_array_equal(again.sparse.toarray(), found.sparse.toarray())
    strict = load(path, max_length=4, on_truncation="error")
    for encoder in (strict, shared_encoder(strict)):
        with pytest.raises(TruncationError, match=r"texts\[1\]: longer than max_length=4"):
            encoder.encode_sparse(["w1", "w1 w2 w3"], role="query")


def test_special_tokens_have_no_weight(embedder):
    dropped = sorted(embedder.tokenizer.dropped_ids)
    for role in ("document", "query"):
        assert embedder.encode_sparse(TEXTS, role=role)[:, dropped].nnz == 0


def test_a_text_that_is_not_finite(copy):
    weights = load_file(copy / "model.safetensors")
    weights["new.embeddings.word_embeddings.weight"][120] = torch.nan
    save_file(weights | {"lm_head.decoder.weight": torch.ones(512, 64)}, copy / "model.safetensors")
    broken = load(copy)
    word = broken.tokenizer.piece(120).removeprefix("▁")
    assert broken.encode_sparse("w1").nnz
    with pytest.raises(NonFiniteError, match=r"texts\[1\]: NaN or infinity"):
        broken.encode_sparse(["w1", f"w2 {word}"])


def test_a_text_that_overflows_is_computed_again(copy):
    weights = load_file(copy / "model.safetensors")
    weights["lm_head.decoder.bias"][200] = 1e6
    weights["new.encoder.layer.0.mlp.down_proj.weight"] *= 1e6
    weights["new.encoder.layer.0.mlp_ln.weight"] *= 1e-3
    save_file(weights, copy / "model.safetensors")
    found = load(copy, dtype="float16").encode_sparse(["w1", "w2 w3"])
    exact = load(copy).encode_sparse(["w1", "w2 w3"])
    np.testing.assert_allclose(found.toarray(), exact.toarray(), atol=2e-2)


REFUSED = {
    "sum": (f"{POOLING}/config.json", {"pooling_strategy": "sum"}, "pooling_strategy is 'sum'"),
    "another activation": (
        f"{POOLING}/config.json",
        {"activation_function": "elu1p"},
        "activation_function is 'elu1p'; supported by this version is 'relu' or 'log1p_relu'",
    ),
    "another task": (
        "sentence_bert_config.json",
        {"transformer_task": "feature-extraction"},
        "transformer_task is 'feature-extraction'",
    ),
    "lower case": ("sentence_bert_config.json", {"do_lower_case": True}, "do_lower_case is True"),
    "other states": (
        "sentence_bert_config.json",
        {"module_output_name": "hidden"},
        "module_output_name is 'hidden'",
    ),
    **{
        f"another {name}": ("sentence_bert_config.json", {name: value}, rf"{name} is {value!r}")
        for name, value in {
            "query_length": 32,
            "processing_kwargs": {"text": {}},
            "tokenizer_name_or_path": "other",
        }.items()
    },
    "the largest weights alone": (
        "config_sentence_transformers.json",
        {"max_active_dims": 64},
        "max_active_dims is 64; supported by this version is null",
    ),
    "another kind of model": (
        "config_sentence_transformers.json",
        {"model_type": "CrossEncoder"},
        "model_type is 'CrossEncoder'",
    ),
    "a route more": (
        "router_config.json",
        {"structure": {"document": ["", POOLING], "query": [QUERY], "image": []}},
        "structure is {'document': .* supported by this version is a route 'document'",
    ),
    "no document": ("router_config.json", {"structure": {"query": [QUERY]}}, "structure is"),
    "a module that is not there": (
        "router_config.json",
        {"structure": {"document": ["x"]}},
        r"structure.document is \['x'\]",
    ),
    "a folder that is a list": (
        "router_config.json",
        {"structure": {"document": [["x"]]}},
        r"structure.document is \[\['x'\]\]",
    ),
    "another order": (
        "router_config.json",
        {"structure": {"document": [POOLING, ""]}},
        r"structure.document is \['SpladePooling', 'MLMTransformer'\]",
    ),
    "another query": (
        "router_config.json",
        {"structure": {"document": ["", POOLING], "query": [POOLING]}},
        r"structure.query is \['SpladePooling'\]",
    ),
    "routes by kind": (
        "router_config.json",
        {"parameters": {"route_mappings": {"('query', 'text')": "query"}}},
        "parameters.route_mappings is",
    ),
    "folders elsewhere": (
        "router_config.json",
        {"types": {"../x": "sentence_transformers.X"}},
        r"types is {'\.\./x'",
    ),
    "a table elsewhere": (f"{QUERY}/config.json", {"path": "/x/y.json"}, "path is '/x/y.json'"),
}


@pytest.mark.parametrize(("name", "fields", "message"), REFUSED.values(), ids=REFUSED)
def test_other_forms_are_refused_by_file_field_and_value(copy, name, fields, message):
    edit(copy / name, **fields)
    with pytest.raises(ConfigError, match=rf"{name}: {message}"):
        load(copy)
    assert GTEModel.from_pretrained(copy)


MODULES = {
    "pooling alone": [("1_SpladePooling", "SpladePooling")],
    "behind a matrix": [("", "MLMTransformer"), ("1", "SpladePooling"), ("2", "Dense")],
    "an auto-encoder": [("", "Transformer"), ("1", "Pooling"), ("2", "SparseAutoEncoder")],
    "a table alone": [("", "SparseStaticEmbedding")],
    "a router and more": [("", "Router"), ("1_Normalize", "Normalize")],
}


@pytest.mark.parametrize("modules", MODULES.values(), ids=MODULES)
def test_other_modules_are_refused(copy, modules):
    entries = [
        {"path": folder, "type": f"sentence_transformers.{kind}"} for folder, kind in modules
    ]
    (copy / "modules.json").write_text(json.dumps(entries))
    kinds = [kind for _, kind in modules]
    with pytest.raises(ConfigError, match=rf"modules\.json: the order is \['{kinds[0]}'"):
        load(copy)


def test_files_that_are_missing(copy):
    (copy / QUERY / "model.safetensors").unlink()
    with pytest.raises(ConfigError, match=r"holds neither model\.safetensors nor idf"):
        load(copy)
    (copy / "router_config.json").unlink()
    with pytest.raises(ConfigError, match=r"router_config\.json does not exist"):
        load(copy)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"weight": torch.ones(600)}, r"weight has the shape \(600,\), but must be \(512,\)"),
        ({"weight": torch.ones(2, 256)}, "weight has the shape"),
        ({"weight": torch.full((512,), torch.nan)}, "token id 0 is nan, but must be finite"),
        ({"idf": torch.ones(512)}, "must hold a tensor 'weight' of floats, got idf"),
        ({"weight": torch.ones(512, dtype=torch.int64)}, "of floats"),
    ],
)
def test_tables_that_are_none(copy, weights, message):
    save_file(weights, copy / QUERY / "model.safetensors")
    with pytest.raises(WeightsError, match=message):
        load(copy)


@pytest.mark.parametrize("weight", ["much", True, None, float("nan"), 1e39, 10**400])
def test_a_table_of_something_else(copy, weight):
    (copy / QUERY / "model.safetensors").unlink()
    (copy / QUERY / "idf.json").write_text(json.dumps({"\ud800": 1.0, "w1": weight}))
    with pytest.raises(ConfigError, match=r"idf\.json: 'w1' is .*, but must be a number"):
        load(copy)


def test_a_table_of_another_model_is_shorter(copy):
    save_file({"weight": torch.ones(150)}, copy / QUERY / "model.safetensors")
    assert load(copy).encode_sparse("w1 w300", role="query").nnz == 1


def test_without_the_head_the_weights_do_not_match(copy):
    weights = load_file(copy / "model.safetensors")
    save_file(
        {key: w for key, w in weights.items() if "lm_head" not in key}, copy / "model.safetensors"
    )
    with pytest.raises(WeightsError, match=r"missing: lm_head\.decoder\.bias"):
        load(copy)


def test_a_masked_language_model_alone_says_why_it_is_refused(tmp_path):
    path = random_checkpoint(tmp_path, task="masked_lm")
    with pytest.raises(ConfigError, match=r"masked language model, and no modules\.json makes it"):
        load(path)
    assert GTEModel.from_pretrained(path).task is None


def test_the_identity_goes_by_what_decides_the_vectors(copy, embedder):
    assert load(copy).fingerprint == embedder.fingerprint
    seen = {str(embedder.fingerprint)}
    edit(copy / POOLING / "config.json", activation_function="relu")
    seen.add(str(load(copy).fingerprint))
    save_file({"weight": torch.ones(512)}, copy / QUERY / "model.safetensors")
    seen.add(str(load(copy).fingerprint))
    assert len(seen) == 3


def test_other_directories_keep_their_identity(tmp_path):
    path = random_checkpoint(tmp_path)
    before = load(path).fingerprint
    edit(path / "config_sentence_transformers.json", model_type="SentenceTransformer")
    (path / "router_config.json").write_text("{}")
    assert load(path).fingerprint == before


def test_a_cache_without_the_table_is_filled_up(copy):
    assert is_described(copy)
    (copy / QUERY / "model.safetensors").unlink()
    assert not is_described(copy)
    (copy / "router_config.json").write_text("[]")
    assert is_described(copy)  # there is nothing to fetch; loading says what is wrong


def test_a_download_brings_all_that_it_needs():
    folders = (QUERY, "document_0_Transformer")
    needed = [f"{folder}/model.safetensors" for folder in folders]
    needed += [f"{folder}/tokenizer.json" for folder in folders]
    needed += [f"{POOLING}/config.json", f"{QUERY}/idf.json", "router_config.json", "modules.json"]
    needed += ["document_0_Transformer/config.json", "document_0_Transformer/tokenizer_config.json"]
    assert list(filter_repo_objects(needed, allow_patterns=DESCRIPTION_PATTERNS)) == needed


def test_an_embedder_pickles_as_what_it_was_loaded_with(embedder):
    import pickle

    again = pickle.loads(pickle.dumps(embedder))
    assert again.look_up is not None
    assert "dimensions=None" in repr(again)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="counts memory on Linux")
@pytest.mark.parametrize(
    ("vocab_size", "bias", "texts"),
    [
        (30_522, -1.5, "['w1 w7 w9 ' * 3000]"),
        (30_522, 1.5, "[f'w{i} w2 w3' for i in range(150)]"),  # every id has a weight
        (250_048, -1.5, "[f'w{i} w2 w3 w4 w5 w6' for i in range(250)]"),
    ],
)
def test_memory_of_documents_follows_their_tokens(tmp_path, vocab_size, bias, texts):
    """In a process of its own, and not tokens x vocabulary, which would be 1 and 2 GB."""
    code = (
        "from pathlib import Path; from sparse_encoder import peak_of_documents, write_encoder;"
        f"path = write_encoder(Path({str(tmp_path)!r}), {vocab_size}, 2, bias={bias});"
        f"print(peak_of_documents(path, {texts}), peak_of_documents(path, {texts}, shared=True))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code],
        cwd=BENCHMARKS,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert max(map(float, run.stdout.split())) < 300
