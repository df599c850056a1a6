"""Packs through a device: one pass at a time, the next one started before the last is read."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from gte_core.batching import Ticket, Turns
from gte_core.exceptions import TextTooLargeError
from gte_core.forks import computing
from gte_core.network.attention import PackLayout
from gte_core.network.model import GTEModel
from gte_core.runtime.packs import plan_packs
from gte_core.texts import NameOf

logger = logging.getLogger(__name__)

TokenIds = Sequence[Sequence[int]]  # of several sequences

# Model, the token ids of a pack end to end, and their layout -> results. The first is bool
# ``(n,)``: whether all that was computed of a sequence is finite. The second has a row for each
# sequence too; the others, if any, have an entry for each token, or for each weight.
Compute = Callable[[GTEModel, Tensor, PackLayout], tuple[Tensor, ...]]

PackResults = tuple[list[int], list[NDArray[Any]]]  # the numbers of its texts, and their results

# A CPU is fastest with packs that reuse the same memory, a GPU with packs that fill it.
_PACK_TOKENS = {"cpu": 2048, "cuda": 65_536}
_PACK_TOKENS_ELSEWHERE = 8192

# Full passes after which a budget that was halved is doubled again, at first and at most.
_PASSES_TO_GROW = 16
_MOST_PASSES_TO_GROW = 1024


class PackBudget:
    """How many tokens a pack may have: halved when memory runs out, and doubled again later.

    It grows after a number of passes that filled it. That number doubles whenever memory runs out,
    so that a budget that is too large is tried ever more rarely, and is back where it began once
    the device's own budget has held for so long.

    Attributes:
        full: the device's own budget.
        tokens: the budget now.
    """

    def __init__(self, full: int) -> None:
        self.full = self.tokens = full
        self._patience = _PASSES_TO_GROW
        self._passes = 0

    def shrink(self, n_tokens: int) -> None:
        """A pack of so many tokens was too large."""
        self.tokens = max(1, min(self.tokens, n_tokens // 2))
        self._patience = min(2 * self._patience, _MOST_PASSES_TO_GROW)
        self._passes = 0

    def passed(self, n_tokens: int) -> None:
        """A pack of so many tokens was computed; a small one says nothing about memory."""
        if self._patience == _PASSES_TO_GROW or 2 * n_tokens <= self.tokens:
            return
        self._passes += 1
        if self._passes < self._patience:
            return
        self._passes = 0
        if self.tokens >= self.full:
            self._patience = _PASSES_TO_GROW
            return
        self.tokens = min(2 * self.tokens, self.full)
        logger.info("Trying packs of %d tokens again.", self.tokens)


class PackRunner:
    """Runs packs within a token budget, which is halved while the device's memory is short.

    Passes from several threads run one after another, so that memory stays bounded; each pack has
    a turn of its own, so that a long list lets others in between.

    Args:
        device: where the passes compute.
        deterministic: give every text a pack of its own, so that no bit depends on the others.
    """

    def __init__(self, device: torch.device, *, deterministic: bool = False) -> None:
        self._device = device
        self._deterministic = deterministic
        self._budget = PackBudget(_PACK_TOKENS.get(device.type, _PACK_TOKENS_ELSEWHERE))
        self._turns = Turns(self._budget.full)
        # Whatever stream a caller is on: texts come from the host and vectors go there.
        self._stream = torch.cuda.default_stream(device) if device.type == "cuda" else None

    @property
    def max_tokens(self) -> int:
        """Tokens of a pack, unless a single text has more."""
        return self._budget.tokens

    def run(
        self,
        lengths: Mapping[int, int],
        launch: Callable[[list[int]], tuple[Tensor, ...]],
        *,
        name_of: NameOf,
    ) -> Iterator[PackResults]:
        """Pack texts, known by their numbers, and yield each pack with what ``launch`` computes.

        Raises ``TextTooLargeError`` for a text that does not fit alone.
        """
        is_long = sum(lengths.values()) > self._turns.unit
        waiting = self._plan(lengths)
        ahead = None
        while waiting:
            pack = waiting.popleft()
            n_tokens = sum(lengths[i] for i in pack)
            ticket = Ticket(n_tokens, is_long=is_long)
            try:
                self._turns.wait(ticket)
                results = self._pass(launch, pack)
                self._budget.passed(n_tokens)
            except RuntimeError as error:
                if not _is_out_of_memory(error):
                    raise
                self._give_way(n_tokens, map(name_of, pack), error)
                waiting = self._plan({i: lengths[i] for i in chain(pack, *waiting)})
                continue
            finally:  # see Turns
                ticket.left = True
                self._turns.hand_over()
            if ahead is not None:
                yield ahead[0], ahead[1]()
            ahead = pack, results
        if ahead is not None:
            yield ahead[0], ahead[1]()

    def _plan(self, lengths: Mapping[int, int]) -> deque[list[int]]:
        return deque(plan_packs(lengths, 1 if self._deterministic else self.max_tokens))

    def _give_way(self, n_tokens: int, names: Iterable[str], error: RuntimeError) -> None:
        """Halve the budget after a pack of this size; there must be something to halve."""
        name, *others = names
        if not others:
            raise TextTooLargeError(
                f"{name}: its {n_tokens} tokens do not fit in the memory of {self._device}, even "
                "alone. Split the text, lower max_length, or use a device with more memory."
            ) from error
        self._budget.shrink(n_tokens)
        logger.warning(
            "Out of memory on %s; going on with packs of %d tokens.", self._device, self.max_tokens
        )

    def _pass(
        self, launch: Callable[[list[int]], tuple[Tensor, ...]], pack: list[int]
    ) -> Callable[[], list[NDArray[Any]]]:
        with (
            computing(),
            torch.cuda.stream(self._stream),
            torch.inference_mode(),
            torch.autocast(self._device.type, enabled=False),
        ):
            return _copied_to_host(launch(pack))


def _copied_to_host(tensors: Sequence[Tensor]) -> Callable[[], list[NDArray[Any]]]:
    """Start to copy tensors to the host; what comes back waits for the copies and gives them.

    They are copies on a CPU too, because a pass may write into the same tensors again.
    """
    device = tensors[0].device
    on_cuda = device.type == "cuda"
    copies = [tensor.to("cpu", non_blocking=on_cuda, copy=True) for tensor in tensors]
    copied = torch.cuda.current_stream(device).record_event() if on_cuda else None

    def arrays() -> list[NDArray[Any]]:
        if copied is not None:
            copied.synchronize()
        return [copy.numpy() for copy in copies]

    return arrays


def _is_out_of_memory(error: RuntimeError) -> bool:
    """CUDA and MPS have an exception for it; the CPU's allocator only says so."""
    return isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error)
