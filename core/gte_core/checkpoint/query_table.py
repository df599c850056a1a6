"""The weights of a sparse encoder's queries: one for each token, from a file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gte_core.checkpoint.files import listing, read_json_object, shown
from gte_core.checkpoint.tensors import FLOATS, stored_tensors
from gte_core.exceptions import ConfigError, WeightsError

_LARGEST = float(np.finfo(np.float32).max)


def read_query_table(
    file: Path, vocab_size: int, id_of: Callable[[str], int | None]
) -> NDArray[np.float32]:
    """The weight of every token id, float32 ``(vocab_size,)``; 0 for those that have none.

    Args:
        file: ``idf.json``, weights by token, or a safetensors file with a ``weight`` for each id.
        vocab_size: width of the model's sparse vectors.
        id_of: token -> its id, None for one that the tokenizer does not know.

    Raises:
        ConfigError: ``idf.json`` holds something else than numbers.
        WeightsError: the tensor is missing, of another shape, or not finite.
    """
    if file.suffix == ".json":
        table = _from_json(file, vocab_size, id_of)
    else:
        table = _from_tensor(file, vocab_size)
    if not np.isfinite(table).all():
        token_id = int(np.flatnonzero(~np.isfinite(table))[0])
        raise WeightsError(
            f"{file}: the weight of token id {token_id} is {table[token_id]}, but must be finite. "
            "Download it again."
        )
    return table


def _from_json(
    file: Path, vocab_size: int, id_of: Callable[[str], int | None]
) -> NDArray[np.float32]:
    weights = read_json_object(file, ConfigError)
    table = np.zeros(vocab_size, np.float32)
    for token, weight in weights.items():
        is_number = isinstance(weight, int | float) and not isinstance(weight, bool)
        if not is_number or not abs(weight) <= _LARGEST:  # NaN is not
            raise ConfigError(
                f"{file}: {shown(token)} is {shown(weight)}, but must be a number that is finite "
                "in float32. Download it again."
            )
        # A token that the tokenizer does not know is in no text.
        if (token_id := id_of(token)) is not None and token_id < vocab_size:
            table[token_id] = weight
    return table


def _from_tensor(file: Path, vocab_size: int) -> NDArray[np.float32]:
    stored = {tensor.key: tensor for tensor in stored_tensors(file)}
    found = stored.get("weight")
    if found is None or found.dtype not in FLOATS:
        raise WeightsError(
            f"{file} must hold a tensor 'weight' of floats, got {listing(list(stored))}. "
            "Download it again."
        )
    if len(found.shape) != 1 or not 0 < found.shape[0] <= vocab_size:
        raise WeightsError(
            f"{file}: weight has the shape {shown(found.shape)}, but must be ({vocab_size},), one "
            "for each token of the model."
        )
    table = np.zeros(vocab_size, np.float32)
    filled = 0
    for rows in found.blocks():
        table[filled : filled + len(rows)] = rows.float().numpy()
        filled += len(rows)
    return table
