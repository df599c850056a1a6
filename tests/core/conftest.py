import threading
from contextlib import contextmanager

import pytest
from torch import nn
from torch.nn.modules.module import register_module_forward_pre_hook


@contextmanager
def watching(see):
    def look_up(module, inputs):
        if isinstance(module, nn.Embedding):
            see(*inputs)

    hook = register_module_forward_pre_hook(look_up)
    try:
        yield
    finally:
        hook.remove()


@pytest.fixture
def watching_passes():
    """``with watching_passes(see):`` calls ``see`` with the token ids of each pass as it begins.

    It may hold the pass up. Every pass looks its tokens up once, whatever runs it.
    """
    return watching


@pytest.fixture
def stopped():
    """``with stopped(encode, texts):`` holds the first pass until the block ends, and joins."""

    @contextmanager
    def hold(encoder, texts):
        entered, go_on = threading.Event(), threading.Event()

        def held(input_ids):
            if not entered.is_set():
                entered.set()
                assert go_on.wait(60)

        with watching(held):
            caller = threading.Thread(target=encoder.encode, args=(texts,))
            caller.start()
            assert entered.wait(60)
            try:
                yield
            finally:
                go_on.set()
                caller.join(60)

    return hold
