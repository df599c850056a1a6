"""A run that is killed, and the one after it that must end as if nothing had been.

The default tests kill at the steps where most is half done; the slow ones at every step that can be
told apart (each call of the client or engine, each change to a file that Python makes), and at
random moments, which reach inside the engines. Their figures are in docs/indexes.md.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

HARNESS = Path(__file__).with_name("kill_harness.py")
MILVUS = "/milvus.db/collections/docs"
DECISIVE = {
    ("milvus", "create"): [[f"open {MILVUS}/schema.json.tmp", 1], ["_create_index", 2]],
    ("milvus", "add"): [["insert", 2]],
    ("edge", "create"): [["create", 1], ["os.rename /qdrant/docs/gte.partial", 1]],
    ("edge", "add"): [["update", 2]],
}


def harness(*jobs):
    command = [sys.executable, HARNESS, json.dumps(jobs)]
    result = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(result.stdout)


def job(engine, verb, *, number=0, points=None):
    return {"engine": engine, "verb": verb, "number": number, "points": points}


def test_what_was_killed_where_most_is_half_done_goes_on():
    jobs = [job(*what, points=points) for what, points in DECISIVE.items()]
    for result in harness(*jobs):
        assert result["failures"] == []
        assert result["expected"][:2] == [12, 12]


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["create", "add"])
@pytest.mark.parametrize("engine", ["edge", "milvus"])
def test_what_was_killed_at_any_step_goes_on(engine, verb):
    [result] = harness(job(engine, verb))
    assert len(result["points"]) >= 8
    assert result["failures"] == []


@pytest.mark.slow
@pytest.mark.parametrize(("verb", "number"), [("create", 100), ("add", 60)])
@pytest.mark.parametrize("engine", ["edge", "milvus"])
def test_what_was_killed_at_a_random_moment_goes_on(engine, verb, number):
    [result] = harness(job(engine, verb, number=number))
    assert result["failures"] == []
    assert result["killed"] > number / 10  # the others had ended before, as short runs may
