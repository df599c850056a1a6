"""What the site needs beside mkdocs: pictures without scripts, examples as pages, no other host."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import mmdr
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

EXAMPLES = Path(__file__).parent.parent / "examples"

# Whatever a browser fetches by itself; links that a reader may follow are not among it.
_FETCHED = re.compile(
    r"<(?:script|img|iframe|source)\b[^>]*\bsrc=[\"']?(?:https?:)?//[^\"'\s>]+"
    r"|<link\b(?![^>]*rel=[\"']?canonical)[^>]*\bhref=[\"']?(?:https?:)?//[^\"'\s>]+"
    r"|(?:url\(|@import)\s*[\"']?(?:https?:)?//[^\"'\s>]+"
)


def on_config(config: MkDocsConfig) -> None:
    """Draw mermaid's pictures while the site is built: the script for it is on another host."""
    fence = {"name": "mermaid", "class": "mermaid", "format": _picture}
    config.mdx_configs.setdefault("pymdownx.superfences", {})["custom_fences"] = [fence]


def on_files(files: Files, config: MkDocsConfig) -> None:
    """Give each example a page that shows its source."""
    for path in sorted(EXAMPLES.glob("*.py")):
        text = f"# `{path.name}`\n\n```python\n{path.read_text(encoding='utf-8')}```\n"
        files.append(File.generated(config, f"examples/{path.stem}.md", content=text))


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Lead links to examples, which lie outside of docs/, to their pages."""
    return re.sub(r"\]\(\.\./examples/(\w+)\.py\)", r"](examples/\1.md)", markdown)


def on_post_page(output: str, page: Page, **_: Any) -> None:
    """Refuse a page that would ask another host for a script, a style, a font or a picture."""
    found = _FETCHED.search(output)
    if found:
        raise PluginError(f"{page.file.src_uri} fetches from another host: {found[0]}")


def _picture(source: str, *_: Any, **__: Any) -> str:
    return f'<figure style="width: 100%">{mmdr.render(source).svg()}</figure>'
