"""The README and the docs: every piece of code in them runs, and every public name has its page."""

import ast
import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

import gte_core
from gte_core.network.device import has_onednn
from gte_integrations import cli

ROOT = Path(__file__).parent.parent
FACES = ROOT / "gte_integrations"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
# A block, or our column of a table that says what to write for other libraries' calls.
CODE = re.compile(r"^```python\n(.*?)^```|^\|[^\n]*\| `([^`\n]+)` \|$", re.MULTILINE | re.DOTALL)


def blocks(page, language):
    found = BLOCK.findall(page.read_text(encoding="utf-8"))
    return [code for written_in, code in found if written_in == language]


def with_blocks(language):
    pages = [page for page in PAGES if blocks(page, language)]
    return pytest.mark.parametrize("page", pages, ids=lambda page: page.stem)


@with_blocks("python")
def test_code_blocks_run_in_order(page, tmp_path, monkeypatch, published):
    monkeypatch.chdir(tmp_path)
    names = {}
    for block in blocks(page, "python"):
        exec(compile(block, page.name, "exec"), names)


def test_what_to_write_for_other_libraries_runs(published):
    page = ROOT / "docs" / "migrating.md"
    names = {}
    for block, call in CODE.findall(page.read_text(encoding="utf-8")):
        exec(compile(block or call, page.name, "exec"), names)
    assert len(names["both"]) == len(names["texts"])


@with_blocks("sh")
def test_commands_run_in_order(page, tmp_path, monkeypatch, published):
    monkeypatch.chdir(tmp_path)
    for folder, text in {"notes": "How to print a booklet", "more": "How to add notes"}.items():
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "readme.md").write_text(text)
    for line in "".join(blocks(page, "sh")).splitlines():
        words = shlex.split(line, comments=True)
        if words[:1] != ["gte"] or words[1] == "bench":  # which takes minutes
            continue
        if "int8" in line and not has_onednn():
            pytest.skip("int8 needs oneDNN on x86")
        ran = CliRunner().invoke(cli.app, words[1:])
        assert ran.exit_code == 0, f"{line}\n{ran.output}"


def test_every_command_is_on_the_page_of_the_command_line():
    page = (ROOT / "docs/search-my-files.md").read_text(encoding="utf-8")
    for command in cli.app.registered_commands:
        assert f"gte {command.callback.__name__}" in page


def test_the_readme_is_short():
    prose = re.sub(r"^```python\n.*?^```", "", PAGES[0].read_text(), flags=re.M | re.S)
    assert len(prose.split()) <= 700


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page):
    for target in re.findall(r"\]\((?!https?://|#)([^)#]+)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target


def public_names(path, module):
    """Public names of a module and where each is defined; read, for not every extra is here."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    imported = {
        alias.name: f"{node.module}.{alias.name}"
        for node in tree.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    names = [node.name for node in tree.body if isinstance(node, (ast.ClassDef, ast.FunctionDef))]
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            names = ast.literal_eval(node.value)
    return {name: imported.get(name, f"{module}.{name}") for name in names if name[0] != "_"}


def test_every_public_name_has_its_page():
    homes = {f"gte_core.{name}": f"gte_core.{name}" for name in gte_core.__all__}
    modules = {"gte_core.testing": ROOT / "core/gte_core/testing/__init__.py"}
    modules["gte_integrations.remote"] = FACES / "remote/__init__.py"
    modules |= {f"gte_integrations.{path.stem}": path for path in FACES.glob("[a-z]*.py")}
    for module, path in modules.items():
        for name, home in public_names(path, module).items():
            homes[f"{module}.{name}"] = home
    reference = "".join(page.read_text() for page in (ROOT / "docs/reference").glob("*.md"))
    described = re.findall(r"^::: (\S+)$", reference, re.MULTILINE)
    assert len(described) == len(set(described))
    assert set(described) <= set(homes)
    # What Qdrant's and Milvus' indexes share has one page.
    assert {homes[name] for name in described} == set(homes.values())


@pytest.mark.parametrize("package", ["core/gte_core", "gte_integrations"])
def test_docstrings_name_things_in_double_backticks(package):
    for path in (ROOT / package).rglob("*.py"):
        assert not re.findall(r":\w+:`", path.read_text(encoding="utf-8")), path
