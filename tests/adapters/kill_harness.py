"""Kills a run at one exact step, or at a random moment, and looks at what the next run makes of it.

Runs as a process of its own that opens no index itself, and forks one for every run: imports are
paid for once, and a forked process is as fresh as a new one while nothing was opened before.
"""

import importlib.util
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback
from contextlib import contextmanager
from pathlib import Path

DOCUMENTS = [(n, f"text number {n}", {"even": n % 2 == 0}) for n in range(12)]
EARLIER = [(n, f"an earlier text {n}", {"old": True}) for n in range(0, 12, 3)]
KILLED = 9
CHANGES = {"os.mkdir", "os.rename", "os.remove", "os.rmdir"}
CALLS = {
    "add_collection", "create_collection", "_create_index", "delete", "describe_collection",
    "describe_index", "get", "get_load_state", "get_server_version", "has_collection", "insert",
    "list_indexes", "load_collection", "query", "search", "upsert",
}  # fmt: skip


class Tripwire:
    """Counts steps, and ends the process before the one it was told, as [name, which of them]."""

    def __init__(self):
        self.armed = False
        self.fatal = None
        self.steps = []
        self.lock = threading.Lock()

    def step(self, name):
        with self.lock:
            if self.armed:
                self.steps.append([name, 1 + sum(name == other for other, _ in self.steps)])
                if self.steps[-1] == self.fatal:
                    os._exit(KILLED)


WIRE = Tripwire()


def watch_calls(engine):
    if engine == "edge":
        import qdrant_edge

        qdrant_edge.EdgeShard = CountedShard(qdrant_edge.EdgeShard)
    else:
        from pymilvus import MilvusClient

        for name in CALLS & set(dir(MilvusClient)):
            setattr(MilvusClient, name, counted(name, getattr(MilvusClient, name)))


def counted(name, call):
    def wrapper(*arguments, **options):
        WIRE.step(name)
        return call(*arguments, **options)

    return wrapper


class CountedShard:
    """``EdgeShard`` and what it opens, every call a step."""

    def __init__(self, target):
        self._target = target

    def __getattr__(self, name):
        attribute = getattr(self._target, name)
        if not callable(attribute):
            return attribute

        def call(*arguments, **options):
            WIRE.step(name)
            result = attribute(*arguments, **options)
            return CountedShard(result) if name in {"create", "load"} else result

        return call


def watch_files(directory):
    def hook(event, arguments):
        if event in CHANGES or (event == "open" and is_writing(arguments)):
            path = os.fsdecode(arguments[0]) if isinstance(arguments[0], (str, bytes)) else ""
            if path.startswith(directory):
                WIRE.step(f"{event} {path.removeprefix(directory)}")

    sys.addaudithook(hook)


def is_writing(arguments):
    _, mode, flags = arguments
    return bool(flags & (os.O_WRONLY | os.O_RDWR)) or (mode or "r")[0] in "wax"


def open_index(engine, directory):
    if engine == "edge":
        from gte_integrations.qdrant import QdrantHybridIndex

        return QdrantHybridIndex(directory / "qdrant", "docs", encoder())
    from gte_integrations.milvus import MilvusHybridIndex

    return MilvusHybridIndex(directory / "milvus.db", "docs", encoder())


def import_for(engine):
    """Import what the runs need, but open nothing."""
    encoder()
    if engine == "edge":
        import gte_integrations.qdrant
    else:
        import gte_integrations.milvus  # noqa: F401


def encoder():
    path = Path(__file__).with_name("conftest.py")
    if "harness_conftest" not in sys.modules:
        spec = importlib.util.spec_from_file_location("harness_conftest", path)
        module = sys.modules["harness_conftest"] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return sys.modules["harness_conftest"].RecordingEncoder()


def prepare(engine, directory):
    with open_index(engine, directory) as index:
        index.create()
        index.add(EARLIER)


def run(engine, directory, verb):
    with open_index(engine, directory) as index:
        if verb == "create":
            index.create()
        else:
            index.add(DOCUMENTS, batch_size=5)


def outcome(engine, directory):
    """What a whole run ends with, whatever was there before."""
    with open_index(engine, directory) as index:
        index.create()
        index.add(DOCUMENTS, batch_size=5)
        hits = index.search("text number", limit=len(DOCUMENTS))[0]
        found = sorted((hit.id, hit.text, hit.payload, round(hit.score, 4)) for hit in hits)
        return [index.count(), index.add(DOCUMENTS).unchanged, found]


def forked(work, file):
    """Do the work in a new process; return its process id."""
    sys.stdout.flush()
    process = os.fork()
    if process:
        return process
    try:
        file.write_text(json.dumps(work()))
    except Exception:  # noqa: BLE001 - the parent reads it
        file.write_text(json.dumps(traceback.format_exc()))
    os._exit(0)


def result_of(work, directory):
    file = directory / "result"
    wait(forked(work, file))
    return json.loads(file.read_text())


def wait(process):
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


@contextmanager
def scratch(engine, verb, start=None):
    """A directory as it is before the run: empty, or with a collection for ``add`` to go on."""
    directory = Path(tempfile.mkdtemp())
    try:
        if start is not None:
            shutil.copytree(start, directory, dirs_exist_ok=True)
        elif verb == "add":
            result_of(lambda: prepare(engine, directory), directory)
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def armed(engine, verb, directory, fatal=None):
    """The run, with every step counted from here on."""

    def work():
        watch_calls(engine)
        watch_files(str(directory))
        WIRE.fatal, WIRE.armed = fatal, True
        run(engine, directory, verb)
        return WIRE.steps

    return work


def kill_at(engine, verb, points):
    """Kill before these steps, each in a run of its own; None stands for every step there is."""
    failures = []
    with scratch(engine, verb) as start:
        with scratch(engine, verb, start) as directory:
            points = points or result_of(armed(engine, verb, directory), directory)
            expected = result_of(lambda: outcome(engine, directory), directory)
        for fatal in points:
            with scratch(engine, verb, start) as directory:
                status = wait(forked(armed(engine, verb, directory, fatal), directory / "killed"))
                found = result_of(lambda at=directory: outcome(engine, at), directory)
            if status != KILLED or found != expected:
                failures.append([fatal, status, found])
    return {"points": points, "expected": expected, "failures": failures}


def random_kills(engine, verb, number):
    """Kill at random moments of the run."""
    failures, reached = [], 0
    with scratch(engine, verb) as start:
        with scratch(engine, verb, start) as directory:
            began = time.perf_counter()
            result_of(lambda: run(engine, directory, verb), directory)
            whole = time.perf_counter() - began
            expected = result_of(lambda: outcome(engine, directory), directory)
        for attempt in range(number):
            with scratch(engine, verb, start) as directory:
                process = forked(lambda at=directory: run(engine, at, verb), directory / "killed")
                time.sleep(random.uniform(0, whole))
                os.kill(process, signal.SIGKILL)
                reached += wait(process) == -signal.SIGKILL
                found = result_of(lambda at=directory: outcome(engine, at), directory)
            if found != expected:
                failures.append([attempt, found])
    return {"killed": reached, "of": number, "seconds": whole, "failures": failures}


def main(engine, verb, number, points):
    import_for(engine)
    if number:
        return random_kills(engine, verb, number)
    return kill_at(engine, verb, points)


if __name__ == "__main__":
    json.dump([main(**job) for job in json.loads(sys.argv[1])], sys.stdout)
