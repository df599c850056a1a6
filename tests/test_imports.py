"""What importing costs, and which way the arrows point; each in a fresh interpreter."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import gte_core
import gte_integrations

HEAVY = ("torch", "transformers", "scipy", "numpy", "qdrant_client", "qdrant_edge", "pymilvus")
CORE = Path(gte_core.__file__).parent
ADAPTERS = Path(gte_integrations.__file__).parent


def loaded_by(statement):
    script = f"import sys\n{statement}\nprint(*{{name.split('.')[0] for name in sys.modules}})"
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(out.stdout.split())


@pytest.mark.parametrize("package", ["gte_core", "gte_integrations"])
def test_importing_a_package_loads_nothing_heavy(package):
    assert not loaded_by(f"import {package}") & set(HEAVY)


def test_the_core_works_without_any_framework():
    loaded = loaded_by("from gte_core import GTEEmbedder; GTEEmbedder.from_pretrained('demo')")
    frameworks = {"transformers", "qdrant_client", "qdrant_edge", "pymilvus", "typer", "rich"}
    assert not loaded & (frameworks | {"pandas", "pyarrow", "gte_integrations"})


@pytest.mark.parametrize(
    ("module", "foreign"),
    [
        ("qdrant", {"pymilvus", "milvus_lite", "typer", "torch"}),
        ("milvus", {"qdrant_client", "qdrant_edge", "typer", "torch"}),
        ("cli", {"pymilvus", "qdrant_client", "qdrant_edge", "torch", "pyarrow"}),
    ],
)
def test_an_adapter_loads_its_own_framework_only(module, foreign):
    assert not loaded_by(f"import gte_integrations.{module}") & foreign


def test_a_model_is_described_without_torch():
    loaded = loaded_by(
        "from gte_integrations.cli.commands import app\n"
        "app(['info', 'demo'], standalone_mode=False)"
    )
    assert not loaded & {"torch", "scipy", "qdrant_client", "pymilvus", "tokenizers"}


def test_a_directory_is_searched_without_the_client():
    loaded = loaded_by(
        "import tempfile\n"
        "from gte_core.testing import HashEncoder\n"
        "from gte_integrations.qdrant import QdrantHybridIndex\n"
        "with QdrantHybridIndex(tempfile.mkdtemp(), 'docs', HashEncoder()) as index:\n"
        "    index.create()\n"
        "    index.add([('a', 'some words')])\n"
        "    assert index.search('words')"
    )
    assert not loaded & {"qdrant_client", "httpx", "grpc", "pydantic", "torch"}


@pytest.mark.parametrize(
    ("module", "package"),
    [
        ("qdrant", "qdrant_client"),
        ("qdrant", "qdrant_edge"),
        ("milvus", "pymilvus"),
        ("cli.commands", "typer"),
        ("parquet", "pyarrow"),
        ("remote", "httpx"),
        ("fastembed", "fastembed"),
        ("langchain", "langchain_core"),
        ("langchain_qdrant", "langchain_qdrant"),
        ("langchain_milvus", "langchain_milvus"),
        ("llama_index", "llama_index"),
        ("llama_index_qdrant", "llama_index.vector_stores"),
        ("llama_index_milvus", "llama_index.vector_stores"),
        ("sentence_transformers", "sentence_transformers"),
        ("transformers", "transformers"),
    ],
)
def test_a_missing_extra_is_named_with_its_pip_line(module, package):
    script = f"""
import sys
sys.modules[{package!r}] = None
try:
    import gte_integrations.{module}
except ImportError as error:
    print(error)
"""
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    extra = module.partition(".")[0].replace("_", "-")
    assert f"pip install 'gte-integrations[{extra}]'" in out.stdout
    assert re.match(r"(gte_integrations\.\w+|gte) needs ", out.stdout)


def imports_of(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", sorted(CORE.rglob("*.py")), ids=lambda path: path.stem)
def test_the_core_imports_no_adapter_and_no_framework(path):
    tops = {name.split(".")[0] for name in imports_of(path)}
    allowed = {"gte_core", "huggingface_hub", "numpy", "safetensors", "scipy", "tokenizers"}
    asked_for = {"pandas"}  # by HybridEmbeddings.to_pandas alone
    assert tops <= allowed | asked_for | {"torch", "tqdm", "__future__", *sys.stdlib_module_names}


@pytest.mark.parametrize("path", sorted(ADAPTERS.rglob("*.py")), ids=lambda path: path.stem)
def test_adapters_use_public_names_of_the_core(path):
    # The network itself, in transformers' own kind of class; and what every encoder does alike.
    parts = {
        "_transformers": ["network"],
        "remote": ["embeddings", "encoder", "texts"],
    }.get(path.parent.name, [])
    for name in imports_of(path):
        if name.startswith("gte_core"):
            assert name.split(".")[1] in [
                *parts,
                *gte_core.__all__,
                "__version__",
                "foreign",
                "former",
                "iteration",
                "pickling",
                "ranking",
                "testing",
                "texts",
            ]


def test_the_public_names_are_sorted_and_real():
    assert gte_core.__all__ == sorted(gte_core.__all__)
    for name in gte_core.__all__:
        assert getattr(gte_core, name) is not None
    assert set(gte_core.__all__) <= set(dir(gte_core))


def test_the_type_checker_sees_the_same_names():
    tree = ast.parse((CORE / "__init__.py").read_text(encoding="utf-8"))
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    assert sorted(alias.name for node in block.body for alias in node.names) == gte_core.__all__


def test_an_unknown_name():
    with pytest.raises(AttributeError, match="module 'gte_core' has no attribute 'GTEEmbeder'"):
        _ = gte_core.GTEEmbeder
