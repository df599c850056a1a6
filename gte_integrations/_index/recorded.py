"""``RecordedEncoder``: an index without its model, for the verbs that encode nothing."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Never, cast

from gte_core import Role
from gte_integrations._index.metadata import Metadata, kinds_of, recorded_fingerprint


class RecordedEncoder:
    """Stands for the model that filled a collection, by what the collection records of it.

    An index with it, of the sizes that are recorded too, opens the collection: to count, read,
    delete and prune. What would encode raises ``RuntimeError``.

    Args:
        metadata: of the collection, as ``read_metadata`` gives it.
    """

    vocab_size = None

    def __init__(self, metadata: Metadata) -> None:
        recorded: dict[str, Any] = metadata
        self.model = cast("str", recorded.get("name", recorded["model"]))
        self.dimensions = cast("int", recorded["dimensions"] or 0)
        kinds = kinds_of(metadata)
        self.has_dense, self.has_sparse = "dense" in kinds, "sparse" in kinds
        self.query_prefix = cast("str", recorded.get("query_prefix") or "")
        self.fingerprint = recorded_fingerprint(metadata)

    def encode(
        self, texts: str | Iterable[str], *, role: Role = "document", dimensions: int | None = None
    ) -> Never:
        """Raise ``RuntimeError``, as every verb that encodes does."""
        raise RuntimeError(
            f"This index was opened without its model, {self.model!r}, which encoding needs; open "
            "it with that model."
        )

    encode_available = encode_dense = encode_sparse = aencode = encode
