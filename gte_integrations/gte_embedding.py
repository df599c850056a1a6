"""The class of ``gte_embedding.py``, the script in gte-multilingual-base's repository.

Code that was written for the script changes one import::

    from gte_integrations.gte_embedding import GTEEmbeddidng  # was: from gte_embedding import ...

Names, arguments and results are the script's, but no code of the repository runs. New code takes
``GTEEmbedder``, which this is a thin cover of.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TypedDict

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gte_core import GTEEmbedder

__all__ = ["GTEEmbeddidng"]


class _Encoded(TypedDict):
    dense_embeddings: Tensor
    token_weights: list[dict[str, float]]


class GTEEmbeddidng:
    """Dense vectors and token weights under the names of the published script, spelled as there.

    Args:
        model_name: a hub id, a local directory, or ``"demo"``.
        normalized: True; dense vectors always have length 1, so False is a ``ValueError``.
        use_fp16: compute in float16 on a GPU, else in float32. A CPU computes in float32, also
            where it is named, for which the script took float16.
        device: such as ``"cpu"`` or ``"cuda:0"``; by default a GPU where there is one.
    """

    def __init__(
        self,
        model_name: str = "Alibaba-NLP/gte-multilingual-base",
        normalized: bool = True,
        use_fp16: bool = True,
        device: str | None = None,
    ) -> None:
        if not normalized:
            raise ValueError(
                "normalized is False, but dense vectors here always have length 1; leave it out. "
                "GTEModel gives states that are not normalised."
            )
        dtype = "float16" if use_fp16 and _is_gpu(device) else "float32"
        # The script puts nothing before queries, whatever the model.
        self.embedder = GTEEmbedder.from_pretrained(
            model_name, device=device or None, dtype=dtype, query_prefix=""
        )

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return torch.device(self.embedder.device)

    @property
    def vocab_size(self) -> int:
        """Rows of the model's table of words."""
        return self.embedder.vocab_size

    def encode(
        self,
        texts: str | Iterable[str],
        dimension: int | None = None,
        max_length: int = 8192,
        batch_size: int = 16,
        return_dense: bool = True,
        return_sparse: bool = False,
    ) -> _Encoded:
        """Dense vectors and token weights of every text, from one pass.

        Args:
            texts: one text (a list of one) or any iterable of them.
            dimension: size of the dense vectors, by default the model's own.
            max_length: tokens of a text that are read, special tokens included.
            batch_size: changes nothing: texts are packed by their tokens.
            return_dense: whether dense vectors are wanted.
            return_sparse: whether token weights are wanted.

        Returns:
            ``dense_embeddings``, float32 ``(n, dimension)`` on ``device``, and ``token_weights``,
            a dict of string to weight for each text. What is not wanted is empty.

        Raises:
            MissingHeadError: token weights are wanted of a model without a sparse head.
            TypeError: something is not a str, naming its index.
            ValueError: ``dimension`` or ``max_length`` is not allowed.
        """
        embedder = self.embedder.with_max_length(max_length)
        encode = embedder.encode if return_sparse else embedder.encode_available
        both = encode(texts, dimensions=dimension)
        wanted = both.dense if return_dense else both.dense[:0]
        weighed = range(len(both) if return_sparse else 0)
        return {
            "dense_embeddings": torch.from_numpy(wanted).to(self.device),
            "token_weights": [both.token_weights(index) for index in weighed],
        }

    def compute_scores(
        self,
        text_pairs: Iterable[tuple[str, str]],
        dimension: int | None = None,
        max_length: int = 1024,
        batch_size: int = 16,
        dense_weight: float = 1.0,
        sparse_weight: float = 0.1,
    ) -> list[float]:
        """Score pairs: ``dense_weight * cosine + sparse_weight * (products of token weights)``.

        ``batch_size`` changes nothing. Errors are those of ``encode``; without a sparse head,
        ``sparse_weight`` must be 0.
        """
        scores = self.embedder.compute_scores(
            text_pairs,
            dense_weight=dense_weight,
            sparse_weight=sparse_weight,
            dimensions=dimension,
            max_length=max_length,
        )
        return [float(score) for score in scores]

    def compute_dense_scores(self, embs1: Tensor, embs2: Tensor) -> NDArray[np.float32]:
        """The product of the dense vectors in each row, float32 ``(n,)``."""
        return np.asarray((embs1 * embs2).sum(dim=-1).cpu().numpy(), dtype=np.float32)

    def compute_sparse_scores(
        self, embs1: Sequence[Mapping[str, float]], embs2: Sequence[Mapping[str, float]]
    ) -> NDArray[np.float64]:
        """The sum of products of the weights of shared tokens in each pair, float64 ``(n,)``."""
        return np.array([_dot(one, other) for one, other in zip(embs1, embs2, strict=True)], float)


def _is_gpu(device: str | None) -> bool:
    if device:
        return not device.startswith("cpu")
    return torch.cuda.is_available() or torch.backends.mps.is_available()


def _dot(one: Mapping[str, float], other: Mapping[str, float]) -> float:
    return sum(weight * other[token] for token, weight in one.items() if token in other)
