"""Arguments of other libraries, and what stands for them here.

Who comes from one of those types them by habit. Signatures stay explicit: a foreign name is an
error as every unknown one is, but the error says what to write.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from functools import wraps
from inspect import iscoroutinefunction, signature
from typing import Any, ParamSpec, TypeVar, cast

P = ParamSpec("P")
R = TypeVar("R")

_BATCHES = "leave it out: texts are packed by their tokens, as many at once as compute well"
_NUMPY = "leave it out: results are NumPy arrays, of which torch.from_numpy makes tensors"
_PACKED = "leave it out: texts are always packed without padding, by torch alone"
_HALVES = "leave it out: encode gives both vectors, encode_dense and encode_sparse one"
_UNIT = "leave it out: dense vectors always have length 1"
_LOADED = "pass {} where the model is loaded"
_MODEL = "pass model (in LlamaIndex model_name, to an index encoder)"
_ONE_PROCESS = "leave it out: one process computes, with all threads of its device"
_PREFIX = "pass query_prefix where the model is loaded; it goes before queries"

_ADVICE = {
    "activation_fn": "leave it out: scores are raw logits, for a function of your own",
    "apply_softmax": "leave it out: scores are raw logits, for a function of your own",
    "batch_size": _BATCHES,
    "cache_folder": _LOADED.format("cache_dir"),
    "chunk_size": _BATCHES,
    "convert_to_numpy": _NUMPY,
    "convert_to_tensor": _NUMPY,
    "device": _LOADED.format("device"),
    "device_map": _LOADED.format('device, such as "cuda",'),
    "embed_batch_size": _BATCHES,
    "encode_kwargs": "leave it out: vectors have length 1, and batches are made by tokens",
    "max_length": "pass it where the model is loaded, or take embedder.with_max_length(...)",
    "max_seq_length": _LOADED.format("max_length"),
    "model": "pass model_name",
    "model_kwargs": 'pass what it holds by name where the model is loaded, such as device="cuda"',
    "model_name": _MODEL,
    "model_name_or_path": _MODEL,
    "multi_process": _ONE_PROCESS,
    "normalize": _UNIT,
    "normalize_embeddings": _UNIT,
    "parallel_process": _ONE_PROCESS,
    "precision": _LOADED.format("dtype"),
    "pretrained_model_name_or_path": _MODEL,
    "prompt": _PREFIX,
    "prompt_name": 'pass role="query" for queries; or prompt_name where the model is loaded',
    "query_encode_kwargs": _PREFIX,
    "query_instruction": _PREFIX,
    "return_dense": _HALVES,
    "return_documents": "leave it out: results always hold their documents",
    "return_sparse": _HALVES,
    "show_progress_bar": "pass show_progress, where there is one; others draw no bar",
    "show_progress": "leave it out: this draws no bar",
    "target_devices": _ONE_PROCESS,
    "top_k": "pass limit (of a search) or top_n (of a reranker)",
    "torch_dtype": _LOADED.format('dtype, such as "float16",'),
    "truncate_dim": "pass dimensions",
    "trust_remote_code": "leave it out: no code of a model's repository is ever run",
    "unpad_inputs": _PACKED,
    "use_fp16": _LOADED.format('dtype, such as "float16",'),
    "use_memory_efficient_attention": _PACKED,
}


def foreign_advice(given: Iterable[str], taken: Collection[str]) -> str:
    """What to write for those of the given names that are foreign; empty if none of them is.

    Args:
        given: names of arguments.
        taken: the names that exist where these were given.
    """
    foreign = [name for name in given if name in _ADVICE and name not in taken]
    return "; ".join(f"{name!r} is no argument here, {_ADVICE[name]}" for name in foreign)


def refuses_foreign(function: Callable[P, R]) -> Callable[P, R]:
    """Let the ``TypeError`` about a foreign keyword say what stands for it here."""
    taken = frozenset(signature(function).parameters)

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        if not taken.issuperset(kwargs) and (advice := foreign_advice(kwargs, taken)):
            raise TypeError(f"{function.__qualname__}: {advice}.")
        return function(*args, **kwargs)

    return _awaited(call) if iscoroutinefunction(function) else call


def _awaited(call: Callable[P, R]) -> Callable[P, R]:
    """The same as a coroutine function, for those who ask whether it is one."""

    @wraps(call)
    async def run(*args: P.args, **kwargs: P.kwargs) -> Any:
        return await cast("Any", call(*args, **kwargs))

    return cast("Callable[P, R]", run)
