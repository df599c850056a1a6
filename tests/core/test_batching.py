import threading
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gte_core.batching import FairQueue, Turns

UNIT = 100


@dataclass(eq=False)
class Item:
    name: str
    n_tokens: int = 10
    is_long: bool = False


def queue(*items):
    waiting = FairQueue()
    for item in items:
        waiting.put(item)
    return waiting


def drained(waiting):
    """Names of those that share each turn, until nobody waits."""
    turns = []
    while waiting:
        turns.append("".join(item.name for item in waiting.take_unit(UNIT)))
    return turns


def test_a_short_call_goes_before_long_ones_however_many():
    long = [Item(name, UNIT, is_long=True) for name in "ABC"]
    assert drained(queue(*long, Item("q"))) == ["q", "A", "B", "C"]


def test_long_calls_take_turns():
    first, second = (Item(name, UNIT, is_long=True) for name in "AB")
    waiting = queue(first, second)
    order = []
    for _ in range(6):
        [item] = waiting.take_unit(UNIT)
        order.append(item.name)
        waiting.put(item)
    assert "".join(order) == "ABABAB"


def test_short_calls_share_a_unit():
    assert drained(queue(*[Item(name, 30) for name in "abcdefg"])) == ["abc", "def", "g"]


def test_a_long_call_has_its_turn_after_a_unit_of_short_ones():
    waiting = queue(Item("A", UNIT, is_long=True))
    order = ""
    for _ in range(4):
        for name in "abcd":
            waiting.put(Item(name, 50))
        [item, *others] = waiting.take_unit(UNIT)
        order += "".join(taken.name for taken in (item, *others))
        if item.is_long:
            waiting.put(item)
    assert order == "abAcdA"


@given(
    kinds=st.lists(st.tuples(st.integers(1, UNIT), st.booleans()), max_size=30),
)
def test_everyone_has_exactly_one_turn(kinds):
    items = [Item(str(i), n, is_long) for i, (n, is_long) in enumerate(kinds)]
    waiting = queue(*items)
    taken = []
    while unit := waiting.take_unit(UNIT):
        assert len(unit) == 1 or sum(item.n_tokens for item in unit) <= UNIT
        taken += unit
    assert sorted(map(id, taken)) == sorted(map(id, items))
    assert not waiting


def test_threads_have_turns_in_the_order_of_the_queue(monkeypatch):
    turns = Turns(UNIT)
    waits, order = threading.Semaphore(0), []
    put = FairQueue.put
    monkeypatch.setattr(FairQueue, "put", lambda self, item: put(self, item) or waits.release())

    def work(name, n_tokens, is_long):
        with turns.turn(n_tokens, is_long=is_long):
            order.append(name)

    asked = [("A", UNIT, True), ("B", UNIT, True), ("q", 10, False)]
    threads = [threading.Thread(target=work, args=arguments) for arguments in asked]
    with turns.turn(UNIT, is_long=True):
        waits.acquire()
        for thread in threads:
            thread.start()
            assert waits.acquire(timeout=60)
    for thread in threads:
        thread.join(60)
    assert order == ["q", "A", "B"]


def test_an_interrupted_wait_leaves_nothing_behind(monkeypatch):
    turns = Turns(UNIT)

    def interrupted(*_):
        raise KeyboardInterrupt

    with turns.turn(10, is_long=False), monkeypatch.context() as patch:
        patch.setattr(threading.Condition, "wait", interrupted)
        with pytest.raises(KeyboardInterrupt, match=r"^$"), turns.turn(10, is_long=False):
            pass
    with turns.turn(10, is_long=False):  # nobody is waited for
        pass
