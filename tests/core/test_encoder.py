import asyncio
import inspect
import pickle
from copy import copy
from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse as sp

from gte_core import (
    Encoder,
    EncoderSettings,
    Fingerprint,
    GTEEmbedder,
    PairedEncoder,
    as_queries,
    shared_encoder,
)
from gte_core.testing import HashEncoder


def test_fingerprints_show_what_they_compare():
    fingerprint = Fingerprint("Alibaba-NLP/gte-multilingual-base", "9bbca17d9273fd0d", 8192)
    assert (
        str(fingerprint) == "Alibaba-NLP/gte-multilingual-base@9bbca17d9273 max_length=8192 float"
    )
    assert fingerprint != Fingerprint(fingerprint.model, fingerprint.revision, 512)
    pair = replace(fingerprint, sparse=Fingerprint("other", None, 512))
    assert str(pair) == f"{fingerprint} and sparse other max_length=512 float"
    assert pair != fingerprint


def test_fingerprints_of_former_versions_are_of_one_model():
    fingerprint = Fingerprint("base", None, 512)
    again = copy(fingerprint)
    again.__setstate__(["base", None, 512, "float"])
    assert again == pickle.loads(pickle.dumps(fingerprint)) == fingerprint


def test_the_former_way_to_a_query_names_the_new_one(small):
    with pytest.warns(DeprecationWarning, match='pass role="query"'):
        assert as_queries(small, iter(["a", "b"])) == ["a", "b"]


VERBS = ["encode", "encode_available", "encode_dense", "encode_sparse", "aencode"]


def embedder(checkpoint):
    return GTEEmbedder.from_pretrained(checkpoint, query_prefix="w1 ", dtype="float32")


def shared(checkpoint):
    settings = EncoderSettings(model=str(checkpoint), query_prefix="w1 ", dtype="float32")
    return shared_encoder(settings)


def cached(checkpoint):
    return shared_encoder(HashEncoder(query_prefix="w1 "))


def hashes(checkpoint):
    return HashEncoder(query_prefix="w1 ")


def paired(checkpoint):
    sparse = HashEncoder(has_dense=False, query_prefix="w1 ", vocab_size=300)
    return PairedEncoder(dense=HashEncoder(has_sparse=False, query_prefix="w1 "), sparse=sparse)


@pytest.fixture(params=[embedder, shared, cached, hashes, paired])
def encoder(request, small_checkpoint):
    """Everything of ours that says it satisfies ``Encoder``."""
    return request.param(small_checkpoint)


def vectors(encoder, verb, texts, **options):
    found = getattr(encoder, verb)(texts, **options)
    found = asyncio.run(found) if inspect.isawaitable(found) else found
    if hasattr(found, "sparse"):
        return np.hstack([found.dense, found.sparse.toarray()])
    return found.toarray() if sp.issparse(found) else found


@pytest.mark.parametrize("verb", VERBS)
def test_a_query_gets_the_prefix_and_a_document_none(encoder, verb):
    texts = ["w2 w3", "w4"]
    as_documents = vectors(encoder, verb, texts)
    np.testing.assert_allclose(vectors(encoder, verb, texts, role="document"), as_documents)
    expected = vectors(encoder, verb, ["w1 w2 w3", "w1 w4"])
    np.testing.assert_allclose(vectors(encoder, verb, texts, role="query"), expected, atol=1e-6)
    assert not np.allclose(expected, as_documents, atol=1e-3)
    # Whatever is kept of one role is not given for another.
    np.testing.assert_allclose(vectors(encoder, verb, texts), as_documents)


@pytest.mark.parametrize("verb", VERBS)
def test_a_role_that_does_not_exist_is_refused(encoder, verb):
    with pytest.raises(ValueError, match="role is 'querry'; allowed are"):
        vectors(encoder, verb, ["w1"], role="querry")


def test_what_is_no_query_is_named(encoder):
    with pytest.raises(TypeError, match=r"queries\[1\] must be a str, got int"):
        encoder.encode(["a", 1], role="query")


def test_it_says_what_it_has(encoder):
    both = encoder.encode(["w1", ""])
    assert both.dense.shape == (2, encoder.dimensions)
    assert both.sparse.shape == (2, encoder.vocab_size)
    assert encoder.has_dense
    assert encoder.has_sparse
    assert both.n_tokens.tolist() == [3, 2]
    assert encoder.encode("w1", dimensions=8).dense.shape == (1, 8)


def test_every_verb_of_every_encoder_has_the_arguments_of_the_protocol(encoder):
    for verb in VERBS:
        promised = inspect.signature(getattr(Encoder, verb)).parameters
        found = inspect.signature(getattr(type(encoder), verb)).parameters
        assert list(promised) == [name for name in found if name in promised]
        for name, parameter in promised.items():
            assert (found[name].kind, found[name].default) == (parameter.kind, parameter.default)
