"""What may be asked of Milvus beyond our arguments, by the names of pymilvus."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

from gte_integrations._index.checks import check_name
from gte_integrations._index.milvus.client import MilvusClient

# MilvusClient takes most of them as **kwargs, which no signature names.
CLIENT_OPTIONS = frozenset(
    {
        "user",
        "password",
        "db_name",
        "timeout",
        "secure",
        "server_name",
        "server_pem_path",
        "ca_pem_path",
        "client_pem_path",
        "client_key_path",
        "grpc_options",
        "dedicated",
    }
)
COLLECTION_OPTIONS = frozenset({"num_shards", "num_partitions", "consistency_level", "properties"})
PAYLOAD_TYPES = ("varchar", "double", "bool", "array_varchar", "array_double", "array_bool")
_COLLECTION = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,254}")
_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def check_collection(what: str, name: object) -> None:
    """Raise ``ValueError`` unless a collection, or an alias, may be called so."""
    wording = "1 to 255 ASCII letters, digits or '_', and not begin with a digit"
    check_name(what, name, _COLLECTION, wording)


def payload_types(given: Mapping[str, str] | None, tenant_key: str | None) -> dict[str, str]:
    """By payload key, the type that an index of it reads its values as.

    None of the ``tenant_key``: a collection is partitioned by it.
    """
    if not isinstance(given, (Mapping, type(None))):
        raise TypeError(
            f"payload_indexes is a {type(given).__name__}, but must be a dict of keys and types, "
            'such as {"lang": "varchar"}.'
        )
    for key, kind in (given or {}).items():
        if not isinstance(key, str) or not _KEY.fullmatch(key):
            raise ValueError(
                f"payload_indexes has the key {key!r}, but keys must be of ASCII letters, digits "
                "and '_', and not begin with a digit."
            )
        if kind not in PAYLOAD_TYPES:
            raise ValueError(
                f"payload_indexes has {kind!r} for {key!r}, but must have one of "
                f"{', '.join(map(repr, PAYLOAD_TYPES))}."
            )
    return {key: kind for key, kind in (given or {}).items() if key != tenant_key}


def payload_index_params(wanted: Mapping[str, str], there: Collection[str]) -> Any:
    """An index for each payload key that has none; it bears the name of its key.

    Payload is in the dynamic field, whose keys are indexed as paths of JSON.
    """
    params = MilvusClient.prepare_index_params()
    for key, kind in wanted.items():
        if key not in there:
            params.add_index(
                key,
                index_type="AUTOINDEX",
                index_name=key,
                params={"json_path": key, "json_cast_type": kind},
            )
    return params
