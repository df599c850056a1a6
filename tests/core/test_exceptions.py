"""What a caller may catch: everything of ours at once, or what an error is beside that."""

import pytest

from gte_core import (
    CollectionMismatch,
    ConfigError,
    GTEError,
    HubError,
    MissingHeadError,
    NonFiniteError,
    TextTooLargeError,
    TruncationError,
    WeightsError,
)


@pytest.mark.parametrize(
    ("error", "builtin"),
    [
        (ConfigError, ValueError),
        (WeightsError, ValueError),
        (TruncationError, ValueError),
        (HubError, OSError),
        (TextTooLargeError, MemoryError),
        (MissingHeadError, Exception),
        (NonFiniteError, Exception),
        (CollectionMismatch, Exception),
    ],
)
def test_each_error_of_ours_is_a_gte_error_and_what_else_it_says(error, builtin):
    assert issubclass(error, GTEError)
    assert issubclass(error, builtin)
