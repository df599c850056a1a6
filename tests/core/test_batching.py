import sys
import threading
from contextlib import contextmanager
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gte_core import EncoderSettings, GTEEmbedder, shared_encoder
from gte_core.batching import FairQueue, Ticket, Turns

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


@contextmanager
def turn(turns, n_tokens, *, is_long=False):
    ticket = Ticket(n_tokens, is_long=is_long)
    try:
        turns.wait(ticket)
        yield
    finally:
        ticket.left = True
        turns.hand_over()


def test_threads_have_turns_in_the_order_of_the_queue(monkeypatch):
    turns = Turns(UNIT)
    waits, order = threading.Semaphore(0), []
    put = FairQueue.put
    monkeypatch.setattr(FairQueue, "put", lambda self, item: put(self, item) or waits.release())

    def work(name, n_tokens, is_long):
        with turn(turns, n_tokens, is_long=is_long):
            order.append(name)

    asked = [("A", UNIT, True), ("B", UNIT, True), ("q", 10, False)]
    threads = [threading.Thread(target=work, args=arguments) for arguments in asked]
    with turn(turns, UNIT, is_long=True):
        waits.acquire()
        for thread in threads:
            thread.start()
            assert waits.acquire(timeout=60)
    for thread in threads:
        thread.join(60)
    assert order == ["q", "A", "B"]


def answered_by_another_thread(encode, text):
    answers = []
    thread = threading.Thread(target=lambda: answers.append(encode(text)), daemon=True)
    thread.start()
    thread.join(60)
    return len(answers) == 1


@pytest.mark.parametrize("kind", ["embedder", "shared"])
def test_wherever_ctrl_c_strikes_the_next_call_is_answered(small_checkpoint, kind):
    """Python raises it where one of its functions begins, among other places."""
    if kind == "embedder":
        encode = GTEEmbedder.from_pretrained(small_checkpoint, dtype="float32").encode
    else:
        settings = EncoderSettings(model=str(small_checkpoint), dtype="float32", max_length=999)
        encode = shared_encoder(settings).encode
    encode("w1")
    waiting = ("batching.py", "passes.py", "serving.py", "shared.py", "threading.py")

    def interrupted_at(number):
        """Whether there are so many places to strike at."""
        left = [number]

        def trace(frame, event, argument):
            # A generator that is thrown away cannot raise.
            if frame.f_code.co_filename.endswith(waiting) and frame.f_code.co_name != "<genexpr>":
                left[0] -= 1
                if left[0] < 0:
                    sys.settrace(None)
                    raise KeyboardInterrupt

        sys.settrace(trace)
        try:
            encode(f"w{number} w2")
        except KeyboardInterrupt:
            return True
        finally:
            sys.settrace(None)
        return False

    number = 0
    while interrupted_at(number):
        assert answered_by_another_thread(encode, f"w{number} w3"), number
        number += 1
    assert number > 5
