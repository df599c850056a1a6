"""``--filter``: a condition as it is typed, in the engine's own language."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import takewhile
from typing import TYPE_CHECKING, Any

from gte_integrations.cli.stores import StoreError

if TYPE_CHECKING:
    from gte_integrations.cli.stores import Engine

_EXAMPLE = '{"must": [{"key": "lang", "match": {"value": "en"}}]}'
_CLAUSES = ("must", "should", "must_not", "min_should")
# What Milvus Lite shows of an expression in parentheses of its own, which places are counted in.
_QUOTED = re.compile(r"\n[^\n]*\n *\^+ *(?=\n|$)")
_COLUMN = re.compile(r" at column \d+")


def engine_filter(engine: Engine, text: str | None) -> Any:
    """What an index of the engine takes as ``filter``: JSON is read, an expression stays.

    ``ValueError`` that shows how to write it.
    """
    if text is None:
        return None
    if engine == "milvus":
        return _said(text, text.strip())
    from pydantic import ValidationError
    from qdrant_client.models import Filter

    try:
        condition = Filter.model_validate_json(text)
    except ValidationError as error:
        raise ValueError(
            f"--filter is {text!r}, which is no filter of Qdrant ({_what(error.errors())}); write "
            f"JSON with {', '.join(_CLAUSES)}, such as {_EXAMPLE}."
        ) from error
    _said(text, any(getattr(condition, clause) for clause in _CLAUSES))
    return condition


@contextmanager
def naming_filter(text: str | None) -> Iterator[None]:
    """Name ``--filter`` where the engine quotes it in what it raises.

    Milvus alone reads an expression; it does so when it is asked.
    """
    try:
        yield
    except StoreError as error:
        if text is None or text.strip() not in str(error):
            raise
        reason = _COLUMN.sub("", _QUOTED.sub("", str(error)))
        raise StoreError(f"--filter is {text!r}, which cannot be read: {reason}") from error


def _said(text: str, says_something: object) -> str:
    if not says_something:
        raise ValueError(f"--filter is {text!r}, which says nothing; write a condition.")
    return text


def _what(errors: list[Any]) -> str:
    """The first error; of a part that fits no kind of condition, pydantic has one for each.

    Its places name the kinds as well, such as ``FieldCondition`` and ``list[...]``, which nobody
    has typed; behind a kind, they are those of a guess.
    """
    loc = [str(part) for part in errors[0]["loc"]]
    typed = list(takewhile(lambda part: not part[:1].isupper(), loc))
    place = ".".join(part for part in typed if "[" not in part)
    is_guess = any("[" in part for part in loc) or len(typed) < len(loc)
    message = "fits no kind of condition" if is_guess else errors[0]["msg"]
    return f"{place}: {message}" if place else message
