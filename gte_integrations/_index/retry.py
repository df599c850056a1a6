"""Sending to a server: split by size, halved when too large, retried while the server is away."""

from __future__ import annotations

import logging
import math
import random
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Literal, TypeVar

T = TypeVar("T")

_FIRST_PAUSE = 0.5
_LONGEST_PAUSE = 5.0
_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Failure:
    """The kind of an error, which says what to do about it.

    A "transient" one is retried, after ``retry_after`` seconds if the server said so. What is
    "too large" is sent in halves. A "permanent" one is raised.
    """

    kind: Literal["transient", "too large", "permanent"]
    retry_after: float = 0.0


TRANSIENT, TOO_LARGE, PERMANENT = Failure("transient"), Failure("too large"), Failure("permanent")

_BY_GRPC_STATUS = {
    "UNAVAILABLE": TRANSIENT,
    "DEADLINE_EXCEEDED": TRANSIENT,
    "ABORTED": TRANSIENT,
    "RESOURCE_EXHAUSTED": TOO_LARGE,
}


def classify_grpc(status: object) -> Failure:
    """Classify a gRPC status code; anything else is permanent."""
    return _BY_GRPC_STATUS.get(str(getattr(status, "name", "")), PERMANENT)


def classify_http(status: int, content: bytes, retry_after: str | None) -> Failure:
    """Classify an HTTP status; ``retry_after`` is the header Retry-After."""
    if status == 413 or b"larger than allowed" in content:
        return TOO_LARGE
    if status in {408, 429} or status >= 500:
        return Failure("transient", seconds_of(retry_after))
    return PERMANENT


def seconds_of(retry_after: str | None) -> float:
    """A Retry-After header, a number or a date, in seconds from now; 0 if it is neither."""
    if retry_after is None:
        return 0.0
    try:
        seconds = float(retry_after)
    except ValueError:
        seconds = _seconds_until(retry_after)
    return max(0.0, seconds) if math.isfinite(seconds) else 0.0


def _seconds_until(date: str) -> float:
    try:
        moment = parsedate_to_datetime(date)
    except ValueError:
        return 0.0
    if moment.tzinfo is None:  # "-0000", which says UTC without saying where
        moment = moment.replace(tzinfo=UTC)
    return (moment - datetime.now(UTC)).total_seconds()


class Sender:
    """Sends requests, and retries those that failed for a passing reason.

    A request may arrive twice, so it must do no harm the second time.

    Args:
        classify: gives the kind of an error.
        seconds: how long one request is retried before its error is raised; 0 for never.
        clock: gives a time in seconds.
    """

    def __init__(
        self,
        classify: Callable[[Exception], Failure],
        seconds: float,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.retries = 0
        self._classify = classify
        self._seconds = seconds
        self._clock = clock
        self._stopped = threading.Event()

    def stop(self) -> None:
        """Retry nothing from now on; a pause in another thread ends."""
        self._stopped.set()

    def retry(self, request: Callable[[], T]) -> T:
        """Return what ``request`` returns, at the first attempt that succeeds."""
        started = self._clock()
        attempt = 0
        while True:
            try:
                return request()
            except Exception as error:
                pause = self._pause(error, attempt, self._clock() - started)
                if pause is None:
                    raise
                _logger.warning("Attempt %d failed; next in %.1f s: %s", attempt + 1, pause, error)
            self._stopped.wait(pause)
            attempt += 1
            self.retries += 1

    def send(
        self,
        items: Sequence[T],
        write: Callable[[Sequence[T]], None],
        name_of: Callable[[T], str],
    ) -> None:
        """Write all items in as few requests as the server takes.

        The error of an item that is too large by itself gets a note that names it.
        """
        try:
            self.retry(lambda: write(items))
        except Exception as error:
            if self._classify(error).kind != "too large":
                raise
            if len(items) < 2:
                error.add_note(f"Too large for the server by itself: {name_of(items[0])}.")
                raise
        else:
            return
        half = len(items) // 2
        self.send(items[:half], write, name_of)
        self.send(items[half:], write, name_of)

    def _pause(self, error: Exception, attempt: int, elapsed: float) -> float | None:
        """Seconds until the next attempt, None if there should be none."""
        failure = self._classify(error)
        if failure.kind != "transient" or self._stopped.is_set():
            return None
        # Jitter: the clients of a server that comes back must not all knock at once.
        longest = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2.0 ** min(attempt, 10))
        pause = max(failure.retry_after, longest * random.uniform(0.5, 1))  # noqa: S311
        left = self._seconds - elapsed
        if left > 0 and failure.retry_after <= left:
            return min(pause, left)  # the last attempt is made when the time is over, not before
        error.add_note(
            f"Gave up after {attempt + 1} attempts in {elapsed:.1f} s; retry_seconds is "
            f"{self._seconds:g}."
        )
        return None


def split(items: Iterable[T], size_of: Callable[[T], int], most: int) -> Iterator[list[T]]:
    """Cut items into runs of at most ``most`` bytes; a larger item makes a run of its own."""
    part: list[T] = []
    total = 0
    for item in items:
        size = size_of(item)
        if part and total + size > most:
            yield part
            part, total = [], 0
        part.append(item)
        total += size
    if part:
        yield part
