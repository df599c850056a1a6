"""A whole run: the checkpoint, the machine, the race, and what follows from its times."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import get_args

from gte_core import ConfigError, GTEConfig
from gte_integrations.bench import ContenderName, WorkloadName
from gte_integrations.bench.analysis import Analysis
from gte_integrations.bench.checkpoints import Checkpoint, find_checkpoint, write_native_form
from gte_integrations.bench.contenders import REFERENCE, Contender, Form, choose
from gte_integrations.bench.processes import Child, ChildError
from gte_integrations.bench.race import Progress, Race
from gte_integrations.bench.report import BenchReport, Machine, WorkloadReport
from gte_integrations.bench.workloads import Sizes, Workload, build_workloads
from gte_integrations.bench.xlm_roberta import write_xlm_roberta

_PACKAGES = (
    "gte-integrations",
    "torch",
    "tokenizers",
    "transformers",
    "sentence-transformers",
    "FlagEmbedding",
)


@dataclass(frozen=True, slots=True)
class BenchSettings:
    """What to run.

    Attributes:
        model: a hub id, a directory or ``"demo"``; by default the published model if it is in the
            local cache, else random weights of its shape.
        device: by default the one that ``GTEEmbedder`` chooses.
        contenders: by default all that are installed and make sense on the machine.
        workloads: by default all.
        rounds: in which the contenders take turns.
        quick: tiny workloads, and no second start with warm caches.
        seed: of the texts.
    """

    model: str | None = None
    device: str | None = None
    contenders: tuple[str, ...] = ()
    workloads: tuple[str, ...] = ()
    rounds: int = 3
    quick: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what is not there to be measured."""
        _check_names("contender", self.contenders, get_args(ContenderName))
        _check_names("workload", self.workloads, get_args(WorkloadName))
        if self.rounds < 1:
            raise ValueError(f"rounds is {self.rounds}, but must be at least 1.")


def run_bench(settings: BenchSettings, progress: Progress = lambda message: None) -> BenchReport:
    """Measure; takes minutes unless it is quick, and writes only to a temporary folder.

    Args:
        settings: what to run.
        progress: told in a few words what is going on.

    Raises:
        ValueError: the device is not there, or no contender came through.
        GTEError: the model cannot be found or read.
    """
    with tempfile.TemporaryDirectory(prefix="gte-bench-") as folder:
        return _run(settings, Path(folder), progress)


def _check_names(kind: str, given: Sequence[str], allowed: Sequence[str]) -> None:
    for name in given:
        if name not in allowed:
            raise ValueError(f"There is no {kind} {name!r}; allowed are {', '.join(allowed)}.")


def _run(settings: BenchSettings, folder: Path, progress: Progress) -> BenchReport:
    progress("Finding the model …")
    checkpoint = find_checkpoint(settings.model, folder / "random")
    progress("Measuring the machine …")
    machine = _measured(settings, folder)
    workloads = _written_workloads(settings, checkpoint, machine.device, folder)
    contenders = choose(settings.contenders, machine.device, machine.capabilities)
    forms = _forms(checkpoint, contenders, folder)
    with Race(folder, forms, machine.device, workloads, progress) as race:
        _start_all(race, contenders, warm=not settings.quick)
        race.warm_up()
        for number in range(1, settings.rounds + 1):
            race.round(number, settings.rounds)
        return _report(settings, checkpoint, machine, workloads, race)


def _measured(settings: BenchSettings, folder: Path) -> Machine:
    with Child(folder / "machine.log") as child:
        try:
            request = {"device": settings.device, "quick": settings.quick}
            return Machine(**child.ask({"action": "measure", **request}))
        except ChildError as error:
            raise ValueError(str(error)) from error


def _written_workloads(
    settings: BenchSettings, checkpoint: Checkpoint, device: str, folder: Path
) -> list[Workload]:
    sizes = Sizes.of(device.partition(":")[0], quick=settings.quick)
    workloads = build_workloads(
        checkpoint.directory / "tokenizer.json",
        sizes,
        names=settings.workloads,
        seed=settings.seed,
    )
    written = json.dumps([asdict(workload) for workload in workloads])
    (folder / "workloads.json").write_text(written, encoding="utf-8")
    return workloads


def _forms(
    checkpoint: Checkpoint, contenders: Sequence[Contender], folder: Path
) -> dict[Form, Path]:
    """The checkpoint in every form that a contender needs; one that cannot be made is missing."""
    forms: dict[Form, Path] = {"original": checkpoint.directory}
    needed = {contender.form for contender in contenders if contender.installed}
    if needed == {"original"}:
        return forms
    with suppress(ConfigError):
        forms["native"] = write_native_form(checkpoint.directory, folder / "native")
    if "xlm-roberta" in needed and "native" in forms:
        config = GTEConfig.from_pretrained(checkpoint.directory)
        forms["xlm-roberta"] = write_xlm_roberta(config, forms["native"], folder / "xlm-roberta")
    return forms


def _start_all(race: Race, contenders: Sequence[Contender], *, warm: bool) -> None:
    for contender in contenders:
        race.start(contender, warm=warm)
    exact = [r for r in race.runners if r.contender.is_ours and r.dtype == REFERENCE.dtype]
    if race.runners and not exact:
        race.start(REFERENCE, warm=False, timed=False)


def _report(
    settings: BenchSettings,
    checkpoint: Checkpoint,
    machine: Machine,
    workloads: Sequence[Workload],
    race: Race,
) -> BenchReport:
    runners = race.finished()
    if not any(runner.timed for runner in runners):
        reasons = "; ".join(f"{name}: {reason}" for name, reason in race.left_out.items())
        raise ValueError(f"No contender could be measured. {reasons}")
    config = GTEConfig.from_pretrained(checkpoint.directory)
    analysis = Analysis(runners, workloads, config, machine)
    return BenchReport(
        model=checkpoint.label,
        random_weights=checkpoint.random_weights,
        rounds=settings.rounds,
        quick=settings.quick,
        versions=_versions(),
        machine=machine,
        workloads=tuple(map(_workload, workloads)),
        contenders=analysis.contenders(),
        measurements=analysis.measurements(),
        ratios=analysis.ratios(),
        sparse_cost=analysis.sparse_cost(),
        left_out=race.left_out,
    )


def _workload(workload: Workload) -> WorkloadReport:
    return WorkloadReport(
        name=workload.name,
        n_texts=len(workload.texts),
        n_tokens=sum(workload.n_tokens),
        shortest=min(workload.n_tokens),
        longest=max(workload.n_tokens),
        one_at_a_time=workload.one_at_a_time,
    )


def _versions() -> dict[str, str]:
    found = {}
    for package in _PACKAGES:
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found
