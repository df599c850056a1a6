"""Write ``VERSION.tar.xz`` with the installed version: what later versions must go on reading.

::

    python tests/archive/make.py

Run once, before a version is released; an archive is never made anew. What is in it is said in
README.md beside this file.
"""

from __future__ import annotations

import argparse
import importlib
import json
import lzma
import pickle
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import gte_core
from gte_core.testing import random_checkpoint

HUB_MODEL = "example/small-gte"
HUB_COMMIT = "0123456789abcdef0123456789abcdef01234567"
SHAPE = {
    "vocab_size": 256,
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 512,
}
MODULES = [
    {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
    {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
    {
        "idx": 2,
        "name": "2",
        "path": "2_Normalize",
        "type": "sentence_transformers.models.Normalize",
    },
]
POOLING = {"word_embedding_dimension": 32, "pooling_mode_cls_token": True}

DOCUMENTS = [
    (1, "w1 w2 printing a brochure", {"lang": "en", "nested": {"n": [1, None, 0.5]}}),
    ("1", "w3 w4 Rechtschreibung", {"lang": "de"}),
    ("int:1", "w5 w6 checking the spelling", {}),
    ("path/é '\"\\%20.md", "w7 w8 w9", {"source": "path"}),
    ("empty", "", {}),
    ("long", "w10 w11 w12 " * 60, {}),
]
QUERY = "w1 spelling"
LENGTH_THEN = 8192  # what max_length was by default, and what was pickled where none was given
MAX_LENGTH = 64  # so that one document is cut


def main() -> None:
    """Make the archive of the version that is imported, beside this file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path(__file__).parent)
    target = parser.parse_args().folder / f"{gte_core.__version__}.tar.xz"
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_all(root)
        with (
            lzma.open(target, "wb", preset=9) as packed,
            tarfile.open(fileobj=packed, mode="w") as archive,
        ):
            for path in sorted(root.iterdir()):
                archive.add(path, arcname=path.name)


def write_all(root: Path) -> None:
    """Write models, collections and pickles below ``root``."""
    write_models(root / "models")
    found = {}
    for name, embedder in open_models(root / "models").items():
        for engine, index in open_indexes(root, name, embedder).items():
            with index:
                index.create()
                index.add(DOCUMENTS)
                [hits] = index.search(QUERY, mode=mode_of(embedder), limit=10)
                found[f"{engine}/{name}"] = [[hit.id, hit.score] for hit in hits]
    (root / "found.json").write_text(json.dumps(found, indent=1), encoding="utf-8")
    (root / "pickles").mkdir()
    for name, value in public_objects().items():
        (root / "pickles" / f"{name}.pickle").write_bytes(pickle.dumps(value))


def write_models(folder: Path) -> None:
    """A model as the hub's cache keeps it, and one in a directory with ``modules.json``."""
    cached = folder / "hub" / f"models--{HUB_MODEL.replace('/', '--')}"
    random_checkpoint(cached / "snapshots" / HUB_COMMIT, SHAPE, task=None, seed=1)
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text(HUB_COMMIT, encoding="utf-8")
    directory = random_checkpoint(folder / "directory", SHAPE, seed=2)
    (directory / "modules.json").write_text(json.dumps(MODULES), encoding="utf-8")
    (directory / "1_Pooling").mkdir()
    (directory / "1_Pooling" / "config.json").write_text(json.dumps(POOLING), encoding="utf-8")


def open_models(folder: Path) -> dict[str, Any]:
    """The embedders of the archive's collections; the one of the hub has no sparse head."""
    load = gte_core.GTEEmbedder.from_pretrained
    common: dict[str, Any] = {
        "dtype": "float32",
        "max_length": MAX_LENGTH,
        "on_truncation": "ignore",
    }
    return {
        "hub": load(HUB_MODEL, cache_dir=folder / "hub", local_files_only=True, **common),
        "directory": load(folder / "directory", **common),
        "demo": load("demo", **common),
    }


def mode_of(embedder: Any) -> str:
    """How a collection of this model is searched."""
    return "hybrid" if embedder.has_sparse else "dense"


def open_indexes(root: Path, name: str, embedder: Any) -> dict[str, Any]:
    """An index in each engine; those of the demo model have two sizes."""
    from gte_integrations.milvus import MilvusHybridIndex
    from gte_integrations.qdrant import QdrantHybridIndex

    sizes = {"dimensions": 32, "coarse_dimensions": 8} if name == "demo" else {}
    return {
        "qdrant": QdrantHybridIndex(root / "qdrant", name, embedder, **sizes),
        "milvus": MilvusHybridIndex(root / "milvus.db", name, embedder, **sizes),
    }


def public_objects() -> dict[str, Any]:
    """One of everything public that can be pickled, with other values than its defaults."""
    embedder = gte_core.GTEEmbedder.from_pretrained("demo", dimensions=32, max_length=MAX_LENGTH)
    both = embedder.encode(["print a booklet", "Eine Broschüre drucken"])
    settings = gte_core.EncoderSettings(
        model="demo", device="cpu", dtype="float32", max_length=MAX_LENGTH, query_prefix="query: "
    )
    reranker = gte_core.RerankerSettings(model="some/reranker", dtype="float32", max_length=99)
    fields = {"model": "demo", "dimensions": 32, "dtype": "float32", "query_prefix": "q: "}
    fields["max_length"] = LENGTH_THEN
    objects = {
        "GTEEmbedder": embedder,
        "HybridEmbeddings": both,
        "Explanation": embedder.explain("print a booklet", "Printing booklets"),
        "Fingerprint": embedder.fingerprint,
        "EncoderSettings": settings,
        "SharedEncoder": gte_core.shared_encoder(settings),
        "RerankerSettings": reranker,
        "SharedReranker": gte_core.shared_reranker(reranker),
        "RankedDocument": gte_core.RankedDocument(3, 0.5, "text"),
        "GTEConfig": gte_core.GTEConfig.from_dict(SHAPE | {"model_type": "new"}),
    }
    for module, name, build in (
        ("qdrant", "Document", lambda kind: kind("a", "text", {"n": 1})),
        ("qdrant", "Hit", lambda kind: kind("a", 0.5, "text", {"n": 1}, 0.4, None)),
        (
            "qdrant",
            "IndexReport",
            lambda kind: kind(1, 2, 3, 4, [("a", "why")], 5, 6, 7, 0.5, 0.25),
        ),
        ("qdrant", "Linear", lambda kind: kind(0.5, 0.25)),
        ("qdrant", "RRF", lambda kind: kind(7, 0.5, 0.25)),
        ("qdrant", "QdrantVectorizer", lambda kind: kind(embedder, dimensions=16)),
        ("milvus", "MilvusVectorizer", lambda kind: kind(embedder, dimensions=16)),
        ("milvus", "GTEEmbeddingFunction", lambda kind: kind(embedder, dimensions=16)),
        ("langchain", "GTEEmbeddings", lambda kind: kind(**fields)),
        ("langchain", "GTECrossEncoder", lambda kind: kind(model="some/reranker", max_length=99)),
        ("langchain", "GTECompressor", _compressor),
        ("langchain_qdrant", "GTEQdrantSparse", lambda kind: kind(**fields)),
        ("langchain_milvus", "GTEMilvusSparse", lambda kind: kind(**fields)),
        ("llama_index", "GTEEmbedding", lambda kind: kind(model_name="demo", dimensions=32)),
        (
            "llama_index",
            "GTERerank",
            lambda kind: kind(model_name="some/reranker", top_n=7, max_length=LENGTH_THEN),
        ),
    ):
        kind = getattr(importlib.import_module(f"gte_integrations.{module}"), name)
        objects[f"{module}.{name}"] = build(kind)
    return objects


def _compressor(kind: Any) -> Any:
    from gte_integrations.langchain import GTECrossEncoder

    return kind(top_n=7, cross_encoder=GTECrossEncoder(max_length=LENGTH_THEN))


if __name__ == "__main__":
    main()
