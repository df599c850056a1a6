"""GTE models for code that names its models in ``qdrant_client.models.Document``.

::

    dense, sparse = register_fastembed("Alibaba-NLP/gte-multilingual-base")
    vector = {
        "dense": models.Document(text="The seed catalogue", model=dense),
        "sparse": models.Document(text="The seed catalogue", model=sparse),
    }
    client.upsert("docs", [models.PointStruct(id=1, vector=vector)])

FastEmbed has no public way to add a model with sparse vectors, so this module adds to its
registries, which another version may change.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gte_core import Encoder, Role, SharedEncoder, as_encoder, shared_encoder
from gte_core.iteration import batched
from gte_integrations._index.checks import check_count
from gte_integrations._index.sparse import sparse_rows
from gte_integrations._index.vectorizer import Vectorizer

try:
    from fastembed import SparseEmbedding, SparseTextEmbedding, TextEmbedding
    from fastembed.common.model_description import (
        DenseModelDescription,
        ModelSource,
        SparseModelDescription,
    )
except ImportError as error:
    raise ImportError(
        "gte_integrations.fastembed needs fastembed; pip install 'gte-integrations[fastembed]'"
    ) from error

__all__ = ["register_fastembed"]


def register_fastembed(
    encoder: Encoder | str | Path, *, name: str | None = None
) -> tuple[str | None, str | None]:
    """Make a model known to FastEmbed, for this process; return its dense and its sparse name.

    The sparse name has ``-sparse`` behind it. The name of vectors that the model does not give is
    None. Both vectors of a text come from one pass.
    ``Document(options={"dimensions": 128})`` gives shorter dense vectors.

    A client keeps the models that it has used: register before it does. Worker processes, as of
    ``upload_points(parallel=2)``, must register by themselves.

    ``TextEmbedding`` and ``SparseTextEmbedding`` take the name with FastEmbed's usual arguments.
    Those that say how to load a model (``cache_dir``, ``threads``, ``providers``, ``cuda``,
    ``device_ids``, ``lazy_load``, ``local_files_only``, ``specific_model_path``) change nothing:
    the encoder is there. It computes in one process, so ``parallel`` above 1 is a ``ValueError``.

    Args:
        encoder: the name of a model, a loaded ``GTEEmbedder``, or another encoder.
        name: what to call it, by default as its fingerprint does. A name registered before gets
            the new encoder; one of FastEmbed's own models is a ``ValueError``.
    """
    shared = shared_encoder(as_encoder(encoder))
    name = name or shared.fingerprint.model
    dense = name if shared.has_dense else None
    sparse = f"{name}-sparse" if shared.has_sparse else None
    if dense is not None:
        _register(TextEmbedding, _dense_model(shared, dense), dense)
    if sparse is not None:
        _register(SparseTextEmbedding, _sparse_model(shared, sparse), sparse)
    return dense, sparse


class _Model:
    """What FastEmbed asks of a model. A subclass holds the encoder and makes one kind of vector."""

    encoder: Encoder
    description: Any

    def __init__(
        self,
        model_name: str,
        cache_dir: str | None = None,
        *,
        threads: int | None = None,
        providers: object = None,
        cuda: object = None,
        device_ids: list[int] | None = None,
        lazy_load: bool = False,
        local_files_only: bool = False,
        specific_model_path: str | None = None,
        dimensions: int | None = None,
    ) -> None:
        # The others say how to load a model, and this one is loaded.
        self.dimensions = Vectorizer(self.encoder, dimensions=dimensions).dimensions

    @classmethod
    def _list_supported_models(cls) -> list[Any]:
        return [cls.description]

    def embed(
        self, documents: str | Iterable[str], batch_size: int = 256, parallel: int | None = None
    ) -> Iterator[Any]:
        """Yield a vector for each text."""
        yield from self._embed(documents, "document", batch_size, parallel)

    def query_embed(
        self, query: str | Iterable[str], batch_size: int = 256, parallel: int | None = None
    ) -> Iterator[Any]:
        """Yield a vector for each query, with the model's query prefix."""
        yield from self._embed(query, "query", batch_size, parallel)

    def passage_embed(
        self, texts: Iterable[str], batch_size: int = 256, parallel: int | None = None
    ) -> Iterator[Any]:
        """Yield a vector for each text."""
        yield from self.embed(texts, batch_size, parallel)

    def token_count(self, texts: str | Iterable[str], batch_size: int = 1024) -> int:
        """Count the tokens that the model reads: special ones too, but none that is cut off."""
        check_count("batch_size", batch_size)
        listed = [texts] if isinstance(texts, str) else texts
        return sum(_count_tokens(self.encoder, batch) for batch in batched(listed, batch_size))

    def _embed(
        self, texts: str | Iterable[str], role: Role, batch_size: int, parallel: int | None
    ) -> Iterator[Any]:
        _check_parallel(parallel)
        check_count("batch_size", batch_size)
        for batch in batched([texts] if isinstance(texts, str) else texts, batch_size):
            yield from self._vectors(batch, role)

    def _vectors(self, texts: list[str], role: Role) -> Iterable[Any]:
        raise NotImplementedError


class _DenseModel(_Model):
    def _vectors(self, texts: list[str], role: Role) -> Iterable[NDArray[np.float32]]:
        return self.encoder.encode_dense(texts, role=role, dimensions=self.dimensions)


class _SparseModel(_Model):
    def _vectors(self, texts: list[str], role: Role) -> Iterable[SparseEmbedding]:
        matrix = self.encoder.encode_sparse(texts, role=role)
        return [
            SparseEmbedding(values=weights, indices=ids) for ids, weights in sparse_rows(matrix)
        ]


def _check_parallel(parallel: int | None) -> None:
    if parallel not in {None, 1}:
        raise ValueError(
            f"parallel is {parallel!r}, but a model of register_fastembed computes in this "
            "process, with all its threads; leave it out, or register and embed in processes of "
            "your own."
        )


def _count_tokens(encoder: Encoder, texts: list[str]) -> int:
    if isinstance(encoder, SharedEncoder):
        read = np.minimum(encoder.count_tokens(texts), encoder.embedder.max_length)
    else:
        read = encoder.encode_available(texts).n_tokens  # others count by a pass
    return int(read.sum())


def _dense_model(encoder: Encoder, name: str) -> type[_Model]:
    description = DenseModelDescription(dim=encoder.dimensions, **_common(name))
    return type("GTEDense", (_DenseModel,), {"encoder": encoder, "description": description})


def _sparse_model(encoder: Encoder, name: str) -> type[_Model]:
    # The weights are learned, so they need no factor for rare tokens (IDF).
    description = SparseModelDescription(requires_idf=False, **_common(name))
    return type("GTESparse", (_SparseModel,), {"encoder": encoder, "description": description})


def _common(name: str) -> dict[str, Any]:
    return {
        "model": name,
        "sources": ModelSource(hf=name),
        "model_file": "",
        "description": "A GTE model, computed by gte-integrations.",
        "license": "apache-2.0",
        "size_in_GB": 0.0,
    }


def _register(family: Any, model: type[_Model], name: str) -> None:
    others = [kind for kind in family.EMBEDDINGS_REGISTRY if not _is_ours(kind, name)]
    taken = {known.model.lower() for kind in others for known in kind._list_supported_models()}
    if name.lower() in taken:
        raise ValueError(
            f"name is {name!r}, but FastEmbed has a model of that name; choose another."
        )
    family.EMBEDDINGS_REGISTRY[:] = [*others, model]


def _is_ours(kind: type[Any], name: str) -> bool:
    return issubclass(kind, _Model) and kind.description.model.lower() == name.lower()
