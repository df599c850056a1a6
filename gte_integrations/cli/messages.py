"""What the library says, in the words of the command line.

It names the arguments of Python, as in ``max_length=16``; whoever types commands needs the options,
``--max-length 16``.
"""

from __future__ import annotations

import logging
import re
import shlex

from gte_integrations.cli.output import note

# Those that are options here.
ARGUMENTS = (
    "batch_size|cache_dir|delimiter|device|dimensions|dtype|encoding|id_column|id_prefix|limit|"
    "local_files_only|max_length|mode|model|moved_from|on_error|on_truncation|prompt_name|"
    "query_prefix|rerank_depth|revision|text_column"
)
# Not a part of a path, of a URL, of a string, or the head of a line in a list.
_NAMED = re.compile(
    rf"(?<![\w'\"/?&.-])({ARGUMENTS})"
    r"(?:=(?:'([^']*)'|\"([^\"]*)\"|(\w+))|(?![\w'\"/:=-]|\.\w))"
)
# A message that begins with what was given, such as "delimiter is ';;', but must be ...".
_GIVEN = re.compile(rf"\A({ARGUMENTS}) is(?= )")
_CACHE = "give cache_dir=, a local directory"


def in_options(message: str) -> str:
    """Put options in the place of the arguments that a message of the library names.

    A name with a value is replaced, one that the message is about, and any if it has an
    underscore: others, such as ``model``, are words of every sentence.
    """
    message = message.replace(_CACHE, "give --model a local directory")
    return _NAMED.sub(_option, _GIVEN.sub(lambda given: f"{_spelled(given[1])} is", message))


def _option(named: re.Match[str]) -> str:
    name, *values = named.groups()
    option = _spelled(name)
    for value in values:
        if value is not None:
            return f"{option} {shlex.quote(value)}"
    return option if "_" in name else name


def _spelled(name: str) -> str:
    return f"--{name.replace('_', '-')}"


class Notes(logging.Handler):
    """Shows on stderr what the library warns of."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one warning."""
        note(in_options(self.format(record)))
