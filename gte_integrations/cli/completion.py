"""What a shell completes: stores, their collections, models. Without a model or a server."""

from __future__ import annotations

import os
from glob import escape, glob
from pathlib import Path

import typer

_STORES = ("qdrant:", "milvus:", "qdrant+http://", "milvus+http://", "qdrant+https://")
_MODELS = ("demo", "Alibaba-NLP/gte-multilingual-base")


def stores(incomplete: str) -> list[str]:
    """The engines, and behind the colon the directories that are there."""
    engine, colon, begun = incomplete.partition(":")
    if not colon or engine not in {"qdrant", "milvus"}:
        return [store for store in _STORES if store.startswith(incomplete)]
    # As they were begun, with ./ in front or from the root; pathlib would write them anew.
    folders = filter(os.path.isdir, glob(f"{escape(begun)}*"))  # noqa: PTH207
    return sorted(f"{engine}:{folder}" for folder in folders)


def collections(ctx: typer.Context, incomplete: str) -> list[str]:
    """The collections of a store on this machine; servers are not asked."""
    from gte_integrations.cli.stores import list_collections

    store = ctx.params.get("store") or ctx.params.get("to")
    if store is None or store.is_url:
        return []
    try:
        return [name for name in list_collections(store) if name.startswith(incomplete)]
    except Exception:  # noqa: BLE001  a shell shows no errors here
        return []


def models(incomplete: str) -> list[str]:
    """The names that are known, and the models in the cache of the hub."""
    from huggingface_hub.constants import HF_HUB_CACHE

    cached = Path(HF_HUB_CACHE).glob("models--*")
    names = {path.name.removeprefix("models--").replace("--", "/") for path in cached}
    return sorted(name for name in names.union(_MODELS) if name.startswith(incomplete))
