"""Qdrant's embedded engine; with it comes how to install what the index needs.

qdrant-client takes a third as long to import as torch, and a directory does not need it: it is
asked here whether it is there, and imported where it is used.
"""

from __future__ import annotations

from importlib.util import find_spec

try:
    import qdrant_edge as edge

    if find_spec("qdrant_client") is None:
        raise ModuleNotFoundError("No module named 'qdrant_client'", name="qdrant_client")
except ImportError as error:
    raise ImportError(
        "gte_integrations.qdrant needs the packages qdrant-client and qdrant-edge-py; install "
        "them with: pip install 'gte-integrations[qdrant]'"
    ) from error

__all__ = ["edge"]
