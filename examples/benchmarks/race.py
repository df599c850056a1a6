"""This library beside transformers and sentence-transformers, with the same weights and texts.

Contenders are written LIBRARY:TYPE, with +compile behind it for torch.compile. In every round each
runs in a process of its own, one at a time, and each round begins with another. All are compared
with the first one. A contender that fails is named with its error; the others go on.
"""

import argparse
import json
import math
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from contenders import BATCH_SIZES, DEFAULTS, Contender
from native_form import write_native_form
from rich import box
from rich.console import Console
from rich.table import Table

from gte_integrations.bench.run import in_a_process, published_or_random
from gte_integrations.bench.worker import model_directory
from gte_integrations.bench.workloads import WORKLOADS

SAME_VECTORS = 0.99  # the smallest cosine that the rounding of a type explains
Answers = dict[str, list[dict[str, Any]]]  # of each contender, one a round


def run_race(options: argparse.Namespace, folder: Path) -> tuple[Answers, dict[str, str]]:
    """What every contender answered in every round, and why some are left out."""
    from gte_core import GTEEmbedder

    model = options.model or published_or_random(folder)
    original = model_directory(GTEEmbedder.from_pretrained(model, device="cpu"))
    native = write_native_form(original, folder / "native")
    answers: Answers = {name: [] for name in options.contenders}
    left_out: dict[str, str] = {}
    for number in range(options.rounds):
        names = list(answers)
        turn = number % max(len(names), 1)
        for name in names[turn:] + names[:turn]:
            print(f"Round {number + 1} of {options.rounds}: {name}", file=sys.stderr)
            request = {
                "contender": name,
                "directory": str(original if Contender.named(name).library.is_ours else native),
                "original": str(original),
                "folder": str(folder),
                "device": options.device,
                "workloads": options.workloads,
                "batch_sizes": options.batch_sizes,
                "quick": options.quick,
            }
            try:
                program = Path(__file__).parent / "contenders.py"
                answers[name].append(in_a_process(request, str(program)))
            except ValueError as error:
                left_out[name] = str(error)
                del answers[name]
    return answers, left_out


def compare(answers: Answers) -> list[dict[str, Any]]:
    """The figures of every contender, workload and batch size, beside the first contender's."""
    workloads = {run["workload"]: [] for run in next(iter(answers.values()))[0]["runs"]}
    for name, rounds in answers.items():
        for runs in zip(*(answer["runs"] for answer in rounds), strict=True):
            same = workloads[runs[0]["workload"]]
            first = same[0] if same else {"runs": runs}
            peaks = [answer["peak_flops"] for answer in rounds]
            about = {"contender": name, "dtype": rounds[0]["dtype"], "runs": runs}
            same.append(about | figures(runs, first["runs"], peaks))
    return [row for same in workloads.values() for row in same]


def figures(
    runs: Sequence[dict[str, Any]], first: Sequence[dict[str, Any]], peaks: Sequence[float | None]
) -> dict[str, Any]:
    """Medians of the rounds, with lowest and highest; ratios are taken round by round."""
    seconds = [sum(run["calls_s"]) for run in runs]
    taken = list(zip(runs, seconds, peaks, strict=True))
    shares = [run["flops"] / second / peak for run, second, peak in taken if peak]
    ratios = [second / sum(other["calls_s"]) for second, other in zip(seconds, first, strict=True)]
    calls_ms = sorted(1000 * second for run in runs for second in run["calls_s"])
    cosine = smallest_cosine(np.load(runs[0]["vectors"]), np.load(first[0]["vectors"]))
    return {
        "workload": runs[0]["workload"],
        "batch_size": runs[0]["batch_size"],
        "tokens_per_s": spread([run["n_tokens"] / second for run, second, _ in taken]),
        "p50_ms": median(calls_ms),
        "p99_ms": calls_ms[math.ceil(0.99 * len(calls_ms)) - 1],
        "share_of_peak": median(shares) if shares else None,
        "smallest_cosine": cosine,
        # Other vectors are other work.
        "first_is_times_as_fast": spread(ratios) if cosine >= SAME_VECTORS else None,
    }


def smallest_cosine(vectors: Any, others: Any) -> float:
    """Of any text's vector to the other one of the same text; all have length 1."""
    return float(np.einsum("ij,ij->i", vectors.astype(float), others.astype(float)).min())


def spread(values: Sequence[float]) -> list[float]:
    """Median, lowest and highest."""
    return [median(values), min(values), max(values)]


def speed_table(rows: list[dict[str, Any]]) -> Table:
    """A row for each contender and batch size."""
    table = new_table("", "batch", "Tokens/s", "peak", "cosine", "first is ×")
    workload = None
    for row in rows:
        if row["workload"] != workload:
            workload = row["workload"]
            table.add_section()
            table.add_row(f"[bold]{workload}")
        ours = Contender.named(row["contender"]).library.is_ours
        alone = f"{row['p50_ms']:.1f} ms" if workload == "one-query" else ""
        share, ratio = row["share_of_peak"], row["first_is_times_as_fast"]
        table.add_row(
            row["contender"],
            "" if ours else str(row["batch_size"]),
            alone or f"{row['tokens_per_s'][0]:,.0f}",
            "–" if share is None else f"{share:.0%}",
            f"{row['smallest_cosine']:.5f}",
            "other vectors" if ratio is None else "{:.2f} ({:.1f}–{:.1f})".format(*ratio),
        )
    return table


def start_table(answers: Answers) -> Table:
    """Seconds to the first vector, and the most memory."""
    table = new_table("", "Type", "Start s", "RAM", "VRAM", "peak")
    for name, rounds in answers.items():
        vram = max(answer["vram_bytes"] or 0 for answer in rounds)
        peaks = [answer["peak_flops"] or 0 for answer in rounds]
        table.add_row(
            name,
            rounds[0]["dtype"].removesuffix("_e4m3fn"),
            f"{median(answer['start_s'] for answer in rounds):.2f}",
            f"{max(answer['ram_bytes'] for answer in rounds) / 1e9:.2f} GB",
            f"{vram / 1e9:.2f} GB" if vram else "–",
            f"{median(peaks) / 1e9:,.0f} G/s",
        )
    return table


def new_table(*columns: str) -> Table:
    """A table whose first column has names, the others numbers."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column(columns[0], overflow="fold")
    for column in columns[1:]:
        table.add_column(column, justify="right", no_wrap=True)
    return table


def parsed(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The options, with what the device decides filled in."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", help="a hub id, a directory or 'demo'; default: as gte bench")
    parser.add_argument("--device", help="by default cuda if it is there, else cpu")
    parser.add_argument("--contender", dest="contenders", action="append", default=[])
    parser.add_argument(
        "--workload", dest="workloads", action="append", choices=list(WORKLOADS), default=[]
    )
    parser.add_argument(
        "--batch-size", dest="batch_sizes", action="append", type=int, help="of the peers"
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="a few texts, to see that all works")
    parser.add_argument("--json", action="store_true", help="write JSON, for programs")
    options = parser.parse_args(arguments)
    try:
        for name in options.contenders:
            Contender.named(name)
    except ValueError as error:
        parser.error(str(error))
    fill_in(options)
    return options


def fill_in(options: argparse.Namespace) -> None:
    """What the device decides, where it was not said."""
    import torch

    options.device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    kind = "cuda" if options.device.startswith("cuda") else "cpu"
    options.contenders = list(dict.fromkeys(options.contenders or DEFAULTS[kind]))
    options.batch_sizes = options.batch_sizes or BATCH_SIZES[kind]


def main() -> None:
    """Run the race and print what came of it."""
    options = parsed()
    with tempfile.TemporaryDirectory(prefix="gte-race-") as folder:
        answers, left_out = run_race(options, Path(folder))
        rows = compare(answers) if answers else []
    if options.json:
        for row in rows:
            del row["runs"]
        print(json.dumps({"answers": answers, "rows": rows, "left_out": left_out}))
        return
    console = Console(highlight=False)
    if answers:
        console.print(next(iter(answers.values()))[0]["machine"], speed_table(rows))
        console.print(start_table(answers))
    for name, reason in left_out.items():
        console.print(f"Left out: {name}: {reason}", markup=False)


if __name__ == "__main__":
    main()
