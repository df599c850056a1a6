"""What counts as a text: a str. One text stands for a list of one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator


def as_texts(texts: str | Iterable[str], name: str = "texts") -> Iterable[str]:
    """The iterable itself, or a list of the one text; ``TypeError`` for anything else."""
    if isinstance(texts, str):
        return [texts]
    if not isinstance(texts, Iterable):
        raise TypeError(f"{name} must be a str or an iterable of str, got {type(texts).__name__}.")
    return texts


def checked(texts: Iterable[str], name: str = "texts") -> Iterator[str]:
    """Pass texts on, lazily; ``TypeError`` naming the index of what is none."""
    for index, text in enumerate(texts):
        if not isinstance(text, str):
            raise TypeError(f"{name}[{index}] must be a str, got {type(text).__name__}.")
        yield text
