import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from gte_core.network.heads import max_per_id, to_csr

VOCAB = 12
TOKENS = st.lists(
    st.tuples(
        st.integers(0, 3),
        st.integers(0, VOCAB - 1),
        hnp.from_dtype(np.dtype(np.float32), min_value=-2, max_value=9),
    )
)


@given(tokens=TOKENS)
def test_equals_the_script_rule(tokens):
    expected = [{} for _ in range(4)]
    for row, token, weight in tokens:
        if weight > 0:
            expected[row][token] = max(weight, expected[row].get(token, 0))
    keys = torch.tensor([row * VOCAB + token for row, token, _ in tokens], dtype=torch.int64)
    weights = torch.tensor([weight for *_, weight in tokens], dtype=torch.float32)
    entries = max_per_id(keys, weights)
    kept = entries.kept
    matrix = to_csr(entries.keys[kept].numpy(), entries.weights[kept].numpy(), (4, VOCAB))
    assert matrix.shape == (4, VOCAB)
    assert matrix.dtype == np.float32
    for row, of_row in enumerate(expected):
        stored = slice(matrix.indptr[row], matrix.indptr[row + 1])
        assert matrix.indices[stored].tolist() == sorted(of_row)
        assert matrix.data[stored].tolist() == [of_row[i] for i in sorted(of_row)]


def test_entries_may_come_in_any_order():
    keys, weights = np.array([25, 3, 13]), np.array([1.0, 2.0, 3.0], dtype=np.float32)
    matrix = to_csr(keys, weights, (3, VOCAB)).toarray()
    assert (matrix[0, 3], matrix[1, 1], matrix[2, 1]) == (2.0, 3.0, 1.0)
