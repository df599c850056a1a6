"""Documents and their vectors in a Parquet file: for Milvus' bulk import, or to keep and load.

::

    vectorizer = MilvusVectorizer(embedder)
    write_parquet(vectorizer, documents, "corpus.parquet")   # encoded once, on a large machine
    add_parquet(index, "corpus.parquet")                     # into any index, without the model

Columns: ``id`` (string, as in a Milvus collection of this library), ``text``, ``_gte_hash``,
``dense`` (list of float), ``_gte_coarse`` (the same, if there are two sizes), ``sparse`` (struct of
the lists ``indices`` and ``values``) and ``$meta`` (the payload as JSON). Milvus reads them into a
collection that ``MilvusHybridIndex.create`` has made.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast

import numpy as np
from numpy.typing import NDArray

from gte_integrations._index.index import HybridIndex, compare_facts
from gte_integrations._index.ingest import IndexReport, OnError, ingest
from gte_integrations._index.records import (
    ORIGIN,
    TRUNCATED,
    Document,
    Embedded,
    Facts,
    Floats,
    Limits,
    Prepared,
    Record,
    Stored,
    Vectorizer,
    from_primary_key,
    key_to_id,
    never_empty,
    prepare,
    primary_key,
    users_payload,
)
from gte_integrations._index.retry import PERMANENT, Trouble
from gte_integrations._index.sparse import EMPTY_WEIGHT

try:
    import pyarrow as pa
    import pyarrow.parquet as pq
except ImportError as error:
    raise ImportError(
        "gte_integrations.parquet needs pyarrow; pip install 'gte-integrations[parquet]'"
    ) from error

__all__ = ["add_parquet", "write_parquet"]

_FACTS = b"gte.facts"


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
    unfinished = Path(f"{path}.partial")
    try:
        with _File(unfinished, vectorizer.facts()) as file:
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
    with pq.ParquetFile(path) as file:
        facts: Facts = json.loads((file.schema_arrow.metadata or {}).get(_FACTS, b"{}"))
        of_the_collection = {fact: facts.get(fact) for fact in ("metric", "storage")}
        expected = {**index.vectorizer.facts(), **of_the_collection}
        compare_facts(f"The file {str(path)!r}", expected, facts, kind="file")
        return index.ingest(
            _Stored(index.vectorizer.limits),
            _rows(file, batch_size),
            batch_size=batch_size,
            show_progress=show_progress,
            on_error=on_error,
        )


class _File:
    """A Parquet file to which an index's ``add`` can write."""

    request_bytes = 64 * 2**20  # a row group

    def __init__(self, path: Path, facts: Facts) -> None:
        schema = _schema(facts).with_metadata({_FACTS: json.dumps(facts).encode()})
        self._writer = pq.ParquetWriter(path, schema)
        self._schema = schema
        self._written: set[str] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
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

    def judge(self, error: Exception) -> Trouble:
        return PERMANENT


def _schema(facts: Facts) -> pa.Schema:
    floats = pa.list_(pa.float32())
    columns = {"id": pa.string(), "text": pa.string(), "_gte_hash": pa.string(), "dense": floats}
    if facts["coarse_dimensions"]:
        columns["_gte_coarse"] = floats
    if facts["sparse"]:
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


@dataclass(frozen=True, slots=True)
class _StoredDocument(Prepared):
    """A document that comes with its vectors."""

    row: Mapping[str, Any] = field(default_factory=dict)
    truncated: bool = False


class _Stored:
    """Produces records from rows of a file."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits

    def prepare(self, item: object) -> Prepared:
        row = cast("Mapping[str, Any]", item)
        document_id = key_to_id(from_primary_key(row["id"]))
        meta = json.loads(row["$meta"])
        document = Document(document_id, row["text"], users_payload(meta), meta.get(ORIGIN))
        prepared = prepare(document, self._limits)
        values = {field.name: getattr(prepared, field.name) for field in fields(prepared)}
        return _StoredDocument(**values, row=row, truncated=bool(meta.get(TRUNCATED)))

    def embed(self, documents: Sequence[Prepared]) -> Embedded:
        records = [_record(document) for document in documents]
        return Embedded(records, n_tokens=0)


def _rows(file: pq.ParquetFile, batch_size: int) -> Iterator[Mapping[str, Any]]:
    for batch in file.iter_batches(batch_size):
        yield from batch.to_pylist()


def _record(document: Prepared) -> Record:
    stored = cast("_StoredDocument", document)
    row, coarse = stored.row, stored.row.get("_gte_coarse")
    return Record(
        document,
        np.asarray(row["dense"], np.float32),
        None if coarse is None else np.asarray(coarse, np.float32),
        *_sparse(row.get("sparse")),
        truncated=stored.truncated,
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
