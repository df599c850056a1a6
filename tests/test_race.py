"""The race of examples/benchmarks: the same weights for everyone, and one table of all."""

import io
import json
import re
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from transformers import AutoModel

from gte_core import ConfigError, GTEConfig

BENCHMARKS = Path(__file__).parent.parent / "examples" / "benchmarks"
NATIVE = runpy.run_path(str(BENCHMARKS / "native_form.py"))
PEERS = ["transformers:float32", "sentence-transformers:float32"]


def race(*arguments):
    command = [sys.executable, str(BENCHMARKS / "race.py"), "--model", "demo", *arguments]
    return subprocess.run(command, check=False, capture_output=True, text=True)


class TestNativeForm:
    def test_transformers_computes_the_same(self, small_checkpoint, small, tmp_path):
        native = NATIVE["write_native_form"](small_checkpoint, tmp_path / "native")
        model = AutoModel.from_pretrained(native, dtype="float32")
        words = "w1 w2 w3"
        ids = small.tokenizer.tokenize([words], 100)[0].ids
        with torch.inference_mode():
            first = model(input_ids=torch.tensor([ids])).last_hidden_state[0, 0].numpy()
        np.testing.assert_allclose(
            first / np.linalg.norm(first), small.encode_dense(words)[0], atol=2e-6
        )

    @pytest.mark.parametrize(
        "scaling", [None, {"type": "ntk", "factor": 8.0}, {"type": "linear", "factor": 2.0}]
    )
    def test_the_rotary_angles_are_the_same(self, scaling):
        fields = {"model_type": "new", "rope_theta": 20_000, "rope_scaling": scaling}
        config = GTEConfig.from_dict(fields)
        native = GTEConfig.from_dict(NATIVE["native_config"](config))
        torch.testing.assert_close(
            native.rotary.inverse_frequencies(64), config.rotary.inverse_frequencies(64)
        )

    def test_a_rotary_scaling_that_transformers_lacks(self):
        scaling = {"type": "ntk", "factor": 8.0, "mixed_b": 0.6}
        config = GTEConfig.from_dict({"model_type": "new", "rope_scaling": scaling})
        with pytest.raises(ConfigError, match="no rotary scaling with mixed_b"):
            NATIVE["native_config"](config)

    def test_files_are_copied_where_links_are_refused(
        self, small_checkpoint, monkeypatch, tmp_path
    ):
        def refuse(self, target):
            raise OSError("no links")

        monkeypatch.setattr(Path, "symlink_to", refuse)
        native = NATIVE["write_native_form"](small_checkpoint, tmp_path / "native")
        assert not (native / "model.safetensors").is_symlink()


CONTENDERS = runpy.run_path(str(BENCHMARKS / "contenders.py"))


class TestContenders:
    @pytest.mark.parametrize("name", ["bert:float32", "gte", "gte:float8+graphs", "gte:"])
    def test_a_name_that_means_nothing(self, name):
        message = f"The contender is {re.escape(repr(name))}, but must be LIBRARY:TYPE"
        with pytest.raises(ValueError, match=message):
            CONTENDERS["Contender"].named(name)

    def test_the_default_ones_can_be_read(self):
        for names in CONTENDERS["DEFAULTS"].values():
            assert all(map(CONTENDERS["Contender"].named, names))

    def test_batches_larger_than_a_call_are_one(self):
        assert CONTENDERS["distinct"]([32, 8, 1], 4) == [32, 1]


@pytest.mark.slow
def test_everyone_computes_the_same_vectors():
    contenders = [word for name in ("gte:float32", *PEERS) for word in ("--contender", name)]
    options = ["--quick", "--rounds", "1", "--workload", "queries", "--json"]
    done = race(*options, *contenders, "--contender", "gte:float8")
    found = json.loads(done.stdout)
    assert {row["contender"] for row in found["rows"]} == {"gte:float32", *PEERS}
    assert min(row["smallest_cosine"] for row in found["rows"]) > 0.999
    assert found["rows"][0]["first_is_times_as_fast"] == [1, 1, 1]
    assert "needs a Hopper GPU" in found["left_out"]["gte:float8"]


class TestTables:
    @pytest.fixture
    def parts(self, monkeypatch):
        monkeypatch.syspath_prepend(BENCHMARKS)
        return runpy.run_path(str(BENCHMARKS / "race.py"))

    @pytest.fixture
    def answers(self, tmp_path):
        """A round of two contenders, whose second one has other vectors in its second batch."""

        def run(calls_s, vectors, batch_size):
            file = tmp_path / f"{batch_size}.npy"
            np.save(file, np.array(vectors, np.float32))
            workload = {"workload": "queries", "n_tokens": 2_000_000, "flops": 10**9}
            return {**workload, "calls_s": calls_s, "batch_size": batch_size, "vectors": str(file)}

        machine = {"machine": "GPU X", "start_s": 3.5, "ram_bytes": 10**9, "vram_bytes": 10**10}
        about = machine | {"dtype": "bfloat16", "peak_flops": 10**9}
        same, other = ((1, 0), (0, 1)), ((1, 0), (1, 0))
        return {
            "gte:float8+compile": [about | {"runs": [run([2.0], same, 1)]}],
            "sentence-transformers:bfloat16": [
                about | {"runs": [run([8.0], same, 32), run([8.0], other, 128)]}
            ],
        }

    def test_ratios_are_those_of_the_seconds(self, parts, answers):
        ours, same, other = parts["compare"](answers)
        assert ours["share_of_peak"] == 0.5
        assert same["first_is_times_as_fast"] == [4, 4, 4]
        assert same["tokens_per_s"] == [250_000] * 3
        assert (other["smallest_cosine"], other["first_is_times_as_fast"]) == (0, None)

    def test_they_read_at_80_columns(self, parts, answers):
        console = Console(width=80, file=io.StringIO())
        console.print(parts["speed_table"](parts["compare"](answers)))
        console.print(parts["start_table"](answers))
        shown = console.file.getvalue()
        assert "…" not in shown
        assert "4.00 (4.0–4.0)" in shown
        assert "other vectors" in shown


def test_a_contender_that_is_none_is_refused():
    done = race("--contender", "bert:float32")
    assert done.returncode == 2
    assert "The contender is 'bert:float32', but must be LIBRARY:TYPE" in done.stderr
