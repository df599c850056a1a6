"""From documents to a store: looked up, encoded, written, and counted. Knows no engine."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from operator import length_hint
from typing import Any, Literal, Protocol, TypeVar

from tqdm.auto import tqdm

from gte_core import GTEError
from gte_integrations._checks import check_choice, check_count, check_documents
from gte_integrations._fusion import DocumentId
from gte_integrations._records import Embedded, Prepared, Record, as_document
from gte_integrations._sending import Sender, Trouble, split

OnError = Literal["raise", "skip"]
T = TypeVar("T")


@dataclass(slots=True)
class IndexReport:
    """What one call of ``add`` did. Every document given is counted exactly once.

    Attributes:
        written: documents that were new.
        replaced: documents that were there with another text or payload.
        unchanged: documents that were there already; they were not even embedded.
        duplicates: documents followed, in the same batch, by another with the same id.
        skipped: ``(id, reason)`` of what ``on_error="skip"`` left out; None for an unknown id.
        n_tokens: tokens fed to the model; 0 for a model without a sparse head, which counts none.
        truncated: documents longer than the model's ``max_length``.
        retries: requests that were sent again because the server was away or busy.
        seconds_encoding: time spent in the model.
        seconds_writing: time spent writing, much of it at the same time.
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

    @property
    def total(self) -> int:
        """Documents given."""
        done = self.written + self.replaced + self.unchanged
        return done + self.duplicates + len(self.skipped)


class Producer(Protocol):
    """What turns documents into records; a ``Vectorizer``, or vectors that are there already."""

    def prepare(self, item: object) -> Prepared:
        """Read and check one document."""
        ...

    def embed(self, documents: Sequence[Prepared]) -> Embedded:
        """Give documents their vectors."""
        ...


class Sink(Protocol):
    """Where records are written. Keys are those of ``id_to_key``."""

    def hashes(self, keys: Sequence[str]) -> dict[str, str]:
        """Content hashes of those documents that are there."""
        ...

    def pack(self, records: Sequence[Record]) -> Sequence[Any]:
        """What ``write`` takes, one for each record; made while another batch is written."""
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

    def judge(self, error: Exception) -> Trouble:
        """Whether an error of this engine may pass."""
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
) -> IndexReport:
    """Write to ``sink`` what ``producer`` makes of the documents; see ``HybridIndex.add``."""
    check_count("batch_size", batch_size)
    check_choice("on_error", on_error, OnError)
    check_documents(documents)
    run = _Ingest(producer, sink, Sender(sink.judge, retry_seconds), skip=on_error == "skip")
    with _progress_bar(documents, show=show_progress) as bar:
        return run.run(documents, batch_size, bar.update)


class _Ingest:
    """One run of ``add``.

    While a batch is encoded, the one before it is written in another thread. The store is never
    read and written at the same time, which an embedded one may not bear.
    """

    def __init__(self, producer: Producer, sink: Sink, sender: Sender, *, skip: bool) -> None:
        self.producer = producer
        self.sink = sink
        self.sender = sender
        self.skip = skip
        self.report = IndexReport()
        self._encoded: list[Record] = []
        self._writing: Future[None] | None = None

    def run(
        self, documents: Iterable[object], batch_size: int, advance: Callable[[int], object]
    ) -> IndexReport:
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="gte-write") as writer:
            try:
                self._run(batches(documents, batch_size), writer, advance)
            except BaseException:
                # What is in flight is still written, but Ctrl-C must not wait for a dead server.
                self.sender.stop()
                raise
        self.report.retries = self.sender.retries
        return self.report

    def _run(
        self,
        batches: Iterator[list[object]],
        writer: ThreadPoolExecutor,
        advance: Callable[[int], object],
    ) -> None:
        plans = map(self._plan, batches)
        plan = next(plans, None)
        while plan is not None:
            self._encoded = self._embed(plan.changed) if plan.changed else []
            packed = self.sink.pack(self._encoded)
            self._finish_writing()
            try:
                following = next(plans, None)
            finally:  # an error in what follows must not lose what is encoded
                if self._encoded:
                    self._writing = writer.submit(self._write, self._encoded, packed, plan.known)
            advance(plan.size)
            plan = following
        self._finish_writing()

    def _plan(self, batch: list[object]) -> _Plan:
        """Read and check a batch, and leave out what is stored already."""
        prepared = self._prepare(batch)
        latest = {document.key: document for document in prepared}
        known = self._known_hashes(latest)
        changed = [
            document for key, document in latest.items() if known.get(key) != document.content_hash
        ]
        self.report.duplicates += len(prepared) - len(latest)
        self.report.unchanged += len(latest) - len(changed)
        return _Plan(len(batch), changed, known)

    def _prepare(self, batch: list[object]) -> list[Prepared]:
        prepared = []
        for item in batch:
            try:
                prepared.append(self.producer.prepare(item))
            except (TypeError, ValueError) as error:
                self._skip(_id_of(item), error)
        return prepared

    def _known_hashes(self, keys: Mapping[str, Prepared]) -> dict[str, str]:
        if not keys:
            return {}
        known = dict(self.sender.insist(partial(self.sink.hashes, list(keys))))
        for record in self._encoded:  # about to be written, before this batch
            if record.document.key in keys:
                known[record.document.key] = record.document.content_hash
        return known

    def _embed(self, documents: list[Prepared]) -> list[Record]:
        started = time.perf_counter()
        try:
            embedded = self.producer.embed(documents)
        except GTEError as error:
            if self.skip and len(documents) > 1:
                return [record for document in documents for record in self._embed([document])]
            self._skip(documents[0].id, error)
            return []
        self.report.seconds_encoding += time.perf_counter() - started
        self.report.n_tokens += embedded.n_tokens
        self.report.truncated += embedded.truncated
        return embedded.records

    def _skip(self, document_id: DocumentId | None, error: Exception) -> None:
        if not self.skip:
            raise error
        self.report.skipped.append((document_id, str(error)))

    def _write(
        self, records: list[Record], packed: Sequence[Any], known: Mapping[str, str]
    ) -> None:
        started = time.perf_counter()
        sized = zip(map(self.sink.size_of, records), packed, strict=True)
        for part in split(sized, lambda item: item[0], self.sink.request_bytes):
            self.sender.send([item for _, item in part], self.sink.write)
        replaced = sum(record.document.key in known for record in records)
        self.report.seconds_writing += time.perf_counter() - started
        self.report.replaced += replaced
        self.report.written += len(records) - replaced

    def _finish_writing(self) -> None:
        if self._writing is not None:
            self._writing.result()


@dataclass(frozen=True, slots=True)
class _Plan:
    """A batch that was looked up: what must be encoded, and the hashes of what is there."""

    size: int
    changed: list[Prepared]
    known: Mapping[str, str]


def batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Cut an iterable into lists of ``size`` items, lazily; the last may be shorter."""
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch


def _id_of(item: object) -> DocumentId | None:
    try:
        return as_document(item).id
    except TypeError:
        return None


def _progress_bar(documents: object, *, show: bool) -> tqdm[Any]:
    return tqdm(total=length_hint(documents) or None, unit=" documents", disable=not show)
