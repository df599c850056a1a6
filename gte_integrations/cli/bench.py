"""``gte bench``: the command, and what it found as tables of at most 80 columns."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from rich import box
from rich.table import Table
from rich.text import Text

from gte_integrations.cli import output
from gte_integrations.cli.options import AsJson, Device

_WIDTH = 80  # of the widest table
_NAMES = ("Workload", "Type")  # the columns of no figures


def bench(
    *,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            metavar="MODEL",
            help="A hub id, a directory, or 'demo'; by default the published model if it is in "
            "the local cache, else random weights of its shape.",
        ),
    ] = None,
    device: Device = None,
    dtypes: Annotated[
        list[str],
        typer.Option(
            "--dtype",
            metavar="TYPE",
            help="auto, float32, bfloat16, float16, int8 (x86) or float8 (Hopper); may be "
            "repeated, to compare with the first.",
        ),
    ] = ["auto"],  # noqa: B006 - typer copies it
    torch_compile: Annotated[
        bool, typer.Option("--torch-compile", help="Fused layers and CUDA graphs.")
    ] = False,
    workloads: Annotated[
        list[str],
        typer.Option(
            "--workload",
            metavar="NAME",
            help="queries, passages, texts-512, long-texts or one-query; may be repeated; by "
            "default all.",
        ),
    ] = [],  # noqa: B006
    rounds: Annotated[
        int, typer.Option("--rounds", min=1, metavar="N", help="Turns that every type takes.")
    ] = 3,
    quick: Annotated[
        bool, typer.Option("--quick", help="A few texts, to see that all works.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Measure the speed of the model on this machine, as shares of what the machine can do."""
    from gte_integrations.bench.run import run_bench

    with _exit_when_terminated(), output.progress() as progress:
        found = run_bench(
            list(dict.fromkeys(dtypes)),
            rounds,
            progress,
            model=model,
            workloads=list(dict.fromkeys(workloads)),
            device=device,
            torch_compile=torch_compile,
            quick=quick,
        )
    if as_json:
        output.write_json(found)
    else:
        output.show(*bench_tables(found))


def bench_tables(found: dict[str, Any]) -> Iterator[Table]:
    """What a run found, to be printed one below the other."""
    yield _head(found)
    speeds = ["Workload", "Type", "Tokens/s", "of peak", "both take", "× first"]
    yield _table("Dense vectors of a list", speeds, _speeds(found["types"]))
    starts = ["Type", "Start s", "imports", "load", "vector", "RAM GB", "× files", "VRAM GB"]
    yield _table("From process start to first vector; most memory", starts, _starts(found))
    if singles := list(_single_queries(found["types"])):
        yield _table("One query a call", ["Type", "p50 ms", "p99 ms", "× in a list"], singles)


@contextmanager
def _exit_when_terminated() -> Iterator[None]:
    """Let SIGTERM unwind the program: its temporary folder may hold a whole model."""
    previous = signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def _head(found: dict[str, Any]) -> Table:
    grid = output.fields()
    weights = " (the vectors mean nothing)" if found["random_weights"] else ""
    grid.add_row("Model", Text.assemble((found["model"], "bold"), weights))
    grid.add_row("Machine", Text(f"{found['device']}: {found['machine']}"))
    peaks = {each["dtype"]: each["peak_flops"] for each in found["types"]}
    known = (f"{dtype} {peak / 1e9:,.0f} G/s" for dtype, peak in peaks.items() if peak)
    grid.add_row("Peak", ", ".join(known) or "not measured")
    for each in found["types"][0]["workloads"]:
        lengths = f"{each['n_texts']:,} of {each['shortest']:,}–{each['longest']:,} tokens"
        grid.add_row(each["name"], f"{lengths}, {each['n_tokens']:,} in all")
    quick = "; quick, so the figures mean little" if found["quick"] else ""
    compiled = "; compiled" if found["torch_compile"] else ""
    grid.add_row("Rounds", f"{found['rounds']}, medians (lowest–highest){compiled}{quick}")
    return grid


def _speeds(types: list[dict[str, Any]]) -> Iterator[tuple[str, ...]]:
    for workload in zip(*(each["workloads"] for each in types), strict=True):
        for each, speed in zip(types, workload, strict=True):
            name = speed["name"] if each is types[0] else ""
            middle, lowest, highest = map(_rate, speed["tokens_per_s"].values())
            share = speed["share_of_peak"]
            percent = "–" if share is None else f"{share:.0%}"
            ratios = map(_times, (speed["time_of_both"], speed["times_as_fast_as_first"]))
            yield name, _short(each), f"{middle} ({lowest}–{highest})", percent, *ratios


def _starts(found: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    for each in found["types"]:
        parts = (each["start_s"][part] for part in ("total", "imports", "load", "first_vector"))
        ram, vram = each["ram_bytes"], each["vram_bytes"]
        memory = (_gigabytes(ram), _times(ram / found["file_bytes"]), _gigabytes(vram))
        yield _short(each), *(f"{seconds:.2f}" for seconds in parts), *memory


def _single_queries(types: list[dict[str, Any]]) -> Iterator[tuple[str, ...]]:
    for each in types:
        for speed in each["workloads"]:
            if speed["p50_ms"] is not None:
                calls = (f"{speed[part]:.2f}" for part in ("p50_ms", "p99_ms"))
                yield _short(each), *calls, _times(speed["time_alone"])


def _table(title: str, columns: list[str], rows: Iterable[tuple[str, ...]]) -> Table:
    if output.is_narrow(_WIDTH):
        return _list(title, columns, rows)
    table = Table(title=title, title_justify="left", title_style="bold", pad_edge=False)
    table.box = box.SIMPLE_HEAD
    for column in columns:
        justify: Any = "left" if column in _NAMES else "right"
        table.add_column(column, justify=justify, no_wrap=True)
    for row in rows:
        table.add_row(*row)
    return table


def _list(title: str, columns: list[str], rows: Iterable[tuple[str, ...]]) -> Table:
    """The same for terminals without room for a table: each figure with its name."""
    grid = output.fields()
    grid.title, grid.title_justify, grid.title_style = f"\n{title}", "left", "bold"
    for row in rows:
        names = [value for name, value in zip(columns, row, strict=True) if name in _NAMES]
        figures = zip(columns[len(names) :], row[len(names) :], strict=True)
        named = (f"{name} {value}".replace(" ", "\u00a0") for name, value in figures)
        grid.add_row("\n".join(filter(None, names)), " · ".join(named))
    return grid


def _short(figures: dict[str, Any]) -> str:
    return str(figures["dtype"]).removesuffix("_e4m3fn")


def _rate(tokens: float) -> str:
    return f"{tokens:,.0f}" if tokens < 100_000 else f"{tokens / 1000:,.0f}k"


def _times(ratio: float | None) -> str:
    return "–" if ratio is None else f"{ratio:.2f}×"


def _gigabytes(count: int | None) -> str:
    return "–" if count is None else f"{count / 1e9:.2f}"
