"""The process of one type in one round: it loads the model, measures, and answers in JSON."""

from __future__ import annotations

import json
import sys
import time
from importlib.resources import files
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gte_core import GTEError, MissingHeadError

if TYPE_CHECKING:
    from gte_core import GTEConfig, GTEEmbedder
    from gte_integrations.bench.workloads import Workload


def measure(request: dict[str, Any]) -> dict[str, Any]:
    """Load the model of a request, and time what it names."""
    embedder, start_s = _loaded(request)

    from gte_core import GTEConfig
    from gte_integrations.bench import machine
    from gte_integrations.bench.workloads import build_workloads

    device, directory, quick = embedder.device, model_directory(embedder), request["quick"]
    config = GTEConfig.from_pretrained(directory)
    tokenizer = directory / "tokenizer.json"
    workloads = build_workloads(tokenizer, device, request["workloads"], quick=quick)
    return {
        "revision": embedder.revision,
        "device": device,
        "machine": machine.describe(device),
        "dtype": embedder.dtype,
        "start_s": start_s,
        "workloads": [_timed(embedder, config, workload) for workload in workloads],
        "file_bytes": sum(path.stat().st_size for path in directory.glob("*.safetensors")),
        "ram_bytes": machine.peak_ram(),
        "vram_bytes": machine.peak_vram(device),
        # Last, so that its matrices do not count as memory of the model.
        "peak_flops": machine.peak_flops(embedder.dtype, device, quick=quick),
    }


def model_directory(embedder: GTEEmbedder) -> Path:
    """Where the files of a loaded model are."""
    from huggingface_hub import try_to_load_from_cache

    if embedder.model == "demo":
        return Path(str(files("gte_core") / "data" / "demo"))
    if embedder.revision is None:
        return Path(embedder.model)
    found = try_to_load_from_cache(embedder.model, "config.json", revision=embedder.revision)
    return Path(str(found)).parent


def _loaded(request: dict[str, Any]) -> tuple[GTEEmbedder, dict[str, float]]:
    """The model, and the seconds from the start of the process to its first vector, in parts."""
    times = [request["started"], time.time()]

    from gte_core import GTEEmbedder

    times.append(time.time())
    options = {name: request[name] for name in ("device", "dtype", "torch_compile")}
    embedder = GTEEmbedder.from_pretrained(request["model"], **options)
    times.append(time.time())
    if not embedder.has_dense:
        raise MissingHeadError(
            f"{embedder.model!r} is a sparse encoder, and gte bench times dense vectors. Name a "
            "model that has them, or time this one by examples/benchmarks/sparse_encoder.py."
        )
    embedder.encode_dense("a first text")
    times.append(time.time())
    parts = ("interpreter", "imports", "load", "first_vector")
    seconds = (after - before for before, after in pairwise(times))
    return embedder, dict(zip(parts, seconds, strict=True))


def _timed(embedder: GTEEmbedder, config: GTEConfig, workload: Workload) -> dict[str, Any]:
    """Seconds of a workload's texts in one list; of single queries also one by one."""
    from gte_integrations.bench.machine import seconds_of
    from gte_integrations.bench.workloads import flops

    def seconds(encode: Any, given: str | list[str]) -> float:
        encode(given)  # the first time compiles, captures and allocates for these lengths
        return seconds_of(lambda: encode(given), embedder.device)

    texts = workload.texts
    alone = texts if workload.name == "one-query" else []
    return {
        "name": workload.name,
        "n_tokens": workload.n_tokens,
        "flops": flops(config, workload.n_tokens),
        "dense_s": seconds(embedder.encode_dense, texts),
        "both_s": seconds(embedder.encode, texts) if embedder.has_sparse else None,
        "alone_s": [seconds(embedder.encode_dense, text) for text in alone],
    }


def main() -> None:
    """Answer the request of the command line; an error written for users is an answer too."""
    try:
        answer = measure(json.loads(sys.argv[1]))
    except (GTEError, ImportError, OSError, ValueError) as error:
        answer = {"error": str(error)}
    sys.stdout.write("\n" + json.dumps(answer) + "\n")


if __name__ == "__main__":
    main()
