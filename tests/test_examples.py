"""Every example runs offline, as it stands, without a warning."""

import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"


def run(example, folder):
    # Qdrant's local mode says so of every store that asks for indexes on the payload.
    quiet = ["-W", "error", "-W", "ignore:Payload indexes have no effect"]
    command = [sys.executable, *quiet, str(example)]
    done = subprocess.run(
        command, cwd=folder, check=False, timeout=800, capture_output=True, text=True
    )
    assert not done.returncode, done.stderr
    return done.stdout


OTHERS = [
    pytest.param(path, id=path.stem, marks=[pytest.mark.slow] * (path.stem == "compare_rankings"))
    for path in sorted({*EXAMPLES.glob("*.py")} - {EXAMPLES / "demo.py"})
]


@pytest.mark.parametrize("example", OTHERS)
def test_it_runs(example, tmp_path):
    if example.stem == "hybrid_llama_index_milvus":
        pytest.importorskip("llama_index.vector_stores.milvus", reason="make test runs it apart")
    output = run(example, tmp_path)
    if example.stem.startswith("hybrid_"):
        assert "'spell checking'" in output.splitlines()[0]
        assert "Rechtschreibung" in output.splitlines()[0]
        assert len(example.read_text(encoding="utf-8").splitlines()) <= 40


def test_none_stands_before_a_package():
    """Python looks for imports beside a program first, so a name like torch.py would be taken."""
    packages = {*packages_distributions(), *sys.stdlib_module_names}
    assert "torch" in packages
    assert not packages & {path.stem for path in EXAMPLES.rglob("*.py")}


def check_demo(output):
    """It answers across languages, and both engines rank every query alike."""
    assert "Demo model" in output
    assert output.count("✓") >= 8
    assert "Qdrant and Milvus rank 36 of 36 alike" in " ".join(output.split())


def test_the_demo_answers_across_languages(tmp_path):
    output = run(EXAMPLES / "demo.py", tmp_path)
    assert output.count("720 written, 0 unchanged") == 2
    check_demo(output)


@pytest.mark.slow
def test_the_demo_embeds_nothing_a_second_time(tmp_path):
    run(EXAMPLES / "demo.py", tmp_path)
    output = run(EXAMPLES / "demo.py", tmp_path)
    assert output.count("0 written, 720 unchanged, 0 tokens") == 2
    check_demo(output)
