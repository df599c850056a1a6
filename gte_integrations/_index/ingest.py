"""From documents to a store: look up, encode, write, count. Knows no engine."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any, Literal, Protocol

from gte_core import NonFiniteError, TextTooLargeError, TruncationError
from gte_core.iteration import batched, progress_bar
from gte_integrations._index.checks import check_choice, check_count
from gte_integrations._index.planning import Plan, Planner, Producer, Rejections
from gte_integrations._index.preparation import Prepared
from gte_integrations._index.records import Record, Stored
from gte_integrations._index.reports import IndexReport
from gte_integrations._index.store_thread import StoreThread
from gte_integrations._index.tables import documents_of
from gte_integrations._retry import Failure, Sender, split

OnError = Literal["raise", "skip"]

_OF_ONE_TEXT = (NonFiniteError, TextTooLargeError, TruncationError)
_KEYS_PER_REQUEST = 1_000


class Sink(Protocol):
    """Where records are written. Keys are those of ``id_to_key``."""

    def stored(self, keys: Sequence[str]) -> dict[str, Stored]:
        """What is stored of these documents; those that are not there are left out."""
        ...

    def set_origins(self, origins: Mapping[str, str]) -> None:
        """Change the origin of stored documents: key -> new origin."""
        ...

    def delete(self, keys: Sequence[str]) -> None:
        """Remove documents; those not there are no error."""
        ...

    def pack(self, records: Sequence[Record]) -> Sequence[Any]:
        """Records as ``write`` takes them, one each; called while another batch is written."""
        ...

    def write(self, packed: Sequence[Any]) -> None:
        """Insert or replace; everything is written when it returns."""
        ...

    def size_of(self, record: Record) -> int:
        """About how many bytes a record takes in a request."""
        ...

    @property
    def request_bytes(self) -> int:
        """How many bytes a request should not exceed."""
        ...

    def classify(self, error: Exception) -> Failure:
        """The kind of an error that this engine raised."""
        ...


def ingest(
    producer: Producer,
    sink: Sink,
    documents: Iterable[object],
    *,
    batch_size: int,
    show_progress: bool,
    on_error: OnError,
    retry_seconds: float,
    moved_from: str | os.PathLike[str] | None = None,
) -> IndexReport:
    """Write to ``sink`` what ``producer`` makes of the documents; see ``HybridIndex.add``."""
    check_count("batch_size", batch_size)
    check_choice("on_error", on_error, OnError)
    documents = documents_of(documents)
    run = _Ingest(
        producer,
        sink,
        Sender(sink.classify, retry_seconds),
        skip=on_error == "skip",
        given_up=None if moved_from is None else os.fspath(moved_from),
    )
    with progress_bar(documents, "documents", show=show_progress) as advance:
        return run.run(documents, batch_size, advance)


class _Ingest:
    """One run of ``add``.

    While a batch is encoded, the one before it is written in another thread. That one alone uses
    the store, so it is never read and written at the same time, which an embedded one may not bear.
    """

    def __init__(
        self, producer: Producer, sink: Sink, sender: Sender, *, skip: bool, given_up: str | None
    ) -> None:
        self.producer = producer
        self.sink = sink
        self.sender = sender
        self.report = IndexReport()
        self.rejections = Rejections(self.report, skip=skip)
        self.planner = Planner(producer, self._lookup, self.report, self.rejections, given_up)
        self._source_error: Exception | None = None
        self._store = StoreThread()
        self._writing: Future[None] | None = None

    def run(
        self, documents: Iterable[object], batch_size: int, advance: Callable[[int], object]
    ) -> IndexReport:
        try:
            self._run(documents, batch_size, advance)
        except BaseException as error:
            if self.report.total:
                error.add_note(_how_far(self.report))
            raise
        self.report.retries = self.sender.retries
        return self.report

    def _run(
        self, documents: Iterable[object], batch_size: int, advance: Callable[[int], object]
    ) -> None:
        with self._store:
            try:
                self._carry_out(batched(self._until_an_error(documents), batch_size), advance)
            except BaseException:
                # What is in flight is still written, but Ctrl-C must not wait for a dead server.
                self.sender.stop()
                raise
        for error in (self.rejections.error, self._source_error):
            if error is not None:
                raise error

    def _until_an_error(self, documents: Iterable[object]) -> Iterator[object]:
        try:
            yield from documents
        except Exception as error:  # noqa: BLE001  raised when what came before is written
            self._source_error = error

    def _carry_out(self, batches: Iterator[list[object]], advance: Callable[[int], object]) -> None:
        plan = self._next_plan(batches, {})
        while plan is not None:
            records = self._embed(plan.changed) if plan.changed else []
            packed = self.sink.pack(records)
            self._finish_writing()
            try:
                following = self._next_plan(batches, plan.outcome(records))
            finally:  # an error in what follows must not lose what is encoded
                if plan.has_changes:
                    write = partial(self._write, plan, records, packed)
                    self._writing = self._store.submit(write)
            advance(plan.size)
            plan = following
        self._finish_writing()

    def _next_plan(
        self, batches: Iterator[list[object]], upcoming: Mapping[str, Stored | None]
    ) -> Plan | None:
        if self.rejections.error is not None:
            return None
        batch = next(batches, None)
        return None if batch is None else self.planner.plan(batch, upcoming)

    def _lookup(self, keys: Sequence[str]) -> Mapping[str, Stored]:
        if not keys:
            return {}
        look_up = partial(self.sink.stored, keys)
        return self._store.submit(partial(self.sender.retry, look_up)).result()

    def _embed(self, documents: list[Prepared]) -> list[Record]:
        """Records of the documents; of those that precede one that ends the run."""
        started = time.perf_counter()
        try:
            embedded = self.producer.embed(documents)
        except _OF_ONE_TEXT as error:
            if len(documents) == 1:
                error.add_note(f"It is the document {documents[0].id!r}.")
                self.rejections.reject(documents[0].id, error)
                return []
            middle = len(documents) // 2
            before = self._embed(documents[:middle])
            ended = self.rejections.error is not None
            return before if ended else before + self._embed(documents[middle:])
        self.report.seconds_encoding += time.perf_counter() - started
        self.report.n_tokens += embedded.n_tokens
        for record in embedded.records:
            if record.truncated:
                self.report.count_truncated(record.document.id)
        return embedded.records

    def _write(self, plan: Plan, records: list[Record], packed: Sequence[Any]) -> None:
        started = time.perf_counter()
        for keys in batched(plan.emptied, _KEYS_PER_REQUEST):
            self.sender.retry(partial(self.sink.delete, keys))
            self.report.deleted += len(keys)
        if plan.moved:
            self.sender.retry(partial(self.sink.set_origins, plan.moved))
        items = list(zip(records, packed, strict=True))
        for part in split(items, lambda item: self.sink.size_of(item[0]), self.sink.request_bytes):
            self.sender.send(
                part,
                lambda some: self.sink.write([item for _, item in some]),
                lambda item: f"document {item[0].document.id!r}",
            )
        replaced = sum(record.document.key in plan.known for record in records)
        self.report.seconds_writing += time.perf_counter() - started
        self.report.replaced += replaced
        self.report.written += len(records) - replaced

    def _finish_writing(self) -> None:
        if self._writing is not None:
            self._writing.result()


def _how_far(report: IndexReport) -> str:
    return (
        f"Before this, {report.written:,} documents were written, {report.replaced:,} replaced and "
        f"{report.unchanged:,} found unchanged; run again, it goes on from there."
    )
