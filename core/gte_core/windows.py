"""Texts of any number, a window at a time: tokenized, computed, and reported where they were cut.

A window is what is sorted by length at once: large enough to pack well, small enough to stream.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import chain

from gte_core.iteration import progress_bar
from gte_core.runtime.packs import computed_ahead, windows
from gte_core.runtime.vectors import ComputesVectors, TextVectors
from gte_core.settings import OnTruncation
from gte_core.texts import NameOf, checked
from gte_core.tokenizer import GTETokenizer, TokenizedText
from gte_core.truncation import WindowedCall, all_truncated, truncated, warn_truncated

_WINDOW_PACKS = 16
_WINDOW_TEXTS = 32_768
_TOKENIZED_TEXTS = 64
_TOKENIZED_CHARACTERS = 1_000_000
# A window's worth, tokenized while a GPU computes. A CPU has nothing to gain: both need its cores.
_BATCHES_AHEAD = 64

Part = tuple[TextVectors, NameOf]


@dataclass(frozen=True, slots=True)
class WindowedEncoding:
    """The way of a stream of texts through a model.

    Attributes:
        engine: computes the texts of a window.
        tokenizer: makes ids of texts.
        on_truncation: what is said of texts that are longer than a call's ``max_length``.
        logger: says it.
        is_ahead: whether the next texts are tokenized while a window is computed.
    """

    engine: ComputesVectors
    tokenizer: GTETokenizer
    on_truncation: OnTruncation
    logger: logging.Logger
    is_ahead: bool

    def tokenized(
        self, texts: Iterable[str], *, max_length: int, max_items: int = _WINDOW_TEXTS
    ) -> Iterator[list[TokenizedText]]:
        """The ids of the texts, a window at a time; reads the texts lazily.

        A window has ``engine.pack_tokens`` tokens for each of 16 packs, or ``max_items`` texts.
        """
        batches = windows(
            checked(texts), max_size=_TOKENIZED_CHARACTERS, max_items=_TOKENIZED_TEXTS
        )
        tokenize = partial(self.tokenizer.tokenize, max_length=max_length)
        ready = computed_ahead(tokenize, batches, depth=_BATCHES_AHEAD if self.is_ahead else 0)
        return windows(
            chain.from_iterable(ready),
            max_size=_WINDOW_PACKS * self.engine.pack_tokens,
            max_items=max_items,
        )

    def parts(
        self,
        texts: Iterable[str],
        call: WindowedCall,
        *,
        sparse: bool = True,
        show_progress: bool = False,
    ) -> Iterator[Part]:
        """Each window's vectors, and what its texts are called; at least one, maybe empty."""
        done = n_truncated = 0
        ready = self.tokenized(texts, max_length=call.max_length)
        with progress_bar(texts, "texts", show=show_progress) as advance:
            try:
                for window in chain([next(ready, [])], ready):
                    cut_off = truncated(window, done)
                    if cut_off and self.on_truncation == "error":
                        rest = () if call.is_stream else ready
                        raise call.refusal([*cut_off, *all_truncated(rest, done + len(window))])
                    n_truncated += len(cut_off)
                    names = partial(call.name, done)
                    yield self.engine.compute(window, sparse=sparse, name_of=names), names
                    done += len(window)
                    advance(len(window))
            finally:
                if n_truncated and self.on_truncation == "warn":
                    warn_truncated(self.logger, n_truncated, call.max_length)
