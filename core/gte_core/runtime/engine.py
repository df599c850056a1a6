"""Tokenized texts, or pairs of them -> what a model computes of each, in packs."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from gte_core.exceptions import NonFiniteError
from gte_core.forks import computing
from gte_core.network.model import GTEModel
from gte_core.runtime.cuda_graphs import GraphedPass
from gte_core.runtime.passes import Compute, PackResults, PackRunner
from gte_core.texts import NameOf, as_text, named
from gte_core.tokenizer import TokenizedText


class PackedEngine:
    """Runs texts, or pairs of them, through a model in packs of similar length.

    Args:
        model: on the device and in the type to compute with.
        load_float32: loads the same model in float32, for texts that overflow a half type.
        deterministic: give every text a pack of its own, so that no bit depends on the others.
        graphed: replay small packs as CUDA graphs.
    """

    def __init__(
        self,
        model: GTEModel,
        load_float32: Callable[[], GTEModel],
        *,
        deterministic: bool = False,
        graphed: bool = False,
    ) -> None:
        self._model = model
        self._load_float32 = load_float32
        self._packs = PackRunner(model.device, deterministic=deterministic)
        self._graphed: dict[Compute, GraphedPass] | None = {} if graphed else None

    @property
    def pack_tokens(self) -> int:
        """Tokens of a pack, unless a single text has more."""
        return self._packs.max_tokens

    def run(
        self, texts: Sequence[TokenizedText], compute: Compute, *, name_of: NameOf = as_text
    ) -> Iterator[PackResults]:
        """Yield the indices of the texts of each pack, and what ``compute`` made of them.

        A text whose results are not finite comes again, with those of the float32 model.

        Args:
            texts: what to compute.
            compute: what to compute of a pack. Its first result, ``finite``, is not yielded.
            name_of: index of a text -> what an error calls it.

        Raises:
            NonFiniteError: results are NaN or infinite even in float32.
            TextTooLargeError: a text does not fit in memory even alone.
        """
        given = dict(enumerate(texts))
        broken = yield from self._run(self._model, given, compute, name_of)
        if broken and self._model.dtype != torch.float32:
            given = {index: given[index] for index in broken}
            broken = yield from self._run(self._float32_model, given, compute, name_of)
        if broken:
            raise NonFiniteError(
                f"{named(broken, name_of)}: NaN or infinity, even in float32. The "
                "weights are damaged or not meant for this network; check the checkpoint."
            )

    def _run(
        self,
        model: GTEModel,
        texts: Mapping[int, TokenizedText],
        compute: Compute,
        name_of: NameOf,
    ) -> Generator[PackResults, None, list[int]]:
        """Yield what ``run`` does; return the indices whose results are not finite."""

        def launch(pack: list[int]) -> tuple[Tensor, ...]:
            sequences = [texts[index].ids for index in pack]
            left_out = [texts[index].left_out for index in pack]
            if self._graphed is None or model is not self._model:
                return compute(model, *model.lay_out(sequences, left_out))
            graphed = self._graphed.setdefault(compute, GraphedPass(model, compute))
            return graphed(sequences, left_out)

        broken: list[int] = []
        lengths = {index: len(text) for index, text in texts.items()}
        for pack, (finite, *results) in self._packs.run(lengths, launch, name_of=name_of):
            broken += np.array(pack)[~finite].tolist()
            yield pack, results
        return sorted(broken)

    @cached_property
    def _float32_model(self) -> GTEModel:
        with computing():
            return self._load_float32()
