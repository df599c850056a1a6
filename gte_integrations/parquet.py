"""Documents and their vectors in a Parquet file: for Milvus' bulk import, or to keep and load.

::

    vectorizer = MilvusVectorizer(embedder)
    write_parquet(vectorizer, documents, "corpus.parquet")   # encoded once, on a large machine
    add_parquet(index, "corpus.parquet")                     # into any index, without the model

Columns: ``id`` (string, as in a Milvus collection of this library), ``text``, ``_gte_hash``,
``dense`` (list of float), ``_gte_coarse`` (the same, if there are two sizes), ``sparse`` (struct of
the lists ``indices`` and ``values``) and ``$meta`` (the payload as JSON). What the model does not
give has no column. Milvus reads them into a collection that ``MilvusHybridIndex.create`` has made.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self, cast

import numpy as np
from numpy.typing import NDArray

from gte_core.foreign import refuses_foreign
from gte_integrations._index.document import Document
from gte_integrations._index.ids import from_primary_key, key_to_id, primary_key
from gte_integrations._index.index import HybridIndex
from gte_integrations._index.ingest import OnError, ingest
from gte_integrations._index.metadata import Metadata, compare_metadata
from gte_integrations._index.preparation import Limits, Prepared, prepare
from gte_integrations._index.records import (
    ORIGIN,
    TRUNCATED,
    Embedded,
    Record,
    Stored,
    never_empty,
    users_payload,
)
from gte_integrations._index.reports import IndexReport
from gte_integrations._index.sparse import EMPTY_WEIGHT, Floats
from gte_integrations._index.vectorizer import Vectorizer
from gte_integrations._retry import PERMANENT, Failure
from gte_integrations._vector_store import check_index

try:
    import pyarrow as pa
    import pyarrow.parquet as pq
except ImportError as error:
    raise ImportError(
        "gte_integrations.parquet needs pyarrow; pip install 'gte-integrations[parquet]'"
    ) from error

__all__ = ["add_parquet", "write_parquet"]

_METADATA = b"gte.facts"  # the key in the file's own metadata


@refuses_foreign
def write_parquet(
    vectorizer: Vectorizer,
    documents: Iterable[object],
    path: str | Path,
    *,
    batch_size: int = 256,
    show_progress: bool = False,
    on_error: OnError = "raise",
) -> IndexReport:
    """Embed documents into a Parquet file, which appears, or is replaced, when it is complete.

    Arguments are those of an index's ``add``. An id that comes again after its batch is a
    ``ValueError``, for what is in a file cannot be replaced; 100 bytes of memory per document
    remember them.
    """
    if not isinstance(vectorizer, Vectorizer):
        raise TypeError(
            f"vectorizer is a {type(vectorizer).__name__}, but must be a QdrantVectorizer or a "
            "MilvusVectorizer, such as MilvusVectorizer(encoder)."
        )
    if Path(path).is_dir():  # which would show only when all is encoded
        raise IsADirectoryError(f"path is {str(path)!r}, a directory; add the name of a file.")
    unfinished = Path(f"{path}.partial")
    try:
        with _File(unfinished, vectorizer.comparable_metadata()) as file:
            report = ingest(
                vectorizer,
                file,
                documents,
                batch_size=batch_size,
                show_progress=show_progress,
                on_error=on_error,
                retry_seconds=0,
            )
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise
    unfinished.replace(path)
    return report


@refuses_foreign
def add_parquet(
    index: HybridIndex[Any],
    path: str | Path,
    *,
    batch_size: int = 256,
    show_progress: bool = False,
    on_error: OnError = "raise",
) -> IndexReport:
    """Add the documents of a file to an index, with the vectors they have there.

    Does what ``index.add`` does otherwise. ``CollectionMismatch`` if the file holds vectors of
    another model or size.
    """
    check_index(index)
    with _opened(path) as file:
        return index.ingest(
            _Rows(index.vectorizer.limits),
            _read(file, f"The file {str(path)!r}", index.vectorizer, batch_size),
            batch_size=batch_size,
            show_progress=show_progress,
            on_error=on_error,
        )


def _opened(path: str | Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(path)
    except pa.ArrowInvalid as error:
        raise ValueError(f"The file {str(path)!r} is no Parquet file: {error}.") from error


class _File:
    """A Parquet file to which an index's ``add`` can write."""

    request_bytes = 64 * 2**20  # a row group

    def __init__(self, path: Path, metadata: Metadata) -> None:
        schema = _schema(metadata).with_metadata({_METADATA: json.dumps(metadata).encode()})
        self._writer = pq.ParquetWriter(path, schema)
        self._schema = schema
        self._written: set[str] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._writer.close()

    def stored(self, keys: Sequence[str]) -> dict[str, Stored]:
        again = self._written.intersection(keys)
        if again:
            raise ValueError(
                f"The id {key_to_id(min(again))!r} comes again after its batch, but what is in a "
                "file cannot be replaced; give each id once."
            )
        self._written.update(keys)
        return {}

    def set_origins(self, origins: Mapping[str, str]) -> None:
        """Nothing to do: what is in a file is new."""

    def delete(self, keys: Sequence[str]) -> None:
        """Nothing to do: what is in a file is new."""

    def pack(self, records: Sequence[Record]) -> list[dict[str, Any]]:
        return [_row(record) for record in records]

    def write(self, packed: Sequence[dict[str, Any]]) -> None:
        self._writer.write_table(pa.Table.from_pylist(list(packed), schema=self._schema))

    def size_of(self, record: Record) -> int:
        return 4 * record.dense_size + 8 * len(record.weights) + record.document.size

    def classify(self, error: Exception) -> Failure:
        return PERMANENT


def _schema(metadata: Metadata) -> pa.Schema:
    floats = pa.list_(pa.float32())
    columns = {"id": pa.string(), "text": pa.string(), "_gte_hash": pa.string()}
    if metadata["dimensions"]:
        columns["dense"] = floats
    if metadata["coarse_dimensions"]:
        columns["_gte_coarse"] = floats
    if metadata["sparse"]:
        columns["sparse"] = pa.struct({"indices": pa.list_(pa.uint32()), "values": floats})
    return pa.schema({**columns, "$meta": pa.string()})


def _row(record: Record) -> dict[str, Any]:
    """All columns; those that the schema lacks are left out by pyarrow."""
    document = record.document
    indices, values = never_empty(record)
    return {
        "id": primary_key(document.key),
        "text": document.text,
        "_gte_hash": document.content_hash,
        "dense": record.dense,
        "_gte_coarse": record.coarse,
        "sparse": {"indices": indices, "values": values},
        "$meta": json.dumps({**document.payload, **record.marks}, ensure_ascii=False),
    }


class _Rows:
    """Produces records from rows of a file, which hold documents with their vectors."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits

    def prepare(self, item: object) -> Prepared:
        row = cast("Mapping[str, Any]", item)
        document_id = key_to_id(from_primary_key(row["id"]))
        meta = json.loads(row["$meta"])
        document = Document(document_id, row["text"], users_payload(meta), meta.get(ORIGIN))
        source = {**row, TRUNCATED: bool(meta.get(TRUNCATED))}
        return replace(prepare(document, self._limits), source=source)

    def embed(self, documents: Sequence[Prepared]) -> Embedded:
        return Embedded([_record(document) for document in documents], n_tokens=0)


def _read(
    file: pq.ParquetFile, name: str, vectorizer: Vectorizer, batch_size: int
) -> Iterator[Mapping[str, Any]]:
    """The rows, once the index is open and its vectorizer has the size of the collection."""
    metadata: Metadata = json.loads((file.schema_arrow.metadata or {}).get(_METADATA, b"{}"))
    of_the_collection = {key: metadata.get(key) for key in ("metric", "storage")}
    expected = {**vectorizer.comparable_metadata(), **of_the_collection}
    compare_metadata(name, expected, metadata, kind="file")
    for batch in file.iter_batches(batch_size):
        yield from batch.to_pylist()


def _record(document: Prepared) -> Record:
    row = document.source
    coarse = row.get("_gte_coarse")
    return Record(
        document,
        np.asarray(row.get("dense", []), np.float32),
        None if coarse is None else np.asarray(coarse, np.float32),
        *_sparse(row.get("sparse")),
        truncated=row[TRUNCATED],
    )


def _sparse(column: Mapping[str, Any] | None) -> tuple[NDArray[np.int64], Floats, int]:
    """Token ids, weights and a number above every id, 0 without a sparse head."""
    if column is None:
        return np.empty(0, np.int64), np.empty(0, np.float32), 0
    ids = np.asarray(column["indices"], np.int64)
    weights = np.asarray(column["values"], np.float32)
    if len(ids) == 1 and weights[0] == np.float32(EMPTY_WEIGHT):
        return ids[:0], weights[:0], int(ids[0])
    return ids, weights, int(ids[-1]) + 1
