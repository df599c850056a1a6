"""Contenders take turns: each in a process of its own, one busy at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import Any

from gte_integrations.bench.contenders import Contender, Form
from gte_integrations.bench.contenders.batches import distinct
from gte_integrations.bench.processes import Child, ChildError
from gte_integrations.bench.workloads import Workload

Progress = Callable[[str], None]
Way = tuple[str, str]  # workload, variant


@dataclass(slots=True)
class Runner:
    """A contender that is loaded, and what was measured of it so far.

    Attributes:
        contender: who it is.
        child: its process.
        dtype: that it computes in.
        variants: ways to call it, its default first.
        start: seconds to the first vector, in parts.
        timed: False if it is there for its vectors alone.
        ways: workload and variant that are measured, with the times of every call in every round.
        peaks: of host and device, during a workload in a variant.
        vectors: files with the vectors of a workload in a variant.
        error: why it was left behind.
    """

    contender: Contender
    child: Child
    dtype: str
    variants: tuple[str, ...]
    start: Mapping[str, float]
    peaks: dict[Way, tuple[int, int | None]]
    timed: bool = True
    ways: dict[Way, list[list[float]]] = field(default_factory=dict)
    vectors: dict[Way, Path] = field(default_factory=dict)
    error: str | None = None


class Race:
    """Starts contenders, warms them up and lets them take turns; a context manager.

    Args:
        folder: for logs and vectors.
        forms: the directory of each form of the checkpoint.
        device: where all compute.
        workloads: what is encoded, and ``workloads.json`` in the folder holds.
        progress: told what is going on.
    """

    def __init__(
        self,
        folder: Path,
        forms: Mapping[Form, Path],
        device: str,
        workloads: Sequence[Workload],
        progress: Progress,
    ) -> None:
        self._folder = folder
        self._forms = forms
        self._device = device
        self._workloads = workloads
        self._progress = progress
        self._children = ExitStack()
        self.runners: list[Runner] = []
        self.left_out: dict[str, str] = {}

    def __enter__(self) -> Race:
        return self

    def __exit__(self, *exception: object) -> None:
        self._children.close()

    def start(self, contender: Contender, *, warm: bool, timed: bool = True) -> None:
        """Start a contender, or say in ``left_out`` why not.

        ``warm`` starts it twice and keeps the second: the first fills the page cache.
        """
        if not contender.installed:
            self.left_out[contender.name] = f"{contender.package} is not installed"
            return
        self._progress(f"Starting {contender.name} …")
        try:
            if warm:
                with Child(self._log(contender)) as first:
                    first.ask(self._load_request(contender))
            runner = self._loaded(contender, timed=timed)
        except (ChildError, LookupError) as error:
            self.left_out[contender.name] = str(error)
            return
        if (twin := self._twin(runner)) is not None:
            runner.child.close()
            self.left_out[contender.name] = f"it is the same as {twin}: both are {runner.dtype}"
            return
        self.runners.append(runner)

    def warm_up(self) -> None:
        """Encode everything once untimed, and keep of each contender's variants the best two."""
        for workload in self._workloads:
            for runner in self._running():
                self._progress(f"Warming up {runner.contender.name}: {workload.name}")
                self._guarded(runner, self._warm_up_one, workload)

    def round(self, number: int, of: int) -> None:
        """Measure everything once; the contenders take turns within a workload.

        Where there are several, none goes twice in a row, as the second time would find its caches
        warm; each round begins with another, as each leaves the machine in another state.
        """
        for workload in self._workloads:
            self._progress(f"Round {number} of {of}: {workload.name}")
            turns = self._turns(workload)
            first = (number - 1) % max(len(turns), 1)
            for runner, variant in [*turns[first:], *turns[:first]]:
                if runner.error is None:
                    self._guarded(runner, partial(self._measure, variant=variant), workload)

    def finished(self) -> list[Runner]:
        """Contenders that came through."""
        return self._running()

    def _loaded(self, contender: Contender, *, timed: bool) -> Runner:
        with ExitStack() as undo:
            child = undo.enter_context(Child(self._log(contender)))
            answer = child.ask(self._load_request(contender))
            self._children.push(undo.pop_all())
        return Runner(
            contender,
            child,
            answer["dtype"],
            tuple(answer["variants"]),
            answer["start"],
            {("", "load"): _peaks(answer)},
            timed,
        )

    def _load_request(self, contender: Contender) -> dict[str, Any]:
        if contender.form not in self._forms:
            raise LookupError(f"there is no checkpoint in the form that {contender.package} reads")
        return {
            "action": "load",
            "module": contender.module,
            "directory": str(self._forms[contender.form]),
            "device": self._device,
            "dtype": contender.dtype,
            "first_text": self._workloads[0].texts[0],
            "workloads": str(self._folder / "workloads.json"),
        }

    def _twin(self, runner: Runner) -> str | None:
        kind = (runner.contender.module, runner.dtype)
        same = (r for r in self.runners if (r.contender.module, r.dtype) == kind)
        return next((r.contender.name for r in same), None)

    def _log(self, contender: Contender) -> Path:
        return self._folder / f"{contender.name}.log"

    def _running(self) -> list[Runner]:
        return [runner for runner in self.runners if runner.error is None]

    def _guarded(
        self, runner: Runner, step: Callable[[Runner, Workload], None], workload: Workload
    ) -> None:
        try:
            step(runner, workload)
        except ChildError as error:
            runner.error = self.left_out[runner.contender.name] = f"{workload.name}: {error}"
            runner.child.close()

    def _warm_up_one(self, runner: Runner, workload: Workload) -> None:
        default, *others = _sensible(runner, workload)
        seconds = {default: self._first_time(runner, workload, default)}
        for variant in others:
            try:
                seconds[variant] = self._first_time(runner, workload, variant)
            except ChildError as error:  # a batch that is too large, most likely
                way = f"{runner.contender.name} {variant}, {workload.name}"
                self.left_out[way] = str(error)
        others = list(seconds)[1:]
        best = [min(others, key=seconds.__getitem__)] if others else []
        for variant in (default, *best):
            runner.ways[workload.name, variant] = []

    def _first_time(self, runner: Runner, workload: Workload, variant: str) -> float:
        vectors = self._folder / f"{runner.contender.name}.{workload.name}.{variant}.npy"
        seconds = sum(self._encode(runner, workload, variant, vectors))
        runner.vectors[workload.name, variant] = vectors
        return seconds

    def _turns(self, workload: Workload) -> list[tuple[Runner, str]]:
        """The default variants of all contenders, then their other ones."""
        timed = [runner for runner in self._running() if runner.timed]
        named = [
            [(runner, variant) for name, variant in runner.ways if name == workload.name]
            for runner in timed
        ]
        return [turn for turns in zip_longest(*named) for turn in turns if turn is not None]

    def _measure(self, runner: Runner, workload: Workload, variant: str) -> None:
        seconds = self._encode(runner, workload, variant, None)
        runner.ways[workload.name, variant].append(seconds)

    def _encode(
        self, runner: Runner, workload: Workload, variant: str, vectors: Path | None
    ) -> list[float]:
        answer = runner.child.ask(
            {
                "action": "encode",
                "workload": workload.name,
                "variant": variant,
                "vectors": str(vectors) if vectors else None,
            }
        )
        runner.peaks[workload.name, variant] = _peaks(answer)
        seconds: list[float] = answer["seconds"]
        return seconds


def _sensible(runner: Runner, workload: Workload) -> Sequence[str]:
    """The variants that do something else on a workload than the one before."""
    if not runner.timed:
        return runner.variants[:1]
    if runner.contender.is_ours:
        return runner.variants
    return distinct(runner.variants, 1 if workload.one_at_a_time else len(workload.texts))


def _peaks(answer: Mapping[str, Any]) -> tuple[int, int | None]:
    return answer["host_peak"], answer["device_peak"]
