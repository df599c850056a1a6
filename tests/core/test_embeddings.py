import pickle
import sys

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st

from gte_core import HybridEmbeddings, NonFiniteError


@pytest.fixture
def three():
    dense = np.array([[3, 4, 0, 0], [1, 1, 1, 1], [5, 0, 0, -12]], dtype=np.float32)
    sparse = np.array([[0, 2, 0, 1, 0], [0, 0, 0, 0, 0], [0, 3, 0, 0, 4]], dtype=np.float32)
    return HybridEmbeddings(
        dense / np.linalg.norm(dense, axis=1, keepdims=True),
        sp.csr_array(sparse),
        np.array([5, 2, 4]),
        np.array([False, False, True]),
        {1: "foo", 3: "bar", 4: "foo"}.__getitem__,
    )


def test_length_and_dimensions(three):
    assert (len(three), three.dimensions) == (3, 4)


@pytest.mark.parametrize("key", [0, -1, slice(1, None), slice(0, 0), slice(None, None, -1)])
def test_parts_are_hybrid_embeddings(three, key):
    part = three[key]
    rows = slice(key % 3, key % 3 + 1) if isinstance(key, int) else key
    np.testing.assert_array_equal(part.dense, three.dense[rows])
    np.testing.assert_array_equal(part.sparse.toarray(), three.sparse.toarray()[rows])
    np.testing.assert_array_equal(part.n_tokens, three.n_tokens[rows])
    np.testing.assert_array_equal(part.truncated, three.truncated[rows])


@pytest.mark.parametrize("key", [3, -4, [0, 3], np.array([-4])])
def test_index_out_of_range(three, key):
    with pytest.raises(IndexError, match=r"index (3|-4) is out of range: there are 3 texts"):
        three[key]


MANY = st.integers(0, 6).flatmap(
    lambda n: st.tuples(
        st.just(n),
        st.lists(st.booleans(), min_size=n, max_size=n)
        | (st.lists(st.integers(-n, n - 1), max_size=9) if n else st.just([])),
        st.sampled_from([list, np.array, pd.Series]),
    )
)


@given(MANY)
def test_rows_are_chosen_as_numpy_chooses_them(drawn):
    n, key, form = drawn
    numbers = np.arange(n)
    sparse = sp.csr_array(np.arange(2 * n, dtype=np.float32).reshape(n, 2))
    both = HybridEmbeddings(np.eye(n, 2, dtype=np.float32), sparse, numbers, numbers > 2, str)
    chosen = np.asarray(key, bool if key and isinstance(key[0], bool) else int)
    part = both[form(key)]
    assert part.n_tokens.tolist() == numbers[chosen].tolist()
    np.testing.assert_array_equal(part.dense, both.dense[chosen])
    np.testing.assert_array_equal(part.sparse.toarray(), sparse.toarray()[chosen])
    np.testing.assert_array_equal(part.truncated, both.truncated[chosen])
    assert part.sparse.has_sorted_indices


@pytest.mark.parametrize("key", [np.int64(1), np.uint8(1), np.array(1), np.array([1], np.uint64)])
def test_integers_of_numpy_choose_rows(three, key):
    assert three[key].n_tokens.tolist() == [2]


def test_truncated_texts_are_chosen_by_their_mask(three):
    assert three[three.truncated].n_tokens.tolist() == [4]
    assert three[~three.truncated].n_tokens.tolist() == [5, 2]


@pytest.mark.parametrize("mask", [[True], [False] * 4, np.ones((3, 1), bool)])
def test_a_mask_has_a_boolean_for_each_text(three, mask):
    with pytest.raises(IndexError, match=r"a mask has the shape .* but must be \(3,\)"):
        three[mask]


@pytest.mark.parametrize("key", [(0, 1), [0.5], ["a"], [[0, 1]], [[]]], ids=str)
def test_what_chooses_no_rows_is_refused(three, key):
    with pytest.raises(
        TypeError, match="must be an integer, a slice, a list of integers, or a mask"
    ):
        three[key]


@pytest.mark.parametrize("key", ["dense", 1.0, None])
def test_a_row_is_no_name(three, key):
    with pytest.raises(TypeError, match="cannot be interpreted as an integer"):
        three[key]


def test_the_repr_shows_shapes(three):
    assert repr(three) == (
        "HybridEmbeddings(3 texts, dense (3, 4), sparse (3, 5) with 4 weights, 11 tokens, "
        "1 truncated)"
    )


def test_similarity_is_the_cosine(three):
    np.testing.assert_allclose(three.similarity(three[1:]), three.dense @ three.dense[1:].T)
    other_vocabulary = HybridEmbeddings.of_dense(three.dense)
    np.testing.assert_array_equal(three.similarity(other_vocabulary), three.similarity(three))


def test_only_embeddings_of_one_size_are_compared(three):
    for documents in ([three], three.dense, None):
        with pytest.raises(TypeError, match=r"documents is a .*, but must be HybridEmbeddings"):
            three.similarity(documents)
    with pytest.raises(ValueError, match="dense vectors of 1 components, but these have 4"):
        three.similarity(three.with_dimensions(1))
    with pytest.raises(ValueError, match="sparse vectors of 0 components, but these have 5"):
        three.scores(HybridEmbeddings.of_dense(three.dense))


def test_a_data_frame_has_a_row_for_each_text(three):
    frame = three.to_pandas()
    assert list(frame.columns) == ["dense", "token_ids", "weights", "n_tokens", "truncated"]
    for row, (dense, ids, weights) in zip(frame.itertuples(), three.rows(), strict=True):
        np.testing.assert_array_equal(row.dense, dense)
        np.testing.assert_array_equal(row.token_ids, ids)
        np.testing.assert_array_equal(row.weights, weights)
    assert frame["n_tokens"].tolist() == [5, 2, 4]
    assert frame[frame.truncated].index.tolist() == [2]
    assert three[:0].to_pandas().shape == (0, 5)


def test_a_data_frame_needs_pandas(three, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match="to_pandas needs pandas; pip install pandas"):
        three.to_pandas()


def test_iteration_ends(three):
    assert [part.n_tokens.item() for part in three] == [5, 2, 4]


def test_rows(three):
    dense, ids, weights = next(three.rows())
    np.testing.assert_allclose(dense, [0.6, 0.8, 0, 0])
    assert (ids.tolist(), weights.tolist()) == ([1, 3], [2, 1])
    assert (dense.dtype, ids.dtype, weights.dtype) == (np.float32, np.int64, np.float32)
    assert [len(ids) for _, ids, _ in three.rows()] == [2, 0, 2]


def test_concatenate_undoes_slicing(three):
    joined = HybridEmbeddings.concatenate([three[:1], three[1:1], three[1:]])
    np.testing.assert_array_equal(joined.dense, three.dense)
    np.testing.assert_array_equal(joined.sparse.toarray(), three.sparse.toarray())
    assert joined.truncated.tolist() == [False, False, True]


def test_concatenate_of_nothing():
    with pytest.raises(ValueError, match="at least one part"):
        HybridEmbeddings.concatenate([])


def test_smaller_vectors_are_cut_and_then_normalised(three):
    assert three.with_dimensions(1).dense.tolist()[:2] == [[1.0], [1.0]]
    np.testing.assert_allclose(three.with_dimensions(2).dense[1], [0.5**0.5] * 2, rtol=1e-6)
    assert three.with_dimensions(4).dense.dtype == np.float32


@pytest.mark.parametrize("dimensions", [0, -1, 5])
def test_dimensions_out_of_range(three, dimensions):
    with pytest.raises(ValueError, match=f"dimensions is {dimensions}, but must be from 1 to 4"):
        three.with_dimensions(dimensions)


@pytest.mark.parametrize("dimensions", [2.0, "2", True, None])
def test_dimensions_of_another_type(three, dimensions):
    with pytest.raises(TypeError, match="dimensions must be an integer from 1 to 4"):
        three.with_dimensions(dimensions)


def test_numpy_integers_are_dimensions(three):
    assert three.with_dimensions(np.int64(2)).dimensions == 2


@given(seed=st.integers(0, 2**32 - 1), size=st.integers(1, 768))
def test_rows_have_length_one_at_every_size(seed, size):
    dense = np.random.default_rng(seed).standard_normal((3, 768)).astype(np.float32)
    empty = sp.csr_array((3, 5), dtype=np.float32)
    full = HybridEmbeddings(dense, empty, np.zeros(3, int), np.zeros(3, bool), str)
    lengths = np.linalg.norm(full.with_dimensions(size).dense.astype(np.float64), axis=1)
    np.testing.assert_allclose(lengths, 1, atol=1e-6)


def test_token_weights_merge_ids_of_one_string(three):
    assert three.token_weights(0) == {"foo": 2.0, "bar": 1.0}
    assert three.token_weights(1) == {}
    assert three.token_weights(-1) == {"foo": 4.0}


def test_scores_go_by_id(three):
    scores = three.scores(three, dense_weight=0.0, sparse_weight=1.0)
    assert scores.tolist() == [[5, 0, 6], [0, 0, 0], [6, 0, 25]]
    np.testing.assert_allclose(np.diag(three.scores(three)), [1.05, 1.0, 1.25], rtol=1e-6)


def test_unpickled_parts_join_with_all_their_tokens(three):
    parts = [pickle.loads(pickle.dumps(part)) for part in three]
    joined = HybridEmbeddings.concatenate(parts)
    mixed = HybridEmbeddings.concatenate([parts[0], three[1:]])
    for index in range(3):
        assert joined.token_weights(index) == three.token_weights(index)
        assert mixed.token_weights(index) == three.token_weights(index)


def test_a_vector_without_direction_is_an_error():
    dense = np.array([[1, 0], [0, 1]], dtype=np.float32)
    both = HybridEmbeddings(dense, sp.csr_array((2, 3)), np.zeros(2, int), np.zeros(2, bool), str)
    with pytest.raises(NonFiniteError, match=r"texts\[1\]: only zeros in the first 1 components"):
        both.with_dimensions(1)


def test_a_pickle_carries_its_own_tokens_only(three):
    copy = pickle.loads(pickle.dumps(three))
    assert copy.token_weights(0) == three.token_weights(0)
    assert copy.sparse.shape == three.sparse.shape
    np.testing.assert_array_equal(copy.dense, three.dense)
