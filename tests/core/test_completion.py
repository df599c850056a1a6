"""What users hand over as an encoder, also one written for 0.1.0, becomes a complete one."""

import asyncio

import numpy as np
import pytest

from gte_core import Fingerprint, GTEEmbedder, HybridEmbeddings, SharedEncoder, as_encoder
from gte_core.testing import HashEncoder


class Encoder010:
    """Satisfies ``Encoder`` as version 0.1.0 asked for it, and nothing that came later."""

    def __init__(self, has_sparse=True):
        self._hashes = HashEncoder(has_sparse=has_sparse)
        self.texts = []

    @property
    def dimensions(self) -> int:
        return self._hashes.dimensions

    @property
    def has_sparse(self) -> bool:
        return self._hashes.has_sparse

    @property
    def fingerprint(self) -> Fingerprint:
        return self._hashes.fingerprint

    @property
    def query_prefix(self) -> str:
        return "query: "

    def encode(self, texts, *, dimensions=None) -> HybridEmbeddings:
        return self._hashes.encode(self._taken(texts), dimensions=dimensions)

    def encode_dense(self, texts, *, dimensions=None):
        return self._hashes.encode_dense(self._taken(texts), dimensions=dimensions)

    def encode_sparse(self, texts):
        return self._hashes.encode_sparse(self._taken(texts))

    async def aencode(self, texts, *, dimensions=None) -> HybridEmbeddings:
        return await self._hashes.aencode(self._taken(texts), dimensions=dimensions)

    def _taken(self, texts):
        taken = [texts] if isinstance(texts, str) else list(texts)
        self.texts += taken
        return taken


def test_a_complete_encoder_is_returned_as_it_is(small):
    hashes = HashEncoder()
    assert as_encoder(hashes) is hashes
    assert as_encoder(small) is small


def test_the_name_of_a_model_is_loaded_at_first_use_and_shared(small_checkpoint):
    encoder = as_encoder(small_checkpoint)
    assert isinstance(encoder, SharedEncoder)
    assert as_encoder(str(small_checkpoint)) is encoder
    assert as_encoder("/no/such/model").model == "/no/such/model"


def test_an_encoder_of_0_1_0_is_completed():
    former = Encoder010()
    encoder = as_encoder(former)
    assert as_encoder(former) is encoder
    assert as_encoder(encoder) is encoder
    assert (encoder.has_dense, encoder.has_sparse, encoder.vocab_size) == (True, True, None)
    assert (encoder.dimensions, encoder.query_prefix) == (64, "query: ")
    for verb in ("encode", "encode_available", "encode_dense", "encode_sparse"):
        former.texts.clear()
        getattr(encoder, verb)(["oak", "elm"], role="query")
        getattr(encoder, verb)("yew")
        assert former.texts == ["query: oak", "query: elm", "yew"]
    both = asyncio.run(encoder.aencode("oak", role="query", dimensions=8))
    np.testing.assert_array_equal(both.dense, former.encode("query: oak", dimensions=8).dense)


def test_an_encoder_of_0_1_0_without_a_sparse_head_gives_an_empty_half():
    both = as_encoder(Encoder010(has_sparse=False)).encode_available(["oak", "elm"])
    assert (both.dense.shape, both.sparse.shape) == ((2, 64), (2, 0))
    assert both.n_tokens.tolist() == [0, 0]


def test_nothing_is_loaded_to_look_at_an_encoder(monkeypatch, small_checkpoint):
    encoder = as_encoder(small_checkpoint)
    monkeypatch.delattr(GTEEmbedder, "from_pretrained")
    assert as_encoder(encoder) is encoder


def test_a_class_is_no_encoder():
    with pytest.raises(TypeError, match="encoder is the class GTEEmbedder, but must be one of its"):
        as_encoder(GTEEmbedder)


@pytest.mark.parametrize("given", [5, None, object(), ["demo"]])
def test_what_is_no_encoder_is_refused_by_what_it_lacks(given):
    lacking = "without dimensions, has_sparse, fingerprint"
    with pytest.raises(TypeError, match=f"encoder is a {type(given).__name__} {lacking}"):
        as_encoder(given)
