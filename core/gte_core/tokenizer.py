"""``tokenizer.json`` -> token ids, exactly as the file says.

The file is run by the ``tokenizers`` library itself: transformers 5 rebuilds the pipeline of this
tokenizer class and drops custom normalizers, which gives other ids.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer, models

from gte_core.checkpoint.files import exists, read_bytes, read_json_object, shortened, shown
from gte_core.exceptions import ConfigError, GTEError
from gte_core.former import former_name
from gte_core.iteration import batched
from gte_core.texts import TruncationSide, check_max_length, check_side, encodable

_PRIVATE_CHARACTER = "\U0010fffd"  # for private use: in no vocabulary

# Roles of special tokens without a sparse weight. <mask> has one, as in the published script of
# gte-multilingual-base; that of the sparse encoders drops all special tokens.
_DROPPED_ROLES = frozenset(
    {"bos_token", "cls_token", "sep_token", "eos_token", "pad_token", "unk_token"}
)

# A text with more characters than this for each token wanted is cut before it is tokenized.
_CHARACTERS_PER_TOKEN = 32

_COUNTED_AT_ONCE = 256

_LONGEST_PAIR = 2**31  # the library takes no larger number


@dataclass(frozen=True, slots=True)
class TokenizedText:
    """Token ids of one text.

    Attributes:
        ids: special tokens included.
        truncated: whether some were cut off.
        left_out: how many of the first ones pooling leaves out, fewer than all.
    """

    ids: list[int]
    truncated: bool
    left_out: int = 0

    def __len__(self) -> int:
        return len(self.ids)


class GTETokenizer:
    """Texts to ids and ids to strings. Safe to call from several threads: it is never changed.

    Args:
        tokenizer: the pipeline.
        dropped_ids: ids that never carry a sparse weight (cls, sep, eos, pad, unk, at times mask).
        closing_ids: ids that are no part of a prompt at its end; by default ``dropped_ids``.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        dropped_ids: frozenset[int],
        closing_ids: frozenset[int] | None = None,
    ) -> None:
        self._tokenizer = tokenizer
        self.dropped_ids = dropped_ids
        self._closing_ids = dropped_ids if closing_ids is None else closing_ids
        mask = tokenizer.encode("a").special_tokens_mask
        self._n_before = mask.index(0) if 0 in mask else 1
        self._n_after = sum(mask) - self._n_before

    @classmethod
    def from_pretrained(
        cls, directory: str | Path, *, pad_token_id: int | None = None, weighs_mask: bool = True
    ) -> GTETokenizer:
        """Load ``tokenizer.json``; ``ConfigError`` if it is missing or unusable.

        ``weighs_mask`` says whether a ``<mask>`` in a text carries a sparse weight. Special ids
        come from ``tokenizer_config.json`` and ``special_tokens_map.json``, from what the pipeline
        adds to an empty text, and from the unknown token of its vocabulary.
        """
        directory = Path(directory)
        tokenizer = _load(directory)
        if tokenizer.encode("a").special_tokens_mask[:1] != [1]:
            raise ConfigError(
                f"The tokenizer.json in {directory} puts no special token before a text, but the "
                "dense vector is the state of that token. Add a TemplateProcessing post-processor."
            )
        with _failing_as_config_error(directory / "tokenizer.json"):
            roles = _DROPPED_ROLES if weighs_mask else _DROPPED_ROLES | {"mask_token"}
            found = {tokenizer.token_to_id(name) for name in _special_tokens(directory, roles)}
            declared = frozenset(token_id for token_id in found if token_id is not None)
            padding = () if pad_token_id is None else (pad_token_id,)
            dropped = declared.union(tokenizer.encode("").ids, padding)
            return cls(tokenizer, dropped, declared if _has_general_class(directory) else None)

    @property
    def largest_id(self) -> int:
        """The largest id it gives; the model's embedding table must reach beyond it."""
        return _largest_id(self._tokenizer)

    @property
    def n_special(self) -> int:
        """Special tokens added to every text."""
        return self._n_before + self._n_after

    def tokenize(self, texts: Sequence[str], max_length: int) -> list[TokenizedText]:
        """Tokenize, keeping at most ``max_length`` ids per text, special tokens included.

        A lone surrogate becomes U+FFFD; nothing else in a text is changed.
        """
        limit = self._most_characters(max_length)
        short = [text if len(text) <= limit else "" for text in texts]
        encodings = self._tokenizer.encode_batch_fast([encodable(text) for text in short])
        return [
            self._truncate(encoding.ids, max_length)
            if len(text) <= limit
            else self._tokenize_long(text, max_length)
            for text, encoding in zip(texts, encodings, strict=True)
        ]

    encode = former_name("GTETokenizer.encode", tokenize)

    def count(self, texts: Iterable[str]) -> NDArray[np.int64]:
        """Ids of every text, special ones included, none cut off: int64 ``(n,)``; reads lazily."""
        batches = (list(map(encodable, batch)) for batch in batched(texts, _COUNTED_AT_ONCE))
        encodings = chain.from_iterable(map(self._tokenizer.encode_batch_fast, batches))
        return np.fromiter(map(len, encodings), np.int64)

    def count_prompt(self, prompt: str, max_length: int) -> int:
        """Ids that a prompt takes of a text behind it, as sentence-transformers counts them.

        They are those of the prompt alone, without the special token at its end; merged with the
        text behind it, it may have others.
        """
        ids = self.tokenize([prompt], max_length)[0].ids
        return len(ids) - (ids[-1] in self._closing_ids)

    def decode_token(self, token_id: int) -> str:
        """The string of one id as ``tokenizer.decode([id])`` gives it: ``▁foo`` becomes ``foo``."""
        return self._tokenizer.decode([token_id], skip_special_tokens=False)

    def piece(self, token_id: int) -> str:
        """The vocabulary entry of one id, unique to it: ``▁foo`` stays ``▁foo``."""
        return self._tokenizer.id_to_token(token_id) or f"<{token_id}>"

    def token_id(self, piece: str) -> int | None:
        """The id of a vocabulary entry, None for what is none."""
        return self._tokenizer.token_to_id(piece) if piece == encodable(piece) else None

    @staticmethod
    def _most_characters(max_length: int) -> int:
        return max(max_length, 64) * _CHARACTERS_PER_TOKEN

    def _tokenize_long(self, text: str, max_length: int) -> TokenizedText:
        """Tokenize no more than the start of a text that is far too long.

        The start ends at a space where there is one. It must give twice the ids that are kept, so
        that the rest of the text cannot change these; it grows until it does.
        """
        limit = self._most_characters(max_length)
        while limit < len(text):
            space = text.rfind(" ", limit // 2, limit)
            ids = self._ids(text[: space if space > 0 else limit])
            if len(ids) >= 2 * max_length:
                return self._truncate(ids, max_length)
            limit *= 4
        return self._truncate(self._ids(text), max_length)

    def _ids(self, text: str) -> list[int]:
        return self._tokenizer.encode_batch_fast([encodable(text)])[0].ids

    def _truncate(self, ids: list[int], max_length: int) -> TokenizedText:
        if len(ids) <= max_length:
            return TokenizedText(ids, truncated=False)
        last = len(ids) - self._n_after
        return TokenizedText(ids[: max_length - self._n_after] + ids[last:], truncated=True)


class PairTokenizer:
    """Pairs of texts to ids, ``<s> A </s></s> B </s>``; the longer of the two is cut first.

    Args:
        directory: holds ``tokenizer.json``.
        max_length: ids kept of a pair, special tokens included, of which there must be fewer.
        side: the end of a text that is cut.
    """

    def __init__(
        self, directory: str | Path, max_length: int, side: TruncationSide = "right"
    ) -> None:
        check_side(side)
        self._tokenizer = _load(Path(directory))
        n_special = self._tokenizer.num_special_tokens_to_add(is_pair=True)
        self.max_length = check_max_length(max_length, n_special, "pair")
        self._tokenizer.enable_truncation(
            min(self.max_length, _LONGEST_PAIR), strategy="longest_first", direction=side
        )

    @property
    def largest_id(self) -> int:
        """The largest id it gives; the model's embedding table must reach beyond it."""
        return _largest_id(self._tokenizer)

    def tokenize(self, pairs: Sequence[tuple[str, str]]) -> list[TokenizedText]:
        """Tokenize pairs; a lone surrogate becomes U+FFFD."""
        encodings = self._tokenizer.encode_batch([(encodable(a), encodable(b)) for a, b in pairs])
        return [TokenizedText(e.ids, truncated=bool(e.overflowing)) for e in encodings]


def check_vocabulary(tokenizer: GTETokenizer | PairTokenizer, vocab_size: int) -> None:
    """Raise ``ConfigError`` if the model has no embeddings for some of the tokenizer's ids."""
    if tokenizer.largest_id >= vocab_size:
        raise ConfigError(
            f"tokenizer.json has ids up to {tokenizer.largest_id}, but the model has embeddings "
            f"for {vocab_size}. They belong to different checkpoints."
        )


def _load(directory: Path) -> Tokenizer:
    """The pipeline of a directory, tried out once, its own truncation and padding switched off."""
    path = directory / "tokenizer.json"
    if not exists(path):
        raise ConfigError(
            f"{path} does not exist. Only tokenizer.json is read; save the tokenizer in that "
            "form (AutoTokenizer.from_pretrained(...).save_pretrained does)."
        )
    with _failing_as_config_error(path):
        tokenizer = Tokenizer.from_buffer(read_bytes(path, ConfigError))
        tokenizer.no_truncation()
        tokenizer.no_padding()
        # A pipeline may load and fail at its first text, or at a character it does not know.
        for text in ("", "a", _PRIVATE_CHARACTER):
            tokenizer.encode(text)
            tokenizer.encode(text, text)
    return tokenizer


@contextmanager
def _failing_as_config_error(path: Path) -> Iterator[None]:
    try:
        yield
    except (KeyboardInterrupt, SystemExit, GTEError):
        raise
    except BaseException as error:  # a panic of its Rust code is no Exception
        raise ConfigError(
            f"{path} is not a valid tokenizer ({shortened(str(error))}). Download it again."
        ) from error


def _largest_id(tokenizer: Tokenizer) -> int:
    # The ids of a unigram model are positions in its list; those of other models may have gaps.
    if isinstance(tokenizer.model, models.Unigram):
        largest = tokenizer.get_vocab_size(with_added_tokens=False) - 1
    else:
        largest = max(tokenizer.get_vocab(with_added_tokens=False).values(), default=0)
    added = tokenizer.get_added_tokens_decoder()
    return max(largest, *added, *tokenizer.encode("").ids, *tokenizer.encode("", "").ids)


def _special_tokens(directory: Path, roles: frozenset[str]) -> set[str]:
    declared: dict[str, str] = {}
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        if exists(path := directory / name):
            fields = read_json_object(path, ConfigError)
            declared |= {role: _content(path, role, fields[role]) for role in roles & fields.keys()}
    if not declared.get("unk_token"):
        declared["unk_token"] = _unknown_token(directory / "tokenizer.json")
    return set(declared.values()) - {""}


def _has_general_class(directory: Path) -> bool:
    """Whether transformers reads it by a class whose special tokens are those declared alone."""
    path = directory / "tokenizer_config.json"
    fields = read_json_object(path, ConfigError) if exists(path) else {}
    return fields.get("tokenizer_class") in ("PreTrainedTokenizerFast", "TokenizersBackend")


def _content(path: Path, role: str, token: Any) -> str:
    content = token.get("content") if isinstance(token, dict) else token
    if not isinstance(content, str):
        return ""
    if content != encodable(content):
        raise ConfigError(f"{path}: {role} is {shown(content)}, which is no text. Correct it.")
    return content


def _unknown_token(path: Path) -> str:
    """The unknown token of a vocabulary, by its name or by its place in a list of pieces."""
    model = read_json_object(path, ConfigError).get("model")
    model = model if isinstance(model, dict) else {}
    pieces, place = model.get("vocab"), model.get("unk_id")
    if isinstance(pieces, list) and isinstance(place, int) and 0 <= place < len(pieces):
        return _content(path, "unk_id", pieces[place][0])
    return _content(path, "unk_token", model.get("unk_token"))
