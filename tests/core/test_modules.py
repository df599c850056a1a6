"""What decides a vector is read from the files, and refused by name where it is not computed."""

import importlib
import json
import re
import runpy
import shutil
from pathlib import Path

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Module as BaseModule
from sentence_transformers.sentence_transformer.modules import Dense, Pooling
from sentence_transformers.sentence_transformer.modules.pooling import _LEGACY_POOLING_MODE_KWARGS

from gte_core import ConfigError, GTEConfig, GTEEmbedder, GTEModel, GTEReranker, MissingHeadError
from gte_core.checkpoint.modules import Description, Module, is_described, read_description
from gte_core.testing import random_checkpoint

ST = "sentence_transformers.models."
BOTH = [("", "Transformer"), ("1_Pooling", "Pooling")]
DENSE = {"in_features": 64, "out_features": 8, "activation_function": "torch.nn.Identity"}
ALL = [*BOTH, ("2_Normalize", "Normalize")]


KINDS_OF_MODELS = (
    "sentence_transformer",
    "sparse_encoder",
    "cross_encoder",
    "multi_vector_encoder",
)
COMPUTED = [["Transformer", "Pooling"], ["Transformer", "Pooling", "Dense"]]
COMPUTED += [[*order, "Normalize"] for order in COMPUTED]


@pytest.fixture
def checkpoint(tmp_path, small_checkpoint):
    directory = tmp_path / "checkpoint"
    shutil.copytree(small_checkpoint, directory)
    return directory


def describe(directory, modules=ALL, **files):
    """Write modules.json, and other files by their name up to the dot or the slash."""
    names = {
        "pooling": "1_Pooling/config.json",
        "normalize": "2_Normalize/config.json",
        "dense": "2_Dense/config.json",
        "transformer": "sentence_bert_config.json",
        "settings": "config_sentence_transformers.json",
    }
    entries = [{"path": path, "type": kind if "." in kind else ST + kind} for path, kind in modules]
    contents = {"pooling": {"pooling_mode": "cls"}} | files
    (directory / "modules.json").write_text(json.dumps(entries))
    for key, content in contents.items():
        path = directory / names[key]
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(content))
    return directory


def edit_config(directory, **fields):
    path = directory / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


LOADS = {
    "a name": {"pooling": {"pooling_mode": "cls"}},
    "a list of one": {"pooling": {"pooling_mode": ["cls"]}},
    "booleans": {
        "pooling": {
            "word_embedding_dimension": 64,
            "pooling_mode_cls_token": True,
            "pooling_mode_mean_tokens": False,
            "include_prompt": True,
        }
    },
    "no normalization": {"modules": BOTH},
    "newer names of classes": {
        "modules": [
            ("", "sentence_transformers.base.modules.transformer.Transformer"),
            ("1_Pooling", "sentence_transformers.sentence_transformer.modules.pooling.Pooling"),
            ("2_Normalize", "sentence_transformers.base.modules.normalize.Normalize"),
        ],
        "normalize": {"module_input_name": "sentence_embedding", "module_output_name": None},
        "settings": {"model_type": "SentenceTransformer", "prompts": {"query": "query: "}},
    },
    "what they write today": {
        "transformer": {
            "transformer_task": "feature-extraction",
            "modality_config": {
                "text": {"method": "forward", "method_output_name": "last_hidden_state"}
            },
            "module_output_name": "token_embeddings",
            "processing_kwargs": {},
            "unpad_inputs": True,
            "query_length": None,
        }
    },
    "settings of the network": {"transformer": {"max_seq_length": 8192, "do_lower_case": False}},
}


@pytest.mark.parametrize("files", LOADS.values(), ids=LOADS)
def test_cls_pooling_loads_in_every_published_form(checkpoint, small, files):
    embedder = GTEEmbedder.from_pretrained(describe(checkpoint, **files), dtype="float32")
    assert embedder.encode("w1 w2").dense == pytest.approx(small.encode("w1 w2").dense, abs=1e-6)


REFUSED = {
    "max": (
        {"pooling": {"pooling_mode_cls_token": False, "pooling_mode_max_tokens": True}},
        r"1_Pooling/config\.json: pooling_mode_max_tokens is True; supported by this version is",
    ),
    "cls and mean": (
        {"pooling": {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": True}},
        "pooling_mode_mean_tokens is True",
    ),
    "a name": ({"pooling": {"pooling_mode": "lasttoken"}}, "pooling_mode is 'lasttoken'"),
    "a list": (
        {"pooling": {"pooling_mode": ["cls", "max"]}},
        r"pooling_mode is \['cls', 'max'\]",
    ),
    "no mode": ({"pooling": {"pooling_mode": []}}, r"pooling_mode is \[\]; .* name of a mode"),
    "no name": ({"pooling": {"pooling_mode": [1]}}, r"pooling_mode is \[1\]"),
    "no boolean": (
        {"pooling": {"pooling_mode_cls_token": "true"}},
        "pooling_mode_cls_token is 'true'; supported by this version is true or false",
    ),
    "prompts neither way": (
        {"pooling": {"pooling_mode": "cls", "include_prompt": "false"}},
        "include_prompt is 'false'; supported by this version is true or false",
    ),
    "no matrix": (
        {"modules": [*BOTH, ("2_Dense_1024", "Dense")]},
        r"2_Dense_1024/config\.json does not exist",
    ),
    "two matrices": (
        {"modules": [*BOTH, ("2_Dense", "Dense"), ("2_Dense", "Dense")], "dense": DENSE},
        r"modules\.json: the order is .*; supported by this version is Transformer, Pooling, Dense",
    ),
    "a matrix behind the length": (
        {"modules": [*ALL, ("2_Dense", "Dense")], "dense": DENSE},
        "the order is .*'Normalize', 'Dense'",
    ),
    "a class of its own": (
        {"modules": [("", "custom.Transformer"), *BOTH[1:]]},
        "type is 'custom.Transformer'",
    ),
    **{
        f"a matrix with {name}": (
            {"modules": [*BOTH, ("2_Dense", "Dense")], "dense": DENSE | {name: value}},
            rf"2_Dense/config\.json: {name} is {value!r}",
        )
        for name, value in {
            "in_features": 63,
            "out_features": 0,
            "bias": "true",
            "activation_function": "torch.nn.modules.activation.ReLU",
            "use_residual": True,
            "module_input_name": "token_embeddings",
            "module_output_name": "other",
        }.items()
    },
    "no pooling": ({"modules": ALL[:1]}, r"the order is \['Transformer'\]"),
    "two poolings": ({"modules": [*BOTH, BOTH[1]]}, "the order is"),
    "no modules": ({"modules": []}, r"must hold a list of 1 to 100 modules, got \[\]"),
    "a folder elsewhere": ({"modules": [BOTH[0], ("../x", "Pooling")]}, "path is '../x'"),
    "an absolute folder": ({"modules": [BOTH[0], ("/x", "Pooling")]}, "path is '/x'"),
    "another network": (
        {"modules": [("0_Transformer", "Transformer"), BOTH[1]]},
        "path of the Transformer is '0_Transformer'",
    ),
    "lower case": (
        {"transformer": {"do_lower_case": True}},
        r"sentence_bert_config\.json: do_lower_case is True",
    ),
    **{
        f"another {name}": (
            {"transformer": {name: value}},
            rf"sentence_bert_config\.json: {name} is {re.escape(repr(value))}; supported",
        )
        for name, value in {
            "transformer_task": "sequence-classification",
            "modality_config": {"text": {"method": "forward"}},
            "module_output_name": "scores",
            "processing_kwargs": {"text": {"max_length": 8}},
            "tokenizer_name_or_path": "other",
            "query_length": 32,
            "document_length": 32,
            "query_expansion": {"mode": "x"},
        }.items()
    },
    "a pooling without a folder": (
        {"modules": [BOTH[0], ("", "Pooling")]},
        r"modules\.json: path of the Pooling is ''",
    ),
    "normalized tokens": (
        {"normalize": {"module_input_name": "token_embeddings"}},
        "module_input_name is 'token_embeddings'",
    ),
    "another kind of model": (
        {"settings": {"model_type": "MultiVectorEncoder"}},
        r"config_sentence_transformers\.json: model_type is 'MultiVectorEncoder'",
    ),
    "no kind of model": ({"settings": {"model_type": 3}}, "model_type is 3; .* is a name"),
}


@pytest.mark.parametrize(("files", "message"), REFUSED.values(), ids=REFUSED)
def test_vectors_made_another_way_are_refused_by_file_field_and_value(checkpoint, files, message):
    describe(checkpoint, **files)
    with pytest.raises(ConfigError, match=message):
        GTEEmbedder.from_pretrained(checkpoint)
    assert GTEModel.from_pretrained(checkpoint)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("modules.json", "{}", "must hold a list of 1 to 100 modules"),
        ("modules.json", "[3]", "type is None; supported by this version is a class of sent"),
        ("modules.json", "[" * 9999, "is not valid JSON"),
        ("1_Pooling/config.json", "[]", "must hold a JSON object"),
        ("1_Pooling/config.json", None, r"1_Pooling/config\.json does not exist"),
        ("config_sentence_transformers.json", "[]", "must hold a JSON object"),
    ],
)
def test_malformed_files(checkpoint, name, content, message):
    describe(checkpoint)
    (checkpoint / name).unlink(missing_ok=True)
    if content is not None:
        (checkpoint / name).write_text(content)
    with pytest.raises(ConfigError, match=message):
        GTEEmbedder.from_pretrained(checkpoint)


def test_without_modules_json_cls_counts(checkpoint, small):
    assert not is_described(checkpoint)
    assert read_description(checkpoint, GTEConfig.from_pretrained(checkpoint)) == Description()
    embedder = GTEEmbedder.from_pretrained(checkpoint, dtype="float32")
    assert embedder.encode("w1").dense == pytest.approx(small.encode("w1").dense, abs=1e-6)


def test_a_description_is_there_when_its_pooling_is(checkpoint):
    describe(checkpoint)
    assert is_described(checkpoint)
    (checkpoint / "1_Pooling" / "config.json").unlink()
    assert not is_described(checkpoint)
    describe(checkpoint, [*BOTH, ("2_Dense", "Dense")], dense=DENSE)
    assert not is_described(checkpoint)
    (checkpoint / "2_Dense" / "model.safetensors").touch()
    assert is_described(checkpoint)
    (checkpoint / "modules.json").write_text("broken")
    assert is_described(checkpoint)  # there is nothing to fetch; loading says what is wrong


def test_a_masked_language_model_has_no_embedding(checkpoint):
    edit_config(checkpoint, architectures=["NewForMaskedLM"])
    with pytest.raises(
        ConfigError, match=r"config\.json: architectures is \['NewForMaskedLM'\].* no trained emb"
    ):
        GTEEmbedder.from_pretrained(checkpoint)
    assert GTEModel.from_pretrained(checkpoint)


@pytest.mark.parametrize("field", ["logn_attention_scale", "logn_attention_clip1"])
@pytest.mark.parametrize("value", [True, "true"])
def test_attention_scaled_by_length_is_refused(checkpoint, field, value):
    edit_config(checkpoint, **{field: value})
    for kind in (GTEEmbedder, GTEModel):
        with pytest.raises(ConfigError, match=rf"config\.json: {field} is true; supported is fals"):
            kind.from_pretrained(checkpoint)
    edit_config(checkpoint, **{field: str(not value)})
    assert GTEConfig.from_pretrained(checkpoint)


@pytest.mark.parametrize("announced", [True, False])
def test_a_reranker_is_no_embedder(tmp_path, announced):
    path = random_checkpoint(tmp_path, task="sequence_classification")
    if not announced:
        edit_config(path, architectures=None)
    with pytest.raises(MissingHeadError, match=r"is a sequence classifier: .* with GTEReranker"):
        GTEEmbedder.from_pretrained(path)
    assert GTEModel.from_pretrained(path).is_reranker
    assert GTEReranker.from_pretrained(path).score([("w1", "w2")]).shape == (1,)


def module_types():
    """Every class that sentence-transformers knows as a module of some kind of model."""
    packages = [
        importlib.import_module(f"sentence_transformers.{kind}.modules")
        for kind in ("base", *KINDS_OF_MODELS)
    ]
    names = [vars(package)[name] for package in packages for name in package.__all__]
    types = {kind for kind in names if issubclass(kind, BaseModule)}
    return sorted(types, key=lambda kind: kind.__name__)


class TestWhatSentenceTransformersWrites:
    """Its own files, not what we think they are."""

    def test_pooling_modes(self, tmp_path):
        for mode in Pooling.POOLING_MODES:
            directory = tmp_path / mode
            directory.mkdir()
            Pooling(64, pooling_mode=mode).save(str(directory))
            file = directory / "config.json"
            module = Module("Pooling", file, json.loads(file.read_text()))
            assert [found for _, found in module.pooling_modes()] == [mode]

    @pytest.mark.parametrize("mode", Pooling.POOLING_MODES)
    def test_every_pooling_mode_is_computed_or_refused(self, checkpoint, mode):
        booleans = {name: mode == other for name, other in _LEGACY_POOLING_MODE_KWARGS.items()}
        for pooling in ({"pooling_mode": mode}, {"pooling_mode": [mode]}, booleans):
            describe(checkpoint, pooling=pooling)
            config = GTEConfig.from_pretrained(checkpoint)
            if mode in ("cls", "mean"):
                assert read_description(checkpoint, config).pooling == mode
            else:
                with pytest.raises(
                    ConfigError, match=rf"pooling_mode.* is .*{mode}|{mode}.* is Tru"
                ):
                    read_description(checkpoint, config)

    @pytest.mark.parametrize("kind", module_types(), ids=lambda kind: kind.__name__)
    def test_every_type_of_module_is_computed_or_refused(self, checkpoint, kind):
        name = f"{kind.__module__}.{kind.__name__}"
        for modules in ([*BOTH, ("2_Module", name)], [("", name), BOTH[1]], [*ALL, ("3", name)]):
            describe(checkpoint, modules)
            for folder, _ in modules[1:]:
                (checkpoint / folder).mkdir(exist_ok=True)
                (checkpoint / folder / "config.json").write_text(json.dumps(DENSE))
            if [kind.rpartition(".")[2] for _, kind in modules] in COMPUTED:
                continue
            with pytest.raises(ConfigError, match=rf"{kind.__name__}|the order is"):
                read_description(checkpoint, GTEConfig.from_pretrained(checkpoint))

    def test_a_model_of_cls_and_one_with_a_matrix(self, checkpoint, tmp_path, small):
        native = self.native(checkpoint, tmp_path / "native")
        theirs = SentenceTransformer(str(native), device="cpu")
        theirs[1].pooling_mode = "cls"
        theirs.save(str(tmp_path / "cls"))
        ours = GTEEmbedder.from_pretrained(tmp_path / "cls", dtype="float32")
        expected = theirs.encode(["w1 w2"], normalize_embeddings=True)
        np.testing.assert_allclose(ours.encode_dense("w1 w2"), expected, atol=1e-5)

        theirs[1].pooling_mode = "mean"
        theirs[1].include_prompt = False
        theirs.insert(2, Dense(64, 32))
        theirs.save(str(tmp_path / "matrix"))
        ours = GTEEmbedder.from_pretrained(tmp_path / "matrix", dtype="float32")
        expected = theirs.encode(["w1 w2"])
        np.testing.assert_allclose(ours.encode_dense("w1 w2"), expected, atol=1e-5)

    @staticmethod
    def native(source, target):
        benchmarks = Path(__file__).parents[2] / "examples" / "benchmarks"

        return runpy.run_path(str(benchmarks / "native_form.py"))["write_native_form"](
            source, target
        )
