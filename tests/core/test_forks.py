"""Real forks, in a process of their own; a child that hangs is ended by an alarm."""

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")

PRELUDE = """
import asyncio, os, signal, sys, threading, torch
from contextlib import ExitStack
import gte_core.shared as shared
from gte_core import EncoderSettings, GTEEmbedder, shared_encoder
from gte_core.runtime.passes import PackRunner

torch.set_num_threads(1)
TEXTS = ["some words to encode " * 20] * 8
embedder = GTEEmbedder.from_pretrained(sys.argv[1])
encoder = shared_encoder(EncoderSettings(model=sys.argv[1]))

def child(work):
    process = os.fork()
    if process:
        status = os.waitpid(process, 0)[1]
        assert status == 0, f"the child ended with {status}"
        return
    signal.alarm(40)
    try:
        work()
    except BaseException:
        import traceback
        traceback.print_exc()
        os._exit(1)
    os._exit(0)

def refused(work, why):
    try:
        work()
    except RuntimeError as error:
        assert why in str(error) and "'spawn'" in str(error), error
    else:
        raise AssertionError("it was not refused")

def encodes():
    assert embedder.encode(TEXTS).dense.shape == (8, 64)
    assert asyncio.run(embedder.aencode(TEXTS)).dense.shape == (8, 64)
    assert encoder.encode([f"{os.getpid()} {text}" for text in TEXTS]).dense.shape == (8, 64)
    assert asyncio.run(encoder.aencode("y")).dense.shape == (1, 64)
    assert GTEEmbedder.from_pretrained(sys.argv[1]).encode("x").dense.shape == (1, 64)

"""

ONE_TORCH_THREAD = """
child(encodes)  # nothing has computed yet
encodes()
child(encodes)

# Every lock is held by another thread.
inside, go_on = threading.Event(), threading.Event()
def hold():
    with ExitStack() as held:
        for lock in (
            embedder._engine._packs._turns._lock,
            encoder.embedder._engine._packs._turns._lock,
            encoder._finding,
            encoder._model._loading,
            encoder._model.kept._lock,
            encoder._model.serving._working,
            encoder._model.serving._starting,
            shared._ENCODERS._lock,
            shared._MODELS._lock,
        ):
            held.enter_context(lock)
        inside.set()
        go_on.wait()
thread = threading.Thread(target=hold)
thread.start()
inside.wait()
child(encodes)
go_on.set()
thread.join()
encodes()
"""

AMID_A_PASS = """
original = PackRunner._pass
inside, go_on = threading.Event(), threading.Event()
def held(launch):
    inside.set()
    go_on.wait()
    return launch
def stopping(self, launch, pack):
    return original(self, lambda numbers: held(launch)(numbers), pack)
PackRunner._pass = stopping
thread = threading.Thread(target=encoder.encode, args=("while this is computed",))
thread.start()
inside.wait()
PackRunner._pass = original
why = "forked while another thread of its parent was computing"
child(lambda: refused(lambda: embedder.encode("x"), why))
child(lambda: refused(lambda: encoder.encode("x"), why))
child(lambda: refused(lambda: GTEEmbedder.from_pretrained(sys.argv[1]), why))
child(lambda: child(lambda: refused(lambda: embedder.encode("x"), why)))
go_on.set()
thread.join()
child(encodes)  # the pass is over
"""

SEVERAL_TORCH_THREADS = """
torch.set_num_threads(2)
why = "forked by a thread that had computed with several torch threads"
def in_a_thread(work):
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
in_a_thread(encodes)
child(encodes)  # it was another thread that computed
embedder.encode(TEXTS)
child(lambda: refused(lambda: embedder.encode(TEXTS), why))
child(lambda: refused(lambda: GTEEmbedder.from_pretrained(sys.argv[1]), why))
def served():
    assert encoder.encode([str(os.getpid()), *TEXTS]).dense.shape == (9, 64)
    assert asyncio.run(embedder.aencode(TEXTS)).dense.shape == (8, 64)
child(served)  # in threads of the child
encodes()
"""


def test_a_forked_child_answers_or_refuses_and_never_hangs(small_checkpoint):
    # Started anew: torch of this process may have computed already.
    script = PRELUDE + ONE_TORCH_THREAD + AMID_A_PASS + SEVERAL_TORCH_THREADS
    subprocess.run([sys.executable, "-c", script, str(small_checkpoint)], check=True, timeout=300)
