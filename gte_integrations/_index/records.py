"""From documents to records: ids, checks, content hashes, vectors. Knows no engine."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, is_dataclass, replace
from itertools import pairwise
from typing import Any, Literal
from unicodedata import category
from urllib.parse import unquote

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from gte_core import Encoder, HybridEmbeddings, MissingHeadError, NonFiniteError, as_encoder
from gte_core.pickling import restore_by_name, state_by_name
from gte_integrations._index.fusion import DocumentId
from gte_integrations._index.sparse import EMPTY_WEIGHT

Mode = Literal["hybrid", "dense", "sparse"]
Facts = dict[str, str | int | bool | None]
Floats = NDArray[np.float32]
Sparse = sp.csr_array[np.float32]

ID_MAX_BYTES = 4096
RESERVED_KEYS = frozenset({"id", "text", "dense", "sparse", "$meta"})
RESERVED_PREFIX = "_gte_"
ORIGIN, TRUNCATED = "_gte_origin", "_gte_truncated"
_DEEPEST = 64
_JSON = json.JSONEncoder(allow_nan=False, ensure_ascii=False, sort_keys=True)
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")
_MANY_DIGITS = re.compile(r"\d{19}")


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


@dataclass(frozen=True, slots=True)
class Stored:
    """What a collection says of a document, short of the document itself."""

    content_hash: str
    origin: str | None = None
    truncated: bool = False


@dataclass(frozen=True, slots=True)
class Limits:
    """Sizes in UTF-8 bytes that an engine takes; None where it sets no limit."""

    text_bytes: int | None = None
    payload_bytes: int | None = None


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
    source: str = field(repr=False)
    """The text as it was given, which is what the model reads."""
    origin: str | None = None

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to embed; such a vector would match anything a little."""
        return all(char.isspace() or category(char) == "Cf" for char in self.text)


@dataclass(frozen=True, slots=True)
class Record:
    """A document with its vectors, ready to be written.

    ``dense`` is float32 ``(dimensions,)``, ``coarse`` its leading part or None; ``token_ids`` are
    int64, sorted and unique, ``weights`` float32 and positive, both of the same length, which may
    be 0. ``vocab_size`` is above every token id. ``truncated`` says that the model read the
    beginning of the text alone.
    """

    document: Prepared
    dense: Floats
    coarse: Floats | None
    token_ids: NDArray[np.int64]
    weights: Floats
    vocab_size: int
    truncated: bool = False

    @property
    def dense_size(self) -> int:
        """Components of the dense and the coarse vector together."""
        return len(self.dense) + (0 if self.coarse is None else len(self.coarse))

    @property
    def stored(self) -> Stored:
        """What a collection will say of it."""
        return Stored(self.document.content_hash, self.document.origin, self.truncated)

    @property
    def marks(self) -> dict[str, Any]:
        """What is stored beside text and payload, and shown to nobody."""
        origin = {} if self.document.origin is None else {ORIGIN: self.document.origin}
        return origin | ({TRUNCATED: True} if self.truncated else {})


@dataclass(frozen=True, slots=True)
class Queries:
    """Vectors to search with, row for row; None for a kind that is not wanted.

    ``coarse`` is the leading part of ``dense``, for a collection with two sizes.
    """

    dense: Floats | None = None
    coarse: Floats | None = None
    sparse: Sparse | None = None

    def __len__(self) -> int:
        vectors = self.sparse if self.dense is None else self.dense
        return 0 if vectors is None else int(vectors.shape[0])

    def __getitem__(self, part: slice) -> Queries:
        if part.indices(len(self)) == (0, len(self), 1):
            return self  # cutting a sparse matrix takes a good part of a small search
        return self._cut(part)

    def take(self, rows: list[int]) -> Queries:
        """These rows, in this order."""
        return self._cut(rows)

    def _cut(self, part: slice | list[int]) -> Queries:
        return Queries(
            None if self.dense is None else self.dense[part],
            None if self.coarse is None else self.coarse[part],
            None if self.sparse is None else self.sparse[part],
        )


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
    return f"str:{document_id}" if document_id.startswith(("int:", "str:")) else document_id


def key_to_id(key: str) -> DocumentId:
    """The id behind a key; undoes ``id_to_key``."""
    if key.startswith("int:"):
        return int(key[4:])
    return key.removeprefix("str:")


# Neither pymilvus nor every server escapes string literals in the same way, so what would need
# escaping is not in a key.
_UNSAFE = {ord(char): f"%{ord(char):02X}" for char in "%\"'\\" + "".join(map(chr, range(32)))}


def primary_key(key: str) -> str:
    """A key as Milvus has it: quotes, backslashes, control characters and ``%`` as ``%22``."""
    return key.translate(_UNSAFE)


def from_primary_key(key: str) -> str:
    """Undoes ``primary_key``."""
    return unquote(key)


def never_empty(record: Record) -> tuple[list[int], list[float]]:
    """Token ids and weights; instead of none, a tiny one that no query holds.

    Not every Milvus takes an empty vector, and no token has an id of ``vocab_size``.
    """
    if len(record.token_ids):
        return record.token_ids.tolist(), record.weights.tolist()
    return [record.vocab_size], [EMPTY_WEIGHT]


def users_payload(stored: Mapping[str, Any]) -> dict[str, Any]:
    """The payload without the keys that an index keeps for itself."""
    return {key: value for key, value in stored.items() if not key.startswith(RESERVED_PREFIX)}


def as_stored(marks: Mapping[str, Any], content_hash: str) -> Stored:
    """What ``Record.marks`` said when the document was written."""
    return Stored(content_hash, marks.get(ORIGIN), bool(marks.get(TRUNCATED)))


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
    return text if text.isascii() else _LONE_SURROGATE.sub("\ufffd", text)


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
            f"The payload of document {document.id!r} cannot be stored as JSON: {error}. Use str, "
            "int of 64 bits, finite float, bool, None, and lists and dicts of these, at most "
            f"{_DEEPEST} within one another."
        ) from error
    return encoded


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
    if key in RESERVED_KEYS or key.startswith(RESERVED_PREFIX):
        raise ValueError(
            f"The payload of document {document_id!r} has the key {key!r}, which the index uses "
            f"itself; rename it. Taken are {', '.join(sorted(RESERVED_KEYS))} and whatever starts "
            f"with {RESERVED_PREFIX!r}."
        )


class Vectorizer:
    """Makes records and query vectors. Needs no store; its arguments are those of an index."""

    limits = Limits()
    metric = "dot product"

    def __init__(
        self,
        encoder: Encoder,
        *,
        dimensions: int | None = None,
        coarse_dimensions: int | None = None,
    ) -> None:
        self.encoder = encoder = as_encoder(encoder)
        self.dimensions = encoder.dimensions
        if dimensions is not None:
            self.dimensions = _check_size("dimensions", dimensions, encoder.dimensions)
        self.coarse_dimensions = coarse_dimensions
        if coarse_dimensions is not None:
            _check_size("coarse_dimensions", coarse_dimensions, self.dimensions - 1)

    def facts(self) -> Facts:
        """What a collection's vectors must share with these to be comparable."""
        fingerprint = self.encoder.fingerprint
        return {
            "model": fingerprint.model,
            "revision": fingerprint.revision,
            "max_length": fingerprint.max_length,
            "numeric": fingerprint.numeric,
            "dimensions": self.dimensions,
            "coarse_dimensions": self.coarse_dimensions,
            "metric": self.metric,
            "sparse": self.encoder.has_sparse,
        }

    def metadata(self) -> Facts:
        """What is stored with a collection: the facts, and two things that are recorded only.

        The name of the model as it was given, and its query prefix, let others open the collection
        as it was; they are never compared.
        """
        model = getattr(self.encoder, "model", None)
        name = model if isinstance(model, str) else self.encoder.fingerprint.model
        return {**self.facts(), "name": name, "query_prefix": self.encoder.query_prefix}

    def prepare(self, item: object) -> Prepared:
        """Read and check one document in any accepted form."""
        return prepare(as_document(item), self.limits)

    def records(self, documents: Iterable[object]) -> list[Record]:
        """Read, check and embed documents, in one call of the encoder."""
        return self.embed([self.prepare(item) for item in documents]).records

    def embed(self, documents: Sequence[Prepared]) -> Embedded:
        """Embed documents that were checked. ``NonFiniteError`` if a vector cannot be stored."""
        both = self._encode([document.source for document in documents])
        return Embedded(self._as_records(documents, both), int(both.n_tokens.sum()))

    def _encode(self, texts: list[str]) -> HybridEmbeddings:
        """What the model gives, with no columns in ``sparse`` where it has no sparse head."""
        if self.encoder.has_sparse:
            return self.encoder.encode(texts, dimensions=self.dimensions)
        both = self.encoder.encode_available(texts, dimensions=self.dimensions)
        return replace(both, sparse=HybridEmbeddings.of_dense(both.dense).sparse)

    @property
    def default_mode(self) -> Mode:
        """How to search with all vectors that the model gives."""
        return "hybrid" if self.encoder.has_sparse else "dense"

    def query_vectors(self, queries: str | Sequence[str], mode: Mode) -> Queries:
        """Dense ``(n, dimensions)`` and sparse ``(n, vocab_size)`` vectors, as far as needed."""
        if mode == "dense":
            dense = self.encoder.encode_dense(queries, role="query", dimensions=self.dimensions)
            return Queries(dense, self._coarse(dense))
        self.need_sparse(f"mode={mode!r}")
        if mode == "sparse":
            return Queries(sparse=self.encoder.encode_sparse(queries, role="query"))
        both = self.encoder.encode(queries, role="query", dimensions=self.dimensions)
        return Queries(both.dense, self._coarse(both.dense), both.sparse)

    def need_sparse(self, what: str) -> None:
        """Raise ``MissingHeadError`` if the model gives no sparse vectors, which ``what`` needs."""
        if not self.encoder.has_sparse:
            raise MissingHeadError(
                f"{what} needs sparse vectors, but {self.encoder.fingerprint.model} gives none; "
                'search with mode="dense", or use a model with a sparse head.'
            )

    def _coarse(self, dense: Floats) -> Floats | None:
        if self.coarse_dimensions is None:
            return None
        return HybridEmbeddings.of_dense(dense).with_dimensions(self.coarse_dimensions).dense

    def _as_records(self, documents: Sequence[Prepared], both: HybridEmbeddings) -> list[Record]:
        dense, sparse = both.dense, both.sparse
        expected = (len(documents), self.dimensions)
        if dense.shape != expected or sparse.shape[0] != len(documents):
            raise ValueError(
                f"The encoder gave dense vectors of shape {dense.shape} and {sparse.shape[0]} "
                f"sparse ones, but {len(documents)} documents need {expected}."
            )
        _check_finite(documents, dense, sparse)
        coarse = self._coarse(dense)
        width, truncated = int(sparse.shape[1]), both.truncated.tolist()
        return [
            Record(
                document,
                dense[row],
                None if coarse is None else coarse[row],
                *found,
                width,
                truncated[row],
            )
            for row, (document, found) in enumerate(
                zip(documents, sparse_rows(sparse), strict=True)
            )
        ]


@dataclass(frozen=True, slots=True)
class Embedded:
    """Records of one call of the encoder, and the tokens it was fed."""

    records: list[Record]
    n_tokens: int


def sparse_rows(matrix: Sparse) -> Iterator[tuple[NDArray[np.int64], Floats]]:
    """Yield ``(token ids int64, weights float32)`` of each row."""
    ids, starts = matrix.indices.astype(np.int64), matrix.indptr.tolist()
    for start, stop in pairwise(starts):
        yield ids[start:stop], matrix.data[start:stop]


def _check_size(name: str, size: int, limit: int) -> int:
    if isinstance(size, bool) or not isinstance(size, int):
        raise TypeError(f"{name} must be an integer from 1 to {limit}, got {size!r}.")
    if not 1 <= size <= limit:
        raise ValueError(
            f"{name} is {size}, but must be from 1 to {limit}: the dense vectors are no larger "
            "than the encoder's, the coarse ones smaller than the dense."
        )
    return size


def _check_finite(documents: Sequence[Prepared], dense: Floats, sparse: Sparse) -> None:
    # Some engines store NaN without a word and rank it above everything.
    good: NDArray[np.bool_] = np.asarray(np.isfinite(dense).all(axis=1))
    weights_good = np.isfinite(sparse.data) & (sparse.data > 0)
    if not weights_good.all():
        rows = np.searchsorted(sparse.indptr, np.flatnonzero(~weights_good), side="right") - 1
        good[rows] = False
    if not good.all():
        document = documents[int(np.argmin(good))]
        raise NonFiniteError(
            f"The encoder gave document {document.id!r} a vector with NaN, infinity or a sparse "
            "weight that is not positive; nothing of its batch was written."
        )
