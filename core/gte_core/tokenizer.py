"""``tokenizer.json`` -> token ids, exactly as the file says.

The file is run by the ``tokenizers`` library itself: transformers 5 rebuilds the pipeline of this
tokenizer class and drops custom normalizers, which gives other ids.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from gte_core.exceptions import ConfigError
from gte_core.files import read_json_object

_SURROGATE = re.compile("[\ud800-\udfff]")

# Roles of the special tokens that carry no meaning of their own; <mask> is kept, as published.
_DROPPED_ROLES = frozenset(
    {"bos_token", "cls_token", "sep_token", "eos_token", "pad_token", "unk_token"}
)

# Characters read per token wanted before a text is worth cutting ahead of tokenizing.
_CHARACTERS_PER_TOKEN = 32


@dataclass(frozen=True, slots=True)
class TokenizedText:
    """Token ids of one text, special tokens included, and whether some were cut off."""

    ids: list[int]
    truncated: bool

    def __len__(self) -> int:
        return len(self.ids)


class GTETokenizer:
    """Texts to ids and ids to strings. Safe to call from several threads: it is never changed.

    Args:
        tokenizer: the pipeline.
        dropped_ids: ids that never carry a sparse weight (cls, sep, eos, pad, unk).
    """

    def __init__(self, tokenizer: Tokenizer, dropped_ids: frozenset[int]) -> None:
        self._tokenizer = tokenizer
        self.dropped_ids = dropped_ids
        mask = tokenizer.encode("a").special_tokens_mask
        self._n_before = mask.index(0) if 0 in mask else 1
        self._n_after = sum(mask) - self._n_before

    @classmethod
    def from_pretrained(
        cls, directory: str | Path, *, pad_token_id: int | None = None
    ) -> GTETokenizer:
        """Load ``tokenizer.json``; :class:`ConfigError` if it is missing or unusable.

        Special ids come from ``tokenizer_config.json`` and ``special_tokens_map.json``, from what
        the pipeline adds to an empty text, and from the unknown token of its vocabulary.
        """
        directory = Path(directory)
        tokenizer = _load(directory)
        tokenizer.no_truncation()
        tokenizer.no_padding()
        if tokenizer.encode("a").special_tokens_mask[:1] != [1]:
            raise ConfigError(
                f"The tokenizer.json in {directory} puts no special token before a text, but the "
                "dense vector is the state of that token. Add a TemplateProcessing post-processor."
            )
        names = _special_tokens(directory)
        known = {tokenizer.token_to_id(name) for name in names}
        known |= {*tokenizer.encode("").ids, pad_token_id}
        return cls(tokenizer, frozenset(token_id for token_id in known if token_id is not None))

    @property
    def largest_id(self) -> int:
        """The largest id it gives; the model's embedding table must reach beyond it."""
        last_piece = self._tokenizer.get_vocab_size(with_added_tokens=False) - 1
        added = self._tokenizer.get_added_tokens_decoder()
        return max(last_piece, *added, *self._tokenizer.encode("").ids)

    @property
    def n_special(self) -> int:
        """Special tokens added to every text."""
        return self._n_before + self._n_after

    def encode(self, texts: Sequence[str], max_length: int) -> list[TokenizedText]:
        """Tokenize, keeping at most ``max_length`` ids per text, special tokens included.

        A lone surrogate becomes U+FFFD; nothing else in a text is changed.
        """
        short = [text if len(text) <= self._patience(max_length) else "" for text in texts]
        encodings = self._tokenizer.encode_batch_fast([_encodable(text) for text in short])
        return [
            self._truncate(encoding.ids, max_length)
            if whole is text
            else self._encode_long(text, max_length)
            for text, whole, encoding in zip(texts, short, encodings, strict=True)
        ]

    def decode_token(self, token_id: int) -> str:
        """The string of one id as ``tokenizer.decode([id])`` gives it: ``▁foo`` becomes ``foo``."""
        return self._tokenizer.decode([token_id], skip_special_tokens=False)

    def piece(self, token_id: int) -> str:
        """The vocabulary entry of one id, unique to it: ``▁foo`` stays ``▁foo``."""
        return self._tokenizer.id_to_token(token_id) or f"<{token_id}>"

    @staticmethod
    def _patience(max_length: int) -> int:
        return max(max_length, 64) * _CHARACTERS_PER_TOKEN

    def _encode_long(self, text: str, max_length: int) -> TokenizedText:
        """Tokenize no more than the start of a text that is far too long.

        The start ends at white space where there is some, and gives twice the ids needed, so that
        what comes after it cannot change those that are kept. It grows only while its pieces are
        so long that it gives too few.
        """
        limit = self._patience(max_length)
        while limit < len(text):
            space = text.rfind(" ", limit // 2, limit)
            ids = self._ids(text[: space if space > 0 else limit])
            if len(ids) >= 2 * max_length:
                return self._truncate(ids, max_length)
            limit *= 4
        return self._truncate(self._ids(text), max_length)

    def _ids(self, text: str) -> list[int]:
        return self._tokenizer.encode_batch_fast([_encodable(text)])[0].ids

    def _truncate(self, ids: list[int], max_length: int) -> TokenizedText:
        if len(ids) <= max_length:
            return TokenizedText(ids, truncated=False)
        last = len(ids) - self._n_after
        return TokenizedText(ids[: max_length - self._n_after] + ids[last:], truncated=True)


class PairTokenizer:
    """Pairs of texts to ids, ``<s> A </s></s> B </s>``; the longer of the two is cut first.

    Args:
        directory: holds ``tokenizer.json``.
        max_length: ids kept of a pair, special tokens included.
    """

    def __init__(self, directory: str | Path, max_length: int) -> None:
        self._tokenizer = _load(Path(directory))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(max_length, strategy="longest_first")

    def encode(self, pairs: Sequence[tuple[str, str]]) -> list[TokenizedText]:
        """Tokenize pairs; a lone surrogate becomes U+FFFD."""
        encodable = [(_encodable(first), _encodable(second)) for first, second in pairs]
        encodings = self._tokenizer.encode_batch(encodable)
        return [TokenizedText(e.ids, truncated=bool(e.overflowing)) for e in encodings]


def _load(directory: Path) -> Tokenizer:
    path = directory / "tokenizer.json"
    if not path.exists():
        raise ConfigError(
            f"{path} does not exist. Only tokenizer.json is read; save the tokenizer in that "
            "form (AutoTokenizer.from_pretrained(...).save_pretrained does)."
        )
    try:
        return Tokenizer.from_file(str(path))
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # a panic of its Rust code is no Exception
        raise ConfigError(
            f"{path} is not a valid tokenizer ({error}). Download it again."
        ) from error


def _encodable(text: str) -> str:
    """The text with surrogates that form no pair replaced; pairs become their character."""
    if not _SURROGATE.search(text):
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _special_tokens(directory: Path) -> set[str]:
    declared: dict[str, str] = {}
    for file in ("tokenizer_config.json", "special_tokens_map.json"):
        if (directory / file).exists():
            fields = read_json_object(directory / file, ConfigError)
            declared |= {
                role: _content(fields.get(role)) for role in _DROPPED_ROLES & fields.keys()
            }
    if not declared.get("unk_token"):
        declared["unk_token"] = _unknown_token(directory / "tokenizer.json")
    return set(declared.values()) - {""}


def _content(token: Any) -> str:
    content = token.get("content") if isinstance(token, dict) else token
    return content if isinstance(content, str) else ""


def _unknown_token(path: Path) -> str:
    model = read_json_object(path, ConfigError)["model"]
    if isinstance(unk_id := model.get("unk_id"), int):
        return _content(model["vocab"][unk_id][0])
    return _content(model.get("unk_token"))
