"""``Document``, and the other forms in which one may be given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, is_dataclass
from typing import Any

from gte_core.pickling import restore_by_name, state_by_name
from gte_integrations._index.fusion import DocumentId


@dataclass(frozen=True, slots=True)
class Document:
    """A text to index.

    Attributes:
        id: any string, or an integer of 64 bits; ``1`` and ``"1"`` are two documents.
        text: what is embedded, stored, and returned by ``search``.
        payload: JSON-like values, stored beside the text for the engine's own filters. The keys
            ``id``, ``text``, ``dense``, ``sparse``, ``$meta`` and ``_gte_...`` are taken.
        origin: where an id belongs that was made up, such as the folder that a path is relative
            to. A document with an origin never replaces one of another origin. It is neither
            payload nor content, and an id that was given needs none.
    """

    id: DocumentId
    text: str
    payload: Mapping[str, Any] = field(default_factory=dict)
    origin: str | None = field(default=None, compare=False)

    __getstate__ = state_by_name
    __setstate__ = restore_by_name


@dataclass(frozen=True, slots=True)
class Unreadable:
    """What a reader gives in place of a document that it could not read.

    Attributes:
        error: what is wrong; its message names the file and the line or row.
    """

    error: OSError | ValueError


def as_document(item: object) -> Document:
    """Read one document in any accepted form; ``TypeError`` naming the forms for anything else.

    What could not be read raises its own error.
    """
    if isinstance(item, Document):
        return item
    if isinstance(item, Unreadable):
        raise item.error
    if isinstance(item, Mapping):
        return _from_mapping(item)
    if isinstance(item, tuple) and len(item) in {2, 3}:
        return Document(*item)
    if is_dataclass(item) and hasattr(item, "id") and hasattr(item, "text"):
        return Document(item.id, item.text, getattr(item, "payload", {}))
    raise TypeError(
        f"A document is a {type(item).__name__}, but must be a Document, a dataclass with id and "
        'text, a dict with "id" and "text", or a tuple (id, text) or (id, text, payload).'
    )


def _from_mapping(item: Mapping[Any, Any]) -> Document:
    missing = [name for name in ("id", "text") if name not in item]
    if missing:
        raise TypeError(
            f"A document has the keys {sorted(map(str, item))}, but lacks {' and '.join(missing)}; "
            'give it "id" and "text", all other keys become its payload.'
        )
    payload = {key: value for key, value in item.items() if key not in {"id", "text"}}
    return Document(item["id"], item["text"], payload)
