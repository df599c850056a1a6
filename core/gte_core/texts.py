"""What counts as a text: a str. One text stands for a list of one."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

_NAMED = 20  # indices that an error names

TruncationSide = Literal["right", "left"]
"""The end that a text loses where it is too long: the right one is that of its last words."""

_SURROGATE = re.compile("[\ud800-\udfff]")

NameOf = Callable[[int], str]

as_text: NameOf = "texts[{}]".format
as_pair: NameOf = "pairs[{}]".format


@dataclass(frozen=True, slots=True)
class FedText:
    """A text as a model reads it, behind its prompt.

    Attributes:
        text: prompt and all.
        left_out: how many of its first tokens pooling leaves out, special ones included.
    """

    text: str
    left_out: int = 0

    def __len__(self) -> int:
        return len(self.text)


@dataclass(frozen=True, slots=True)
class FedTexts:
    """Texts behind one prompt, read lazily; ``TypeError`` naming the index of what is no text.

    Attributes:
        texts: prompt and all.
        left_out: of each, as of ``FedText``.
    """

    texts: Iterable[str]
    left_out: int = 0

    def __iter__(self) -> Iterator[FedText]:
        return (FedText(text, self.left_out) for text in checked(self.texts))

    def __length_hint__(self) -> int:
        return operator.length_hint(self.texts)


def as_texts(texts: str | Iterable[str], name: str = "texts") -> Iterable[str]:
    """The iterable itself, or a list of the one text; ``TypeError`` for anything else."""
    if isinstance(texts, str):
        return [texts]
    # A dict and a data frame would iterate over their keys, which nobody means.
    refused: Any = (bytes, bytearray, Mapping)
    if isinstance(texts, refused) or hasattr(texts, "columns") or not isinstance(texts, Iterable):
        raise TypeError(
            f"{name} must be a str or an iterable of str, got {type(texts).__name__}. Pass a "
            "list, a generator, or one column of a table."
        )
    return texts


def checked(texts: Iterable[str], name: str = "texts") -> Iterator[str]:
    """Yield the texts, lazily; ``TypeError`` naming the index of anything else."""
    for index, text in enumerate(texts):
        yield checked_text(text, f"{name}[{index}]")


def checked_text(text: str, name: str) -> str:
    """Return the text; ``TypeError`` with this name for anything but a str."""
    if not isinstance(text, str):
        raise TypeError(f"{name} must be a str, got {type(text).__name__}.")
    return text


def checked_pairs(pairs: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """Yield ``(query, document)`` pairs, lazily; ``TypeError`` naming the index of what is none."""
    if not isinstance(pairs, Iterable) or isinstance(pairs, str | Mapping):
        raise TypeError(
            f"pairs must be an iterable of (query, document), got {type(pairs).__name__}."
        )
    for index, pair in enumerate(pairs):
        if isinstance(pair, str) or not isinstance(pair, Sequence) or len(pair) != 2:
            raise TypeError(f"pairs[{index}] must be (query, document), got {pair!r}.")
        first, second = (checked_text(t, f"pairs[{index}][{i}]") for i, t in enumerate(pair))
        yield first, second


def encodable(text: str) -> str:
    """The text with surrogates that form no pair replaced; pairs become their character."""
    if not _SURROGATE.search(text):
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def named(indices: Sequence[int], name_of: NameOf = as_text) -> str:
    """How an error lists indices: the names of the first 20, and how many more there are."""
    names = ", ".join(map(name_of, indices[:_NAMED]))
    more = len(indices) - _NAMED
    return f"{names} and {more} more" if more > 0 else names


def check_max_length(max_length: int, n_special: int, kind: str = "text") -> int:
    """Return the length as an int; ``ValueError`` unless it is more than the special tokens."""
    if isinstance(max_length, bool) or not hasattr(max_length, "__index__"):
        raise TypeError(f"max_length must be an integer, got {max_length!r}.")
    length = operator.index(max_length)
    if length <= n_special:
        raise ValueError(
            f"max_length is {length}, but must be more than the {n_special} special tokens that "
            f"every {kind} gets."
        )
    return length


def check_side(side: str) -> None:
    """Raise ``ValueError`` unless it is an end of a text."""
    if side not in get_args(TruncationSide):
        raise ValueError(
            f"truncation_side is {side!r}; allowed are {list(get_args(TruncationSide))}."
        )
