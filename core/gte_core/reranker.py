"""``GTEReranker``: pairs of query and document in, one relevance score each out."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from gte_core.device import choose_device, choose_dtype
from gte_core.engine import pack_tokens
from gte_core.exceptions import MissingHeadError, NonFiniteError
from gte_core.hub import find_model
from gte_core.model import GTEModel
from gte_core.packing import batched, plan_packs
from gte_core.texts import as_texts, checked, checked_pairs, checked_text
from gte_core.tokenizer import PairTokenizer

logger = logging.getLogger(__name__)

DEFAULT_RERANKER = "Alibaba-NLP/gte-multilingual-reranker-base"

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

    def __init__(self, model: GTEModel, tokenizer: PairTokenizer) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._lock = threading.Lock()

    @classmethod
    def from_pretrained(
        cls,
        model: str | Path = DEFAULT_RERANKER,
        *,
        revision: str | None = None,
        device: str | torch.device | None = None,
        dtype: str | torch.dtype = "auto",
        max_length: int = 8192,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
    ) -> GTEReranker:
        """Load a reranker from the hub or a directory; arguments as in ``GTEEmbedder``.

        Raises:
            MissingHeadError: the checkpoint has no sequence classifier of one label.
            HubError, ConfigError, WeightsError: see :mod:`gte_core.exceptions`.
        """
        computed_on = choose_device(device)
        files = find_model(
            model, revision=revision, cache_dir=cache_dir, local_files_only=local_files_only
        )
        loaded = GTEModel.from_directory(
            files.directory, device=computed_on, dtype=choose_dtype(dtype, computed_on)
        )
        if not loaded.is_reranker:
            raise MissingHeadError(
                f"{str(model)!r} has no sequence classifier of one label, so it ranks nothing. "
                f"Use a reranker, such as {DEFAULT_RERANKER!r}."
            )
        return cls(loaded, PairTokenizer(files.directory, max_length))

    def rank(
        self, query: str, documents: Iterable[str], *, top_n: int | None = None
    ) -> list[RankedDocument]:
        """The documents by falling relevance, ties in the order given; the first ``top_n`` only."""
        checked_text(query, "query")
        texts = list(checked(as_texts(documents, "documents"), "documents"))
        scores = self.score([(query, text) for text in texts])
        order = np.argsort(-scores, kind="stable")[:top_n]
        return [RankedDocument(int(i), float(scores[i]), texts[i]) for i in order]

    def score(self, pairs: Iterable[tuple[str, str]]) -> NDArray[np.float32]:
        """Relevance of each ``(query, document)`` pair, float32 ``(n,)``."""
        parts = [self._score(batch) for batch in batched(checked_pairs(pairs), _PAIRS_AT_ONCE)]
        return np.concatenate([np.empty(0, dtype=np.float32), *parts])

    def _score(self, pairs: Sequence[tuple[str, str]]) -> NDArray[np.float32]:
        tokenized = self._tokenizer.encode(pairs)
        if n_truncated := sum(pair.truncated for pair in tokenized):
            logger.warning("%d pair(s) were longer than max_length and were cut.", n_truncated)
        scores = np.empty(len(pairs), dtype=np.float32)
        lengths = [len(pair) for pair in tokenized]
        for pack in plan_packs(lengths, pack_tokens(self._model.device)):
            with self._lock, torch.inference_mode():
                hidden, layout = self._model.encode_sequences([tokenized[i].ids for i in pack])
                logits = self._model.sequence_logits(hidden[layout.first_tokens])
                scores[pack] = logits.squeeze(-1).float().cpu().numpy()
        if not np.isfinite(scores).all():
            raise NonFiniteError(
                f"pairs {np.flatnonzero(~np.isfinite(scores)).tolist()} score NaN or infinity; "
                'load the model with dtype="float32".'
            )
        return scores
