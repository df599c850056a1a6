"""The fair queue by tokens: whose turn it is where many callers share one model.

A model computes one pass at a time. A turn is one *unit* of a call: one pack, at most the token
budget of the device. The rules:

1. Short calls, which are done in one unit, go before long ones, which take several.
2. After a unit's worth of tokens of short calls, a long one has its turn, so that it gets on too.
3. Long calls take turns; otherwise, who comes first goes first.

So a query waits for the unit that is being computed, whoever sends long lists and how many.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from gte_core.forks import renew_in_children


class Waiting(Protocol):
    """What waits in a :class:`FairQueue`."""

    @property
    def n_tokens(self) -> int:
        """Tokens of its next turn."""
        ...

    @property
    def is_long(self) -> bool:
        """Whether its call takes more than one unit."""
        ...


W = TypeVar("W", bound=Waiting)


class FairQueue(Generic[W]):
    """Who is next, by the rules above. Not locked: its owner is."""

    def __init__(self) -> None:
        self._short: deque[W] = deque()
        self._long: deque[W] = deque()
        self._spent = 0  # tokens of short calls since a long one had its turn

    def __len__(self) -> int:
        return len(self._short) + len(self._long)

    def put(self, item: W) -> None:
        """Wait behind those that are there; a long call does so after each of its turns."""
        (self._long if item.is_long else self._short).append(item)

    def first(self, unit: int) -> W | None:
        """Whose turn it is, where a unit is so many tokens; None if nobody waits."""
        if self._long and (not self._short or self._spent >= unit):
            return self._long[0]
        return self._short[0] if self._short else None

    def take(self, item: W) -> None:
        """``item`` has its turn."""
        self.remove(item)
        self._spent = 0 if item.is_long else self._spent + item.n_tokens

    def remove(self, item: W) -> None:
        """``item`` waits no longer."""
        (self._long if item.is_long else self._short).remove(item)

    def take_unit(self, unit: int) -> list[W]:
        """Those that share the next turn: a long call, or short ones of up to a unit in all."""
        taken: list[W] = []
        room = unit
        while (item := self.first(unit)) and not (taken and (item.is_long or item.n_tokens > room)):
            self.take(item)
            taken.append(item)
            room -= item.n_tokens
            if item.is_long:
                break
        return taken


# Compared by identity: two equal tickets are two.
@dataclass(frozen=True, slots=True, eq=False)
class _Ticket:
    n_tokens: int
    is_long: bool


@dataclass(eq=False)
class Turns:
    """A lock for one pass at a time, handed to waiting threads in the order of a fair queue.

    Attributes:
        unit: tokens of a unit.
    """

    unit: int
    _changed: threading.Condition = field(init=False)
    _waiting: FairQueue[_Ticket] = field(init=False)
    _taken: bool = field(init=False)

    def __post_init__(self) -> None:
        self.renew()
        renew_in_children(self)

    def renew(self) -> None:
        """Begin again with nobody waiting."""
        self._changed = threading.Condition()
        self._waiting = FairQueue()
        self._taken = False

    @contextmanager
    def turn(self, n_tokens: int, *, is_long: bool) -> Iterator[None]:
        """Wait for a turn, and hold it."""
        ticket = _Ticket(n_tokens, is_long)
        with self._changed:
            self._waiting.put(ticket)
            try:
                self._changed.wait_for(
                    lambda: not self._taken and self._waiting.first(self.unit) is ticket
                )
            except BaseException:  # an interrupt, such as Ctrl-C
                self._waiting.remove(ticket)
                self._changed.notify_all()
                raise
            self._waiting.take(ticket)
            self._taken = True
        try:
            yield
        finally:
            with self._changed:
                self._taken = False
                self._changed.notify_all()
