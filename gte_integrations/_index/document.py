"""``Document``, and the other forms in which one may be given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, is_dataclass
from typing import Any, TypeGuard

from gte_core.pickling import restore_by_name, state_by_name
from gte_integrations._index.fusion import DocumentId
from gte_integrations._index.rows import plain


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
        id: of the document, if that much could be read.
    """

    error: OSError | ValueError
    id: DocumentId | None = None


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
    if isinstance(item, tuple) and (hasattr(item, "_asdict") or len(item) in {2, 3}):
        return _from_tuple(item)
    if is_dataclass(item) and hasattr(item, "id") and hasattr(item, "text"):
        return Document(item.id, item.text, getattr(item, "payload", {}))
    if _is_of_langchain(item):
        return _of_langchain(item)
    if _is_of_llama_index(item):
        # What LlamaIndex would have a model read: the text and the metadata not kept from it.
        text = item.get_content(metadata_mode="embed")
        return Document(item.node_id, text, plain(item.metadata))
    raise TypeError(
        f"A document is a {type(item).__name__}, but must be a Document, a dataclass with id and "
        'text, a dict with "id" and "text", a tuple (id, text) or (id, text, payload), a Document '
        "of LangChain or a node of LlamaIndex; a table is given by itself, not in a list."
    )


def _from_tuple(item: Any) -> Document:
    if not hasattr(item, "_asdict"):
        return Document(*item)
    # The names say what is what; pandas adds the place of a row.
    return _from_mapping({name: item[n] for n, name in enumerate(item._fields) if name != "Index"})


def is_document(item: object) -> bool:
    """Whether it is a document in a form that is iterable itself, and so easily taken for many."""
    ours = isinstance(item, (Document, Mapping))
    return ours or _is_of_langchain(item) or _is_of_llama_index(item)


def _is_of_langchain(item: object) -> TypeGuard[Any]:
    return hasattr(item, "page_content") and hasattr(item, "metadata")


def _is_of_llama_index(item: object) -> TypeGuard[Any]:
    return hasattr(item, "get_content") and hasattr(item, "node_id") and hasattr(item, "metadata")


def _of_langchain(item: Any) -> Document:
    if item.id is None:
        raise ValueError(
            "A Document of LangChain has no id, by which it would be found again; set its id, for "
            "instance to its source and the number of the part."
        )
    return Document(item.id, item.page_content, plain(item.metadata))


def _from_mapping(item: Mapping[Any, Any]) -> Document:
    missing = [name for name in ("id", "text") if name not in item]
    if missing:
        raise TypeError(
            f"A document has the keys {sorted(map(str, item))}, but lacks {' and '.join(missing)}; "
            'give it "id" and "text", all other keys become its payload.'
        )
    payload = {key: value for key, value in item.items() if key not in {"id", "text"}}
    return Document(item["id"], item["text"], payload)
