"""``IndexReport``: what a run of ``add`` did."""

from __future__ import annotations

from dataclasses import dataclass, field

from gte_core.pickling import restore_by_name, state_by_name
from gte_integrations._index.fusion import DocumentId

_MOST_NAMED = 100


@dataclass(slots=True)
class IndexReport:
    """What one call of ``add`` did. Every document given is counted exactly once.

    Attributes:
        written: documents that were new.
        replaced: documents that were there with another text or payload.
        unchanged: documents that were there already; they were not even embedded.
        duplicates: documents followed, in the same batch, by another with the same id.
        skipped: ``(id, reason)`` of what ``on_error="skip"`` left out; None for an unknown id,
            and then the reason says where it stands.
        n_tokens: tokens fed to the model; 0 for an encoder that does not count them.
        truncated: documents longer than the model's ``max_length``, also unchanged ones.
        retries: requests that were sent again because the server was away or busy.
        seconds_encoding: time spent in the model.
        seconds_writing: time spent writing, much of it at the same time.
        truncated_ids: the first 100 of those that were truncated.
        empty: documents of nothing that can be seen; they are not stored.
        empty_ids: the first 100 of those.
        deleted: documents that were stored, and whose text is empty now.
    """

    written: int = 0
    replaced: int = 0
    unchanged: int = 0
    duplicates: int = 0
    skipped: list[tuple[DocumentId | None, str]] = field(default_factory=list)
    n_tokens: int = 0
    truncated: int = 0
    retries: int = 0
    seconds_encoding: float = 0.0
    seconds_writing: float = 0.0
    truncated_ids: list[DocumentId] = field(default_factory=list)
    empty: int = 0
    empty_ids: list[DocumentId] = field(default_factory=list)
    deleted: int = 0

    __getstate__ = state_by_name
    __setstate__ = restore_by_name

    @property
    def total(self) -> int:
        """Documents given."""
        done = self.written + self.replaced + self.unchanged
        return done + self.duplicates + self.empty + len(self.skipped)

    def count_truncated(self, document_id: DocumentId) -> None:
        """Count a document of which the model read the beginning alone."""
        self.truncated += 1
        _name(self.truncated_ids, document_id)

    def count_empty(self, document_id: DocumentId) -> None:
        """Count a document that has nothing to embed."""
        self.empty += 1
        _name(self.empty_ids, document_id)


def _name(ids: list[DocumentId], document_id: DocumentId) -> None:
    if len(ids) < _MOST_NAMED:
        ids.append(document_id)
