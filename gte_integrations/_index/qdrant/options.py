"""What may be asked of Qdrant's engine beyond our arguments, by its own names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from inspect import signature
from types import ModuleType
from typing import Any

from gte_integrations._index.checks import check_name
from gte_integrations._index.qdrant.embedded import edge

PAYLOAD_TYPES = ("keyword", "integer", "float", "geo", "text", "bool", "datetime", "uuid")
DIRECTORY_OPTIONS = frozenset(signature(edge.EdgeConfig).parameters)
DIRECTORY_OPTIONS -= {"vectors", "sparse_vectors", "quantization_config", "wal_enabled"}

_COLLECTION = re.compile(r"[\w-][\w.-]{0,254}")
_MAX_NAME_BYTES = 255  # of a directory, here and on servers


def check_collection(what: str, name: object) -> None:
    """Raise ``ValueError`` unless a collection, or an alias, may be called so."""
    checked = check_name(
        what,
        name,
        _COLLECTION,
        "1 to 255 letters, digits, '_', '-' or '.', and not begin with a dot",
    )
    length = len(checked.encode())
    if length > _MAX_NAME_BYTES:
        raise ValueError(
            f"{what} is {name!r}, which takes {length} bytes in UTF-8, but must take at most "
            f"{_MAX_NAME_BYTES}: it becomes the name of a directory."
        )


def payload_schemas(
    given: Mapping[str, Any] | None, tenant_key: str | None, engine: ModuleType
) -> dict[str, Any]:
    """By payload key, the parameters of its index, of classes that ``engine`` has.

    Args:
        given: by key, the name of a type, or parameters of such a class.
        tenant_key: a key whose documents are kept together.
        engine: ``qdrant_client.models``, or ``qdrant_edge`` for a directory.
    """
    if not isinstance(given, (Mapping, type(None))):
        raise TypeError(
            f"payload_indexes is a {type(given).__name__}, but must be a dict of keys and types, "
            'such as {"lang": "keyword"}.'
        )
    schemas = {key: _params(key, kind, engine) for key, kind in (given or {}).items()}
    if tenant_key is not None:
        schemas[tenant_key] = _params_of("keyword", engine, is_tenant=True)
    return schemas


def missing(wanted: Mapping[str, Any], there: Mapping[str, Any]) -> dict[str, Any]:
    """The indexes that are wanted, and not there in their type.

    Args:
        wanted: what ``payload_schemas`` gave.
        there: the payload schema as the engine describes it.
    """
    types = {key: str(info.data_type).rpartition(".")[2].lower() for key, info in there.items()}
    return {key: params for key, params in wanted.items() if types.get(key) != _type_of(params)}


def _params(key: object, kind: object, engine: ModuleType) -> Any:
    if not isinstance(key, str):
        raise TypeError(f"payload_indexes has the key {key!r}, but keys must be strings.")
    classes = tuple(getattr(engine, _class_name(one)) for one in PAYLOAD_TYPES)
    if isinstance(kind, classes):
        return kind
    if kind not in PAYLOAD_TYPES:
        raise ValueError(
            f"payload_indexes has {kind!r} for {key!r}, but must have one of "
            f"{', '.join(map(repr, PAYLOAD_TYPES))}, or parameters such as "
            f"{engine.__name__}.KeywordIndexParams(...)."
        )
    return _params_of(str(kind), engine)


def _params_of(kind: str, engine: ModuleType, **options: Any) -> Any:
    if engine is not edge:
        options["type"] = kind
    return getattr(engine, _class_name(kind))(**options)


def _class_name(kind: str) -> str:
    return f"{kind.capitalize()}IndexParams"


def _type_of(params: object) -> str:
    return type(params).__name__.removesuffix("IndexParams").lower()
