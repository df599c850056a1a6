import threading
from itertools import count, islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gte_core.runtime.packs import computed_ahead, plan_packs, windows

LENGTHS = st.lists(st.integers(1, 50))


@given(lengths=LENGTHS, budget=st.integers(1, 120))
def test_packs_hold_every_text_once_within_the_budget(lengths, budget):
    packs = plan_packs(dict(enumerate(lengths)), budget)
    assert sorted(index for pack in packs for index in pack) == list(range(len(lengths)))
    for pack in packs:
        assert sum(lengths[i] for i in pack) <= budget or len(pack) == 1


@given(lengths=LENGTHS, budget=st.integers(1, 120))
def test_packs_go_from_long_to_short(lengths, budget):
    order = [lengths[i] for pack in plan_packs(dict(enumerate(lengths)), budget) for i in pack]
    assert order == sorted(lengths, reverse=True)


@given(lengths=LENGTHS, max_size=st.integers(1, 120), max_items=st.integers(1, 9))
def test_windows_keep_order_and_limits(lengths, max_size, max_items):
    items = ["x" * length for length in lengths]
    found = list(windows(items, max_size=max_size, max_items=max_items))
    assert [item for window in found for item in window] == items
    for window in found:
        assert 1 <= len(window) <= max_items
        assert sum(map(len, window[:-1])) < max_size


def test_windows_read_no_further_than_they_must():
    source = count()
    stream = ("x" for _ in source)
    list(islice(windows(stream, max_size=10, max_items=3), 2))
    assert next(source) == 6


def test_the_last_pack_is_not_a_small_one():
    assert [len(pack) for pack in plan_packs(dict.fromkeys(range(21), 10), 200)] == [11, 10]


class TestComputedAhead:
    def test_results_come_in_order(self):
        assert list(computed_ahead(str, range(9), depth=3)) == list(map(str, range(9)))

    @pytest.mark.parametrize(("depth", "read"), [(0, 2), (3, 5)])
    def test_items_are_read_only_so_far_and_in_the_callers_thread(self, depth, read):
        threads = []
        items = (threads.append(threading.get_ident()) or i for i in range(50))
        results = list(islice(computed_ahead(str, items, depth=depth), 2))
        assert results == ["0", "1"]
        assert threads == [threading.get_ident()] * read

    def test_an_error_comes_at_its_place(self):
        results = computed_ahead(lambda i: 1 / (2 - i), range(9), depth=4)
        assert [next(results), next(results)] == [0.5, 1.0]
        with pytest.raises(ZeroDivisionError, match="division by zero"):
            next(results)

    def test_no_thread_is_left(self):
        results = computed_ahead(str, range(9), depth=4)
        next(results)
        results.close()
        assert not [t for t in threading.enumerate() if t.name.startswith("gte-tokenize")]
