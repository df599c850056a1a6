"""Documents as Milvus rows, the schema and indexes for them, and answers as hits."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from gte_integrations._index.fusion import DocumentId, ScoredIds
from gte_integrations._index.ids import ID_MAX_BYTES, from_primary_key, key_to_id, primary_key
from gte_integrations._index.metadata import Metadata, Quantization
from gte_integrations._index.milvus.client import (
    AnnSearchRequest,
    CollectionSchema,
    DataType,
    MilvusClient,
)
from gte_integrations._index.records import (
    ORIGIN,
    Record,
    StoredDocument,
    StoredVectors,
    never_empty,
    stored_document,
    users_payload,
)
from gte_integrations._index.search import OVERSAMPLING
from gte_integrations._index.sparse import Floats

ID, TEXT, HASH = "id", "text", "_gte_hash"
DENSE, COARSE, SPARSE = "dense", "_gte_coarse", "sparse"
_DENSE_FIELDS = frozenset({DENSE, COARSE})
VECTORS = _DENSE_FIELDS | {SPARSE}
_FIELDS = VECTORS | {ID, TEXT, HASH, "$meta"}
METRIC = "IP"
MAX_BYTES = 65_535  # of a VARCHAR, and of all dynamic fields of a row together
MARK_BYTES = 35  # of dynamic fields, left for what an index adds to them
_INT8_INDEX = {
    "index_type": "HNSW_SQ",
    "params": {
        "M": 16,
        "efConstruction": 200,
        "sq_type": "SQ8",
        "refine": True,
        "refine_type": "FP32",
    },
}
_MAX_EF = 32_768


def document_id(key: str) -> DocumentId:
    """The id that a primary key stands for."""
    return key_to_id(from_primary_key(key))


def schema_of(metadata: Metadata, tenant_key: str | None = None) -> CollectionSchema:
    """Fields of a collection; payload goes to dynamic ones, but for the key of the tenant."""
    schema = MilvusClient.create_schema(auto_id=False, enable_dynamic_field=True)
    schema.add_field(ID, DataType.VARCHAR, is_primary=True, max_length=3 * ID_MAX_BYTES)
    schema.add_field(TEXT, DataType.VARCHAR, max_length=MAX_BYTES)
    schema.add_field(HASH, DataType.VARCHAR, max_length=32)
    half = metadata["storage"] == "float16"
    dense = DataType.FLOAT16_VECTOR if half else DataType.FLOAT_VECTOR
    if metadata["dimensions"]:
        schema.add_field(DENSE, dense, dim=metadata["dimensions"])
    if metadata["coarse_dimensions"]:
        schema.add_field(COARSE, dense, dim=metadata["coarse_dimensions"])
    if metadata["sparse"]:
        schema.add_field(SPARSE, DataType.SPARSE_FLOAT_VECTOR)
    if tenant_key is not None:
        schema.add_field(tenant_key, DataType.VARCHAR, max_length=MAX_BYTES, is_partition_key=True)
    return schema


def tenant_key_of(fields: Iterable[Mapping[str, Any]]) -> str | None:
    """The payload key that a collection is partitioned by, as Milvus describes its fields."""
    return next((field["name"] for field in fields if field.get("is_partition_key")), None)


def payload_fields_of(fields: Iterable[Mapping[str, Any]]) -> list[str]:
    """Payload keys that are fields of their own, of the tenant or of a user's schema."""
    vectors = {kind for kind in DataType if kind.name.endswith("VECTOR")}
    return [
        field["name"]
        for field in fields
        if field["name"] not in _FIELDS and field["type"] not in vectors
    ]


def given_rows(
    rows: Iterable[Mapping[str, Any]], payload_fields: Collection[str]
) -> list[dict[str, Any]]:
    """Rows without those fields of a user's schema that they were given nothing for."""
    return [
        {k: value for k, value in row.items() if value is not None or k not in payload_fields}
        for row in rows
    ]


def index_params_of(
    metadata: Metadata, *, without: Collection[str] = (), exact: bool = False
) -> Any:
    """An index for each vector field, without those named in ``without``.

    ``exact`` is for Milvus Lite, whose AUTOINDEX loses hits once the collection was opened again.
    """
    every = _index_params(metadata, "FLAT" if exact else "AUTOINDEX")
    return type(every)(one for one in every if one.field_name not in without)


def _index_params(metadata: Metadata, float_index: str) -> Any:
    params = MilvusClient.prepare_index_params()
    dense = _INT8_INDEX if metadata["storage"] == "int8" else {"index_type": float_index}
    if metadata["dimensions"]:
        params.add_index(DENSE, metric_type=METRIC, **dense)
    if metadata["coarse_dimensions"]:
        params.add_index(COARSE, metric_type=METRIC, **dense)
    if metadata["sparse"]:
        params.add_index(
            SPARSE,
            index_type="SPARSE_INVERTED_INDEX",
            metric_type=METRIC,
            params={"inverted_index_algo": "DAAT_MAXSCORE"},
        )
    return params


def _row(record: Record) -> dict[str, Any]:
    document = record.document
    row = {
        **document.payload,
        ID: primary_key(document.key),
        TEXT: document.text,
        HASH: document.content_hash,
        **record.marks,
    }
    if len(record.dense):
        row[DENSE] = record.dense
    if record.coarse is not None:
        row[COARSE] = record.coarse
    if record.vocab_size:
        row[SPARSE] = dict(zip(*never_empty(record), strict=True))
    return row


def rows_of(records: Sequence[Record], quantization: Quantization) -> list[dict[str, Any]]:
    """Records as pymilvus takes them."""
    return [_as_stored_type(_row(record), quantization) for record in records]


def row_with_origin(
    row: Mapping[str, Any], origin: str, quantization: Quantization
) -> dict[str, Any]:
    """A whole row as it was read, with another origin, as pymilvus takes it."""
    dense = {name: floats(row[name]) for name in _DENSE_FIELDS & row.keys()}
    return _as_stored_type({**row, **dense, ORIGIN: origin}, quantization)


def _as_stored_type(row: dict[str, Any], quantization: Quantization) -> dict[str, Any]:
    if quantization == "float16":  # pymilvus takes no other type for such a field
        row.update({name: row[name].astype(np.float16) for name in _DENSE_FIELDS & row.keys()})
    return row


def quantization_of(field: Mapping[str, Any], index: Mapping[str, Any]) -> Quantization:
    """How a collection keeps its dense vectors, by field and index as Milvus describes them."""
    if index.get("index_type") == _INT8_INDEX["index_type"]:
        return "int8"
    return "float16" if field.get("type") == DataType.FLOAT16_VECTOR else "float32"


def missing_fields(fields: Iterable[Mapping[str, Any]]) -> list[str]:
    """Names of fields that every collection of an index has, and this one has not or otherwise."""
    strings = {one["name"]: one for one in fields if one["type"] == DataType.VARCHAR}
    is_primary = strings.get(ID, {}).get("is_primary", False)
    return [*([] if is_primary else [ID]), *(name for name in (TEXT, HASH) if name not in strings)]


def payload_of(row: Mapping[str, Any]) -> dict[str, Any]:
    """The payload of a row as the user gave it."""
    return users_payload(_dynamic(row))


def document_of(row: Mapping[str, Any], *, with_vectors: bool) -> StoredDocument:
    """A whole row, with its vectors or without."""
    vectors = stored_vectors(row) if with_vectors else None
    return stored_document(document_id(row[ID]), row[TEXT], _dynamic(row), vectors)


def _dynamic(row: Mapping[str, Any]) -> dict[str, Any]:
    """The dynamic fields of a row: the payload, and what an index keeps beside it."""
    return {key: value for key, value in row.items() if key not in _FIELDS}


def stored_vectors(row: Mapping[str, Any]) -> StoredVectors:
    """Those vectors of a row that there are."""
    dense = floats(row[DENSE]) if DENSE in row else np.empty(0, np.float32)
    return StoredVectors(dense, row.get(SPARSE, {}))


def floats(vector: Any) -> Floats:
    """A dense vector as pymilvus gives it: numbers, or the bytes of a float16 one, or [bytes]."""
    raw = vector[0] if isinstance(vector[0], bytes) else vector
    return np.asarray(np.frombuffer(raw, np.float16) if isinstance(raw, bytes) else raw, np.float32)


def dense_lists(vectors: Floats | None, quantization: Quantization) -> list[Any]:
    """Dense query vectors as pymilvus takes them."""
    if vectors is None:
        return []
    return list(vectors.astype(np.float16)) if quantization == "float16" else list(vectors.tolist())


def hits_of(hits: Iterable[Any]) -> ScoredIds:
    """The hits of a search, with the scores that it gave."""
    return [(document_id(hit[ID]), hit["distance"]) for hit in hits]


def ranked_hits(hits: Iterable[Any], query: Floats) -> ScoredIds:
    """The hits of a search by coarse vectors, scored by the full ones."""
    return [(document_id(hit[ID]), float(floats(hit["entity"][DENSE]) @ query)) for hit in hits]


def search_request(
    vector: Any, field: str, limit: int, condition: str, quantization: Quantization
) -> AnnSearchRequest:
    """One search of a ``hybrid_search``."""
    param = search_params(field, limit, quantization)
    return AnnSearchRequest([vector], anns_field=field, param=param, limit=limit, expr=condition)


def search_params(field: str, limit: int, quantization: Quantization) -> dict[str, Any]:
    """Parameters of a search; int8 vectors gather more than ``limit``, for full ones to rank."""
    if quantization != "int8" or field == SPARSE:
        return {"metric_type": METRIC}
    depth = min(max(64, OVERSAMPLING * limit), _MAX_EF)
    return {"metric_type": METRIC, "params": {"ef": depth, "refine_k": OVERSAMPLING}}
