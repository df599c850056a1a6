"""The checkpoints that are known: they load as the table in the docs says."""

import re
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

from gte_core import GTEEmbedder, GTEError, GTEReranker, read_capabilities

ROOT = Path(__file__).parent.parent


def imported(path):
    spec = spec_from_file_location(f"docs_{path.stem}", path)
    module = sys.modules[spec.name] = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


checkpoints = imported(ROOT / "docs/checkpoints.py")


def test_the_committed_tables_are_what_the_checkpoints_say():
    for path, content in checkpoints.pages().items():
        assert path.read_text(encoding="utf-8") == content, "run make table"


@pytest.mark.parametrize("form", checkpoints.FORMS, ids=lambda form: form.name.split("/")[-1])
def test_every_form_does_what_its_record_says(form, tmp_path):
    directory = form.write_small(tmp_path / "small")
    said = read_capabilities(directory)
    published = read_capabilities(form.write_as_published(tmp_path / "published"))
    assert (said.sparse, said.pooling, said.sizes) == (
        published.sparse,
        published.pooling,
        published.sizes,
    )
    if said.refusal is not None:
        with pytest.raises(GTEError, match=re.escape(said.refusal)):
            GTEEmbedder.from_pretrained(directory)
        assert said.is_reranker == published.is_reranker
        if said.is_reranker:
            assert len(GTEReranker.from_pretrained(directory).score([("w1", "w2")])) == 1
        return
    embedder = GTEEmbedder.from_pretrained(directory)
    assert embedder.capabilities == said
    both = embedder.encode_available(["w1 w2", "w3"])
    assert both.dense.shape == (2, said.dimensions)
    assert (both.sparse.nnz > 0) == embedder.has_sparse == said.has_sparse
    assert (embedder.has_dense, embedder.dimensions) == (said.has_dense, said.dimensions)
    assert (embedder.query_prefix, embedder.max_length) == (said.query_prefix, said.max_length)
    for size in said.sizes:
        assert embedder.encode_dense("w1", dimensions=size).shape == (1, size)
