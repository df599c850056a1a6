"""Answers that are none: a proxy's page where a server's JSON should be."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from typing import Any

_SHOWN = 80


class Answers:
    """A client whose error says what came in place of JSON."""

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
