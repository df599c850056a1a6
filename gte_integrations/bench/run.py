"""A whole run: every type in every round in a process of its own, and what the times come to."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from gte_core import HubError
from gte_integrations.bench.workloads import WORKLOADS

PUBLISHED = "Alibaba-NLP/gte-multilingual-base"
_PIECES = 250_002  # of its tokenizer
_SHAPE = (
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
)

Recorded = dict[str, Any]  # what a worker answered
Figures = dict[str, Any]  # as docs/speed.md describes the JSON


def run_bench(
    dtypes: Sequence[str],
    rounds: int,
    progress: Callable[[str], None],
    *,
    model: str | None,
    device: str | None,
    torch_compile: bool,
    workloads: Sequence[str],
    quick: bool,
) -> Figures:
    """Measure; takes minutes unless it is quick, and writes only to a temporary folder.

    Raises ``ValueError`` for a workload, device or type that is not there, or a process that
    failed; ``GTEError`` for a model that cannot be read.
    """
    for name in workloads:
        if name not in WORKLOADS:
            raise ValueError(f"There is no workload {name!r}; allowed are {', '.join(WORKLOADS)}.")
    recorded: dict[str, list[Recorded]] = {dtype: [] for dtype in dtypes}
    with tempfile.TemporaryDirectory(prefix="gte-bench-") as folder:
        progress("Finding the model …")
        found = model or published_or_random(Path(folder))
        request = {
            "model": found,
            "device": device,
            "torch_compile": torch_compile,
            "workloads": workloads,
            "quick": quick,
        }
        for number in range(rounds):
            turn = number % len(dtypes)  # each round begins with another
            for dtype in [*dtypes[turn:], *dtypes[:turn]]:
                progress(f"Round {number + 1} of {rounds}: {dtype}")
                recorded[dtype].append(in_a_process({**request, "dtype": dtype}))
    first = recorded[dtypes[0]]
    random_weights = model is None and found != PUBLISHED
    return {
        "model": f"random weights of the shape of {PUBLISHED}" if random_weights else found,
        "random_weights": random_weights,
        "rounds": rounds,
        "torch_compile": torch_compile,
        "quick": quick,
        **{name: first[0][name] for name in ("device", "machine", "revision", "file_bytes")},
        "types": [figures_of(taken, first) for taken in recorded.values()],
    }


def published_or_random(folder: Path) -> str:
    """The published model if it is in the local cache, else random weights of its shape."""
    from gte_core import GTEConfig, GTEEmbedder

    try:
        return GTEEmbedder.from_pretrained(PUBLISHED, device="cpu", local_files_only=True).model
    except HubError:
        import torch

        from gte_core.testing import random_checkpoint

        config = GTEConfig.from_dict({"model_type": "gte"})
        shape = {name: getattr(config, name) for name in _SHAPE}
        options: dict[str, Any] = {"initializer_range": 0.02, "n_pieces": _PIECES}
        return str(random_checkpoint(folder / "random", shape, dtype=torch.float16, **options))


def in_a_process(request: Mapping[str, Any], *program: str) -> Recorded:
    """What a program answers to a request in JSON; by default the worker of this package.

    Not a fork and not of ``multiprocessing``: it starts as a user's program would, without the
    modules that this one has loaded. Raises ``ValueError`` with its message if it fails.
    """
    program = program or ("-m", "gte_integrations.bench.worker")
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-P", *program, json.dumps({**request, "started": time.time()})],
        capture_output=True,
        check=False,
        encoding="utf-8",
        errors="replace",
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    if done.returncode:
        said = next(filter(None, reversed(done.stderr.split("\n"))), "it said nothing")
        raise ValueError(f"The measuring process ended with status {done.returncode}: {said}")
    answer: Recorded = json.loads(done.stdout.splitlines()[-1])
    if "error" in answer:
        raise ValueError(answer["error"])
    return answer


def figures_of(rounds: Sequence[Recorded], first: Sequence[Recorded]) -> Figures:
    """A type in all rounds, beside the first type in the same rounds."""
    peaks = [one["peak_flops"] for one in rounds]
    starts = [one["start_s"] | {"total": sum(one["start_s"].values())} for one in rounds]
    workloads = zip(*(one["workloads"] for one in rounds), strict=True)
    firsts = zip(*(one["workloads"] for one in first), strict=True)
    return {
        "dtype": rounds[0]["dtype"],
        "peak_flops": None if None in peaks else median(peaks),
        "start_s": {part: median(start[part] for start in starts) for part in starts[0]},
        "ram_bytes": max(one["ram_bytes"] for one in rounds),
        "vram_bytes": max(one["vram_bytes"] or 0 for one in rounds) or None,
        "workloads": [
            _workload(turns, [turn["dense_s"] for turn in other], peaks)
            for turns, other in zip(workloads, firsts, strict=True)
        ],
    }


def _workload(
    turns: Sequence[Recorded], first_s: Sequence[float], peaks: Sequence[float | None]
) -> Figures:
    n_tokens, flops = turns[0]["n_tokens"], turns[0]["flops"]
    dense_s = [turn["dense_s"] for turn in turns]
    rates = [sum(n_tokens) / seconds for seconds in dense_s]
    calls_ms = sorted(1000 * seconds for turn in turns for seconds in turn["alone_s"])
    return {
        "name": turns[0]["name"],
        "n_texts": len(n_tokens),
        "n_tokens": sum(n_tokens),
        "shortest": min(n_tokens),
        "longest": max(n_tokens),
        "tokens_per_s": {"median": median(rates), "lowest": min(rates), "highest": max(rates)},
        "share_of_peak": _ratio((flops / seconds for seconds in dense_s), peaks),
        "times_as_fast_as_first": _ratio(first_s, dense_s),
        "time_of_both": _ratio((turn["both_s"] for turn in turns), dense_s),
        "time_alone": _ratio((sum(turn["alone_s"]) for turn in turns), dense_s),
        "p50_ms": median(calls_ms) if calls_ms else None,
        "p99_ms": calls_ms[math.ceil(0.99 * len(calls_ms)) - 1] if calls_ms else None,
    }


def _ratio(values: Iterable[float | None], measures: Iterable[float | None]) -> float | None:
    """The median of the rounds; None where one of the two was not measured."""
    pairs = zip(values, measures, strict=True)
    ratios = [value / measure for value, measure in pairs if value and measure]
    return median(ratios) if ratios else None
