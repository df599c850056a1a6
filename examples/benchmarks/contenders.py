"""Who takes part in the race, and the process that measures one of them in one round."""

import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

MAX_LENGTH = 8192
Encode = Callable[[list[str], int], Any]  # texts and batch size -> dense vectors of length 1


def load_gte(directory: str, device: str, dtype: str, compiled: bool) -> tuple[Encode, str]:
    """This library; it packs by tokens, so there is no batch size."""
    from gte_core import GTEEmbedder

    embedder = GTEEmbedder.from_pretrained(
        directory, device=device, dtype=dtype, torch_compile=compiled
    )
    return lambda texts, _: embedder.encode_dense(texts), embedder.dtype


def load_transformers(
    directory: str, device: str, dtype: str, compiled: bool
) -> tuple[Encode, str]:
    """The class that transformers has for the network: padded batches, sorted by length.

    Sorting is what a careful user writes around it; without it padding would be most of the work.
    """
    import numpy as np
    import torch
    from transformers import AutoModel, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(directory, local_files_only=True)
    model = AutoModel.from_pretrained(directory, dtype=dtype, local_files_only=True)
    model = model.to(device).eval()
    if compiled:
        model.compile(dynamic=True)

    def encode_batch(ids: list[list[int]]) -> Any:
        padded = tokenizer.pad({"input_ids": ids}, return_tensors="pt").to(device)
        with torch.inference_mode():
            states = model(**padded).last_hidden_state
            return torch.nn.functional.normalize(states[:, 0].float(), dim=-1).cpu().numpy()

    def encode(texts: list[str], batch_size: int) -> Any:
        ids = tokenizer(texts, truncation=True, max_length=MAX_LENGTH)["input_ids"]
        order = sorted(range(len(ids)), key=lambda row: -len(ids[row]))
        vectors = np.empty((len(ids), model.config.hidden_size), dtype=np.float32)
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            vectors[rows] = encode_batch([ids[row] for row in rows])
        return vectors

    return encode, dtype


def load_sentence_transformers(
    directory: str, device: str, dtype: str, compiled: bool
) -> tuple[Encode, str]:
    """sentence-transformers, which sorts by itself."""
    from sentence_transformers import SentenceTransformer

    options = {"model_kwargs": {"dtype": dtype}, "local_files_only": True}
    model = SentenceTransformer(directory, device=device, **options)
    if compiled:
        model[0].compile(dynamic=True)

    def encode(texts: list[str], batch_size: int) -> Any:
        vectors = model.encode(
            texts, batch_size=batch_size, show_progress_bar=False, convert_to_tensor=True
        )
        return vectors.float().cpu().numpy()

    return encode, dtype


@dataclass(frozen=True)
class Library:
    """How it is loaded; ours reads the original form of a checkpoint and needs no batch size."""

    load: Callable[[str, str, str, bool], tuple[Encode, str]]
    is_ours: bool = False


LIBRARIES = {
    "gte": Library(load_gte, is_ours=True),
    "transformers": Library(load_transformers),
    "sentence-transformers": Library(load_sentence_transformers),
}
DEFAULTS = {
    "cpu": [
        "gte:auto",
        "gte:float32",
        "gte:int8",
        "transformers:float32",
        "sentence-transformers:float32",
    ],
    "cuda": [
        "gte:bfloat16",
        "gte:bfloat16+compile",
        "gte:float16",
        "gte:float8",
        "gte:float8+compile",
        "transformers:bfloat16",
        "transformers:float16",
        "transformers:float32",
        "sentence-transformers:bfloat16",
        "sentence-transformers:float16",
        "sentence-transformers:float32",
    ],
}
BATCH_SIZES = {"cpu": [32, 8, 1], "cuda": [32, 128]}


@dataclass(frozen=True)
class Contender:
    """A library in a type, compiled or not, as its name says."""

    library: Library
    dtype: str
    compiled: bool

    @classmethod
    def named(cls, name: str) -> "Contender":
        """Read ``LIBRARY:TYPE`` or ``LIBRARY:TYPE+compile``; ``ValueError`` for anything else."""
        library, _, rest = name.partition(":")
        dtype, plus, how = rest.partition("+")
        if library not in LIBRARIES or not dtype or (plus and how != "compile"):
            raise ValueError(
                f"The contender is {name!r}, but must be LIBRARY:TYPE or LIBRARY:TYPE+compile; "
                f"libraries are {', '.join(LIBRARIES)}."
            )
        return cls(LIBRARIES[library], dtype, bool(plus))


def measure(request: dict[str, Any]) -> dict[str, Any]:
    """Load a contender and time every workload at every batch size, once each."""
    contender = Contender.named(request["contender"])
    encode, dtype = contender.library.load(
        request["directory"], request["device"], contender.dtype, contender.compiled
    )
    encode(["a first text"], 1)
    start_s = time.time() - request["started"]

    import numpy as np

    from gte_core import GTEConfig
    from gte_integrations.bench import machine
    from gte_integrations.bench.workloads import build_workloads, flops

    original, device = Path(request["original"]), request["device"]
    config = GTEConfig.from_pretrained(original)
    workloads = build_workloads(
        original / "tokenizer.json", device, request["workloads"], quick=request["quick"]
    )
    runs = []
    for workload in workloads:
        alone = workload.name == "one-query"
        calls = [[text] for text in workload.texts] if alone else [workload.texts]
        sizes = [1] if contender.library.is_ours else request["batch_sizes"]
        for size in distinct(sizes, len(calls[0])):
            # What is compiled or allocated for these lengths is so once, and not timed.
            vectors = [encode(call, size) for call in calls]
            file = Path(request["folder"]) / f"{request['contender']}.{workload.name}.{size}.npy"
            np.save(file, np.concatenate(vectors))
            run = {
                "workload": workload.name,
                "batch_size": size,
                "n_tokens": sum(workload.n_tokens),
                "flops": flops(config, workload.n_tokens),
                "calls_s": [
                    machine.seconds_of(partial(encode, call, size), device) for call in calls
                ],
                "vectors": str(file),
            }
            runs.append(run)
    return {
        "dtype": dtype,
        "machine": machine.describe(device),
        "start_s": start_s,
        "ram_bytes": machine.peak_ram(),
        "vram_bytes": machine.peak_vram(device),
        "peak_flops": machine.peak_flops(dtype, device, quick=request["quick"]),
        "runs": runs,
    }


def distinct(sizes: list[int], n_texts: int) -> list[int]:
    """Those that split a call otherwise than one before them."""
    kept: dict[int, int] = {}
    for size in sizes:
        kept.setdefault(min(size, n_texts), size)
    return list(kept.values())


def main() -> None:
    """Answer the request of the command line; an error is an answer too."""
    try:
        answer = measure(json.loads(sys.argv[1]))
    except Exception as error:  # noqa: BLE001 - that a contender fails is a result
        answer = {"error": f"{type(error).__name__}: {error}"}
    print("\n" + json.dumps(answer))


if __name__ == "__main__":
    main()
