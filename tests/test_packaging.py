import json
import re
import subprocess
import sys
import zipfile
from importlib.metadata import metadata, version
from pathlib import Path

import pytest

import gte_core
import gte_integrations
from gte_core import download_model
from gte_core.checkpoint import hub

ROOT = Path(__file__).parent.parent
PLACED_ELSEWHERE = {
    "gte_integrations/_llama_index_namespace.py": "llama_index/embeddings/gte/__init__.py"
}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", out, ROOT]
    subprocess.run(command, check=True, capture_output=True)
    (path,) = out.glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        yield archive


def test_the_wheel_holds_both_packages_and_their_types(wheel):
    names = set(wheel.namelist())
    for source in (*ROOT.glob("core/gte_core/**/*.py"), *ROOT.glob("gte_integrations/**/*.py")):
        relative = str(source.relative_to(ROOT)).removeprefix("core/")
        assert PLACED_ELSEWHERE.get(relative, relative) in names
    assert {"gte_core/py.typed", "gte_integrations/py.typed"} <= names


def test_the_wheel_holds_the_demo_model_and_its_notice(wheel):
    names = set(wheel.namelist())
    files = ("config.json", "model.safetensors", "tokenizer.json", "README.md", "NOTICE")
    assert {f"gte_core/data/demo/{name}" for name in files} <= names


def test_the_wheel_holds_nothing_else(wheel):
    tops = {name.split("/")[0] for name in wheel.namelist()}
    assert tops == {
        "gte_core",
        "gte_integrations",
        "llama_index",
        f"gte_integrations-{gte_core.__version__}.dist-info",
    }


def test_the_wheel_serves_the_name_that_llama_index_users_expect(wheel, tmp_path):
    wheel.extractall(tmp_path)
    script = "from llama_index.embeddings.gte import GTEEmbedding; print(GTEEmbedding.__module__)"
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={"PYTHONPATH": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "gte_integrations.llama_index\n"


def test_the_wheel_and_a_downloaded_model_need_no_network(wheel, published, tmp_path):
    """As docs/offline.md says; its dependencies, which are wheels of others, are here already."""
    download_model(hub.DEFAULT_MODEL, tmp_path / "model")
    site, wheels = tmp_path / "site", Path(wheel.filename).parent
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    pip += ["--find-links", wheels, "--target", site, "gte-integrations"]
    environment = {"HOME": str(tmp_path), "HF_ENDPOINT": "http://127.0.0.1:9"}
    subprocess.run(pip, env=environment, cwd=tmp_path, check=True)
    environment |= {"PYTHONPATH": str(site)}
    gte = [sys.executable, "-m", "gte_integrations.cli", "encode", "it works", "--json"]
    command = [*gte, "--model", "model"]
    done = subprocess.run(
        command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout)["model"] == str(tmp_path / "model")


def test_the_changelog_opens_with_this_version():
    headings = re.findall(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[0] == gte_core.__version__ == gte_integrations.__version__
    assert headings[0] == version("gte-integrations")


def test_every_extra_that_a_message_names_exists():
    extras = metadata("gte-integrations").get_all("Provides-Extra")
    sources = (*ROOT.glob("core/gte_core/**/*.py"), *ROOT.glob("gte_integrations/**/*.py"))
    text = "".join(path.read_text(encoding="utf-8") for path in (*sources, ROOT / "README.md"))
    named = re.findall(r"gte-integrations\[([\w,-]+)\]", text)
    assert named
    assert {extra for group in named for extra in group.split(",")} <= set(extras)
