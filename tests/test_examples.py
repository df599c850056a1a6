"""Every example runs offline, as it stands, without a warning."""

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"


def run(example, folder):
    # Qdrant's local mode says so of every store that asks for indexes on the payload.
    quiet = ["-W", "error", "-W", "ignore:Payload indexes have no effect"]
    command = [sys.executable, *quiet, str(example)]
    done = subprocess.run(
        command, cwd=folder, check=False, timeout=300, capture_output=True, text=True
    )
    assert not done.returncode, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    "example", sorted({*EXAMPLES.glob("*.py")} - {EXAMPLES / "demo.py"}), ids=lambda path: path.stem
)
def test_it_runs(example, tmp_path):
    if example.stem == "hybrid_llama_index_milvus":
        pytest.importorskip("llama_index.vector_stores.milvus", reason="make test runs it apart")
    output = run(example, tmp_path)
    if example.stem.startswith("hybrid_"):
        assert "'spell checking'" in output.splitlines()[0]
        assert "Rechtschreibung" in output.splitlines()[0]
        assert len(example.read_text(encoding="utf-8").splitlines()) <= 40


def test_the_demo_answers_across_languages(tmp_path):
    """Run a second time, it embeds nothing again; both engines rank every query alike."""
    first, second = (run(EXAMPLES / "demo.py", tmp_path) for _ in range(2))
    assert first.count("720 written, 0 unchanged") == 2
    assert second.count("0 written, 720 unchanged, 0 tokens") == 2
    for output in (first, second):
        assert "Demo model" in output
        assert output.count("✓") >= 8
        assert "Qdrant and Milvus rank 36 of 36 alike" in " ".join(output.split())
