"""Document ids and the keys that stand for them in a store."""

from __future__ import annotations

import re
from urllib.parse import unquote

from gte_integrations._index.fusion import DocumentId

ID_MAX_BYTES = 4096
# What no engine can store; as part of a text, the model reads it as U+FFFD.
LONE_SURROGATE = re.compile("[\ud800-\udfff]")
# Neither pymilvus nor every server escapes string literals in the same way, so what would need
# escaping is not in a key.
_UNSAFE = {ord(char): f"%{ord(char):02X}" for char in "%\"'\\" + "".join(map(chr, range(32)))}


def id_to_key(document_id: DocumentId) -> str:
    """A string that no other id has: itself for most strings, ``int:1`` for the integer 1."""
    if isinstance(document_id, bool) or not isinstance(document_id, (str, int)):
        raise TypeError(
            f"An id is {document_id!r}, a {type(document_id).__name__}, but must be a str or int."
        )
    if isinstance(document_id, int):
        if not -(2**63) <= document_id < 2**63:
            raise ValueError(
                f"The id {document_id} does not fit in 64 bits; use the string '{document_id}'."
            )
        return f"int:{document_id}"
    if not document_id.isascii() and LONE_SURROGATE.search(document_id):
        raise ValueError(
            f"The id {document_id!r:.50} holds half of a surrogate pair, which is no character; "
            "remove it."
        )
    return f"str:{document_id}" if document_id.startswith(("int:", "str:")) else document_id


def key_to_id(key: str) -> DocumentId:
    """The id behind a key; undoes ``id_to_key``."""
    if key.startswith("int:"):
        return int(key[4:])
    return key.removeprefix("str:")


def primary_key(key: str) -> str:
    """A key as Milvus has it: quotes, backslashes, control characters and ``%`` as ``%22``."""
    return key.translate(_UNSAFE)


def from_primary_key(key: str) -> str:
    """Undoes ``primary_key``."""
    return unquote(key)
