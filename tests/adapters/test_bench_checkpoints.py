"""The same weights for everyone, in the form that each library reads."""

import json
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModel, XLMRobertaModel

from gte_core import ConfigError, GTEConfig, GTEEmbedder, HubError
from gte_integrations.bench import checkpoints
from gte_integrations.bench.checkpoints import find_checkpoint, native_config, write_native_form
from gte_integrations.bench.xlm_roberta import write_xlm_roberta

DEMO = Path(str(files("gte_core") / "data" / "demo"))


@pytest.fixture
def nothing_cached(monkeypatch):
    def refuse(*args, **options):
        raise HubError("not here")

    monkeypatch.setattr(GTEEmbedder, "from_pretrained", refuse)


class TestFindCheckpoint:
    def test_demo_and_directories(self, small_checkpoint, tmp_path):
        assert find_checkpoint("demo", tmp_path).directory == DEMO
        found = find_checkpoint(str(small_checkpoint), tmp_path)
        assert (found.directory, found.random_weights) == (small_checkpoint, False)
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.usefixtures("nothing_cached")
    def test_without_the_published_model_weights_are_random(self, monkeypatch, tmp_path):
        small = {"vocab_size": 400, "hidden_size": 32, "num_hidden_layers": 1}
        monkeypatch.setattr(checkpoints, "_REAL_SHAPE", small)
        monkeypatch.setattr(checkpoints, "_REAL_PIECES", 350)
        found = find_checkpoint(None, tmp_path / "random")
        assert found.random_weights
        assert found.label.startswith("random weights")
        tokenizer = json.loads((found.directory / "tokenizer.json").read_text("utf-8"))
        assert len(tokenizer["model"]["vocab"]) == 350

    @pytest.mark.usefixtures("nothing_cached")
    def test_a_model_that_was_asked_for_is_not_replaced(self, tmp_path):
        with pytest.raises(HubError, match="not here"):
            find_checkpoint("org/model", tmp_path)

    def test_the_real_shape_is_that_of_the_published_model(self):
        published = GTEConfig.from_dict({"model_type": "gte"})
        for name, value in checkpoints._REAL_SHAPE.items():
            assert getattr(published, name) == value


class TestNativeForm:
    def test_transformers_computes_the_same(self, small_checkpoint, small, tmp_path):
        native = write_native_form(small_checkpoint, tmp_path / "native")
        model = AutoModel.from_pretrained(native, dtype="float32")
        ids = small.tokenizer.tokenize(["w1 w2 w3"], 100)[0].ids
        with torch.inference_mode():
            first = model(input_ids=torch.tensor([ids])).last_hidden_state[0, 0].numpy()
        np.testing.assert_allclose(
            first / np.linalg.norm(first), small.encode_dense("w1 w2 w3")[0], atol=2e-6
        )

    @pytest.mark.parametrize(
        "scaling", [None, {"type": "ntk", "factor": 8.0}, {"type": "linear", "factor": 2.0}]
    )
    def test_the_rotary_angles_are_the_same(self, scaling):
        fields = {"model_type": "new", "rope_theta": 20_000, "rope_scaling": scaling}
        config = GTEConfig.from_dict(fields)
        native = GTEConfig.from_dict(native_config(config) | {"architectures": ["GteModel"]})
        torch.testing.assert_close(
            native.rotary.inverse_frequencies(64), config.rotary.inverse_frequencies(64)
        )

    def test_a_rotary_scaling_that_transformers_lacks(self):
        scaling = {"type": "ntk", "factor": 8.0, "mixed_b": 0.6}
        config = GTEConfig.from_dict({"model_type": "new", "rope_scaling": scaling})
        with pytest.raises(ConfigError, match="no rotary scaling with mixed_b"):
            native_config(config)

    def test_files_are_copied_where_links_are_refused(
        self, small_checkpoint, monkeypatch, tmp_path
    ):
        def refuse(self, target):
            raise OSError("no links")

        monkeypatch.setattr(Path, "symlink_to", refuse)
        native = write_native_form(small_checkpoint, tmp_path / "native")
        assert not (native / "model.safetensors").is_symlink()


def test_the_xlm_roberta_checkpoint_is_whole(small_checkpoint, tmp_path):
    native = write_native_form(small_checkpoint, tmp_path / "native")
    config = GTEConfig.from_pretrained(small_checkpoint)
    directory = write_xlm_roberta(config, native, tmp_path / "xlm")
    _, loading = XLMRobertaModel.from_pretrained(directory, output_loading_info=True)
    assert not loading["missing_keys"]
    assert not loading["unexpected_keys"]
    assert not loading["mismatched_keys"]
