"""A run as one figure: how fast every contender was on every workload."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

try:
    from matplotlib.figure import Figure
except ImportError as error:
    raise ImportError(
        "gte bench --chart needs matplotlib; pip install 'gte-integrations[bench]'"
    ) from error

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from gte_integrations.bench.report import BenchReport, Measurement

FORMATS = (".png", ".svg")

_OURS, _PEERS = "#2a6f97", "#b8b8b8"


def check_chart_path(path: Path) -> None:
    """Raise ``ValueError`` for a file that no chart can be written to."""
    if path.suffix.lower() not in FORMATS:
        raise ValueError(f"The chart is {str(path)!r}; its name must end in .png or .svg.")
    if not path.parent.is_dir():
        raise ValueError(f"The chart is {str(path)!r}, but {path.parent} is not a directory.")


def write_chart(report: BenchReport, path: Path) -> None:
    """Draw a panel for each workload, the contenders as bars, the fastest of ours as measure.

    Args:
        report: of a run.
        path: its ending, .png or .svg, decides the format.
    """
    check_chart_path(path)
    names = [workload.name for workload in report.workloads]
    panels = {name: [m for m in report.measurements if m.workload == name] for name in names}
    most = max(map(len, panels.values()))
    figure = Figure(figsize=(10, len(names) * (0.7 + 0.26 * most)), layout="constrained")
    figure.suptitle(f"{report.model}\n{_machine(report)}", fontsize=10)
    grid = figure.subplots(len(names), 1, squeeze=False)
    for axes, workload in zip(grid[:, 0], report.workloads, strict=True):
        _draw(axes, report, panels[workload.name])
        count = f"{workload.n_texts:,} texts, {workload.n_tokens:,} tokens"
        axes.set_title(f"{workload.name}: {count}", loc="left", fontsize=10)
    figure.savefig(path, dpi=150)


def _machine(report: BenchReport) -> str:
    machine = report.machine
    threads = "" if machine.device.startswith("cuda") else f", {machine.threads} threads"
    return f"{machine.name}{threads}, torch {machine.torch}, median of {report.rounds} rounds"


def _draw(axes: Axes, report: BenchReport, measured: list[Measurement]) -> None:
    ours = {contender.name for contender in report.contenders if contender.is_ours}
    speeds = [measurement.tokens_per_s for measurement in measured]
    bars = axes.barh(
        [f"{measurement.contender} {measurement.variant}" for measurement in measured],
        [speed.median for speed in speeds],
        xerr=(
            [speed.median - speed.lowest for speed in speeds],
            [speed.highest - speed.median for speed in speeds],
        ),
        color=[_OURS if measurement.contender in ours else _PEERS for measurement in measured],
        error_kw={"elinewidth": 0.8, "ecolor": "#555555"},
    )
    axes.bar_label(bars, _labels(measured), padding=6, fontsize=8)
    axes.invert_yaxis()
    axes.margins(x=0.25)
    axes.set_xlabel("tokens per second", fontsize=8)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)


def _labels(measured: list[Measurement]) -> list[str]:
    """Speeds, and how many times the first contender's each is."""
    first = measured[0].tokens_per_s.median if measured else 1.0
    labels = []
    for measurement in measured:
        speed = measurement.tokens_per_s.median
        times = "" if measurement is measured[0] else f"  {speed / first:.2f}×"
        wait = f"  p50 {measurement.p50_ms:.1f} ms" if measurement.p50_ms is not None else ""
        labels.append(f"{speed:,.0f}{times}{wait}")
    return labels
