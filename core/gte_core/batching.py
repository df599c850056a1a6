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
from typing import Generic, Protocol, TypeVar

from gte_core.forks import renew_in_children


class Waiting(Protocol):
    """What waits in a ``FairQueue``."""

    @property
    def n_tokens(self) -> int:
        """Tokens of its next turn."""
        ...

    @property
    def is_long(self) -> bool:
        """Whether its call takes more than one unit."""
        ...


W = TypeVar("W", bound=Waiting)

_LOOK_AGAIN = 1.0  # seconds


class FairQueue(Generic[W]):
    """Calls in the order of the rules above. It has no lock: its owner needs one."""

    def __init__(self) -> None:
        self._short: deque[W] = deque()
        self._long: deque[W] = deque()
        self._spent = 0  # tokens of short calls since a long one had its turn

    def __len__(self) -> int:
        return len(self._short) + len(self._long)

    def put(self, item: W) -> None:
        """Add an item behind the others; a long call is added again after each of its turns."""
        (self._long if item.is_long else self._short).append(item)

    def first(self, unit: int) -> W | None:
        """The item whose turn it is, None if nobody waits; ``unit`` is the tokens of a unit."""
        if self._long and (not self._short or self._spent >= unit):
            return self._long[0]
        return self._short[0] if self._short else None

    def take(self, item: W) -> None:
        """Remove ``item`` because it has its turn."""
        self.remove(item)
        self._spent = 0 if item.is_long else self._spent + item.n_tokens

    def remove(self, item: W) -> None:
        """Remove ``item`` because it waits no longer."""
        (self._long if item.is_long else self._short).remove(item)

    def take_unit(self, unit: int) -> list[W]:
        """Take the items of the next turn: one long call, or short ones of a unit together."""
        taken: list[W] = []
        room = unit
        while (item := self.first(unit)) and not (taken and (item.is_long or item.n_tokens > room)):
            self.take(item)
            taken.append(item)
            room -= item.n_tokens
            if item.is_long:
                break
        return taken


class Ticket:
    """A thread's claim to a turn.

    Attributes:
        n_tokens: tokens of the turn.
        is_long: whether its call takes more than one unit.
        left: whether the turn is over, or nobody waits for it any more.
    """

    def __init__(self, n_tokens: int, *, is_long: bool) -> None:
        self.n_tokens = n_tokens
        self.is_long = is_long
        self.left = False
        self.go = threading.Lock()  # released when the turn comes
        self.go.acquire()


class Turns:
    """A lock for one pass at a time, handed to waiting threads in the order of a fair queue.

    ::

        ticket = Ticket(n_tokens, is_long=False)
        try:
            turns.wait(ticket)
            ...
        finally:
            ticket.left = True
            turns.hand_over()

    This is no context manager, because Ctrl-C can strike between any two calls of Python code: in
    one, it could leave the turn taken for ever. Here ``left`` is set before anything is called. A
    thread that waits looks every second for a turn that was left but not handed over.

    Args:
        unit: tokens of a unit.
    """

    def __init__(self, unit: int) -> None:
        self.unit = unit
        self.renew()
        renew_in_children(self)

    def renew(self) -> None:
        """Begin again with nobody waiting."""
        self._lock = threading.Lock()
        self._waiting: FairQueue[Ticket] = FairQueue()
        self._holder: Ticket | None = None

    def wait(self, ticket: Ticket) -> None:
        """Wait for the ticket's turn."""
        with self._lock:
            self._waiting.put(ticket)
        self.hand_over()
        while not ticket.go.acquire(timeout=_LOOK_AGAIN) and self._holder is not ticket:
            self.hand_over()

    def hand_over(self) -> None:
        """Give the turn to who is next, if it is free."""
        with self._lock:
            if self._holder is not None and not self._holder.left:
                return
            self._holder = None
            while (first := self._waiting.first(self.unit)) is not None:
                if first.left:
                    self._waiting.remove(first)
                    continue
                self._holder = first
                self._waiting.take(first)
                first.go.release()
                return
