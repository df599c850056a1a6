"""The texts that are encoded, and the operations that encoding them needs."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist

from tokenizers import Tokenizer

from gte_core import GTEConfig

_SPREAD = 0.8  # of the logarithm of a passage's length, whose mean is 160 tokens
_PASSAGES = NormalDist(math.log(160) - _SPREAD**2 / 2, _SPREAD)

# How many texts keep a CPU and a GPU busy for a few seconds, and how many a quick run takes.
WORKLOADS = {
    "queries": (64, 4096, 4),
    "passages": (32, 4096, 4),
    "texts-512": (4, 1024, 2),
    "long-texts": (1, 64, 1),
    "one-query": (100, 500, 5),
}
_LONGEST, _LONGEST_QUICK = 8192, 1100
_CANDIDATES = 20_000


@dataclass(frozen=True, slots=True)
class Workload:
    """Texts, and the number of tokens of each with its special tokens."""

    name: str
    texts: list[str]
    n_tokens: list[int]


def build_workloads(
    tokenizer_file: Path, device: str, names: Sequence[str] = (), *, quick: bool = False
) -> list[Workload]:
    """Write the named workloads, by default all; always the same ones for a tokenizer."""
    tokenizer = Tokenizer.from_file(str(tokenizer_file))
    words = _words_of_one_token(tokenizer)
    n_special = len(tokenizer.encode("").ids)
    workloads = []
    for name in names or WORKLOADS:
        # A generator for each, so that a workload is the same alone and in a whole run.
        generator = random.Random(name)  # noqa: S311
        count = WORKLOADS[name][2 if quick else device.startswith("cuda")]
        longest = _LONGEST_QUICK if quick else _LONGEST
        lengths = [min(_length(name, (n + 0.5) / count), longest) for n in range(count)]
        generator.shuffle(lengths)
        texts = [" ".join(generator.choices(words, k=length - n_special)) for length in lengths]
        n_tokens = [len(encoding.ids) for encoding in tokenizer.encode_batch(texts)]
        workloads.append(Workload(name, texts, n_tokens))
    return workloads


def flops(config: GTEConfig, n_tokens: Sequence[int]) -> int:
    """Multiplications and additions of one pass over texts of these lengths.

    Two for every weight of a linear layer and token, and ``4 x length x hidden_size`` per token
    and layer for attention. Norms, activations and heads are left out: they are below 1 %.
    """
    hidden = config.hidden_size
    # qkv and output projection; up, gate and down projection.
    weights = 4 * hidden * hidden + 3 * hidden * config.intermediate_size
    attention = 4 * hidden * sum(length * length for length in n_tokens)
    return config.num_hidden_layers * (2 * weights * sum(n_tokens) + attention)


def _length(name: str, share: float) -> int:
    """Tokens of the text that is longer than ``share`` of its workload."""
    if name == "passages":
        return min(round(math.exp(_PASSAGES.inv_cdf(share))), 2048)
    if name == "texts-512":
        return 512
    return int(1024 + share * 7169) if name == "long-texts" else int(6 + share * 22)


def _words_of_one_token(tokenizer: Tokenizer) -> list[str]:
    """Words that a text of a given length is made of."""
    ids = tokenizer.get_vocab(with_added_tokens=False)
    pieces = sorted(ids, key=ids.__getitem__)
    marked = [piece[1:] for piece in pieces if piece.startswith("▁")] or pieces
    words = [word for word in marked if word.isalnum()]
    drawn = random.Random(0).sample(words, min(_CANDIDATES, len(words)))  # noqa: S311
    encoded = zip(drawn, tokenizer.encode_batch(drawn), strict=True)
    n_tokens = 1 + len(tokenizer.encode("").ids)
    if whole := [word for word, encoding in encoded if len(encoding.ids) == n_tokens]:
        return whole
    raise ValueError(
        "No word of this tokenizer.json is one token by itself, so no text of a given length can "
        "be written. Run the bench with another model."
    )
