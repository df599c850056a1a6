"""``gte bench`` for people: its report as tables, and the chart where one is asked for."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich import box
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from gte_integrations.bench.report import (
    BenchReport,
    ContenderReport,
    Machine,
    Measurement,
    WorkloadReport,
)
from gte_integrations.cli.output import fields

_LEGEND = (
    "Tokens/s: median, lowest–highest · Of peak: the network's own operations against the GEMM "
    "peak of the type · Cosine: the smallest, against gte in float32 · … is N×: how many times as "
    "fast it gives the dense vectors as the row"
)
_NONE = Text("–", style="dim")


def chart_writer(path: Path | None) -> Callable[[BenchReport], None]:
    """What draws the chart, checked before the minutes that the run takes."""
    if path is None:
        return lambda report: None
    from gte_integrations.bench.chart import check_chart_path, write_chart

    check_chart_path(path)
    return lambda report: write_chart(report, path)


@contextmanager
def exit_when_terminated() -> Iterator[None]:
    """Let SIGTERM unwind the program: its temporary folder holds a whole model."""
    previous = signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def bench_tables(report: BenchReport) -> Iterator[RenderableType]:
    """Everything a run found, to be printed one below the other."""
    yield _head(report)
    yield _starts(report.contenders)
    for workload in report.workloads:
        yield _speeds(report, workload)
    if report.left_out:
        yield _left_out(report.left_out)


def _head(report: BenchReport) -> Table:
    grid = fields()
    weights = " (the vectors mean nothing)" if report.random_weights else ""
    grid.add_row("Model", Text.assemble((report.model, "bold"), weights))
    grid.add_row("Machine", Text(_machine(report.machine)))
    peaks = report.machine.gemm_flops.items()
    grid.add_row("GEMM peak", " · ".join(f"{name} {peak / 1e9:,.0f} G/s" for name, peak in peaks))
    grid.add_row("Copy", f"{report.machine.copy_bytes / 1e9:,.1f} GB/s read and written")
    versions = " · ".join(f"{name} {version}" for name, version in report.versions.items())
    grid.add_row("Versions", Text(versions))
    quick = " · quick: too little for the figures to mean much" if report.quick else ""
    grid.add_row("Rounds", Text(f"{report.rounds}, all contenders taking turns{quick}"))
    grid.add_row("Columns", Text(_LEGEND, style="dim"))
    return grid


def _machine(machine: Machine) -> str:
    parts = [machine.device, machine.name, *machine.capabilities]
    parts.append(f"{machine.cores} cores, {machine.threads} threads")
    if machine.memory_bytes is not None:
        parts.append(_bytes(machine.memory_bytes))
    return " · ".join(parts)


def _starts(contenders: tuple[ContenderReport, ...]) -> Table:
    table = _table("From process start to first vector, in seconds")
    for name in ("Interpreter", "Imports", "Load", "First pass", "Total", "Most RAM", "Most VRAM"):
        table.add_column(name, justify="right", no_wrap=True)
    for contender in contenders:
        start = contender.start
        parts = (start.interpreter_s, start.imports_s, start.load_s, start.first_pass_s)
        table.add_row(
            f"{contender.name} ({contender.dtype})",
            *(f"{seconds:.2f}" for seconds in parts),
            Text(f"{start.total_s:.2f}", style="bold"),
            _bytes(contender.host_peak_bytes),
            _bytes(contender.device_peak_bytes),
        )
    return table


def _speeds(report: BenchReport, workload: WorkloadReport) -> Table:
    """One workload: a row for each contender and variant."""
    lengths = f"{workload.shortest}–{workload.longest}"
    table = _table(
        f"{workload.name}: {workload.n_texts:,} texts of {lengths} tokens, "
        f"{workload.n_tokens:,} in all" + (", one a call" if workload.one_at_a_time else "")
    )
    named = ("p50 ms", "p99 ms") if workload.one_at_a_time else ("Tokens/s", "Texts/s")
    ours = [contender.name for contender in report.contenders if contender.is_ours]
    for name in (*named, "Of peak", "Cosine", "RAM", *(f"{name} is" for name in ours)):
        table.add_column(name, justify="right", no_wrap=True)
    for measured in report.measurements:
        if measured.workload == workload.name:
            versus = [_versus(report, name, measured) for name in ours]
            table.add_row(f"{measured.contender} {measured.variant}", *_cells(measured), *versus)
    return table


def _cells(measured: Measurement) -> Iterator[RenderableType]:
    if measured.p50_ms is not None and measured.p99_ms is not None:
        yield from (f"{measured.p50_ms:.2f}", f"{measured.p99_ms:.2f}")
    else:
        speed = measured.tokens_per_s
        spread = f" {speed.lowest:,.0f}–{speed.highest:,.0f}"
        yield Text.assemble((f"{speed.median:,.0f}", "bold"), (spread, "dim"))
        yield f"{measured.texts_per_s.median:,.1f}"
    share, cosine = measured.share_of_peak, measured.smallest_cosine
    yield _NONE if share is None else f"{share:.0%}"
    yield _NONE if cosine is None else f"{cosine:.6f}"
    yield _bytes(measured.host_peak_bytes)


def _versus(report: BenchReport, ours: str, measured: Measurement) -> RenderableType:
    """How many times as fast ours is; for our own two vectors, what the second one costs."""
    if measured.contender == ours:
        costs = (cost for cost in report.sparse_cost if measured.variant == "hybrid")
        same = (c for c in costs if (c.contender, c.workload) == (ours, measured.workload))
        return next((f"{cost.percent:+.1f} % time" for cost in same), "")
    key = (ours, measured.contender, measured.variant, measured.workload)
    for ratio in report.ratios:
        if (ratio.ours, ratio.peer, ratio.variant, ratio.workload) == key:
            other = Text("other vectors", style="yellow")
            speedup = ratio.speedup
            return other if speedup is None else Text(f"{speedup.median:.2f}×", style="bold green")
    return ""


def _left_out(left_out: dict[str, str]) -> Table:
    grid = fields()
    for name, reason in left_out.items():
        grid.add_row("Left out", Text.assemble((name, "bold"), f": {reason}"))
    return grid


def _table(title: str) -> Table:
    table = Table(
        title=title,
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    table.add_column("", no_wrap=True)
    return table


def _bytes(count: int | None) -> str:
    return "–" if count is None else f"{count / 1e9:.2f} GB"
