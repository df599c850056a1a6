"""A Qdrant collection in a directory, served by the embedded engine inside this process."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, NamedTuple

from gte_core import CollectionMismatch
from gte_integrations._index.metadata import Metadata, Quantization
from gte_integrations._index.qdrant.disk_space import (
    LITTLE,
    OPENING,
    RESERVE,
    allocated,
    require_space,
)
from gte_integrations._index.qdrant.embedded import edge
from gte_integrations._index.qdrant.layouts import RECORD, collections_of, refuse_clients
from gte_integrations._index.qdrant.options import missing
from gte_integrations._index.qdrant.points import (
    COARSE,
    DENSE,
    ID,
    SPARSE,
    Search,
    payload_of,
    point_id,
    quantized_search,
    sizes_of,
    vectors_of,
)
from gte_integrations._index.qdrant.shard import SharedShard
from gte_integrations._index.qdrant.store import QdrantStore
from gte_integrations._index.records import Record
from gte_integrations._index.search import gathered
from gte_integrations._retry import PERMANENT, Failure

_DROPPED = ".gte-dropped-"  # no collection's name begins with a dot
_CONFIG = "edge_config.json"  # the engine's own


class _Packed(NamedTuple):
    """A point, and about how many bytes it takes."""

    point: edge.Point
    size: int


class EdgeStore(QdrantStore[edge.Filter]):
    """A collection in a directory, served by Qdrant's engine inside this process.

    One process at a time: the engine locks the directory while it is open. Each call holds the
    shard while it talks to the engine, and no longer, so that ``close`` is soon through.
    """

    bridge = None

    def __init__(
        self,
        directory: Path,
        collection: str,
        *,
        quantization: Quantization,
        payload_schemas: Mapping[str, Any],
        collection_options: Mapping[str, Any],
    ) -> None:
        self._payload_schemas = payload_schemas
        self._collection_options = collection_options
        self._sparse_vector = edge.SparseVector
        self._quantization = quantization
        self._collection = collection
        self._path = directory / collection
        self._record = self._path / RECORD
        self.place = (self._path.resolve(),)
        self.name = f"The Qdrant collection {str(self._path)!r}"
        self._shard = SharedShard(self.name, self._load)

    def describe(self, *, reopen: bool = True) -> Metadata | None:
        if reopen:
            self._shard.allow()
        metadata = _read(self._record)
        if metadata is not None:
            return metadata
        if not self._has_shard():
            refuse_clients(self._path.parent, self._collection)
            return None
        # A shard without documents and without a record is a create() that was killed.
        documents = self.count()
        if documents and self._record.exists():
            raise CollectionMismatch(
                f"{self.name} holds {documents} documents, but {str(self._record)!r}, the record "
                "of the model that filled it, is empty or damaged. Put that file back from a "
                "copy, or remove it and adopt() the collection."
            )
        return {} if documents else None

    def create(self, metadata: Metadata) -> None:
        self._path.mkdir(parents=True, exist_ok=True)
        self._shard.open_with(lambda: self._make(metadata))

    def add_payload_indexes(self) -> None:
        if not self._payload_schemas:
            return
        with self._shard() as shard:
            wanted = missing(self._payload_schemas, shard.info().payload_schema)
            if wanted:
                require_space(self.name, self._path, RESERVE)
            for key, params in wanted.items():
                shard.update(edge.UpdateOperation.create_field_index(key, params))

    def alias_target(self, alias: str) -> str | None:
        raise NotImplementedError(
            f"{self.name} is in a directory, where there are no aliases; open the collection by "
            "its own name, or use a Qdrant server."
        )

    def set_alias(self, alias: str, collection: str) -> None:
        self.alias_target(alias)

    def schema(self) -> Metadata | None:
        self._shard.allow()
        config = _read(self._path / _CONFIG)
        return None if config is None else _schema(config)

    def record(self, metadata: Metadata) -> None:
        require_space(self.name, self._path, LITTLE)
        with self._shard() as shard:
            shard.flush()
            self._sync_folders()
            _write(self._record, metadata)

    def pack(self, records: Sequence[Record]) -> list[_Packed]:
        return [_Packed(_to_point(record), self.size_of(record)) for record in records]

    def write(self, packed: Sequence[_Packed]) -> None:
        # A point is written twice, to the log and to the storages; size_of is an estimate of
        # JSON, which takes more than both.
        size = sum(item.size for item in packed)
        require_space(self.name, self._path, RESERVE + size)
        with self._shard() as shard:
            shard.update(edge.UpdateOperation.upsert_points([item.point for item in packed]))

    def count(self) -> int:
        with self._shard() as shard:
            return shard.count(edge.CountRequest(exact=True))

    def delete(self, keys: Sequence[str]) -> None:
        selected: list[Any] = [point_id(key) for key in keys]
        require_space(self.name, self._path, LITTLE)
        with self._shard() as shard:
            shard.update(edge.UpdateOperation.delete_points(selected))

    def drop(self) -> None:
        if not (self._record.exists() or self._has_shard()):
            return  # no engine made it, so whatever else is there stays
        with self._shard():
            pass  # nobody else has it open
        self._shard.close()
        folder = self._path.parent
        holder = Path(mkdtemp(prefix=_DROPPED, dir=folder))
        self._path.rename(holder / "shard")  # gone as a whole, also if this is killed
        for left in folder.glob(f"{_DROPPED}*"):
            shutil.rmtree(left, ignore_errors=left != holder)  # others' are of killed ones

    def classify(self, error: Exception) -> Failure:
        return PERMANENT

    def collections(self) -> list[str]:
        return collections_of(self._path.parent)

    def optimize(self) -> None:
        # Segments are written anew before the old ones go: at most once their size where that
        # was measured, with int8 vectors and graphs below twice.
        size = allocated((self._path / "segments").rglob("*"))
        require_space(self.name, self._path, RESERVE + 2 * size)
        with self._shard() as shard:
            shard.optimize()

    def close(self) -> None:
        self._shard.close()

    def _make(self, metadata: Metadata) -> edge.EdgeShard:
        """Make the shard, or what a killed ``create`` left of it, whole, and then the record."""
        if _read(self._record) is not None:  # another thread was faster
            return self._load()
        require_space(self.name, self._path, RESERVE)
        shard = self._make_shard(_edge_config(metadata, self._collection_options))
        try:
            if shard.count(edge.CountRequest()):  # that only the log still held
                raise CollectionMismatch(
                    f"{self.name} holds documents, but no record of the model that filled it; use "
                    "another collection."
                )
            shard.flush()
            self._sync_folders()
            _write(self._record, metadata)
        except BaseException:
            shard.close()
            raise
        return shard

    def _make_shard(self, config: edge.EdgeConfig) -> edge.EdgeShard:
        if not any(self._path.iterdir()):
            return edge.EdgeShard.create(str(self._path), config)
        try:  # given the configuration, the engine adds whatever is missing and deletes nothing
            return edge.EdgeShard.load(str(self._path), config)
        except Exception as error:
            if "ncompatible" not in str(error):
                raise self._explained(error) from error
            raise CollectionMismatch(
                f"{self.name} was begun for other vectors, and holds no documents: {error}. "
                "Delete the directory, or use another collection."
            ) from error

    def _sync_folders(self) -> None:
        """The engine brings its files to the disk, but not all of their names."""
        inside = [path for path in self._path.rglob("*") if path.is_dir()]
        for folder in (*inside, self._path, self._path.parent):
            _sync(folder)

    def _load(self) -> edge.EdgeShard:
        if self._path.exists():
            require_space(self.name, self._path, OPENING)
        try:
            return edge.EdgeShard.load(str(self._path))
        except Exception as error:
            raise self._explained(error) from error

    def _explained(self, error: Exception) -> OSError:
        """What hinders the engine from opening; it has no error types of its own."""
        if "WouldBlock" in str(error):
            return BlockingIOError(
                f"{self.name} is open elsewhere; the embedded engine lets one process at a time "
                "open it, and that once. Close the other index (a forked child keeps what its "
                "parent had open until it ends), or run a Qdrant server."
            )
        if "Permission denied" in str(error) or "Read-only" in str(error):
            return PermissionError(
                f"{self.name} cannot be opened: {error}. The engine writes into the directory also "
                "where it is only searched; let this user write there, or search a copy."
            )
        return OSError(
            f"{self.name} cannot be opened: {error}. Nothing was changed; put the directory back "
            "from a copy, or delete it and add the documents again."
        )

    def _has_shard(self) -> bool:
        """Whether there is anything to load; what a killed ``create`` left may be too little."""
        segments = self._path / "segments"
        return (self._path / _CONFIG).exists() or any(segments.glob("*"))

    def _retrieve(
        self, point_ids: list[str], payload: bool | list[str], *, vectors: bool = False
    ) -> Sequence[Any]:
        with self._shard() as shard:
            return shard.retrieve(list(point_ids), payload, vectors)

    def _scroll(
        self,
        after: Any,
        condition: edge.Filter | None,
        size: int,
        payload: bool | list[str],
        *,
        vectors: bool = False,
    ) -> tuple[Sequence[Any], Any]:
        request = edge.ScrollRequest(after, size, condition, payload, vectors)
        with self._shard() as shard:
            return shard.scroll(request)

    def _set_payload(self, point_ids: list[str], values: dict[str, Any]) -> None:
        require_space(self.name, self._path, RESERVE)
        with self._shard() as shard:
            shard.update(edge.UpdateOperation.set_payload([*point_ids], values))

    def _filter(self, condition: object) -> edge.Filter | None:
        if condition is None or isinstance(condition, edge.Filter):
            return condition
        from gte_integrations._index.qdrant.filters import to_edge_filter

        return to_edge_filter(condition, point_id)

    def _request(
        self, search: Search, limit: int, condition: edge.Filter | None
    ) -> edge.QueryRequest:
        return edge.QueryRequest(
            prefetches=_edge_prefetches(search, limit, condition),
            limit=limit,
            query=edge.Query.Nearest(search.query, using=search.using),
            filter=condition,
            params=_edge_params(search, self._quantization),
            with_payload=[ID],
        )

    def _query(self, requests: list[edge.QueryRequest]) -> Sequence[Sequence[Any]]:
        with self._shard() as shard:
            return shard.query_batch(edge.QueryBatchRequest(requests))


def _to_point(record: Record) -> edge.Point:
    key = record.document.key
    return edge.Point(point_id(key), vectors_of(record, edge.SparseVector), payload_of(record))


def _edge_config(metadata: Metadata, options: Mapping[str, Any]) -> edge.EdgeConfig:
    half = edge.VectorStorageDatatype.Float16 if metadata["storage"] == "float16" else None
    int8 = edge.ScalarQuantizationConfig(edge.ScalarType.Int8)
    dense = {
        name: edge.EdgeVectorParams(
            size,
            edge.Distance.Dot,
            datatype=half,
            quantization_config=int8 if metadata["storage"] == "int8" else None,
        )
        for name, size in sizes_of(metadata).items()
    }
    sparse = {SPARSE: edge.EdgeSparseVectorParams()} if metadata["sparse"] else {}
    return edge.EdgeConfig(vectors=dense, sparse_vectors=sparse, **options)


def _schema(config: Mapping[str, Any]) -> Metadata:
    """What a configuration, as the engine writes it, says of the vectors."""
    vectors = config.get("vectors") or {}
    dense, coarse = vectors.get(DENSE, {}), vectors.get(COARSE, {})
    storage = "float16" if dense.get("datatype") == "float16" else "float32"
    return {
        "dimensions": dense.get("size"),
        "coarse_dimensions": coarse.get("size"),
        "metric": dense.get("distance"),
        "storage": ("int8" if dense.get("quantization_config") else storage) if dense else None,
        "sparse": SPARSE in (config.get("sparse_vectors") or {}),
    }


def _edge_params(search: Search, quantization: Quantization) -> edge.SearchParams | None:
    options = quantized_search(search, quantization)
    if options is None:
        return None
    return edge.SearchParams(quantization=edge.QuantizationSearchParams(**options))


def _edge_prefetches(
    search: Search, limit: int, condition: edge.Filter | None
) -> list[edge.Prefetch] | None:
    if search.coarse is None:
        return None
    query = edge.Query.Nearest(search.coarse, using=COARSE)
    return [edge.Prefetch(limit=gathered(limit), query=query, filter=condition)]


# ------------------------------------------------------------------ the record


def _read(record: Path) -> dict[str, Any] | None:
    """What was recorded, None if nothing that can be read."""
    try:
        metadata = json.loads(record.read_bytes())
    except (FileNotFoundError, ValueError):
        return None
    return metadata if isinstance(metadata, dict) else None


def _write(record: Path, metadata: Metadata) -> None:
    """Record it whole or not at all, whatever happens to the machine."""
    unfinished = record.with_suffix(".partial")
    with unfinished.open("w", encoding="utf-8") as file:
        file.write(json.dumps(metadata))
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(record)
    _sync(record.parent)


def _sync(folder: Path) -> None:
    """Bring to the disk which files a folder has."""
    if os.name == "nt":  # opens no folder
        return
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
