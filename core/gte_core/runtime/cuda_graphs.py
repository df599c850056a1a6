"""Small packs as CUDA graphs: all kernels of a pass are launched at once.

A query keeps a GPU busy for less time than it takes to launch the kernels of its pass one by one. A
graph has one size, so packs are padded to it: by a sequence of its own at the end, which no other
sees, and by empty sequences in front of that.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from gte_core.network.attention import PackLayout
from gte_core.network.model import GTEModel
from gte_core.runtime.passes import Compute, TokenIds

_TOKENS = (32, 64, 128, 256, 512, 1024)
_SEQUENCES = 64
_ONE_CAPTURE = threading.Lock()  # at a time in a process, as CUDA wants it
_UNTIMED_PASSES = 2  # before a capture: kernels are compiled and chosen, and take their memory

logger = logging.getLogger(__name__)


class GraphedPass:
    """A pass whose small packs are replayed; each size is captured when it first comes.

    Its model must have the varlen kernel: the others read the lengths of sequences on the host.
    """

    def __init__(self, model: GTEModel, compute: Compute) -> None:
        self._model = model
        self._compute = partial(compute, model)
        self._captured: dict[int, CapturedGraph] = {}
        self._failed = False

    def __call__(self, ids: TokenIds, left_out: Sequence[int] = ()) -> tuple[Tensor, ...]:
        """The results for some sequences, laid out by ``lay_out``; the next call overwrites them.

        Results of tokens include those of the padding, a sequence behind the given ones.
        """
        n_tokens = sum(map(len, ids))
        size = next((size for size in _TOKENS if size > n_tokens), None)
        if size is None or len(ids) >= _SEQUENCES or self._failed:
            return self._compute(*self._model.lay_out(ids, left_out))
        padded = self._padded(ids, left_out, size - n_tokens)
        if size not in self._captured:
            try:
                self._captured[size] = capture_cuda_graph(self._compute, *padded)
            except RuntimeError as error:
                logger.warning(
                    "No CUDA graph of %d tokens (%s); going on without graphs.", size, error
                )
                self._failed = True
                return self._compute(*self._model.lay_out(ids, left_out))
        finite, states, *others = self._captured[size].replay(*padded)
        return finite[: len(ids)], states[: len(ids)], *others

    def _padded(
        self, ids: TokenIds, left_out: Sequence[int], n_padding: int
    ) -> tuple[Tensor, PackLayout]:
        n_empty = _SEQUENCES - 1 - len(ids)
        input_ids, layout = self._model.lay_out(
            [*ids, *[[]] * n_empty, [0] * n_padding],
            [*left_out, *[0] * (_SEQUENCES - len(left_out))],
        )
        return input_ids, layout.with_any_lengths(len(input_ids))


@dataclass(frozen=True, slots=True)
class CapturedGraph:
    """A captured pass, with the tensors that it reads and writes at every replay."""

    graph: torch.cuda.CUDAGraph
    input_ids: Tensor
    layout: PackLayout
    outputs: tuple[Tensor, ...]

    def replay(self, input_ids: Tensor, layout: PackLayout) -> tuple[Tensor, ...]:
        """Compute another pack of the same size into the same outputs."""
        self.input_ids.copy_(input_ids)
        self.layout.cu_seqlens.copy_(layout.cu_seqlens)
        self.layout.positions.copy_(layout.positions)
        self.layout.left_out.copy_(layout.left_out)
        self.graph.replay()
        return self.outputs


def capture_cuda_graph(
    compute: Callable[[Tensor, PackLayout], tuple[Tensor, ...]],
    input_ids: Tensor,
    layout: PackLayout,
) -> CapturedGraph:
    """Capture a pass over these inputs."""
    device = input_ids.device
    current = torch.cuda.current_stream(device)
    stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    graph = torch.cuda.CUDAGraph()
    with _ONE_CAPTURE:
        try:
            stream.wait_stream(current)
            with torch.cuda.stream(stream):
                for _ in range(_UNTIMED_PASSES):
                    compute(input_ids, layout)
            # The workspace of cuBLAS has to be the graph's own: others are freed with other graphs.
            torch._C._cuda_clearCublasWorkspaces()
            # Other threads may go on computing meanwhile.
            with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
                outputs = compute(input_ids, layout)
            torch._C._cuda_clearCublasWorkspaces()
        finally:
            torch.cuda.set_stream(current)
            current.wait_stream(stream)

    return CapturedGraph(graph, input_ids, layout, outputs)
