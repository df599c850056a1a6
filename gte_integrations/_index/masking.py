"""Secrets in URLs, which no message may show."""

from __future__ import annotations

import re

# Up to the last @, for a password that was not encoded may hold anything. Without // before it,
# only the beginning of a text can be a location.
_PASSWORD = re.compile(r"(^|(?<=//))([^\s:@/]*):(?!//)\S*@")
_NAME_ALONE = re.compile(r"(^|(?<=//))[^\s:@/]+:@")
_TOKEN = re.compile(r"(?<=://)[^\s:@/]+@")
_QUERY = re.compile(r"://[^\s?]+\?\S+")
_VALUE = re.compile(r"(?<==)[^\s&#'\",]+")


def masked(text: str) -> str:
    """A location, or a message that has URLs in it, with their secrets as ``***``.

    Secret is whatever stands before an ``@``, but for the user's name, and all values of a query:
    ``http://user:***@host?token=***``.
    """
    without_users = _PASSWORD.sub(r"\2:***@", _NAME_ALONE.sub("***@", text))
    shown = _TOKEN.sub("***@", without_users)
    return _QUERY.sub(lambda query: _VALUE.sub("***", query[0]), shown)
