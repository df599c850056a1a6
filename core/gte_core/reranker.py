"""``GTEReranker``: pairs of query and document in, one relevance score each out."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gte_core.checkpoint.files import shown
from gte_core.checkpoint.hub import find_model
from gte_core.checkpoint.naming import Purpose
from gte_core.exceptions import MissingHeadError
from gte_core.foreign import refuses_foreign
from gte_core.forks import computing
from gte_core.loading import decided_length
from gte_core.network.attention import PackLayout
from gte_core.network.device import choose_device, choose_dtype
from gte_core.network.model import GTEModel
from gte_core.ranking import RankedDocument, ScoringReranker
from gte_core.runtime.engine import PackedEngine
from gte_core.settings import DEFAULT_RERANKER
from gte_core.texts import TruncationSide, as_pair, checked_pairs
from gte_core.tokenizer import PairTokenizer, TokenizedText, check_vocabulary

__all__ = ["GTEReranker", "RankedDocument"]  # the second is where pickles of 0.2.0 look for it

logger = logging.getLogger(__name__)

_PAIRS_AT_ONCE = 512


class GTEReranker(ScoringReranker):
    """A loaded cross-encoder; built by ``from_pretrained``. Safe to call from several threads.

    Scores are raw logits, as the original gives them: only their order means something.

    Pairs are packed by their tokens, long and short ones together. Of a pair that is longer than
    ``max_length``, the longer text loses tokens first, at its ``truncation_side``, until both are
    equally long: of a question and a long document, the end of the document.
    """

    def __init__(
        self, model: GTEModel, load_float32: Callable[[], GTEModel], tokenizer: PairTokenizer
    ) -> None:
        self._engine = PackedEngine(model, load_float32)
        self._tokenizer = tokenizer

    @classmethod
    @refuses_foreign
    def from_pretrained(
        cls,
        model: str | Path = DEFAULT_RERANKER,
        *,
        revision: str | None = None,
        device: str | torch.device | None = None,
        dtype: str | torch.dtype = "auto",
        max_length: int | None = None,
        torch_compile: bool = False,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
        truncation_side: TruncationSide = "right",
    ) -> GTEReranker:
        """Load a reranker from the hub or a directory; arguments as in ``GTEEmbedder``.

        ``torch_compile`` compiles the layers; pairs are too long for graphs. ``truncation_side`` is
        the end that the texts of a pair lose where it is too long, "right" or "left".

        Raises:
            MissingHeadError: the checkpoint has no sequence classifier of one label.
            HubError, ConfigError, WeightsError: see ``gte_core.exceptions``.
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
        tokenizer = PairTokenizer(
            files.directory, decided_length(max_length, files), truncation_side
        )
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

    @refuses_foreign
    def score(self, pairs: Iterable[tuple[str, str]]) -> NDArray[np.float32]:
        """Relevance of each ``(query, document)`` pair, float32 ``(n,)``."""
        given = checked_pairs(pairs)
        scores = [np.empty(0, dtype=np.float32)]
        done = n_truncated = 0
        try:
            while batch := list(islice(given, _PAIRS_AT_ONCE)):
                tokenized = self._tokenizer.tokenize(batch)
                n_truncated += sum(pair.truncated for pair in tokenized)
                scores.append(self._score(tokenized, first=done))
                done += len(batch)
        finally:
            if n_truncated:
                logger.warning(
                    "%d pair(s) were longer than max_length=%d tokens and were cut.",
                    n_truncated,
                    self._tokenizer.max_length,
                )
        return np.concatenate(scores)

    def _score(self, pairs: Sequence[TokenizedText], first: int) -> NDArray[np.float32]:
        """The scores of these pairs, of which ``first`` went before in the call."""
        scores = np.empty(len(pairs), dtype=np.float32)
        computed = self._engine.run(
            pairs, _compute_logits, name_of=lambda index: as_pair(first + index)
        )
        for pack, (logits,) in computed:
            scores[pack] = logits
        return scores


def _compute_logits(model: GTEModel, input_ids: Tensor, layout: PackLayout) -> tuple[Tensor, ...]:
    """Which pairs are finite, and their logits, float32 ``(n,)``."""
    cls = model.compute_cls(input_ids, layout)
    logits = model.sequence_logits(cls).squeeze(-1).float()
    return logits.isfinite(), logits
