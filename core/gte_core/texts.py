"""What counts as a text: a str. One text stands for a list of one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any


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
    """Pass texts on, lazily; ``TypeError`` naming the index of what is none."""
    for index, text in enumerate(texts):
        yield checked_text(text, f"{name}[{index}]")


def checked_text(text: str, name: str) -> str:
    """The text; ``TypeError`` with this name if it is none."""
    if not isinstance(text, str):
        raise TypeError(f"{name} must be a str, got {type(text).__name__}.")
    return text


def checked_pairs(pairs: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """Pass ``(query, document)`` pairs on, lazily; ``TypeError`` naming what is none."""
    if not isinstance(pairs, Iterable) or isinstance(pairs, str | Mapping):
        raise TypeError(
            f"pairs must be an iterable of (query, document), got {type(pairs).__name__}."
        )
    for index, pair in enumerate(pairs):
        if isinstance(pair, str) or not isinstance(pair, Sequence) or len(pair) != 2:
            raise TypeError(f"pairs[{index}] must be (query, document), got {pair!r}.")
        first, second = (checked_text(t, f"pairs[{index}][{i}]") for i, t in enumerate(pair))
        yield first, second
