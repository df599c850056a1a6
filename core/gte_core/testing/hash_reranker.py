"""A reranker without a model, for tests of what is built on rerankers."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from gte_core.ranking import ScoringReranker
from gte_core.testing.hash_encoder import words_of
from gte_core.texts import checked_pairs


class HashReranker(ScoringReranker):
    """Satisfies ``Reranker`` without a model: scores are shares of words, from 0 to 1.

    A pair's score is the number of words that both texts have, divided by the number that either
    has: 1 for equal texts. Nothing else about it means anything.
    """

    model = "hash"

    def score(self, pairs: Iterable[tuple[str, str]]) -> NDArray[np.float32]:
        """The share of each ``(query, document)`` pair, float32 ``(n,)``."""
        return np.array([_share(*map(words_of, pair)) for pair in checked_pairs(pairs)], np.float32)


def _share(query: list[str], document: list[str]) -> float:
    either = {*query, *document}
    return len({*query} & {*document}) / len(either) if either else 0.0
