"""A hostile model directory runs nothing."""

import io
import json
import pickle
import re
import subprocess
import sys
import tokenize
from pathlib import Path

import pytest

import gte_core
from gte_core.testing import random_checkpoint

HOSTILE_CODE = "import pathlib; pathlib.Path({marker!r}).touch()\n"


class Bomb:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return exec, (HOSTILE_CODE.format(marker=self.marker),)


@pytest.fixture
def hostile(tmp_path):
    directory = random_checkpoint(tmp_path / "model")
    marker = str(tmp_path / "executed")
    code = HOSTILE_CODE.format(marker=marker)
    for name in ("modeling.py", "configuration.py", "sitecustomize.py", "usercustomize.py"):
        (directory / name).write_text(code)
    for name in ("pytorch_model.bin", "model.pt", "training_args.bin", "optimizer.pkl"):
        (directory / name).write_bytes(pickle.dumps(Bomb(marker)))
    config = json.loads((directory / "config.json").read_text())
    config["auto_map"] = {
        "AutoConfig": "configuration.NewConfig",
        "AutoModel": "modeling.NewModel",
        "AutoModelForTokenClassification": "modeling.NewForTokenClassification",
    }
    config["trust_remote_code"] = True
    (directory / "config.json").write_text(json.dumps(config))
    return directory, tmp_path / "executed"


def test_loading_runs_no_code_from_the_directory(hostile):
    directory, marker = hostile
    # The directory is where the program runs and on its path: whatever imports by name, finds it.
    script = f"""
import sys
from gte_core import GTEEmbedder, GTEModel
sys.path.insert(0, {str(directory)!r})
GTEEmbedder.from_pretrained(".").encode("w1")
GTEModel.from_pretrained({str(directory)!r})
assert not any("transformers" in name for name in sys.modules)
"""
    command = [sys.executable, "-P", "-c", script]
    subprocess.run(command, check=True, timeout=120, cwd=directory)
    assert not marker.exists()


def test_a_directory_with_pickles_alone_is_refused_unopened(hostile):
    directory, marker = hostile
    (directory / "model.safetensors").unlink()
    script = f"""
from gte_core import GTEEmbedder, WeightsError
try:
    GTEEmbedder.from_pretrained({str(directory)!r})
except WeightsError as error:
    assert "Only safetensors are read" in str(error)
else:
    raise SystemExit("not refused")
"""
    subprocess.run([sys.executable, "-P", "-c", script], check=True, timeout=120)
    assert not marker.exists()


def test_the_bomb_works(tmp_path):
    """The tests above would notice: unpickling what they leave unopened does leave the marker."""
    marker = tmp_path / "executed"
    pickle.loads(pickle.dumps(Bomb(str(marker))))
    assert marker.exists()


def test_no_code_of_ours_can_unpickle_or_execute():
    forbidden = re.compile(
        r"\b(pickle|marshal|shelve|joblib|dill)\b|torch\.load|allow_pickle|\beval\(|\bexec\("
        r"|trust_remote_code\s*=\s*True|import_module\(.*(model|config)"
    )
    for path in Path(gte_core.__file__).parent.rglob("*.py"):
        code = "\n".join(
            token.string
            for token in tokenize.generate_tokens(io.StringIO(path.read_text()).readline)
            if token.type not in (tokenize.STRING, tokenize.COMMENT)
        )
        assert not forbidden.search(code), path
