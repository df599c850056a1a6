"""Makes a collection an index's own that a vectorizer filled through another client."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from gte_core import CollectionMismatch
from gte_integrations._index.metadata import Metadata, check_alike, is_recorded, kinds_of
from gte_integrations._index.records import Record, StoredDocument
from gte_integrations._index.sparse import Floats
from gte_integrations._index.store import Store
from gte_integrations._index.vectorizer import Vectorizer
from gte_integrations._retry import Sender

_SAMPLE = 8
_LEAST_COSINE = 0.999


def adopt(vectorizer: Vectorizer, store: Store[Any], sender: Sender) -> Metadata | None:
    """Check a collection without a record, and record the vectorizer's model with it.

    Returns what is recorded then, or was before; None if there is no collection.
    """
    found = sender.retry(store.describe)
    schema = None if found and is_recorded(found) else sender.retry(store.schema)
    if schema is None:
        return found
    vectorizer.fit_to(schema)
    expected = vectorizer.comparable_metadata()
    _check_complete(store.name, expected, schema, sender.retry(store.missing))
    check_alike(store.name, {key: expected[key] for key in schema}, schema)
    sample = _sampled_keys(store, sender)
    documents = sender.retry(partial(store.read, sample, with_vectors=True)) if sample else []
    _check_vectors(store.name, vectorizer, documents)
    sender.retry(partial(store.record, vectorizer.metadata()))
    return sender.retry(store.describe)


def _sampled_keys(store: Store[Any], sender: Sender) -> list[str]:
    """Eight keys at even distances among all, or all if there are fewer."""
    kept: list[str] = []
    step, seen, after = 1, 0, None
    while True:
        keys, after = sender.retry(partial(store.key_page, after, None))
        for key in keys:
            if seen % step == 0:
                kept.append(key)
            seen += 1
            if len(kept) == 2 * _SAMPLE:
                kept, step = kept[::2], 2 * step
        if after is None:
            places = range(min(_SAMPLE, len(kept)))
            return [kept[place * len(kept) // len(places)] for place in places]


def _check_complete(
    name: str, expected: Metadata, schema: Metadata, missing: Sequence[str]
) -> None:
    there = kinds_of(schema)
    kinds = [kind for kind in kinds_of(expected) if kind not in there]
    lacking = list(dict.fromkeys([*kinds, *missing]))
    if lacking:
        raise CollectionMismatch(
            f"{name} lacks {', '.join(map(repr, lacking))}, which every collection has that a "
            "vectorizer of this library filled. Nothing was written; use another collection."
        )


def _check_vectors(name: str, vectorizer: Vectorizer, documents: Sequence[StoredDocument]) -> None:
    if not documents:
        return
    records = vectorizer.records([(document.id, document.text) for document in documents])
    for document, record in zip(documents, records, strict=True):
        for kind, cosine in _cosines(document, record).items():
            if not cosine >= _LEAST_COSINE:
                raise CollectionMismatch(
                    f"{name} was filled by another model or in another way: the {kind} vector of "
                    f"document {document.id!r} has a cosine of {cosine:.4f} to the one that "
                    f"{vectorizer.encoder.fingerprint.model} gives its text, but must have at "
                    f"least {_LEAST_COSINE}. Nothing was written; adopt it with the encoder that "
                    "filled it, or use another collection."
                )


def _cosines(document: StoredDocument, record: Record) -> dict[str, float]:
    """How much stored vectors are like new ones, by kind."""
    dense, weights = np.asarray(document.dense), np.asarray(document.weights)
    ids = np.asarray(document.token_ids)
    _, at, there = np.intersect1d(ids, record.token_ids, return_indices=True)
    shared = float(weights[at] @ record.weights[there])
    return {
        "dense": _cosine(float(dense @ record.dense), dense, record.dense),
        "sparse": _cosine(shared, weights, record.weights),
    }


def _cosine(product: float, one: Floats, other: Floats) -> float:
    """The cosine of two vectors with this dot product; two that are empty are alike."""
    lengths = float(np.linalg.norm(one) * np.linalg.norm(other))
    return product / lengths if lengths else float(not one.any() and not other.any())
