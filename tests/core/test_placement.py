import subprocess
import sys

import numpy as np
import pytest
import torch

from gte_core import GTEEmbedder, GTEModel
from gte_core.checkpoint.hub import ModelFiles, find_model
from gte_core.testing import random_checkpoint

CPU = torch.device("cpu")

# Loads a checkpoint of 60 MB and prints by how much the peak of memory grew.
LOAD = """
import sys, torch
from pathlib import Path
from gte_core import GTEEmbedder

def peak():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024

GTEEmbedder.from_pretrained("demo").encode("warm")
before = peak()
GTEEmbedder.from_pretrained(sys.argv[1], dtype=sys.argv[2])
print(peak() - before)
"""


def test_a_directory_may_be_overwritten_while_its_model_is_in_use(tmp_path):
    embedder = GTEEmbedder.from_pretrained(random_checkpoint(tmp_path))
    expected = embedder.encode("w1 w2 w3").dense
    random_checkpoint(tmp_path, seed=1)
    np.testing.assert_array_equal(embedder.encode("w1 w2 w3").dense, expected)


def test_word_embeddings_of_files_that_never_change_stay_as_they_are_stored():
    demo = GTEModel.for_inference(find_model("demo"), device=CPU, dtype=torch.float32)
    assert demo.embeddings.word_embeddings.weight.dtype == torch.float16
    assert demo.dtype == torch.float32


def test_those_of_a_directory_are_copied(small_checkpoint):
    files = find_model(small_checkpoint)
    model = GTEModel.for_inference(files, device=CPU, dtype=torch.bfloat16)
    assert model.embeddings.word_embeddings.weight.dtype == torch.bfloat16


def test_a_commit_never_changes_and_a_directory_may(tmp_path):
    assert ModelFiles(tmp_path, "org/model", revision="a" * 40).never_change
    assert not ModelFiles.of_directory(tmp_path, str(tmp_path)).never_change


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak of memory from /proc")
@pytest.mark.parametrize(("dtype", "bytes_each"), [("bfloat16", 2), ("float32", 4)])
def test_weights_are_never_twice_in_memory(tmp_path, dtype, bytes_each):
    shape = {"hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 7}
    path = random_checkpoint(tmp_path, shape, dtype=torch.float16)
    size = (path / "model.safetensors").stat().st_size // 2 * bytes_each
    grown = subprocess.run(
        [sys.executable, "-c", LOAD, str(path), dtype], check=True, capture_output=True, text=True
    )
    assert int(grown.stdout) < 1.25 * size + 20 * 2**20
