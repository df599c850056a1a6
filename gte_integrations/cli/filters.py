"""``--filter``: a condition as it is typed, in the engine's own language."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gte_integrations.cli.stores import Engine

_EXAMPLE = '{"must": [{"key": "lang", "match": {"value": "en"}}]}'
_CLAUSES = ("must", "should", "must_not", "min_should")


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


def _said(text: str, says_something: object) -> str:
    if not says_something:
        raise ValueError(f"--filter is {text!r}, which says nothing; write a condition.")
    return text


def _what(errors: list[Any]) -> str:
    """The first error; of a part that fits no kind of condition, pydantic has one for each."""
    place = ".".join(str(part) for part in errors[0]["loc"][:2])
    kinds = len({error["loc"][:2] for error in errors}) < len(errors)
    message = "fits no kind of condition" if kinds else errors[0]["msg"]
    return f"{place}: {message}" if place else message
