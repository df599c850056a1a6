"""``GTEReranker``: pairs of query and document in, one relevance score each out."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
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

    def __init__(
        self, model: GTEModel, load_float32: Callable[[], GTEModel], tokenizer: PairTokenizer
    ) -> None:
        self._model = model
        self._load_float32 = load_float32
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
        load = partial(GTEModel.from_directory, files.directory, device=computed_on)
        loaded = load(dtype=choose_dtype(dtype, computed_on))
        if not loaded.is_reranker:
            raise MissingHeadError(
                f"{str(model)!r} has no sequence classifier of one label, so it ranks nothing. "
                f"Use a reranker, such as {DEFAULT_RERANKER!r}."
            )
        load_float32 = partial(load, dtype=torch.float32)
        return cls(loaded, load_float32, PairTokenizer(files.directory, max_length))

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
        done = 0
        for batch in batched(checked_pairs(pairs), _PAIRS_AT_ONCE):
            scores.append(self._score(batch, first=done))
            done += len(batch)
        return np.concatenate(scores)

    def _score(self, pairs: Sequence[tuple[str, str]], *, first: int) -> NDArray[np.float32]:
        tokenized = self._tokenizer.encode(pairs)
        if n_truncated := sum(pair.truncated for pair in tokenized):
            logger.warning("%d pair(s) were longer than max_length and were cut.", n_truncated)
        ids = [pair.ids for pair in tokenized]
        scores = self._pass(self._model, ids)
        bad = np.flatnonzero(~np.isfinite(scores))
        if len(bad) and self._model.dtype != torch.float32:
            scores[bad] = self._pass(self._float32_model, [ids[i] for i in bad])
            bad = np.flatnonzero(~np.isfinite(scores))
        if len(bad):
            raise NonFiniteError(
                f"pairs {(bad + first).tolist()} score NaN or infinity, even in float32. The "
                "weights are damaged or not meant for this network; check the checkpoint."
            )
        return scores

    def _pass(self, model: GTEModel, ids: Sequence[list[int]]) -> NDArray[np.float32]:
        scores = np.empty(len(ids), dtype=np.float32)
        device = model.device.type
        for pack in plan_packs([len(pair) for pair in ids], pack_tokens(model.device)):
            with self._lock, torch.inference_mode(), torch.autocast(device, enabled=False):
                hidden, layout = model.encode_sequences([ids[i] for i in pack])
                logits = model.sequence_logits(hidden[layout.first_tokens])
                scores[pack] = logits.squeeze(-1).float().cpu().numpy()
        return scores

    @cached_property
    def _float32_model(self) -> GTEModel:
        return self._load_float32()
