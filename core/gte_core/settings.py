"""The settings of a model, each defined once; every other place takes these whole.

Explicit signatures elsewhere (``from_pretrained``, the fields of the frameworks' classes, the
options of the command line) repeat names and defaults for those who read them; a test compares
each with this list. Nothing heavy is imported here.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal, get_args

from gte_core.checkpoint.naming import DEFAULT_MODEL
from gte_core.pickling import restore_by_name, state_by_name
from gte_core.texts import TruncationSide, check_side, checked_text

DEFAULT_RERANKER = "Alibaba-NLP/gte-multilingual-reranker-base"

OnTruncation = Literal["warn", "error", "ignore"]


@dataclass(frozen=True, kw_only=True)
class ModelSettings:
    """What every model is loaded with. Pickles by name, so that a field more changes nothing.

    Attributes:
        model: a hub id, a local directory, or ``"demo"``, the small bundled checkpoint.
        revision: branch, tag or commit; None for the pinned commit of known models, else main.
        device: such as ``"cpu"`` or ``"cuda:0"``; None for a GPU where there is one.
        dtype: of the matrix products; ``"auto"`` is bfloat16 where it is multiplied natively.
        max_length: tokens of a text, or of a pair, that are read, special tokens included; None
            for as many as the checkpoint says, at most its positions.
        torch_compile: on CUDA, fuse steps of the layers.
        cache_dir: where downloads are kept, None for the Hugging Face cache.
        local_files_only: never ask the hub.
    """

    # The order in which a pickle of 0.1.0 holds its values.
    _former_order: ClassVar[tuple[str, ...]]

    model: str
    revision: str | None = None
    device: str | None = None
    dtype: str = "auto"
    max_length: int | None = None
    torch_compile: bool = False
    cache_dir: str | None = None
    local_files_only: bool = False

    def __getstate__(self) -> dict[str, Any]:
        return state_by_name(self)

    def __setstate__(self, state: Any) -> None:
        restore_by_name(self, state, former_order=self._former_order)

    def arguments(self) -> dict[str, Any]:
        """The settings by name, as ``from_pretrained`` takes them."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class EncoderSettings(ModelSettings):
    """The arguments of ``GTEEmbedder.from_pretrained``. Equal settings share one encoder.

    Attributes:
        dimensions: size of the dense vectors, from 1 to the model's own; None for that.
        query_prefix: text put before queries only; None for the checkpoint's own prompt.
        prompt_name: of the checkpoint's prompt that goes before queries; None for its own choice.
        on_truncation: ``"warn"`` logs once a call, ``"error"`` raises, ``"ignore"``.
        deterministic: compute every text by itself, so that no bit depends on the others.
    """

    _former_order: ClassVar[tuple[str, ...]] = (
        "model",
        "revision",
        "device",
        "dtype",
        "max_length",
        "query_prefix",
        "on_truncation",
        "torch_compile",
        "cache_dir",
        "local_files_only",
    )

    model: str = DEFAULT_MODEL
    dimensions: int | None = None
    query_prefix: str | None = None
    prompt_name: str | None = None
    on_truncation: OnTruncation = "warn"
    deterministic: bool = False

    def __post_init__(self) -> None:
        if self.on_truncation not in get_args(OnTruncation):
            raise ValueError(
                f"on_truncation is {self.on_truncation!r}; allowed are "
                f"{list(get_args(OnTruncation))}."
            )
        for name in ("query_prefix", "prompt_name"):
            if getattr(self, name) is not None:
                checked_text(getattr(self, name), name)
        if self.query_prefix is not None and self.prompt_name is not None:
            raise ValueError(
                f"query_prefix is {self.query_prefix!r} and prompt_name is {self.prompt_name!r}, "
                "but both say what goes before queries; pass one of them."
            )


@dataclass(frozen=True, kw_only=True)
class RerankerSettings(ModelSettings):
    """The arguments of ``GTEReranker.from_pretrained``. Equal settings share one reranker.

    Attributes:
        truncation_side: the end that the texts of a pair lose where it is too long.
    """

    _former_order: ClassVar[tuple[str, ...]] = (
        "model",
        "revision",
        "device",
        "dtype",
        "max_length",
        "torch_compile",
        "cache_dir",
        "local_files_only",
    )

    model: str = DEFAULT_RERANKER
    truncation_side: TruncationSide = "right"

    def __post_init__(self) -> None:
        check_side(self.truncation_side)
