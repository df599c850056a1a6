"""The process of one contender: it does what it is told on stdin and answers in lines of JSON.

A process of its own makes its memory and its start its own. ``python -m`` runs it, with the time
at which it was started as the argument.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
import traceback
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from gte_integrations.bench.memory import device_peak, host_peak, leave_room, reset_peaks

if TYPE_CHECKING:
    from gte_integrations.bench.contenders import Loaded

Message = dict[str, Any]


class Session:
    """What one process has loaded.

    Args:
        started: when the process was started, as ``time.time`` tells it.
    """

    def __init__(self, started: float) -> None:
        self._started = started
        self._entered = time.time()
        self._loaded: Loaded | None = None
        self._device = "cpu"
        self._workloads: dict[str, Message] = {}

    def answer(self, request: Message) -> Message:
        """Do what a request says; what goes wrong is an answer too."""
        actions = {"measure": self.measure, "load": self.load, "encode": self.encode}
        try:
            return actions[request["action"]](request)
        except Exception as error:  # noqa: BLE001 - that a contender fails is a result
            traceback.print_exc()
            told = isinstance(error, ValueError)  # such a message is written for users
            return {"error": str(error) if told else f"{type(error).__name__}: {error}"}

    def measure(self, request: Message) -> Message:
        """Measure the machine."""
        from gte_integrations.bench.machine import measure_machine

        return asdict(measure_machine(request["device"], quick=request["quick"]))

    def load(self, request: Message) -> Message:
        """Load a contender and give the first vector, with the parts of the time that takes."""
        module = import_module(f"gte_integrations.bench.contenders.{request['module']}")
        imported = time.time()
        self._device = request["device"]
        loaded: Loaded = module.load(Path(request["directory"]), self._device, request["dtype"])
        ready = time.time()
        loaded.encode([request["first_text"]], loaded.variants[0])
        done = time.time()
        self._loaded = loaded
        workloads = json.loads(Path(request["workloads"]).read_text(encoding="utf-8"))
        self._workloads = {workload["name"]: workload for workload in workloads}
        return {
            "dtype": loaded.dtype,
            "variants": loaded.variants,
            "start": {
                "interpreter_s": self._entered - self._started,
                "imports_s": imported - self._entered,
                "load_s": ready - imported,
                "first_pass_s": done - ready,
                "total_s": done - self._started,
            },
            **self._peaks(),
        }

    def encode(self, request: Message) -> Message:
        """Encode a workload once; the vectors go to the file of ``vectors`` where one is named."""
        import numpy as np

        if self._loaded is None:
            raise RuntimeError("Nothing is loaded; send 'load' first.")
        workload, variant = self._workloads[request["workload"]], request["variant"]
        texts: list[str] = workload["texts"]
        calls = [[text] for text in texts] if workload["one_at_a_time"] else [texts]
        # Another process was busy until now: this one's threads sleep, and its caches are cold.
        self._loaded.encode(calls[0][:1], variant)
        reset_peaks(self._device)
        vectors, seconds = [], []
        for call in calls:
            start = time.perf_counter()
            vectors.append(self._loaded.encode(call, variant))
            seconds.append(time.perf_counter() - start)
        if request["vectors"]:
            np.save(request["vectors"], np.concatenate(vectors))
        peaks = self._peaks()
        leave_room(self._device)
        return {"seconds": seconds, **peaks}

    def _peaks(self) -> Message:
        return {"host_peak": host_peak(), "device_peak": device_peak(self._device)}


def _own_stdout() -> TextIO:
    """The answers' way out; what a library prints goes to stderr from here on."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return answers


def main() -> None:
    """Answer requests until stdin ends."""
    session = Session(float(sys.argv[1]))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides when this ends
    answers = _own_stdout()
    for line in sys.stdin:
        answers.write(json.dumps(session.answer(json.loads(line))) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
