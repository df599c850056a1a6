import threading
from contextlib import contextmanager

import pytest

from gte_core.runtime.passes import PackRunner


@pytest.fixture
def stopped(monkeypatch):
    """``with stopped(encode, texts):`` holds the first pass until the block ends, and joins."""

    @contextmanager
    def hold(encoder, texts):
        entered, go_on = threading.Event(), threading.Event()
        original = PackRunner._pass

        def held(self, launch, pack):
            if not entered.is_set():
                entered.set()
                assert go_on.wait(60)
            return original(self, launch, pack)

        with monkeypatch.context() as patch:
            patch.setattr(PackRunner, "_pass", held)
            caller = threading.Thread(target=encoder.encode, args=(texts,))
            caller.start()
            assert entered.wait(60)
            try:
                yield
            finally:
                go_on.set()
                caller.join(60)

    return hold
