"""``GTEReranker``: pairs of query and document in, one relevance score each out."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from gte_core.checkpoint.files import shown
from gte_core.checkpoint.hub import Purpose, find_model
from gte_core.exceptions import MissingHeadError, NonFiniteError
from gte_core.forks import computing
from gte_core.iteration import batched
from gte_core.network.device import choose_device, choose_dtype
from gte_core.network.model import GTEModel
from gte_core.runtime.passes import HostCopy, PackRunner
from gte_core.settings import DEFAULT_RERANKER
from gte_core.texts import as_pair, as_texts, checked, checked_pairs, checked_text, named
from gte_core.tokenizer import PairTokenizer, check_vocabulary

logger = logging.getLogger(__name__)

_PAIRS_AT_ONCE = 512


@dataclass(frozen=True, slots=True)
class RankedDocument:
    """A document's place in the list it came from, its relevance (a raw logit), and its text."""

    index: int
    score: float
    document: str


class GTEReranker:
    """A loaded cross-encoder; built by :meth:`from_pretrained`. Safe to call from several threads.

    Scores are raw logits, as the original gives them: only their order means something.
    """

    def __init__(
        self, model: GTEModel, load_float32: Callable[[], GTEModel], tokenizer: PairTokenizer
    ) -> None:
        self._model = model
        self._load_float32 = load_float32
        self._tokenizer = tokenizer
        self._packs = PackRunner(model.device)

    @classmethod
    def from_pretrained(
        cls,
        model: str | Path = DEFAULT_RERANKER,
        *,
        revision: str | None = None,
        device: str | torch.device | None = None,
        dtype: str | torch.dtype = "auto",
        max_length: int = 8192,
        torch_compile: bool = False,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
    ) -> GTEReranker:
        """Load a reranker from the hub or a directory; arguments as in ``GTEEmbedder``.

        ``torch_compile`` compiles the layers; pairs are too long for graphs.

        Raises:
            MissingHeadError: the checkpoint has no sequence classifier of one label.
            HubError, ConfigError, WeightsError: see :mod:`gte_core.exceptions`.
            ValueError, TypeError: for an argument that makes no sense.
        """
        computed_on = choose_device(device)
        files = find_model(
            model,
            revision=revision,
            cache_dir=cache_dir,
            local_files_only=local_files_only,
            purpose=Purpose(DEFAULT_RERANKER),
        )
        tokenizer = PairTokenizer(files.directory, max_length)
        load = partial(GTEModel.for_inference, files, device=computed_on)
        computed_in = choose_dtype(dtype, computed_on)
        with computing():
            loaded = load(dtype=computed_in, torch_compile=torch_compile)
        if not loaded.is_reranker:
            raise MissingHeadError(
                f"{shown(str(model))} has no sequence classifier of one label, so it ranks "
                f"nothing. Use a reranker, such as {DEFAULT_RERANKER!r}."
            )
        check_vocabulary(tokenizer, loaded.config.vocab_size)
        return cls(loaded, partial(load, dtype=torch.float32), tokenizer)

    def rank(
        self, query: str, documents: Iterable[str], *, top_n: int | None = None
    ) -> list[RankedDocument]:
        """The documents by falling relevance, ties in the order given; the first ``top_n`` only."""
        checked_text(query, "query")
        if top_n is not None and top_n < 1:
            raise ValueError(f"top_n is {top_n}, but must be at least 1, or None for all.")
        texts = list(checked(as_texts(documents, "documents"), "documents"))
        scores = self.score([(query, text) for text in texts])
        order = np.argsort(-scores, kind="stable")[:top_n]
        return [RankedDocument(int(i), float(scores[i]), texts[i]) for i in order]

    def score(self, pairs: Iterable[tuple[str, str]]) -> NDArray[np.float32]:
        """Relevance of each ``(query, document)`` pair, float32 ``(n,)``."""
        scores = [np.empty(0, dtype=np.float32)]
        done = n_truncated = 0
        try:
            for batch in batched(checked_pairs(pairs), _PAIRS_AT_ONCE):
                tokenized = self._tokenizer.encode(batch)
                n_truncated += sum(pair.truncated for pair in tokenized)
                scores.append(self._score({done + i: pair.ids for i, pair in enumerate(tokenized)}))
                done += len(batch)
        finally:
            if n_truncated:
                logger.warning(
                    "%d pair(s) were longer than max_length=%d tokens and were cut.",
                    n_truncated,
                    self._tokenizer.max_length,
                )
        return np.concatenate(scores)

    def _score(self, ids: Mapping[int, list[int]]) -> NDArray[np.float32]:
        """The scores of pairs known by their places in the call, in this order."""
        scores = self._logits(self._model, ids)
        broken = _not_finite(scores)
        if broken and self._model.dtype != torch.float32:
            scores |= self._logits(self._float32_model, {number: ids[number] for number in broken})
        if broken := sorted(_not_finite(scores)):
            raise NonFiniteError(
                f"{named(broken, as_pair)}: NaN or infinity, even in float32. The weights are "
                "damaged or not meant for this network; check the checkpoint."
            )
        return np.array([scores[number] for number in ids], dtype=np.float32)

    def _logits(self, model: GTEModel, ids: Mapping[int, list[int]]) -> dict[int, float]:
        """The logit of each pair by its number."""

        def launch(pack: list[int]) -> HostCopy:
            states = model.encode_first_tokens(*model.lay_out([ids[number] for number in pack]))
            return HostCopy(model.sequence_logits(states).squeeze(-1).float())

        lengths = {number: len(pair) for number, pair in ids.items()}
        scores: dict[int, float] = {}
        for pack, results in self._packs.run(lengths, launch, name_of=as_pair):
            (logits,) = results.arrays()
            scores |= zip(pack, logits.tolist(), strict=True)
        return scores

    @cached_property
    def _float32_model(self) -> GTEModel:
        with computing():
            return self._load_float32()


def _not_finite(scores: Mapping[int, float]) -> list[int]:
    return [number for number, score in scores.items() if not math.isfinite(score)]
