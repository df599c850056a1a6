"""Pooled states -> dense vectors of length 1, in every size that a model offers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from gte_core.checkpoint.dense import DenseModule
from gte_core.checkpoint.modules import Description
from gte_core.checkpoint.weights import Checkpoint
from gte_core.embeddings import Floats, check_dimensions, check_offered, cut
from gte_core.exceptions import NonFiniteError
from gte_core.texts import NameOf, as_text, named


@dataclass(frozen=True, slots=True)
class _Matrix:
    """A Dense module in memory, float32: ``weight (out, in)``, ``bias (out,)``."""

    weight: Floats
    bias: Floats
    has_tanh: bool

    def times(self, pooled: Floats) -> Floats:
        """What it makes of pooled states ``(n, in)``: ``(n, out)``."""
        projected = pooled @ self.weight.T + self.bias
        return np.tanh(projected) if self.has_tanh else projected


class Projection:
    """The last step of a model: Dense if it has one, the cut, and the length.

    Without Dense, a size is the leading part of the pooled state. With one, it is the leading part
    of what the matrix makes of it, unless each size has a matrix of its own: those cannot be cut.
    Matrices are read when they are first needed.

    Args:
        hidden_size: of the pooled states.
        description: what the checkpoint's files say.
        deterministic: project every state by itself, so that no bit depends on the others.

    Attributes:
        hidden_size: of the pooled states.
        default_size: of the vectors when nobody asks for another.
        separate_sizes: all sizes, where each has a matrix of its own; else none.
        max_size: the largest.

    Raises:
        WeightsError: a matrix is missing, or has another shape than its ``config.json`` says.
    """

    def __init__(
        self, hidden_size: int, description: Description, *, deterministic: bool = False
    ) -> None:
        listed = description.dense
        self.hidden_size = hidden_size
        self.default_size = hidden_size if listed is None else listed.out_features
        self.separate_sizes = tuple(description.sizes)
        self.max_size = max(self.separate_sizes, default=self.default_size)
        self._deterministic = deterministic
        self._stored = {
            dense.out_features: (dense, _stored(dense)) for dense in description.matrices
        }
        self._read: dict[int, _Matrix] = {}

    def size(self, dimensions: int | None) -> int:
        """The size asked for, or the default; ``ValueError`` naming those that are offered."""
        if dimensions is None:
            return self.default_size
        if self.separate_sizes:
            return check_offered(dimensions, self.separate_sizes)
        return check_dimensions(dimensions, self.max_size)

    def vectors(self, pooled: Floats, size: int, *, name_of: NameOf = as_text) -> Floats:
        """Dense vectors, float32 ``(n, size)``, of pooled states ``(n, hidden_size)``.

        Raises:
            NonFiniteError: a vector is NaN, infinite or zero; ``name_of`` says what to call it.
        """
        matrix = self._matrix(size if self.separate_sizes else self.default_size)
        if matrix is not None:
            pooled = self._projected(pooled, matrix, name_of)
        return cut(pooled, size, name_of=name_of)

    def _projected(self, pooled: Floats, matrix: _Matrix, name_of: NameOf) -> Floats:
        at_once = 1 if self._deterministic else max(1, len(pooled))
        blocks = (pooled[i : i + at_once] for i in range(0, max(1, len(pooled)), at_once))
        projected = np.concatenate([matrix.times(block) for block in blocks])
        broken = np.flatnonzero(~np.isfinite(projected).all(axis=1)).tolist()
        if broken:
            raise NonFiniteError(
                f"{named(broken, name_of)}: NaN or infinity behind the Dense module. Its matrix is "
                "damaged or not meant for this network; check the checkpoint."
            )
        return projected

    def _matrix(self, size: int) -> _Matrix | None:
        if size not in self._stored:
            return None
        if size not in self._read:  # in two threads at once, it is read twice
            dense, checkpoint = self._stored[size]
            weight = _read(checkpoint, "linear.weight")
            bias = _read(checkpoint, "linear.bias") if dense.bias else np.zeros(size, np.float32)
            self._read[size] = _Matrix(weight, bias, has_tanh=dense.activation == "tanh")
        return self._read[size]


def _stored(dense: DenseModule) -> Checkpoint:
    checkpoint = Checkpoint(dense.directory)
    expected: Mapping[str, tuple[int, ...]] = {
        "linear.weight": (dense.out_features, dense.in_features),
        **({"linear.bias": (dense.out_features,)} if dense.bias else {}),
    }
    checkpoint.check(expected)
    return checkpoint


def _read(checkpoint: Checkpoint, name: str) -> Floats:
    read: Floats = checkpoint.copy(name, device=torch.device("cpu"), dtype=torch.float32).numpy()
    return read
