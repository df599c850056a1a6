"""What a checkpoint says of itself, without its weights."""

import json

import pytest

from gte_core import Capabilities, ConfigError, GTEEmbedder, HubError, read_capabilities
from gte_core.testing import random_checkpoint


def test_the_demo_model():
    found = read_capabilities("demo")
    assert (found.model, found.revision, found.refusal) == ("demo", None, None)
    assert (found.has_dense, found.has_sparse, found.is_reranker) == (True, True, False)
    assert (found.pooling, found.dimensions, found.sizes) == ("cls", 256, ())
    assert (found.sparse, found.sparse_width, found.max_length) == ("tokens", 20_480, 8192)
    assert found.n_parameters == 8_660_993
    assert found == GTEEmbedder.from_pretrained("demo").capabilities


def test_only_what_there_is_is_shown():
    shown = repr(read_capabilities("demo"))
    assert shown.startswith("Capabilities(model='demo', architecture='NewForTokenClassification'")
    assert "revision" not in shown
    assert "refusal" not in shown


@pytest.mark.parametrize("labels", [1, 2])
def test_a_checkpoint_without_the_sparse_head(tmp_path, labels):
    task = "token_classification" if labels > 1 else None
    found = read_capabilities(random_checkpoint(tmp_path, {"num_labels": labels}, task=task))
    assert (found.has_dense, found.sparse, found.sparse_width) == (True, None, 0)


@pytest.mark.parametrize("announced", [True, False])
def test_a_reranker_embeds_nothing(tmp_path, announced):
    fields = {} if announced else {"architectures": ["NewModel"], "num_labels": None}
    directory = random_checkpoint(tmp_path, task="sequence_classification")
    config = directory / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | fields))
    found = read_capabilities(directory)
    assert (found.is_reranker, found.has_dense, found.dimensions) == (True, False, 0)
    assert "Load it with GTEReranker" in found.refusal


def test_another_architecture_is_named_and_refused(tmp_path):
    config = {"model_type": "bert", "architectures": ["BertModel"]}
    (tmp_path / "config.json").write_text(json.dumps(config))
    found = read_capabilities(tmp_path)
    assert (found.architecture, found.n_parameters) == ("BertModel", None)
    assert "model_type is 'bert'; supported are" in found.refusal


def test_weights_that_are_missing_are_the_reason(tmp_path):
    (random_checkpoint(tmp_path) / "model.safetensors").unlink()
    assert "holds neither model.safetensors nor" in read_capabilities(tmp_path).refusal


@pytest.mark.parametrize(
    ("readme", "licence"),
    [
        ("---\nlanguage: vi\nlicense: apache-2.0\n---\n# A model", "apache-2.0"),
        ("---\r\nlicense: 'mit'\r\n---\r\n", "mit"),
        ("# A model\nlicense: mit\n", None),
        ("---\ntags:\n- license: mit\n---\n", None),
    ],
)
def test_the_licence_is_that_of_the_front_matter(tmp_path, readme, licence):
    (random_checkpoint(tmp_path) / "README.md").write_bytes(readme.encode())
    assert read_capabilities(tmp_path).licence == licence


def test_what_is_no_checkpoint_at_all_is_an_error(tmp_path):
    with pytest.raises(ConfigError, match=r"config\.json does not exist"):
        read_capabilities(tmp_path)
    with pytest.raises(HubError, match="no directory here and no hub id"):
        read_capabilities("nothing")


def test_records_are_frozen_and_compare():
    found = read_capabilities("demo")
    assert hash(found) == hash(read_capabilities("demo"))
    with pytest.raises(AttributeError, match="cannot assign"):
        found.model = "other"
    assert Capabilities(model="a", architecture="b") != found
