"""What a loaded model says of itself."""

from __future__ import annotations

from gte_core.capabilities import Capabilities, capabilities_of
from gte_core.checkpoint.prompts import Prompts
from gte_core.encoder import Fingerprint, NumericFamily, missing_dense_head, missing_sparse_head
from gte_core.loading import LoadedModel
from gte_core.projection import Projection
from gte_core.settings import EncoderSettings
from gte_core.tokenizer import GTETokenizer

_FAMILIES: dict[str, NumericFamily] = {"int8": "int8", "float8_e4m3fn": "fp8"}


class LoadedEncoder:
    """The part of an embedder that computes nothing.

    Args:
        loaded: what it is made of.
    """

    def __init__(self, loaded: LoadedModel) -> None:
        self._loaded = loaded
        self._fingerprint: Fingerprint | None = None

    @property
    def settings(self) -> EncoderSettings:
        """What it was loaded with; ``model``, ``revision`` and ``dimensions`` are decided."""
        return self._loaded.settings

    @property
    def model(self) -> str:
        """The hub id, the absolute path of a directory, or ``"demo"``."""
        return self._loaded.files.model

    @property
    def revision(self) -> str | None:
        """The commit of the model's files, None for a directory."""
        return self._loaded.files.revision

    @property
    def device(self) -> str:
        """Where it computes, such as ``"cpu"`` or ``"cuda:0"``."""
        return self._loaded.device

    @property
    def dtype(self) -> str:
        """The type of the matrix products, such as ``"bfloat16"``; never ``"auto"``."""
        return self._loaded.dtype

    @property
    def dimensions(self) -> int:
        """Size of the dense vectors when a call does not ask for another; 0 if there are none."""
        return self._size(self._loaded.settings.dimensions)

    @property
    def max_dimensions(self) -> int:
        """The largest size of dense vectors, 0 if there are none."""
        return self._loaded.projection.max_size

    @property
    def projection(self) -> Projection:
        """What makes dense vectors of pooled states."""
        return self._loaded.projection

    @property
    def separate_sizes(self) -> tuple[int, ...]:
        """The sizes of dense vectors, where each has a matrix of its own; else none.

        Vectors of such sizes cannot be cut.
        """
        return self._loaded.projection.separate_sizes

    @property
    def max_length(self) -> int:
        """Tokens of a text that are read, special tokens included."""
        return self._loaded.max_length

    @property
    def query_prefix(self) -> str:
        """Text that goes before queries, usually none."""
        return self._loaded.query_prefix

    @property
    def document_prefix(self) -> str:
        """Text that goes before documents, rarely any."""
        return self._loaded.prompts.document_prefix

    @property
    def prompts(self) -> Prompts:
        """The prompts of the checkpoint, by name."""
        return self._loaded.prompts

    @property
    def has_dense(self) -> bool:
        """Whether the checkpoint gives dense vectors; a sparse encoder gives sparse ones alone."""
        return self._loaded.engine.has_dense

    @property
    def has_sparse(self) -> bool:
        """Whether the checkpoint gives sparse vectors."""
        return self._loaded.engine.has_sparse

    @property
    def vocab_size(self) -> int:
        """Width of the sparse vectors, at least the number of the tokenizer's pieces."""
        return self._loaded.config.vocab_size

    @property
    def tokenizer(self) -> GTETokenizer:
        """What turns texts into ids and ids into strings."""
        return self._loaded.tokenizer

    @property
    def capabilities(self) -> Capabilities:
        """What the checkpoint is and gives, whatever it was loaded with; read from its files."""
        return capabilities_of(self._loaded.files)

    @property
    def fingerprint(self) -> Fingerprint:
        """What vectors of another encoder must share to be comparable with these.

        Raises ``WeightsError`` if the files of a directory were changed since they were loaded.
        """
        if self._fingerprint is None:
            family = _FAMILIES.get(self._loaded.dtype, "float")
            self._fingerprint = Fingerprint(
                *self._loaded.files.origin, self.max_length, family, self.document_prefix
            )
        return self._fingerprint

    @property
    def pack_tokens(self) -> int:
        """Tokens that one pass computes at once, unless a single text has more."""
        return self._loaded.engine.pack_tokens

    def require_dense_head(self) -> None:
        """Raise ``MissingHeadError`` for a checkpoint without dense vectors."""
        if not self.has_dense:
            raise missing_dense_head(self.model)

    def require_sparse_head(self) -> None:
        """Raise ``MissingHeadError`` for a checkpoint without the sparse head."""
        if not self.has_sparse:
            raise missing_sparse_head(self.model)

    def _size(self, dimensions: int | None) -> int:
        if not self.has_dense and dimensions is None:
            return 0
        self.require_dense_head()
        return self._loaded.projection.size(self.dimensions if dimensions is None else dimensions)
