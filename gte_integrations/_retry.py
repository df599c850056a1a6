"""Sending to a server: split by size, halved when too large, retried while the server is away."""

from __future__ import annotations

import asyncio
import logging
import math
import random
import threading
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Literal, TypeVar

T = TypeVar("T")
R = TypeVar("R")

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
                failure = PERMANENT if self._stopped.is_set() else self._classify(error)
                elapsed = self._clock() - started
                limit = f"retry_seconds is {self._seconds:g}"
                pause = _pause(error, failure, attempt, elapsed, self._seconds, limit=limit)
                if pause is None:
                    raise
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
            parts = _halves(error, self._classify(error), items, name_of)
            if parts is None:
                raise
        else:
            return
        for part in parts:
            self.send(part, write, name_of)


async def retry_async(
    request: Callable[[], Awaitable[R]],
    classify: Callable[[Exception], Failure],
    seconds: float,
    limit: str,
) -> R:
    """``Sender.retry`` without blocking the event loop.

    ``limit`` is what the error says of the seconds when it gives up.
    """
    clock = asyncio.get_running_loop().time
    started = clock()
    attempt = 0
    while True:
        try:
            return await request()
        except Exception as error:
            elapsed = clock() - started
            pause = _pause(error, classify(error), attempt, elapsed, seconds, limit=limit)
            if pause is None:
                raise
        await asyncio.sleep(pause)
        attempt += 1


async def ask_in_halves(
    items: Sequence[T],
    ask: Callable[[Sequence[T]], Awaitable[R]],
    classify: Callable[[Exception], Failure],
    name_of: Callable[[T], str],
) -> list[R]:
    """The answers about all items, in their order, to as few requests as the server takes.

    The error about an item that is too large by itself gets a note that names it.
    """
    try:
        return [await ask(items)]
    except Exception as error:
        parts = _halves(error, classify(error), items, name_of)
        if parts is None:
            raise
    return [
        answer for part in parts for answer in await ask_in_halves(part, ask, classify, name_of)
    ]


def _pause(
    error: Exception, failure: Failure, attempt: int, elapsed: float, seconds: float, *, limit: str
) -> float | None:
    """Seconds until the next attempt, None if there should be none."""
    if failure.kind != "transient":
        return None
    # Jitter: the clients of a server that comes back must not all knock at once.
    longest = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2.0 ** min(attempt, 10))
    pause = max(failure.retry_after, longest * random.uniform(0.5, 1))  # noqa: S311
    left = seconds - elapsed
    if left <= 0 or failure.retry_after > left:
        error.add_note(f"Gave up after {attempt + 1} attempts in {elapsed:.1f} s; {limit}.")
        return None
    pause = min(pause, left)  # the last attempt is made when the time is over, not before
    _logger.warning("Attempt %d failed; next in %.1f s: %s", attempt + 1, pause, error)
    return pause


def _halves(
    error: Exception, failure: Failure, items: Sequence[T], name_of: Callable[[T], str]
) -> tuple[Sequence[T], Sequence[T]] | None:
    """What to send in place of items that were too large, None where the error stands."""
    if failure.kind != "too large":
        return None
    if len(items) < 2:
        error.add_note(f"Too large for the server by itself: {name_of(items[0])}.")
        return None
    half = len(items) // 2
    return items[:half], items[half:]


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
