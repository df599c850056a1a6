"""Where a collection is, as it is written on the command line: ``qdrant:DIR``, a URL and so on."""

from __future__ import annotations

import logging
import re
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gte_core import Encoder
    from gte_integrations._indexing import HybridIndex
    from gte_integrations.milvus import MilvusHybridIndex
    from gte_integrations.qdrant import QdrantHybridIndex

Engine = Literal["qdrant", "milvus"]

_ENGINES: dict[str, Engine] = {"qdrant": "qdrant", "milvus": "milvus"}
_PORTS: dict[str, Engine] = {"6333": "qdrant", "19530": "milvus"}
_PACKAGES = {"grpc", "milvus_lite", "pymilvus", "qdrant_client", "qdrant_edge"}
_FORM = re.compile(r"(?P<engine>qdrant|milvus)(?::|\+(?=https?://))(?P<location>.+)", re.DOTALL)
_PORT = re.compile(r"https?://[^/]+:(\d+)")


@dataclass(frozen=True, slots=True)
class StoreLocation:
    """An engine, and the directory, file or URL it shall open."""

    engine: Engine
    location: str

    def __str__(self) -> str:
        return f"{self.engine}{'+' if '://' in self.location else ':'}{self.location}"

    @classmethod
    def parse(cls, text: str) -> StoreLocation:
        """Read ``qdrant:DIR``, ``milvus:FILE``, ``ENGINE+URL``, or a URL with an engine's port.

        Raises ``ValueError`` that says how to write it.
        """
        if match := _FORM.fullmatch(text):
            return cls(_ENGINES[match["engine"]], match["location"])
        if not text.startswith(("http://", "https://")):
            raise ValueError(
                f"{text!r} does not say which engine; write qdrant:DIR, milvus:FILE, "
                "qdrant+http://HOST:PORT or milvus+http://HOST:PORT."
            )
        port = _PORT.match(text)
        if port and (engine := _PORTS.get(port[1])):
            return cls(engine, text)
        raise ValueError(
            f"{text!r} may be either engine, as its port is neither 6333 (Qdrant) nor 19530 "
            f"(Milvus); write qdrant+{text} or milvus+{text}."
        )


class StoreError(Exception):
    """The engine behind a collection failed, or lacks the collection."""


@contextmanager
def open_index(
    store: StoreLocation, collection: str, encoder: Encoder
) -> Iterator[HybridIndex[Any]]:
    """Open a collection with the engine that the location names; the other is not imported.

    What goes wrong inside the engine is raised as ``StoreError`` that names the location.
    """
    try:
        with _index_class(store.engine)(store.location, collection, encoder) as index:
            yield index
    except Exception as error:
        if type(error) is LookupError:
            raise StoreError(
                f"{store} has no collection {collection!r}; fill it first, with gte index."
            ) from error
        if not _is_from_engine(error):
            raise
        raise StoreError(f"{store}: {getattr(error, 'message', None) or error}") from error


def _index_class(engine: Engine) -> type[QdrantHybridIndex | MilvusHybridIndex]:
    if engine == "qdrant":
        from gte_integrations.qdrant import QdrantHybridIndex

        return QdrantHybridIndex
    from gte_integrations.milvus import MilvusHybridIndex

    # It logs every error with a traceback before it raises it.
    logging.getLogger("pymilvus").setLevel(logging.CRITICAL)
    return MilvusHybridIndex


def _is_from_engine(error: Exception) -> bool:
    # qdrant-edge raises plain Exception.
    return type(error) is Exception or any(
        kind.__module__.partition(".")[0] in _PACKAGES for kind in type(error).__mro__
    )
