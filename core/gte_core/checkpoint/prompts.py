"""Prompts, and how much of a text is read, as the files of sentence-transformers say.

A prompt is text that a model was trained to see before queries or documents. Files hold prompts
by name; ``Prompts`` says which of them is whose, here and nowhere else:

* Before queries goes the one called "query", else "s2p_query", stella's for retrieval.
* Before documents goes the one called "document", else "passage", else "corpus".
* Where no such name is there, the default prompt of the file goes before both, if it has one.

An empty prompt gives way to the next name, because sentence-transformers writes an empty "query"
and "document" into every file; but it does keep the default prompt out, as it does there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gte_core.checkpoint.files import SETTINGS_FILE, exists, read_json_object, shortened, shown
from gte_core.checkpoint.transformer import TRANSFORMER_FILE
from gte_core.exceptions import ConfigError

_OF_QUERIES = ("query", "s2p_query")
_OF_DOCUMENTS = ("document", "passage", "corpus")

# Far above what is published: a dozen prompts of a sentence or two.
_MOST_PROMPTS = 1_000
_LONGEST_PROMPT = 10_000

_TOKENIZER_FILE = "tokenizer_config.json"
_SHORTEST = 5  # tokens: a pair has four special ones


@dataclass(frozen=True, slots=True)
class Prompts:
    """The prompts of a checkpoint.

    Attributes:
        by_name: each under its name in the file.
        default_name: of the one that counts where no name says whose it is, None for none.
    """

    by_name: Mapping[str, str] = field(default_factory=dict)
    default_name: str | None = None

    @property
    def document_prefix(self) -> str:
        """What goes before documents, usually nothing."""
        return self._first(_OF_DOCUMENTS)

    def query_prefix(self, given: str | None = None, name: str | None = None) -> str:
        """What goes before queries.

        Args:
            given: a text that takes the place of the checkpoint's own.
            name: of the prompt to take; ``ValueError``, with the names there are, for another.
        """
        if given is not None:
            return given
        if name is None:
            return self._first(_OF_QUERIES)
        if name not in self.by_name:
            names = ", ".join(shortened(repr(known)) for known in self.by_name)
            raise ValueError(
                f"prompt_name is {name!r}, but this checkpoint has "
                + (f"the prompts {names}." if names else "no prompts; pass query_prefix.")
            )
        return self.by_name[name]

    def _first(self, names: tuple[str, ...]) -> str:
        known = [self.by_name[name] for name in names if name in self.by_name]
        if not known and self.default_name is not None:
            return self.by_name[self.default_name]
        return next(filter(None, known), "")


def read_prompts(directory: Path) -> Prompts:
    """The prompts in ``config_sentence_transformers.json``, none without that file.

    ``ConfigError`` for what is no mapping of names to texts, and a default that is not in it.
    """
    file = directory / SETTINGS_FILE
    if not exists(file):
        return Prompts()
    fields = read_json_object(file, ConfigError)
    found, default = fields.get("prompts") or {}, fields.get("default_prompt_name")
    if not isinstance(found, dict) or len(found) > _MOST_PROMPTS:
        raise _refusal(file, "prompts", found, f"at most {_MOST_PROMPTS:,} texts by name")
    for name, prompt in found.items():
        if not _is_text(name) or not _is_text(prompt):
            allowed = f"a text of at most {_LONGEST_PROMPT:,} characters"
            raise _refusal(file, f"prompt {shown(name)}", prompt, allowed)
    if default is not None and (not isinstance(default, str) or default not in found):
        allowed = f"null, or one of {shown(list(found))}"
        raise _refusal(file, "default_prompt_name", default, allowed)
    return Prompts(found, default)


def read_max_seq_length(directory: Path) -> int | None:
    """Tokens of a text that the checkpoint wants read, None where its files do not say.

    Newer files leave it to the tokenizer's. ``ConfigError`` for anything but a number of tokens.
    """
    file, name = directory / TRANSFORMER_FILE, "max_seq_length"
    if not exists(file):
        return None
    fields = read_json_object(file, ConfigError)
    if fields.get(name) is None and exists(directory / _TOKENIZER_FILE):
        file, name = directory / _TOKENIZER_FILE, "model_max_length"
        fields = read_json_object(file, ConfigError)
    value = fields.get(name)
    if value is not None and (type(value) is not int or value < _SHORTEST):
        raise _refusal(file, name, value, f"a number of tokens from {_SHORTEST}, or null")
    return value


def own_max_length(directory: Path, positions: int) -> int:
    """``max_length`` where none is given: what the checkpoint says, at most its positions."""
    return min(read_max_seq_length(directory) or positions, positions)


def _is_text(value: Any) -> bool:
    """Whether it is a str of a bounded size that UTF-8 can write."""
    if not isinstance(value, str) or len(value) > _LONGEST_PROMPT:
        return False
    return value.encode("utf-8", "ignore").decode() == value


def _refusal(file: Path, name: str, value: object, allowed: str) -> ConfigError:
    return ConfigError(
        f"{file}: {name} is {shown(value)}, but must be {allowed}. Download the file again, or "
        "mend it."
    )
