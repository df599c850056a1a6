"""Checks a document and computes its key and content hash; every engine takes the result."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from unicodedata import category

from gte_integrations._index.document import Document
from gte_integrations._index.fusion import DocumentId
from gte_integrations._index.ids import ID_MAX_BYTES, LONE_SURROGATE, id_to_key

RESERVED_KEYS = frozenset({"id", "text", "dense", "sparse", "$meta"})
RESERVED_PREFIX = "_gte_"
_DEEPEST = 64
_JSON = json.JSONEncoder(allow_nan=False, ensure_ascii=False, sort_keys=True)
_MANY_DIGITS = re.compile(r"\d{19}")
_PLAIN_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True, slots=True)
class Limits:
    """What a document must keep to.

    ``text_bytes`` and ``payload_bytes`` are sizes in UTF-8 that an engine takes, None where it
    sets no limit. ``tenant_key`` is a payload key that must hold a string, None for none.
    ``lost_keys`` are payload keys that the engine would drop without a word.
    """

    text_bytes: int | None = None
    payload_bytes: int | None = None
    tenant_key: str | None = None
    lost_keys: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Prepared:
    """A document that every engine will take."""

    key: str
    id: DocumentId
    text: str
    payload: Mapping[str, Any]
    content_hash: str
    size: int
    """UTF-8 bytes of key, text and payload."""
    source: Any = field(repr=False)
    """What the vectors are made of: the text as it was given, or the row of a file."""
    origin: str | None = None

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to embed; such a vector would match anything a little."""
        return all(char.isspace() or category(char) == "Cf" for char in self.text)


def with_tenant(limits: Limits, key: str | None) -> Limits:
    """The limits with a tenant key; an error for a key that not every engine takes."""
    if not isinstance(key, (str, type(None))):
        raise TypeError(f"tenant_key is {key!r}, but must be a payload key, a str, or None.")
    if key is not None and (not _PLAIN_KEY.fullmatch(key) or is_reserved(key)):
        raise ValueError(
            f"tenant_key is {key!r}, but must be a payload key of ASCII letters, digits and '_', "
            f"none of {', '.join(sorted(RESERVED_KEYS))}, and not begin with a digit or "
            f"{RESERVED_PREFIX!r}."
        )
    return replace(limits, tenant_key=key)


def prepare(document: Document, limits: Limits) -> Prepared:
    """Check a document and compute its key and content hash; say what is wrong if it cannot be."""
    key = id_to_key(document.id)
    text = _storable(document)
    payload = _payload_json(document)
    parts = (
        _encode("id", document, key, ID_MAX_BYTES),
        _encode("text", document, text, limits.text_bytes),
        _encode("payload", document, payload, limits.payload_bytes),
    )
    _check_origin(document, len(parts[2]), limits.payload_bytes)
    _check_tenant(document, limits.tenant_key)
    if lost := sorted(limits.lost_keys & document.payload.keys()):
        raise ValueError(
            f"The payload of document {document.id!r:.50} has the key {lost[0]!r}, which this "
            "engine would drop without a word; rename it."
        )
    content = hashlib.blake2b(digest_size=16)
    for part in parts:
        content.update(b"%d:" % len(part))
        content.update(part)
    size = sum(map(len, parts))
    # Read back, the payload is what the engine will give: lists for tuples, plain values.
    stored = json.loads(payload) if document.payload else {}
    return Prepared(
        key, document.id, text, stored, content.hexdigest(), size, document.text, document.origin
    )


def _storable(document: Document) -> str:
    text = document.text
    if not isinstance(text, str):
        raise TypeError(
            f"The text of document {document.id!r} must be a str, got {type(text).__name__}."
        )
    # The model reads a lone surrogate as U+FFFD; no engine could store it.
    return text if text.isascii() else LONE_SURROGATE.sub("\ufffd", text)


def _encode(what: str, document: Document, text: str, limit: int | None) -> bytes:
    try:
        encoded = text.encode()
    except UnicodeEncodeError:
        raise ValueError(
            f"The {what} of document {document.id!r} holds half of a surrogate pair, which is no "
            "character; remove it."
        ) from None
    if limit is not None and len(encoded) > limit:
        raise ValueError(
            f"The {what} of document {document.id!r:.50} has {len(encoded):,} UTF-8 bytes, but at "
            f"most {limit:,} are allowed."
        )
    return encoded


def _check_origin(document: Document, payload_bytes: int, limit: int | None) -> None:
    """An origin is stored beside the payload, and what an engine allows is for both."""
    if document.origin is None:
        return
    if not isinstance(document.origin, str):
        raise TypeError(
            f"The origin of document {document.id!r} must be a str or None, got "
            f"{type(document.origin).__name__}."
        )
    size = len(_encode("origin", document, document.origin, None))
    if limit is not None and payload_bytes + size > limit:
        raise ValueError(
            f"The payload and the origin of document {document.id!r:.50} have "
            f"{payload_bytes + size:,} UTF-8 bytes, but at most {limit:,} are allowed."
        )


def _check_tenant(document: Document, key: str | None) -> None:
    if key is not None and not isinstance(document.payload.get(key), str):
        raise ValueError(
            f"The payload of document {document.id!r} has {document.payload.get(key)!r} under "
            f"{key!r}, the index's tenant_key, but must name a tenant there, by a str."
        )


def _payload_json(document: Document) -> str:
    if not isinstance(document.payload, Mapping):
        raise TypeError(
            f"The payload of document {document.id!r} is a {type(document.payload).__name__}, "
            "but must be a dict with string keys."
        )
    if not document.payload:
        return "{}"
    for key in document.payload:
        _check_payload_key(key, document.id)
    try:
        encoded = _JSON.encode(dict(document.payload))
        _check_storable(encoded, document.payload)
    except (TypeError, ValueError, RecursionError) as error:
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(
            f"The payload of document {document.id!r} cannot be stored as JSON: "
            f"{_place(document.payload)}{error}. Use str, int of 64 bits, finite float, bool, "
            f"None, and lists and dicts of these, at most {_DEEPEST} within one another."
        ) from error
    return encoded


def _place(payload: Mapping[str, Any]) -> str:
    """The first key whose value cannot be stored, for a message."""
    for key, value in payload.items():
        try:
            _check_storable(_JSON.encode(value), {key: value})
        except (TypeError, ValueError, RecursionError):
            return f"at {key!r}, "
    return ""


def _check_storable(encoded: str, payload: Mapping[str, Any]) -> None:
    """``ValueError`` for what JSON can hold, but no engine keeps as it is."""
    # Only where it may be is it looked for, because every document comes through here.
    if encoded.count("[") + encoded.count("{") > _DEEPEST or _MANY_DIGITS.search(encoded):
        _check_value(payload, depth=1)


def _check_value(value: Any, depth: int) -> None:
    if depth > _DEEPEST + 1:
        raise ValueError("it is nested too deeply")
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise ValueError(f"an integer has {len(str(abs(value)))} digits, too many for 64 bits")
    if isinstance(value, Mapping):
        value = list(value.values())
    for item in value if isinstance(value, (list, tuple)) else ():
        _check_value(item, depth + 1)


def _check_payload_key(key: object, document_id: DocumentId) -> None:
    if not isinstance(key, str):
        raise TypeError(
            f"The payload of document {document_id!r} has the key {key!r}, a "
            f"{type(key).__name__}, but keys must be strings."
        )
    if is_reserved(key):
        raise ValueError(
            f"The payload of document {document_id!r} has the key {key!r}, which the index uses "
            f"itself; rename it. Taken are {', '.join(sorted(RESERVED_KEYS))} and whatever starts "
            f"with {RESERVED_PREFIX!r}."
        )


def is_reserved(key: str) -> bool:
    """Whether an index takes a payload key for itself."""
    return key in RESERVED_KEYS or key.startswith(RESERVED_PREFIX)
