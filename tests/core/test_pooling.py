"""Pooling and Dense: our vectors are those of sentence-transformers' own modules."""

import asyncio
import json
import pickle
import runpy
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Dense, Normalize, Pooling

import gte_core
from gte_core import (
    CachedEncoder,
    ConfigError,
    EncoderSettings,
    GTEEmbedder,
    HybridEmbeddings,
    NonFiniteError,
    WeightsError,
    release_shared,
    shared_encoder,
)
from gte_core.network.device import has_onednn
from gte_core.testing import random_checkpoint
from gte_integrations.qdrant import QdrantVectorizer

NATIVE_FORM = Path(__file__).parents[2] / "examples" / "benchmarks" / "native_form.py"
PROMPT = "w9 find this: "
TEXTS = ["w1 w2 w3", "", "w4", "of characters", "w5 w6 " * 40, "find this: w7"]
MEAN = {"pooling_mode": "mean"}
IDENTITY, TANH = "torch.nn.modules.linear.Identity", "torch.nn.modules.activation.Tanh"
# Both forms, as published: booleans, and the newer name of a mode.
POOLINGS = {
    "cls": {"pooling_mode": "cls"},
    "mean": MEAN,
    "mean in booleans": {"pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True},
    "mean by default": {},
}


@pytest.fixture(scope="session")
def native(tmp_path_factory):
    """A checkpoint with a sparse head that transformers reads as the same network."""
    root = tmp_path_factory.mktemp("native")
    source = random_checkpoint(root / "source")
    directory = runpy.run_path(str(NATIVE_FORM))["write_native_form"](source, root / "native")
    path = directory / "tokenizer_config.json"
    roles = json.loads((source / path.name).read_text())
    path.write_text(json.dumps(roles | json.loads(path.read_text())))
    return directory


@pytest.fixture
def make(native, tmp_path):
    """``make(pooling, *matrices, listed=..., normalize=...)`` writes a checkpoint."""

    def write(pooling, *matrices, listed=None, normalize=False, name="checkpoint", **config):
        directory = tmp_path / name
        shutil.copytree(native, directory, symlinks=True)
        weights = load_file(directory / "model.safetensors")
        (directory / "model.safetensors").unlink()
        if config.pop("has_sparse", True) is False:
            weights = {key: value for key, value in weights.items() if "classifier" not in key}
        save_file(weights, directory / "model.safetensors")
        modules = [("", "Transformer"), ("1_Pooling", "Pooling")]
        write_json(
            directory / "1_Pooling" / "config.json",
            {"word_embedding_dimension": 64, **config, **pooling},
        )
        for folder, fields in matrices:
            write_matrix(directory / folder, **fields)
        if matrices:
            modules.append((listed or matrices[0][0], "Dense"))
        if normalize:
            modules.append(("3_Normalize", "Normalize"))
        described = [
            {"idx": n, "name": str(n), "path": path, "type": f"sentence_transformers.models.{kind}"}
            for n, (path, kind) in enumerate(modules)
        ]
        write_json(directory / "modules.json", described)
        return directory

    return write


def write_json(path, content):
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content))


def write_matrix(directory, size=32, *, inputs=64, bias=True, activation=IDENTITY, **fields):
    """As sentence-transformers writes it."""
    torch.manual_seed(size)
    function = torch.nn.Tanh() if activation == TANH else torch.nn.Identity()
    module = Dense(inputs, size, bias=bias, activation_function=function)
    directory.mkdir()
    module.save(str(directory))
    path = directory / "config.json"
    write_json(path, json.loads(path.read_text()) | fields)


def matrix(size, **fields):
    return f"2_Dense_{size}", {"size": size, **fields}


@pytest.fixture(scope="session")
def network(native):
    """sentence-transformers over transformers' own class of this network."""
    return SentenceTransformer(str(native), device="cpu")[0]


@pytest.fixture
def theirs(network):
    """``theirs(directory, texts, prompt)``: unit vectors by the modules that the files list."""

    def encode(directory, texts, prompt=None):
        modules = [network]
        for entry in json.loads((directory / "modules.json").read_text())[1:]:
            kind = {"Pooling": Pooling, "Dense": Dense, "Normalize": Normalize}
            load = kind[entry["type"].rpartition(".")[2]].load
            modules.append(load(str(directory), subfolder=entry["path"]))
        model = SentenceTransformer(modules=modules, device="cpu")
        return model.encode(list(texts), prompt=prompt, normalize_embeddings=True)

    return encode


def loaded(directory, **options):
    return GTEEmbedder.from_pretrained(directory, **{"dtype": "float32"} | options)


def assert_alike(ours, expected, tolerance=2e-5):
    np.testing.assert_allclose(ours, expected, atol=tolerance, rtol=0)


@pytest.mark.parametrize("pooling", ["cls", "mean"])
@pytest.mark.parametrize("matrices", [(), (matrix(32, activation=TANH),)], ids=["", "dense"])
def test_what_they_write_today_loads(make, tmp_path, pooling, matrices):
    directory = make({"pooling_mode": pooling}, *matrices, include_prompt=False, has_sparse=False)
    prompts = {"query": PROMPT, "document": "w8 w9: "}
    theirs = SentenceTransformer(str(directory), device="cpu", prompts=prompts)
    theirs.max_seq_length = 16
    theirs.save(str(tmp_path / "saved"))
    embedder = loaded(tmp_path / "saved", on_truncation="ignore")
    assert embedder.max_length == 16
    for role, encode in (("query", theirs.encode_query), ("document", theirs.encode_document)):
        expected = encode(TEXTS, normalize_embeddings=True)
        assert_alike(embedder.encode_dense(TEXTS, role=role), expected)
        assert_alike(shared_encoder(embedder).encode_dense(TEXTS, role=role), expected)


@pytest.mark.parametrize(
    ("include_prompt", "has_sparse"), [(True, True), (False, True), (False, False)]
)
@pytest.mark.parametrize("pooling", POOLINGS.values(), ids=POOLINGS)
def test_pooled_as_by_sentence_transformers_alone_and_in_any_batch(
    make, theirs, pooling, include_prompt, has_sparse
):
    directory = make(pooling, include_prompt=include_prompt, has_sparse=has_sparse)
    embedder = loaded(directory, query_prefix=PROMPT)
    documents, queries = theirs(directory, TEXTS), theirs(directory, TEXTS, PROMPT)
    for role, expected in (("document", documents), ("query", queries)):
        both = embedder.encode_available(TEXTS, role=role)
        assert_alike(both.dense, expected)
        assert_alike(embedder.encode_dense(TEXTS, role=role), expected)
        for row, text in enumerate(TEXTS):
            assert_alike(embedder.encode_dense(text, role=role), expected[row : row + 1])
        assert_alike(shared_encoder(embedder).encode_dense(TEXTS, role=role), expected)


def test_what_a_query_leaves_out_a_document_of_the_same_words_keeps(make, theirs):
    directory = make(MEAN, include_prompt=False)
    embedder = loaded(directory, query_prefix=PROMPT)
    shared = shared_encoder(embedder)
    document = theirs(directory, [PROMPT + "w1"])
    query = theirs(directory, ["w1"], PROMPT)
    assert abs(document - query).max() > 1e-2
    for _ in range(2):  # computed, then from the cache
        assert_alike(shared.encode_dense("w1", role="query"), query)
        assert_alike(shared.encode_dense(PROMPT + "w1"), document)
    pairs = embedder.compute_scores([("w1", PROMPT + "w1")], sparse_weight=0)
    assert_alike(pairs, (query * document).sum(1))
    assert embedder.explain("w1", PROMPT + "w1").dense_score == pytest.approx(pairs[0], abs=1e-5)


UNDECLARED = {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "<pad>"}


@pytest.mark.parametrize("declared", [UNDECLARED, UNDECLARED | {"eos_token": "</s>"}])
def test_the_closing_token_belongs_to_a_prompt_where_none_is_declared(make, declared):
    directory = make(MEAN, include_prompt=False)
    (directory / "tokenizer_config.json").write_text(json.dumps(declared))
    model = SentenceTransformer(str(directory), device="cpu")
    expected = model.encode(TEXTS, prompt=PROMPT, normalize_embeddings=True)
    # They make a mean of nothing where the prompt is counted so, and give zeros.
    filled = np.linalg.norm(expected, axis=1) > 0
    found = loaded(directory, query_prefix=PROMPT).encode_dense(TEXTS, role="query")
    assert_alike(found[filled], expected[filled])
    assert filled.sum() >= 4


@pytest.mark.parametrize("max_length", [3, 6, 9])
def test_a_prompt_that_is_cut_leaves_the_last_token(make, theirs, network, max_length, monkeypatch):
    directory = make(MEAN, include_prompt=False)
    embedder = loaded(directory, query_prefix=PROMPT, max_length=max_length, on_truncation="ignore")
    monkeypatch.setattr(network, "_prompt_length_mapping", {})
    monkeypatch.setattr(network, "max_seq_length", max_length)
    expected = theirs(directory, TEXTS, PROMPT)
    assert_alike(embedder.encode_dense(TEXTS, role="query"), expected)


MATRICES = {
    "larger": [matrix(96)],
    "without a bias": [matrix(32, bias=False)],
    "tanh": [matrix(32, activation=TANH)],
    "by its other name": [("2_Dense", {"activation_function": "torch.nn.Identity"})],
}


@pytest.mark.parametrize("matrices", MATRICES.values(), ids=MATRICES)
@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_projected_as_by_sentence_transformers(make, theirs, pooling, matrices):
    directory = make({"pooling_mode": pooling}, *matrices, normalize=pooling == "cls")
    embedder = loaded(directory)
    expected = theirs(directory, TEXTS)
    size = expected.shape[1]
    assert embedder.dimensions == embedder.max_dimensions == size
    assert embedder.separate_sizes == ()
    both = embedder.encode(TEXTS)
    assert_alike(both.dense, expected)
    assert_alike(embedder.encode_dense(TEXTS[0]), expected[:1])
    part = expected[:, :8] / np.linalg.norm(expected[:, :8], axis=1, keepdims=True)
    assert_alike(embedder.encode_dense(TEXTS, dimensions=8), part, 1e-4)
    assert_alike(both.with_dimensions(8).dense, part, 1e-4)
    assert embedder.encode([]).dense.shape == (0, size)
    with pytest.raises(ValueError, match=f"dimensions is {size + 1}, but must be from 1 to {size}"):
        embedder.encode("w1", dimensions=size + 1)


@pytest.mark.parametrize(
    ("dtype", "closeness"),
    [
        ("bfloat16", 0.9995),
        ("float16", 0.9995),
        pytest.param(
            "int8", 0.995, marks=pytest.mark.skipif(not has_onednn(), reason="needs oneDNN on x86")
        ),
    ],
)
def test_half_types_and_int8_stay_as_close_as_promised(tmp_path, dtype, closeness):
    directory = tmp_path / "demo"
    shutil.copytree(Path(gte_core.__file__).parent / "data" / "demo", directory)
    entries = [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Dense", "Dense")]
    types = [(path, f"sentence_transformers.models.{kind}") for path, kind in entries]
    write_json(directory / "modules.json", [{"path": path, "type": kind} for path, kind in types])
    write_json(directory / "1_Pooling" / "config.json", MEAN)
    write_matrix(directory / "2_Dense", 128, inputs=256)
    texts = ["How to print", "Ein Dokument drucken", "", *("word " * n for n in (3, 30, 300))]
    expected = loaded(directory).encode_dense(texts)
    found = loaded(directory, dtype=dtype).encode_dense(texts)
    assert (found * expected).sum(1).min() > closeness


def test_in_float16_what_overflows_is_computed_in_float32(make):
    directory = make(MEAN)
    path = directory / "model.safetensors"
    weights = load_file(path)
    for name in weights:
        if name.endswith("mlp_ln.weight"):
            weights[name] *= 1e6
    save_file(weights, path)
    expected = loaded(directory).encode_dense(TEXTS)
    assert_alike(loaded(directory, dtype="float16").encode_dense(TEXTS), expected)


def test_deterministic_vectors_are_the_same_to_the_last_bit(make):
    embedder = loaded(make(MEAN, matrix(96)), deterministic=True)
    together = embedder.encode(TEXTS).dense
    shared = shared_encoder(embedder).encode(TEXTS).dense
    for row, text in enumerate(TEXTS):
        assert embedder.encode(text).dense[0].tobytes() == together[row].tobytes()
        assert shared[row].tobytes() == together[row].tobytes()


class TestSeparateMatrices:
    SIZES = (32, 48, 96)

    @pytest.fixture
    def directory(self, make):
        return make(MEAN, *map(matrix, self.SIZES), listed="2_Dense_48")

    @pytest.fixture
    def of_size(self, make):
        return {
            size: make(MEAN, *map(matrix, self.SIZES), listed=f"2_Dense_{size}", name=str(size))
            for size in self.SIZES
        }

    def test_a_size_picks_a_matrix(self, directory, of_size, theirs):
        embedder = loaded(directory)
        assert (embedder.dimensions, embedder.max_dimensions) == (48, 96)
        assert embedder.separate_sizes == shared_encoder(embedder).separate_sizes == self.SIZES
        assert_alike(embedder.encode(TEXTS).dense, theirs(of_size[48], TEXTS))
        for size in self.SIZES:
            expected = theirs(of_size[size], TEXTS)
            assert_alike(embedder.encode(TEXTS, dimensions=size).dense, expected)
            assert_alike(loaded(directory, dimensions=size).encode_dense(TEXTS), expected)
            assert pickle.loads(pickle.dumps(loaded(directory, dimensions=size))).dimensions == size

    def test_another_size_from_the_cache_costs_no_second_pass(
        self, directory, of_size, theirs, watching_passes
    ):
        release_shared()
        shared = shared_encoder(EncoderSettings(model=str(directory), dtype="float32"))
        expected = {size: theirs(path, TEXTS) for size, path in of_size.items()}
        passes = []
        with watching_passes(passes.append):
            for size in (None, *self.SIZES):
                found = shared.encode(TEXTS, dimensions=size)
                assert found.separate_sizes == self.SIZES
                assert_alike(found.dense, expected[size or 48])
                assert len(passes) == 1

    def test_another_encoders_cache_asks_for_a_size_that_it_does_not_keep(self, directory):
        embedder = loaded(directory)
        cached = CachedEncoder(embedder)
        for size in (None, *self.SIZES):
            expected = embedder.encode(TEXTS, dimensions=size)
            assert_alike(cached.encode(TEXTS, dimensions=size).dense, expected.dense)
            found = asyncio.run(cached.aencode(TEXTS, dimensions=size))
            assert_alike(found.dense, expected.dense)
        with pytest.raises(ValueError, match="dimensions is 8, but must be one of 32, 48, 96"):
            cached.encode(TEXTS, dimensions=8)

    @pytest.mark.parametrize("dimensions", [1, 47, 64, 1024])
    def test_every_other_size_is_refused_and_the_sizes_are_named(self, directory, dimensions):
        embedder = loaded(directory)
        message = f"{dimensions}, but must be one of 32, 48, 96"
        for ask in (embedder.encode, embedder.encode_dense, shared_encoder(embedder).encode):
            with pytest.raises(ValueError, match=message):
                ask("w1", dimensions=dimensions)
        with pytest.raises(ValueError, match=message):
            loaded(directory, dimensions=dimensions)
        with pytest.raises(ValueError, match=message):
            QdrantVectorizer(embedder, dimensions=dimensions)
        with pytest.raises(TypeError, match="dimensions must be one of 32, 48, 96, got True"):
            embedder.encode("w1", dimensions=True)

    def test_nothing_is_cut(self, directory):
        embedder = loaded(directory)
        both = HybridEmbeddings.concatenate(embedder.encode_iter(TEXTS))
        parts = HybridEmbeddings.concatenate([both[:2], pickle.loads(pickle.dumps(both[2:]))])
        for embeddings in (both, parts, shared_encoder(embedder).encode(TEXTS)):
            assert embeddings.with_dimensions(48).dense == pytest.approx(embeddings.dense)
            with pytest.raises(ValueError, match=r"of 48 cannot be cut: .* sizes 32, 48, 96"):
                embeddings.with_dimensions(32)
            with pytest.raises(ValueError, match="must be one of 32, 48, 96"):
                embeddings.with_dimensions(16)

    def test_an_index_takes_a_matrix_and_no_coarse_vectors(self, directory):
        embedder = loaded(directory)
        vectorizer = QdrantVectorizer(embedder, dimensions=96)
        assert vectorizer.query_vectors("w1", "dense").dense.shape == (1, 96)
        with pytest.raises(ValueError, match=r"coarse_dimensions is 8, .* sizes 32, 48, 96"):
            QdrantVectorizer(embedder, coarse_dimensions=8)
        vectorizer = QdrantVectorizer(embedder)
        for recorded, taken in ((96, 96), (64, 48)):
            vectorizer.fit_to({"dimensions": recorded})
            assert vectorizer.dimensions == taken

    def test_a_matrix_whose_folder_says_another_size_is_refused(self, directory):
        config = directory / "2_Dense_96" / "config.json"
        write_json(config, json.loads(config.read_text()) | {"out_features": 80})
        with pytest.raises(
            ConfigError, match=r"2_Dense_96/config\.json: out_features is 80; .* 96"
        ):
            loaded(directory)

    def test_a_matrix_that_is_not_there_in_full_is_not_offered(self, directory):
        (directory / "2_Dense_96" / "model.safetensors").unlink()
        assert loaded(directory).separate_sizes == (32, 48)


DAMAGED = {
    "no bias": (lambda weights: weights.pop("linear.bias"), WeightsError, "missing: linear.bias"),
    "another shape": (
        lambda weights: weights.update({"linear.weight": torch.ones(3, 64)}),
        WeightsError,
        r"linear\.weight is \(3, 64\), config\.json wants \(32, 64\)",
    ),
    "one more": (
        lambda weights: weights.update({"residual.weight": torch.ones(32, 64)}),
        WeightsError,
        r"unexpected: residual\.weight",
    ),
    "no numbers": (
        lambda weights: weights["linear.bias"].fill_(torch.nan),
        NonFiniteError,
        r"texts\[0\]: NaN or infinity behind the Dense module",
    ),
}


@pytest.mark.parametrize(("damage", "error", "message"), DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_matrix(make, damage, error, message):
    directory = make(MEAN, matrix(32))
    path = directory / "2_Dense_32" / "model.safetensors"
    weights = load_file(path)
    damage(weights)
    save_file(weights, path)
    with pytest.raises(error, match=message):
        loaded(directory).encode("w1")


@pytest.mark.parametrize("beside", [[], ["pytorch_model.bin"]])
def test_a_missing_matrix(make, beside):
    directory = make(MEAN, matrix(32))
    (directory / "2_Dense_32" / "model.safetensors").unlink()
    for name in beside:
        (directory / "2_Dense_32" / name).touch()
    with pytest.raises(WeightsError, match=r"2_Dense_32 holds .*model\.safetensors"):
        loaded(directory)


class TestIdentity:
    def test_pooling_that_is_not_cls_and_matrices_make_another_model(self, make):
        plain = make({"pooling_mode": "cls"}, name="plain")
        found = [loaded(plain).fingerprint.model]
        for name in ("modules.json", "1_Pooling", "2_Normalize"):
            path = plain / name
            path.unlink() if path.is_file() else shutil.rmtree(path)
        assert loaded(plain).fingerprint.model == found[0]  # that of version 0.1.0
        others = [
            make(MEAN, name="mean"),
            make(MEAN, include_prompt=False, name="no prompt"),
            make(MEAN, matrix(32), name="one"),
            make(MEAN, matrix(32, activation=TANH), name="tanh"),
            make(MEAN, matrix(32), matrix(48), name="two"),
        ]
        found += [loaded(directory).fingerprint.model for directory in others]
        assert len(set(found)) == len(found)
        booleans = make(POOLINGS["mean in booleans"], name="booleans")
        assert loaded(booleans).fingerprint.model == found[1]

    @pytest.mark.parametrize(
        "name", ["modules.json", "1_Pooling/config.json", "2_Dense_32/model.safetensors"]
    )
    def test_files_that_changed_meanwhile_are_noticed(self, make, name):
        directory = make(MEAN, matrix(32))
        embedder = loaded(directory)
        with (directory / name).open("ab") as file:
            file.write(b" ")
        with pytest.raises(WeightsError, match="were changed after they were loaded"):
            _ = embedder.fingerprint
