import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from gte_core.sparse import max_per_id

VOCAB = 12
TOKENS = st.lists(
    st.tuples(
        st.integers(0, 3),
        st.integers(0, VOCAB - 1),
        hnp.from_dtype(np.dtype(np.float32), min_value=-2, max_value=9),
    )
)


@given(tokens=TOKENS, dropped=st.sets(st.integers(0, VOCAB - 1)))
def test_equals_the_script_rule(tokens, dropped):
    expected = [{} for _ in range(4)]
    for row, token, weight in tokens:
        if weight > 0 and token not in dropped:
            expected[row][token] = max(weight, expected[row].get(token, 0))
    rows, ids, weights = zip(*tokens, strict=True) if tokens else ([], [], [])
    matrix = max_per_id(
        np.array(rows, dtype=np.int64),
        np.array(ids, dtype=np.int64),
        np.array(weights, dtype=np.float32),
        shape=(4, VOCAB),
        dropped_ids=np.array(sorted(dropped), dtype=np.int64),
    )
    assert matrix.shape == (4, VOCAB)
    assert matrix.dtype == np.float32
    for row, of_row in enumerate(expected):
        stored = slice(matrix.indptr[row], matrix.indptr[row + 1])
        assert matrix.indices[stored].tolist() == sorted(of_row)
        assert matrix.data[stored].tolist() == [of_row[i] for i in sorted(of_row)]
