"""Many callers, one model: their calls are computed unit by unit in one thread.

A call's texts are tokenized a window at a time, sorted by length and laid out in units, each of one
pack. Who is next is decided when the model is free (``FairQueue``): short
calls that wait by then share a unit, a long call has one unit and waits again.
"""

from __future__ import annotations

import atexit
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any, Generic, TypeVar, cast
from weakref import ref

from gte_core.batching import FairQueue
from gte_core.embedder import GTEEmbedder
from gte_core.forks import renew_in_children
from gte_core.recent import RecentVectors, Vectors, vectors_of
from gte_core.runtime.packs import plan_packs
from gte_core.texts import FedText
from gte_core.tokenizer import TokenizedText

_WINDOW_TEXTS = 512

R = TypeVar("R")


class Call(Generic[R]):
    """Texts whose vectors a caller waits for.

    Args:
        texts: in the order in which the caller gave them.
        finish: makes the answer of the finished call; raises what is wrong with that.
        refuse_truncated: raises for texts, by their places, that are too long; None where such
            texts are encoded.
        answer: who waits gets it here; a ``Future`` for an event loop.

    Attributes:
        answer: done, or cancelled by the caller, who is then served no further.
        found: vectors by text.
        cut_off: texts that were longer than ``max_length``.
    """

    def __init__(
        self,
        texts: list[FedText],
        *,
        finish: Callable[[Call[R]], R],
        refuse_truncated: Callable[[Sequence[int]], None] | None,
        answer: Answer[R] | Future[R],
    ) -> None:
        self.texts = texts
        self.answer = answer
        self.found: dict[FedText, Vectors] = {}
        self.cut_off: set[FedText] = set()
        self.is_long = False
        self._finish = finish
        self._refuse_truncated = refuse_truncated
        self._places: Mapping[FedText, int] = {}
        self._missing: Sequence[FedText] = []
        self._n_planned = 0
        self._windows: Iterator[list[TokenizedText]] = iter([])
        self._pack_tokens = 0
        self._units: deque[dict[FedText, TokenizedText]] = deque()

    @property
    def n_tokens(self) -> int:
        """Tokens of the next unit."""
        return sum(map(len, self.unit.values()))

    @property
    def unit(self) -> dict[FedText, TokenizedText]:
        """What is to be computed next, nothing where it only has to be tokenized further."""
        return self._units[0] if self._units else {}

    @property
    def is_complete(self) -> bool:
        """Whether nothing is left to be computed."""
        return not self._units and self._n_planned == len(self._missing)

    def begin(self, embedder: GTEEmbedder, kept: RecentVectors) -> None:
        """Look up what is known, and plan the first units of what is not."""
        self._pack_tokens = embedder.pack_tokens
        self.found = kept.get(self.texts)
        self.cut_off = {text for text, vectors in self.found.items() if vectors.truncated}
        self._places = {text: i for i, text in reversed(list(enumerate(self.texts)))}
        self._missing = [text for text in dict.fromkeys(self.texts) if text not in self.found]
        self._windows = embedder.tokenized_windows(self._missing, max_items=_WINDOW_TEXTS)
        if self._missing:
            kept.trim()
            self._plan()
        self.is_long = not self.is_complete and (
            len(self._units) > 1
            or self._n_planned < len(self._missing)
            or self.n_tokens > self._pack_tokens
        )

    def _plan(self) -> None:
        """Tokenize the next window, and lay out its units."""
        window = next(self._windows)
        first = self._n_planned
        self._n_planned += len(window)
        texts = self._missing[first : self._n_planned]
        self.cut_off |= {
            text for text, tokens in zip(texts, window, strict=True) if tokens.truncated
        }
        if self.cut_off and self._refuse_truncated:
            self._units.clear()  # the other windows are only looked through
            return
        for pack in plan_packs(dict(enumerate(map(len, window))), self._pack_tokens):
            self._units.append({texts[i]: window[i] for i in sorted(pack)})

    def receive(self, vectors: dict[FedText, Vectors]) -> None:
        """Keep the vectors of the unit, and go on to the next."""
        self.found |= {text: vectors[text] for text in self.unit}
        if self._units:
            self._units.popleft()
        if not self._units and not self.is_complete:
            self._plan()

    def name(self, text: FedText) -> str:
        """What to call a text in an error."""
        return f"texts[{self._places[text]}]"

    def fail(self, error: BaseException) -> None:
        """Answer with an error."""
        if self.answer.set_running_or_notify_cancel():
            self.answer.set_exception(error)

    def finish(self) -> None:
        """Answer."""
        if not self.answer.set_running_or_notify_cancel():
            return
        try:
            if self.cut_off and self._refuse_truncated:
                self._refuse_truncated([i for i, t in enumerate(self.texts) if t in self.cut_off])
            self.answer.set_result(self._finish(self))
        except BaseException as error:  # noqa: BLE001  it belongs to whoever awaits the answer
            self.answer.set_exception(error)


class Answer(Generic[R]):
    """A ``Future`` for one thread that waits, made of a lock that Ctrl-C cannot leave taken."""

    def __init__(self) -> None:
        self._settled = threading.Lock()
        self._settled.acquire()
        self._is_done = self._is_cancelled = False
        self._result: R | None = None
        self._error: BaseException | None = None

    def cancel(self) -> None:
        """Want it no longer."""
        self._is_cancelled = True

    def cancelled(self) -> bool:
        """Whether nobody wants it any more."""
        return self._is_cancelled

    def done(self) -> bool:
        """Whether there is nothing left to do for it."""
        return self._is_done or self._is_cancelled

    def set_running_or_notify_cancel(self) -> bool:
        """Whether it is still wanted."""
        return not self._is_cancelled

    def set_result(self, result: R) -> None:
        """Answer."""
        self._result, self._is_done = result, True
        self._settled.release()

    def set_exception(self, error: BaseException) -> None:
        """Answer with an error."""
        self._error, self._is_done = error, True
        self._settled.release()

    def result(self) -> R:
        """Wait for it."""
        self._settled.acquire()
        if self._error is not None:
            raise self._error
        return cast("R", self._result)


class Serving:
    """Computes calls from any thread, in one thread of its own.

    Args:
        embedder: gives the model, which it loads when it is first needed.
        kept: the vectors of recent texts; what one call leaves there costs the next nothing.
    """

    def __init__(self, embedder: Callable[[], GTEEmbedder], kept: RecentVectors) -> None:
        self._embedder = embedder
        self._kept = kept
        self._has_ended = False
        self.renew()
        renew_in_children(self)

    def renew(self) -> None:
        """Begin again with free locks, no thread, and nobody waiting."""
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()
        self._wakes: SimpleQueue[None] = SimpleQueue()
        self._arrived: deque[Call[Any]] = deque()
        self._waiting: FairQueue[Call[Any]] = FairQueue()
        self._working = threading.Lock()

    def submit(self, call: Call[Any]) -> None:
        """Have it computed. Whoever waits for its answer may cancel that."""
        self._arrived.append(call)
        self._start()
        if self._has_ended:
            self._work()
        else:
            self._wakes.put(None)

    def _start(self) -> None:
        """See to it that the thread runs, unless the interpreter is about to end."""
        # Not a pool of concurrent.futures, which has locks that Ctrl-C can leave taken.
        with self._starting:
            if self._has_ended or (self._thread and self._thread.is_alive()):
                return
            if self._thread is None:
                atexit.register(_end, ref(self))
            wakes = self._wakes
            serving = ref(self, lambda _: wakes.put(None))  # so that the thread ends, too
            self._thread = threading.Thread(
                target=_run, args=(serving, wakes), name="gte-encode", daemon=True
            )
            self._thread.start()

    def end(self) -> None:
        """Finish what is under way, before the interpreter ends under it."""
        self._has_ended = True
        self._wakes.put(None)
        if self._thread is not None:
            self._thread.join()

    def serve(self) -> bool:
        """Serve until nobody waits; whether to go on waiting for calls."""
        self._work()
        return not self._has_ended

    def _work(self) -> None:
        """Serve until nobody waits. Each call brings the thread here, mostly for nothing."""
        with self._working:
            self._admit_arrived()
            while self._waiting:
                unit = self._waiting.take_unit(self._embedder().pack_tokens)
                self._compute([call for call in unit if not call.answer.cancelled()])
                unfinished = [call for call in unit if not _is_finished(call)]
                self._admit_arrived()  # ahead of those that had a turn just now
                for call in unfinished:
                    self._waiting.put(call)

    def _admit_arrived(self) -> None:
        while self._arrived:
            call = self._arrived.popleft()
            try:
                if not call.answer.cancelled():
                    call.begin(self._embedder(), self._kept)
            except BaseException as error:  # noqa: BLE001  it belongs to the caller
                call.fail(error)
            if not _is_finished(call):
                self._waiting.put(call)

    def _compute(self, calls: Sequence[Call[Any]]) -> None:
        """One unit of these calls, together; if that fails, each by itself, to see whose it is."""
        try:
            vectors = self._vectors(calls)
            for call in calls:
                call.receive(vectors)
        except BaseException as error:  # noqa: BLE001  it belongs to the caller
            for call in calls:
                if len(calls) > 1:
                    self._compute([call])
                else:
                    call.fail(error)

    def _vectors(self, calls: Sequence[Call[Any]]) -> dict[FedText, Vectors]:
        names = {text: call.name(text) for call in calls for text in call.unit}
        known = self._kept.get(names)  # others may have computed them while these calls waited
        tokens = {
            text: ids for call in calls for text, ids in call.unit.items() if text not in known
        }
        if tokens:
            texts = list(tokens)
            found = self._embedder().compute_tokenized(
                list(tokens.values()), name_of=lambda i: names[texts[i]]
            )
            rows = vectors_of(found.pooled, found.sparse, found.n_tokens, found.truncated)
            computed = dict(zip(texts, rows, strict=True))
            self._kept.put(computed)
            known |= computed
        return known


def _run(serving: ref[Serving], wakes: SimpleQueue[None]) -> None:
    """The thread; it keeps nobody alive while it waits, and ends with whom it serves."""
    while True:
        wakes.get()
        served = serving()
        if served is None or not served.serve():
            return
        del served


def _end(serving: ref[Serving]) -> None:
    served = serving()
    if served is not None:
        served.end()


def _is_finished(call: Call[Any]) -> bool:
    """Whether nothing is left to do for a call; answers it if it is complete."""
    if not call.answer.done() and call.is_complete:
        call.finish()
    return call.answer.done()
