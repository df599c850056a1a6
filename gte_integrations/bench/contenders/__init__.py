"""Who is measured: this library in each of its types, and the peers that do the same work."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Literal, Protocol

from gte_integrations.bench import ContenderName

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Form = Literal["original", "native", "xlm-roberta"]


class Loaded(Protocol):
    """A model in memory, ready to encode; what the module of every library gives."""

    @property
    def dtype(self) -> str:
        """The type it computes in, as torch calls it."""

    @property
    def variants(self) -> tuple[str, ...]:
        """Ways to call it, the library's default first."""

    def encode(self, texts: list[str], variant: str) -> NDArray[np.float32]:
        """Dense vectors of length 1, in the order of the texts."""


@dataclass(frozen=True, slots=True)
class Contender:
    """A library in one type.

    Attributes:
        name: what a user calls it.
        package: must be installed, and is imported.
        module: of this package; its ``load(directory, device, dtype)`` gives a :class:`Loaded`.
        dtype: as torch calls it, or ``"auto"``.
        form: of the checkpoint that it reads.
    """

    name: ContenderName
    package: str
    module: str
    dtype: str
    form: Form = "native"

    @property
    def is_ours(self) -> bool:
        """Whether it is this library."""
        return self.package == "gte_core"

    @property
    def same_weights(self) -> bool:
        """Whether its vectors must be equal to ours; else it only has the same shape."""
        return self.form != "xlm-roberta"

    @property
    def installed(self) -> bool:
        """Whether its library can be imported."""
        return find_spec(self.package) is not None


def _ours(name: ContenderName, dtype: str, module: str = "gte") -> Contender:
    return Contender(name, "gte_core", module, dtype, "original")


_CONTENDERS = (
    _ours("gte", "auto"),
    _ours("gte-float32", "float32"),
    _ours("gte-bfloat16", "bfloat16"),
    _ours("gte-float16", "float16"),
    _ours("gte-int8", "int8"),
    _ours("gte-float8", "float8"),
    _ours("gte-compiled", "auto", "gte_compiled"),
    _ours("gte-float8-compiled", "float8", "gte_compiled"),
    Contender("transformers", "transformers", "transformers", "float32"),
    Contender("transformers-bfloat16", "transformers", "transformers", "bfloat16"),
    Contender("sentence-transformers", "sentence_transformers", "sentence_transformers", "float32"),
    Contender(
        "sentence-transformers-bfloat16",
        "sentence_transformers",
        "sentence_transformers",
        "bfloat16",
    ),
    Contender("flagembedding", "FlagEmbedding", "flagembedding", "float32", "xlm-roberta"),
)
CONTENDERS: dict[str, Contender] = {contender.name: contender for contender in _CONTENDERS}

REFERENCE = CONTENDERS["gte-float32"]

_FOR_GPUS = {
    "gte-float8",
    "gte-compiled",
    "gte-float8-compiled",
    "transformers-bfloat16",
    "sentence-transformers-bfloat16",
}


def choose(names: Sequence[str], device: str, capabilities: Sequence[str]) -> list[Contender]:
    """The contenders asked for; by default those that make sense on the machine.

    A GPU gets everything but float16. A CPU gets our bfloat16 only where it has instructions for
    it, and the peers in float32, the type they load a model in there.
    """
    if names:
        return [CONTENDERS[name] for name in dict.fromkeys(names)]
    left_out = {"gte-float16"}
    if not device.startswith("cuda"):
        left_out |= _FOR_GPUS
        if not {"avx512_bf16", "amx_bf16"} & set(capabilities):
            left_out.add("gte-bfloat16")
    return [contender for name, contender in CONTENDERS.items() if name not in left_out]
