"""What a sparse encoder costs: queries by look-up beside a pass for each, documents' peak memory.

Without ``--model``, a checkpoint of random weights with the shape of
opensearch-neural-sparse-encoding-doc-v3-gte. Memory is that of the process, on Linux.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from gte_core import GTEEmbedder, shared_encoder
from gte_core.testing import random_sparse_encoder

SHAPE = {
    "hidden_size": 768,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "rope_theta": 500_000,
    "rope_scaling": None,
}
# Random logits are above it for one token id of 300, which is more than a trained model has.
BIAS = -1.5


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", help="a sparse encoder; random weights by default")
    parser.add_argument("--layers", type=int, default=12, help="of the random one")
    parser.add_argument("--queries", type=int, default=20_000)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as directory:
        small, large = Path(directory, "small"), Path(directory, "large")
        path = arguments.model or write_encoder(small, 30_522, arguments.layers)
        print_queries(GTEEmbedder.from_pretrained(path, dtype="float32"), arguments.queries)
        long = ["w1 w7 w9 " * 3000]
        print_peaks("1 text of 8,192 tokens", path, long)
        path = arguments.model or write_encoder(large, 250_048, arguments.layers)
        short = [f"w{number} w2 w3 w4 w5 w6" for number in range(250)]
        print_peaks("250 short texts", path, short)


def write_encoder(directory: Path, vocab_size: int, layers: int, bias: float = BIAS) -> Path:
    """A random sparse encoder of which most logits are below zero, as in a trained one."""
    config = SHAPE | {"vocab_size": vocab_size, "num_hidden_layers": layers}
    random_sparse_encoder(directory, config, initializer_range=0.02, n_pieces=30_522)
    file = directory / "model.safetensors"
    weights = load_file(file)
    weights["lm_head.decoder.bias"].fill_(bias)
    save_file(weights, file)
    return directory


def print_queries(embedder: GTEEmbedder, count: int) -> None:
    """Queries a second, looked up and computed."""
    queries = [f"w{i % 9000} w{i % 77} w{i % 501} w{i % 3} w1 w2 w3 w4" for i in range(count)]
    print_rates("embedder", partial(embedder.encode_sparse, role="query"), queries)
    print_rates("shared", partial(shared_encoder(embedder).encode_sparse, role="query"), queries)
    print_rates("a pass", embedder.encode_sparse, queries[:64])


def print_rates(name: str, encode: Callable[[Any], object], queries: Sequence[str]) -> None:
    """Queries in a second of one core, in a list and one by one."""
    began = time.process_time()
    encode(queries)
    listed = time.process_time()
    for query in queries:
        encode(query)
    ended = time.process_time()
    count = len(queries)
    print(f"{name}: {count / (listed - began):,.1f} a second in a list", end=", ")
    print(f"{count / (ended - listed):,.1f} one by one")


def print_peaks(name: str, path: str | Path, texts: Sequence[str]) -> None:
    """Most memory of documents, in the caller's thread and in that of a shared encoder."""
    alone, shared = (peak_of_documents(path, texts, shared=shared) for shared in (False, True))
    print(f"{name}: {alone:,.0f} MB over the model, {shared:,.0f} MB through a shared encoder")


def peak_of_documents(path: str | Path, texts: Sequence[str], *, shared: bool = False) -> float:
    """MB that encoding the documents takes at most, beside the loaded model."""
    embedder = GTEEmbedder.from_pretrained(path, dtype="float32", on_truncation="ignore")
    encoder = shared_encoder(embedder) if shared else embedder
    encoder.encode_sparse("w1")
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    encoder.encode_sparse(texts)
    return resident("VmHWM") - before


def resident(field: str) -> float:
    """Memory of the process in MB: ``VmRSS`` now, ``VmHWM`` at most."""
    lines = Path("/proc/self/status").read_text().splitlines()
    (line,) = (line for line in lines if line.startswith(field))
    return int(line.split()[1]) / 1000


if __name__ == "__main__":
    main()
