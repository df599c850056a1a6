"""What decides a vector is read from the files, and refused by name where it is not computed."""

import json
import runpy
import shutil
from pathlib import Path

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Dense, Pooling

from gte_core import ConfigError, GTEConfig, GTEEmbedder, GTEModel, GTEReranker, MissingHeadError
from gte_core.checkpoint.modules import Module, is_described, read_description
from gte_core.testing import random_checkpoint

ST = "sentence_transformers.models."
BOTH = [("", "Transformer"), ("1_Pooling", "Pooling")]
ALL = [*BOTH, ("2_Normalize", "Normalize")]


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
    "settings of the network": {"transformer": {"max_seq_length": 8192, "do_lower_case": False}},
}


@pytest.mark.parametrize("files", LOADS.values(), ids=LOADS)
def test_cls_pooling_loads_in_every_published_form(checkpoint, small, files):
    embedder = GTEEmbedder.from_pretrained(describe(checkpoint, **files), dtype="float32")
    assert embedder.encode("w1 w2").dense == pytest.approx(small.encode("w1 w2").dense, abs=1e-6)


REFUSED = {
    "mean": (
        {"pooling": {"pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True}},
        r"1_Pooling/config\.json: pooling_mode_mean_tokens is True; supported by this version is",
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
    "the default": ({"pooling": {}}, "pooling_mode is 'mean'"),
    "no mode": ({"pooling": {"pooling_mode": []}}, r"pooling_mode is \[\]; .* name of a mode"),
    "no name": ({"pooling": {"pooling_mode": [1]}}, r"pooling_mode is \[1\]"),
    "no boolean": (
        {"pooling": {"pooling_mode_cls_token": "true"}},
        "pooling_mode_cls_token is 'true'; supported by this version is true or false",
    ),
    "prompts left out": (
        {"pooling": {"pooling_mode": "cls", "include_prompt": False}},
        "include_prompt is False; supported by this version is True",
    ),
    "a matrix": (
        {"modules": [*BOTH, ("2_Dense_1024", "Dense")]},
        r"modules\.json: type is 'Dense'; supported by this version is Transformer, Pooling or",
    ),
    "a class of its own": (
        {"modules": [("", "custom.Transformer"), *BOTH[1:]]},
        "type is 'custom.Transformer'",
    ),
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
    assert read_description(checkpoint).modules == ()
    embedder = GTEEmbedder.from_pretrained(checkpoint, dtype="float32")
    assert embedder.encode("w1").dense == pytest.approx(small.encode("w1").dense, abs=1e-6)


def test_a_description_is_there_when_its_pooling_is(checkpoint):
    describe(checkpoint)
    assert is_described(checkpoint)
    (checkpoint / "1_Pooling" / "config.json").unlink()
    assert not is_described(checkpoint)
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

    def test_a_model_of_cls_and_one_with_a_matrix(self, checkpoint, tmp_path, small):
        native = self.native(checkpoint, tmp_path / "native")
        theirs = SentenceTransformer(str(native), device="cpu")
        theirs[1].pooling_mode = "cls"
        theirs.save(str(tmp_path / "cls"))
        ours = GTEEmbedder.from_pretrained(tmp_path / "cls", dtype="float32")
        expected = theirs.encode(["w1 w2"], normalize_embeddings=True)
        np.testing.assert_allclose(ours.encode_dense("w1 w2"), expected, atol=1e-5)

        theirs.append(Dense(64, 32))
        theirs.save(str(tmp_path / "matrix"))
        with pytest.raises(ConfigError, match="type is 'Dense'"):
            GTEEmbedder.from_pretrained(tmp_path / "matrix")

    @staticmethod
    def native(source, target):
        benchmarks = Path(__file__).parents[2] / "examples" / "benchmarks"

        return runpy.run_path(str(benchmarks / "native_form.py"))["write_native_form"](
            source, target
        )
