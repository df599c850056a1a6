"""Real forks, in a process of their own; a child that hangs is ended by an alarm."""

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")

PRELUDE = """
import asyncio, os, signal, sys, threading, torch

locks = []
make_lock = threading.Lock

def recorded_lock():
    lock = make_lock()
    if sys._getframe(1).f_globals["__name__"].startswith("gte_core"):
        locks.append(lock)
    return lock

threading.Lock = recorded_lock

from gte_core import EncoderSettings, GTEEmbedder, shared_encoder

torch.set_num_threads(1)
TEXTS = ["some words to encode " * 20] * 8
embedder = GTEEmbedder.from_pretrained(sys.argv[1])
encoder = shared_encoder(EncoderSettings(model=sys.argv[1]))

def child(work):
    process = os.fork()
    if process:
        status = os.waitpid(process, 0)[1]
        if status:
            print(f"a child ended with {status}", file=sys.stderr, flush=True)
            os._exit(1)  # at once, whatever locks are held
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

# Every lock of the library is held by another thread.
inside, go_on = threading.Event(), threading.Event()
def hold():
    held = [lock for lock in locks if lock.acquire(blocking=False)]
    assert len(held) > 5, held
    inside.set()
    go_on.wait()
    for lock in held:
        lock.release()
thread = threading.Thread(target=hold, daemon=True)
thread.start()
inside.wait()
child(encodes)
go_on.set()
thread.join()
encodes()
"""

AMID_A_PASS = """
inside, go_on = threading.Event(), threading.Event()
def stop(module, inputs):
    if threading.current_thread() is not threading.main_thread():
        inside.set()
        go_on.wait()
stopping = torch.nn.modules.module.register_module_forward_pre_hook(stop)
thread = threading.Thread(target=encoder.encode, args=("while this is computed",), daemon=True)
thread.start()
inside.wait()
why = "forked while another thread of its parent was computing"
child(lambda: refused(lambda: embedder.encode("x"), why))
child(lambda: refused(lambda: encoder.encode("x"), why))
child(lambda: refused(lambda: GTEEmbedder.from_pretrained(sys.argv[1]), why))
child(lambda: child(lambda: refused(lambda: embedder.encode("x"), why)))
stopping.remove()
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
