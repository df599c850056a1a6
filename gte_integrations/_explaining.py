"""One document's score, taken apart from the vectors that the store holds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from gte_core import Encoder, Explanation, as_queries
from gte_integrations._fusion import Linear
from gte_integrations._records import Floats
from gte_integrations._sparse import sparse_dicts


@dataclass(frozen=True, slots=True)
class StoredVectors:
    """A document's vectors as a store gives them back; ``weights`` are by token id."""

    dense: Floats
    weights: Mapping[int, float]


def explain(encoder: Encoder, query: str, stored: StoredVectors, fusion: Linear) -> Explanation:
    """Encode the query, in the size of the stored vector, and compare the two."""
    texts, size = as_queries(encoder, query), len(stored.dense)
    weights: dict[int, float] = {}
    name: Callable[[int], str] = str
    if encoder.has_sparse:
        both = encoder.encode(texts, dimensions=size)
        dense, name = both.dense[0], both.decode_token
        [weights] = sparse_dicts(both.sparse)
    else:
        dense = encoder.encode_dense(texts, dimensions=size)[0]
    return Explanation.of(
        float(dense @ stored.dense),
        weights,
        stored.weights,
        name=name,
        dense_weight=fusion.dense_weight,
        sparse_weight=fusion.sparse_weight,
    )
