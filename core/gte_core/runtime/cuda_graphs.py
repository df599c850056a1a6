"""Small packs as CUDA graphs: all kernels of a pass are launched at once.

A query keeps a GPU busy for less time than it takes to launch the kernels of its pass one by one. A
graph has one size, so packs are padded to it: by a sequence of its own at the end, which no other
sees, and by empty sequences in front of that.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from gte_core.runtime.passes import Computation, PackPass, PassInputs, Texts

_TOKENS = (32, 64, 128, 256, 512, 1024)
_SEQUENCES = 64
_ONE_CAPTURE = threading.Lock()  # at a time in a process, as CUDA wants it
_UNTIMED_PASSES = 2  # before a capture: kernels are compiled and chosen, and take their memory

logger = logging.getLogger(__name__)

Replay = Callable[[], tuple[Tensor, ...]]


class GraphedPass:
    """A pass whose small packs are replayed; each size is captured when it first comes.

    Args:
        pack_pass: what to capture, and what computes larger packs.
        padding_id: a token id that adds nothing to what the pass makes of a text.
    """

    def __init__(self, pack_pass: PackPass, padding_id: int) -> None:
        self._pass = pack_pass
        self._padding_id = padding_id
        self._captured: dict[int, tuple[PassInputs, Replay]] = {}
        self._failed = False

    def __call__(self, texts: Texts, rows: Sequence[int]) -> tuple[Tensor, ...]:
        """What the pass gives for texts and their rows, to be read before the next call."""
        size = _size_for(texts)
        if size is None or self._failed:
            return self._pass(texts, rows)
        padded = self._padded(texts, rows, size)
        if size not in self._captured and not self._make(size, padded):
            return self._pass(texts, rows)
        inputs, replay = self._captured[size]
        _overwrite(inputs, padded)
        finite, states, *others = replay()
        return finite[: len(texts)], states[: len(texts)], *others

    def _make(self, size: int, padded: PassInputs) -> bool:
        try:
            self._captured[size] = padded, capture_cuda_graph(self._pass.compute, padded)
        except RuntimeError as error:
            logger.warning("No CUDA graph of %d tokens (%s); going on without graphs.", size, error)
            self._failed = True
        return not self._failed

    def _padded(self, texts: Texts, rows: Sequence[int], size: int) -> PassInputs:
        n_empty = _SEQUENCES - 1 - len(texts)
        padding = [self._padding_id] * (size - sum(map(len, texts)))
        inputs = self._pass.lay_out(
            [*texts, *[[]] * n_empty, padding], [*rows, *[0] * (n_empty + 1)]
        )
        return inputs._replace(layout=inputs.layout.with_any_lengths(size))


def capture_cuda_graph(compute: Computation, inputs: PassInputs) -> Replay:
    """A graph of the pass that reads its inputs anew at every replay."""
    device = inputs.input_ids.device
    current = torch.cuda.current_stream(device)
    stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    graph = torch.cuda.CUDAGraph()
    with _ONE_CAPTURE:
        try:
            stream.wait_stream(current)
            with torch.cuda.stream(stream):
                for _ in range(_UNTIMED_PASSES):
                    compute(inputs)
            # The workspace of cuBLAS has to be the graph's own: others are freed with other graphs.
            torch._C._cuda_clearCublasWorkspaces()
            # Other threads may go on computing meanwhile.
            with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
                outputs = compute(inputs)
            torch._C._cuda_clearCublasWorkspaces()
        finally:
            torch.cuda.set_stream(current)
            current.wait_stream(stream)

    def replay() -> tuple[Tensor, ...]:
        graph.replay()
        return outputs

    return replay


def _size_for(texts: Texts) -> int | None:
    """The smallest graph with room for the texts and one token of padding, None if none has."""
    n_tokens = sum(map(len, texts))
    if len(texts) >= _SEQUENCES:
        return None
    return next((size for size in _TOKENS if size > n_tokens), None)


def _overwrite(inputs: PassInputs, new: PassInputs) -> None:
    for to, given in zip(_tensors(inputs), _tensors(new), strict=True):
        to.copy_(given)


def _tensors(inputs: PassInputs) -> tuple[Tensor, ...]:
    layout = inputs.layout
    return inputs.input_ids, inputs.rows, layout.cu_seqlens, layout.positions
