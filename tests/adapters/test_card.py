"""The code on the model's card runs under the model's name, offline, and runs no code of its own.

It is read from ``tests/golden/card``, where it is as it is published. What must be changed in it is
listed here: the import of ours that goes before, and the slips that no version could run.
"""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from gte_core import GTEEmbedder

TOLERANCE = 2e-5
QUERY = "中国的首都在哪儿"
TEXTS = ["what is the capital of China?", "how to implement quick sort in python?", "北京"]
TEXTS += ["快排算法介绍"]

FIRST = {
    "transformers": "import gte_integrations.transformers\n",
    "sentence_transformers": "import gte_integrations.sentence_transformers\n",
    "gte_embedding": "",
}
SLIPS = {
    "transformers": ("[:, 0][:dimension]", "[:, 0, :dimension]"),
    "sentence_transformers": ("(', trust", "(model_name_or_path, trust"),
    "gte_embedding": ("from gte_embedding", "from gte_integrations.gte_embedding"),
}
# Before ours is imported, the card's arguments run the repository's code: the test would notice.
PROGRAM = """
import json, pathlib, sys
from gte_core.checkpoint import hub
from transformers import AutoConfig

snippets, marker = json.loads(sys.argv[1]), pathlib.Path(sys.argv[2])
try:
    AutoConfig.from_pretrained(hub.DEFAULT_MODEL, trust_remote_code=True)
except (AttributeError, ImportError):
    assert marker.exists()
    marker.unlink()
else:
    raise SystemExit("the repository's code did not run, where it should")
hub.PINS = {hub.DEFAULT_MODEL: hub.Pin(hub.PINS[hub.DEFAULT_MODEL].revision)}
found = {}
for name, code in snippets.items():
    scope = {}
    exec(compile(code, name, "exec"), scope)
    results = ("embeddings", "scores", "embs", "dense_scores", "sparse_scores", "hybrid_scores")
    found[name] = {key: scope[key] for key in results if key in scope}
assert not marker.exists(), "the repository's code ran"
as_list = lambda array: array.tolist()
print("\\n" + json.dumps(found, default=as_list))
"""


def corrected(golden, name):
    code = (golden / "card" / f"{name}.txt").read_text()
    wrong, right = SLIPS[name]
    assert code.count(wrong) == 1
    return FIRST[name] + code.replace(wrong, right)


@pytest.fixture(scope="module")
def found(golden, hub_home):
    """What the three pieces give in a program of their own."""
    snippets = {name: corrected(golden, name) for name in FIRST}
    command = [sys.executable, "-c", PROGRAM, json.dumps(snippets), str(hub_home / "executed")]
    environment = os.environ | {"HF_HOME": str(hub_home), "HF_HUB_OFFLINE": "1"}
    ran = subprocess.run(command, check=False, env=environment, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def ours():
    return GTEEmbedder.from_pretrained("demo", dtype="float32").encode([*TEXTS, QUERY])


@pytest.mark.parametrize(("name", "factor"), [("transformers", 100), ("sentence_transformers", 1)])
def test_dense_vectors(found, ours, name, factor):
    dense = ours.dense[: len(TEXTS)]
    np.testing.assert_allclose(found[name]["embeddings"], dense, atol=TOLERANCE)
    scores = dense[:1] @ dense[1:].T * factor
    np.testing.assert_allclose(found[name]["scores"], scores, atol=factor * TOLERANCE)


def test_both_vectors_and_their_scores(found, ours):
    script, queries = found["gte_embedding"], ours[[len(TEXTS)] * len(TEXTS)]
    documents = ours[: len(TEXTS)]
    encoded = script["embs"]
    np.testing.assert_allclose(encoded["dense_embeddings"], documents.dense, atol=TOLERANCE)
    for index, weights in enumerate(encoded["token_weights"]):
        assert weights == pytest.approx(documents.token_weights(index), abs=TOLERANCE)
    dense = (queries.dense * documents.dense).sum(axis=1)
    sparse = queries.sparse.multiply(documents.sparse).sum(axis=1)
    for name, scores in {
        "dense_scores": dense,
        "sparse_scores": sparse,
        "hybrid_scores": dense + 0.3 * sparse,
    }.items():
        np.testing.assert_allclose(script[name], scores, atol=10 * TOLERANCE)
