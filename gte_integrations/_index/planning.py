"""What is to be done for a batch: which documents are new, changed, moved, emptied or rejected."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from gte_integrations._index.document import Unreadable, as_document
from gte_integrations._index.fusion import DocumentId
from gte_integrations._index.preparation import Prepared
from gte_integrations._index.records import Embedded, Record, Stored
from gte_integrations._index.reports import IndexReport


class Producer(Protocol):
    """What turns documents into records; a ``Vectorizer``, or vectors that are there already."""

    def prepare(self, item: object) -> Prepared:
        """Read and check one document."""
        ...

    def embed(self, documents: Sequence[Prepared]) -> Embedded:
        """Give documents their vectors."""
        ...


class Rejections:
    """Documents that cannot be added: each is named in the report, or its error ends the run.

    Attributes:
        error: what ends the run, once everything that came before it is written.
    """

    def __init__(self, report: IndexReport, *, skip: bool) -> None:
        self.error: Exception | None = None
        self._report = report
        self._skip = skip

    def reject(self, document_id: DocumentId | None, error: Exception) -> None:
        """Skip a document, or let its error end the run."""
        if self._skip:
            self._report.skipped.append((document_id, str(error)))
        else:
            self.error = error


@dataclass(slots=True)
class Plan:
    """What is to be done for a batch.

    Attributes:
        size: documents that were given.
        known: what is stored of them, by key.
        changed: those to embed and to write.
        moved: key -> new origin of those that changed in nothing else.
        emptied: keys of those that are stored, and whose text is empty now.
    """

    size: int
    known: Mapping[str, Stored]
    changed: list[Prepared] = field(default_factory=list)
    moved: dict[str, str] = field(default_factory=dict)
    emptied: list[str] = field(default_factory=list)

    @property
    def has_changes(self) -> bool:
        """Whether anything is to be written."""
        return bool(self.changed or self.moved or self.emptied)

    def outcome(self, records: Sequence[Record]) -> dict[str, Stored | None]:
        """What will be stored once the plan is carried out; None for what is removed."""
        moved = {key: replace(self.known[key], origin=new) for key, new in self.moved.items()}
        written = {record.document.key: record.stored for record in records}
        return {**dict.fromkeys(self.emptied), **moved, **written}


class Planner:
    """Makes plans, and counts what needs no work.

    Args:
        producer: reads and checks documents.
        lookup: keys -> what is stored of them.
        report: counts what needs no work.
        rejections: takes documents that cannot be added.
        given_up: an origin whose documents may be replaced by those of another, None for none.
    """

    def __init__(
        self,
        producer: Producer,
        lookup: Callable[[Sequence[str]], Mapping[str, Stored]],
        report: IndexReport,
        rejections: Rejections,
        given_up: str | None,
    ) -> None:
        self._producer = producer
        self._lookup = lookup
        self._report = report
        self._rejections = rejections
        self._given_up = given_up
        self._n_read = 0

    def plan(self, batch: Sequence[object], upcoming: Mapping[str, Stored | None]) -> Plan:
        """Read and check a batch, and find out what must be done.

        Args:
            batch: documents in any form; a rejection may end it early.
            upcoming: what is about to be stored, as ``Plan.outcome`` gives it.
        """
        prepared = self._prepare(batch)
        keys = list(dict.fromkeys(document.key for document in prepared))
        known = {**self._lookup(keys), **{key: upcoming[key] for key in keys if key in upcoming}}
        plan = Plan(len(batch), {key: found for key, found in known.items() if found is not None})
        for document in self._latest(prepared, plan.known):
            self._sort(document, plan)
        return plan

    def _prepare(self, batch: Sequence[object]) -> list[Prepared]:
        prepared = []
        for item in batch:
            place = f"documents[{self._n_read}]"
            self._n_read += 1
            try:
                prepared.append(self._producer.prepare(item))
            except (TypeError, ValueError, OSError) as error:
                document_id = _id_of(item)
                unnamed = document_id is None and not isinstance(item, Unreadable)
                self._rejections.reject(document_id, _at(place, error) if unnamed else error)
                if self._rejections.error is not None:
                    break
        return prepared

    def _latest(self, prepared: Sequence[Prepared], known: Mapping[str, Stored]) -> list[Prepared]:
        """The last document of each key; those that would replace a foreign one are rejected."""
        latest: dict[str, Prepared] = {}
        for document in prepared:
            there = latest.get(document.key) or known.get(document.key)
            try:
                self._check_origin(document, there.origin if there else None)
            except ValueError as error:
                self._rejections.reject(document.id, error)
                if self._rejections.error is not None:
                    break
                continue
            self._report.duplicates += document.key in latest
            latest[document.key] = document
        return list(latest.values())

    def _check_origin(self, document: Prepared, origin: str | None) -> None:
        if document.origin is None or origin in (None, document.origin, self._given_up):
            return
        raise ValueError(
            f"The document {document.id!r} from {document.origin} would replace the one from "
            f"{origin}. Give it another id, for instance with id_prefix; or, if the documents have "
            f"moved, pass moved_from={origin!r}."
        )

    def _sort(self, document: Prepared, plan: Plan) -> None:
        found = plan.known.get(document.key)
        if document.is_empty:
            self._report.count_empty(document.id)
            if found is not None:
                plan.emptied.append(document.key)
        elif found is None or found.content_hash != document.content_hash:
            plan.changed.append(document)
        else:
            self._report.unchanged += 1
            if found.truncated:
                self._report.count_truncated(document.id)
            if document.origin is not None and document.origin != found.origin:
                plan.moved[document.key] = document.origin


def _at(place: str, error: Exception) -> Exception:
    return type(error)(f"{place}: {error}")


def _id_of(item: object) -> DocumentId | None:
    if isinstance(item, Unreadable):
        return item.id
    try:
        return as_document(item).id
    except (TypeError, ValueError, OSError):
        return None
