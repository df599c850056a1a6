"""Milvus' expressions, as far as they must be understood to be joined with ones of our own."""

from __future__ import annotations

import re

# A literal in double or in single quotes, in which a backslash escapes.
_STRING = re.compile(r"\"(?:[^\"\\]|\\.)*\"|'(?:[^'\\]|\\.)*'", re.DOTALL)
_PARENTHESIS = re.compile(r"[()]")


def checked(condition: object) -> str:
    """The expression; an error for anything else, and where it would end another one's parentheses.

    ``a) or (b`` within parentheses of ours would mean something else than it says.
    """
    if not isinstance(condition, str):
        raise TypeError(
            f"filter is a {type(condition).__name__}, but must be a str, an expression of Milvus "
            "such as 'lang == \"en\"'."
        )
    depth = 0
    for found in _PARENTHESIS.findall(_STRING.sub("", condition)):
        depth += 1 if found == "(" else -1
        if depth < 0:
            break
    if depth:
        raise ValueError(
            f"filter is {condition!r}, whose parentheses do not match; close each that is opened."
        )
    return condition
