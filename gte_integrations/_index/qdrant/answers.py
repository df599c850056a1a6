"""What a proxy in front of a Qdrant server may answer instead of JSON, as an error that says so."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from typing import Any

_SHOWN = 80


class Answers:
    """A client; an answer that is not JSON becomes a ``ConnectionError`` that quotes it."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def __getattr__(self, verb: str) -> Callable[..., Any]:
        return partial(self._call, verb)

    def _call(self, verb: str, *arguments: Any, **options: Any) -> Any:
        try:
            return getattr(self._client, verb)(*arguments, **options)
        except json.JSONDecodeError as error:
            raise ConnectionError(
                f"{verb} was answered with {error.doc[:_SHOWN]!r}, but a Qdrant server answers in "
                "JSON; is the URL that of the server, and is a proxy before it that is up?"
            ) from error
