"""The texts that are encoded: five workloads, each text of exactly as many tokens as it is for."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist
from typing import get_args

from tokenizers import Tokenizer

from gte_integrations.bench import WorkloadName

_CANDIDATES = 20_000
_WORD_START = "▁"
_MEAN_OF_PASSAGES = 160
_SPREAD_OF_PASSAGES = 0.8  # standard deviation of the logarithm


@dataclass(frozen=True, slots=True)
class Workload:
    """Texts to encode, with the tokens of each, special tokens included.

    ``one_at_a_time``: every text is a call of its own, and the time of each call counts.
    """

    name: WorkloadName
    texts: tuple[str, ...]
    n_tokens: tuple[int, ...]
    one_at_a_time: bool = False


@dataclass(frozen=True, slots=True)
class Sizes:
    """How many texts each workload has, and how long the long ones get."""

    queries: int
    passages: int
    texts_512: int
    long_texts: int
    one_query: int
    longest: int = 8192

    @classmethod
    def of(cls, device: str, *, quick: bool) -> Sizes:
        """What keeps a device busy for a few seconds; ``quick`` only shows that all works."""
        if quick:
            return cls(queries=4, passages=4, texts_512=2, long_texts=1, one_query=5, longest=1100)
        if device == "cuda":
            return cls(4096, 4096, 1024, 64, 500)
        return cls(64, 32, 4, 1, 100)


def build_workloads(
    tokenizer: Path, sizes: Sizes, *, names: Sequence[str] = (), seed: int = 0
) -> list[Workload]:
    """Write the texts of each workload, the same ones for the same seed and tokenizer.

    Args:
        tokenizer: a ``tokenizer.json``.
        sizes: texts per workload.
        names: the workloads to build, by default all.
        seed: of the words and of the order of the lengths.
    """
    writer = TextWriter(Tokenizer.from_file(str(tokenizer)), seed=seed)
    lengths = _lengths(sizes)
    wanted = names or get_args(WorkloadName)
    built = []
    for name, of_texts in lengths.items():
        # Shuffled and written whether wanted or not: a workload is the same in every run.
        shuffled = random.Random(seed).sample(of_texts, len(of_texts))  # noqa: S311
        texts = tuple(writer.write(n_tokens) for n_tokens in shuffled)
        if name in wanted:
            built.append(Workload(name, texts, tuple(shuffled), name == "one-query"))
    return built


class TextWriter:
    """Writes texts of an exact number of tokens, in words that are one token each.

    Args:
        tokenizer: what the texts are counted with.
        seed: of the words.
    """

    def __init__(self, tokenizer: Tokenizer, *, seed: int = 0) -> None:
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self._tokenizer = tokenizer
        self._random = random.Random(seed)  # noqa: S311
        self._n_special = len(tokenizer.encode("").ids)
        self._words = self._whole_words()

    def write(self, n_tokens: int) -> str:
        """A text that encodes to exactly ``n_tokens`` ids, special tokens included."""
        words = self._random.choices(self._words, k=n_tokens - self._n_special)
        text = " ".join(words)
        if (found := len(self._tokenizer.encode(text).ids)) != n_tokens:
            raise ValueError(
                f"A text of {len(words)} words that are one token each has {found} tokens instead "
                f"of {n_tokens}: the words of this tokenizer.json are not independent of each "
                "other. Run the bench with another model."
            )
        return text

    def _whole_words(self) -> list[str]:
        """Words that begin with a space in the vocabulary and stand for one id when alone."""
        ids = self._tokenizer.get_vocab(with_added_tokens=False)
        pieces = sorted(ids, key=ids.__getitem__)
        marked = [piece[1:] for piece in pieces if piece.startswith(_WORD_START)] or pieces
        words = [word for word in marked if word.isalnum()]
        drawn = self._random.sample(words, min(_CANDIDATES, len(words)))
        encodings = self._tokenizer.encode_batch(drawn)
        whole = [
            word
            for word, encoding in zip(drawn, encodings, strict=True)
            if len(encoding.ids) == 1 + self._n_special
        ]
        if not whole:
            raise ValueError(
                "No word of this tokenizer.json is one token by itself, so no text of an exact "
                "length can be written. Run the bench with another model."
            )
        return whole


def _lengths(sizes: Sizes) -> dict[WorkloadName, list[int]]:
    return {
        "queries": _uniform(sizes.queries, 6, 27),
        "passages": _log_normal(sizes.passages),
        "texts-512": [512] * sizes.texts_512,
        "long-texts": _uniform(sizes.long_texts, 1024, sizes.longest),
        "one-query": _uniform(sizes.one_query, 6, 27),
    }


def _uniform(count: int, shortest: int, longest: int) -> list[int]:
    span = longest + 1 - shortest
    return [shortest + math.floor(span * share) for share in _evenly(count)]


def _log_normal(count: int) -> list[int]:
    """Quantiles instead of draws: even 32 texts have the mean and the tail that they are for."""
    normal = NormalDist(
        math.log(_MEAN_OF_PASSAGES) - _SPREAD_OF_PASSAGES**2 / 2, _SPREAD_OF_PASSAGES
    )
    return [min(max(round(math.exp(normal.inv_cdf(p))), 8), 2048) for p in _evenly(count)]


def _evenly(count: int) -> list[float]:
    return [(number + 0.5) / count for number in range(count)]
