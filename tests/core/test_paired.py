"""Two models as one encoder: the dense vectors of one, the sparse vectors of the other."""

import asyncio
import pickle
import threading

import numpy as np
import pytest

from gte_core import Fingerprint, MissingHeadError, PairedEncoder, shared_encoder
from gte_core.testing import HashEncoder

TEXTS = ["the oak", "an elm and an oak", ""]


class Counting(HashEncoder):
    """Keeps which verbs were called, and can wait in them for another's."""

    def __init__(self, **options):
        super().__init__(**options)
        self.asked, self.together = [], None

    def encode_available(self, texts, *, role="document", dimensions=None):
        self.asked.append("available")
        if self.together is not None:
            self.together.wait(timeout=60)
        return super().encode_available(texts, role=role, dimensions=dimensions)


@pytest.fixture
def dense():
    return Counting(has_sparse=False, name="dense", query_prefix="query: ", max_length=5)


@pytest.fixture
def sparse():
    return Counting(has_dense=False, name="sparse", vocab_size=300, max_length=4)


@pytest.fixture
def pair(dense, sparse):
    return PairedEncoder(dense=dense, sparse=sparse)


def test_each_half_is_of_its_own_model_and_costs_one_pass(pair, dense, sparse):
    both = pair.encode(iter(TEXTS), dimensions=8)
    assert (dense.asked, sparse.asked) == (["available"], ["available"])
    np.testing.assert_array_equal(both.dense, dense.encode_dense(TEXTS, dimensions=8))
    assert (both.sparse != sparse.encode_sparse(TEXTS)).nnz == 0
    assert (pair.encode_available(TEXTS).sparse != both.sparse).nnz == 0


def test_a_half_alone_does_not_ask_the_other(pair, dense, sparse):
    assert pair.encode_dense("oak").shape == (1, 64)
    assert (len(dense.asked), len(sparse.asked)) == (1, 0)
    assert pair.encode_sparse("oak").shape == (1, 300)
    assert (len(dense.asked), len(sparse.asked)) == (1, 1)


def test_each_half_reads_a_query_in_its_own_way(pair, dense, sparse):
    assert pair.query_prefix == "query: "
    both = pair.encode("oak", role="query")
    np.testing.assert_array_equal(both.dense, dense.encode_dense("query: oak"))
    assert (both.sparse != sparse.encode_sparse("oak")).nnz == 0


def test_tokens_are_those_of_the_dense_half_and_a_text_that_either_cut_is_truncated(pair):
    both = pair.encode(["a", "a b c", "a b c d"])
    assert both.n_tokens.tolist() == [3, 5, 5]
    assert both.truncated.tolist() == [False, True, True]


def test_tokens_are_named_by_the_sparse_half(dense):
    class Naming(HashEncoder):
        def encode_available(self, texts, *, role="document", dimensions=None):
            both = super().encode_available(texts, role=role, dimensions=dimensions)
            object.__setattr__(both, "decode_token", "token {}".format)
            return both

    both = PairedEncoder(dense=dense, sparse=Naming(has_dense=False)).encode("oak")
    assert all(name.startswith("token ") for name in both.token_weights(0))


@pytest.mark.parametrize("share", [lambda encoder: encoder, shared_encoder])
def test_awaited_both_work_at_the_same_time(dense, sparse, share):
    dense.together = sparse.together = threading.Barrier(2)
    pair = PairedEncoder(dense=share(dense), sparse=share(sparse))
    both = asyncio.run(pair.aencode(TEXTS))
    dense.together = sparse.together = None
    np.testing.assert_array_equal(both.dense, pair.encode(TEXTS).dense)
    assert (both.sparse != pair.encode(TEXTS).sparse).nnz == 0


def test_what_it_is(pair, dense, sparse):
    assert (pair.has_dense, pair.has_sparse) == (True, True)
    assert (pair.dimensions, pair.vocab_size) == (64, 300)
    assert pair.model == "dense"
    assert pair.fingerprint == Fingerprint("dense", None, 5, sparse=Fingerprint("sparse", None, 4))
    assert pair.fingerprint != dense.fingerprint
    assert repr(pair) == f"PairedEncoder(dense={dense!r}, sparse={sparse!r})"


def test_of_a_pair_a_pair_takes_the_half_it_asks_for(pair):
    other = HashEncoder(name="other")
    assert PairedEncoder(dense=pair, sparse=other).fingerprint.sparse == other.fingerprint
    again = PairedEncoder(dense=other, sparse=pair)
    assert again.fingerprint.sparse == pair.sparse.fingerprint


def test_it_pickles(pair):
    again = pickle.loads(pickle.dumps(pair))
    assert again.fingerprint == pair.fingerprint
    np.testing.assert_array_equal(again.encode("oak").dense, pair.encode("oak").dense)


def test_halves_are_named_like_models(small_checkpoint):
    pair = PairedEncoder(dense=small_checkpoint, sparse=str(small_checkpoint))
    both = pair.encode("w1 w2")
    np.testing.assert_array_equal(both.dense, pair.dense.encode_dense("w1 w2"))
    assert (both.sparse != pair.sparse.encode_sparse("w1 w2")).nnz == 0


def test_a_half_that_lacks_what_is_wanted_of_it(dense, sparse):
    with pytest.raises(MissingHeadError, match="dense is 'sparse', which gives no dense vectors"):
        PairedEncoder(dense=sparse, sparse=sparse)
    with pytest.raises(MissingHeadError, match="sparse is 'dense', which gives no sparse vectors"):
        PairedEncoder(dense=dense, sparse=dense)
    with pytest.raises(TypeError, match="encoder is a int without"):
        PairedEncoder(dense=dense, sparse=1)
