"""How a checkpoint turns the states of a text's tokens into its vector, as its files say.

sentence-transformers lists the steps in ``modules.json``; each has a directory with its settings.
Without that file the published way counts: the state of the first token. ``read_description``
says what is to be computed, and refuses what this version does not compute.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from gte_core.checkpoint.config import GTEConfig
from gte_core.checkpoint.dense import (
    MATRIX_FILE,
    MATRIX_PATTERN,
    DenseModule,
    read_dense,
    read_sizes,
)
from gte_core.checkpoint.files import (
    MODULES_FILE,
    SETTINGS_FILE,
    exists,
    is_folder_name,
    read_json,
    read_json_object,
    shown,
)
from gte_core.checkpoint.learned_sparse import (
    SPARSE_PATTERNS,
    LearnedSparse,
    lacks_query_table,
    read_learned_sparse,
)
from gte_core.checkpoint.transformer import TRANSFORMER_FILE, find_unsupported
from gte_core.exceptions import ConfigError

PoolingMode = Literal["cls", "mean"]

# Every file of a checkpoint, beside its network and tokenizer, that says how a vector is made.
DESCRIPTION_PATTERNS = (
    MODULES_FILE,
    "*/config.json",
    SETTINGS_FILE,
    TRANSFORMER_FILE,
    MATRIX_PATTERN,
    *SPARSE_PATTERNS,
)

# The older form of a pooling's settings: for each mode a field that is true or false.
_POOLING_FIELDS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}

_COMPUTED_MODES: Mapping[str, PoolingMode] = {"cls": "cls", "mean": "mean"}

_LIBRARY = "sentence_transformers."
_MOST_MODULES = 100
_NEEDED = {"Pooling": ("config.json",), "Dense": ("config.json", MATRIX_FILE)}
_KINDS = ("Transformer", "Pooling", "Dense", "Normalize")
# Vectors have length 1 with or without the last.
_ORDERS = tuple(
    ["Transformer", "Pooling", *dense, *last]
    for dense in ((), ("Dense",))
    for last in ((), ("Normalize",))
)


@dataclass(frozen=True, slots=True)
class Module:
    """One step from tokens to a vector.

    Attributes:
        kind: the name of its class, such as ``"Pooling"``.
        file: where its settings are, or would be.
        settings: what that file holds, nothing where there is none.
    """

    kind: str
    file: Path
    settings: Mapping[str, Any] = field(default_factory=dict)

    def pooling_modes(self) -> list[tuple[str, str]]:
        """The modes of a ``Pooling``, each behind the field that names it; never empty.

        ``ConfigError`` for a field that is neither true nor false, or no name of a mode.
        """
        if "pooling_mode" in self.settings:
            value = self.settings["pooling_mode"]
            modes = value if isinstance(value, list) else [value]
            if not modes or not all(isinstance(mode, str) for mode in modes):
                raise self.refusal("pooling_mode", "the name of a mode, such as 'cls'")
            return [("pooling_mode", mode) for mode in modes]
        chosen = [name for name in _POOLING_FIELDS if self.is_true(name)]
        return [(name, _POOLING_FIELDS[name]) for name in chosen] or [("pooling_mode", "mean")]

    def is_true(self, name: str, *, default: bool = False) -> bool:
        """A setting that is true or false, or left out; ``ConfigError`` if it is anything else."""
        value = self.settings.get(name, default)
        if not isinstance(value, bool):
            raise self.refusal(name, "true or false")
        return value

    def require(self, name: str, supported: object) -> None:
        """``ConfigError`` unless a setting has this value, is null, or is left out."""
        if self.settings.get(name) not in (None, supported):
            raise self.refusal(name, repr(supported))

    def refusal(self, name: str, supported: str) -> ConfigError:
        """The error about a setting that is not supported."""
        return _refusal(self.file, name, self.settings.get(name), supported)


@dataclass(frozen=True, slots=True)
class Listing:
    """What the files list, unchecked.

    Attributes:
        directory: whose files these are.
        modules: the steps in order; none where the checkpoint does not list them.
        model_type: what sentence-transformers calls it, such as ``"SparseEncoder"``.
    """

    directory: Path
    modules: tuple[Module, ...] = ()
    model_type: str | None = None

    def find(self, kind: str) -> Module | None:
        """The module of this kind."""
        return next((module for module in self.modules if module.kind == kind), None)


@dataclass(frozen=True, slots=True)
class Description:
    """How a checkpoint makes a vector of the states of a text's tokens.

    Attributes:
        pooling: which state, or mean of states, becomes the vector.
        include_prompt: whether the tokens of a prompt are pooled too.
        dense: the matrix that projects the pooled state, if any.
        sizes: where each size has a matrix of its own, all of them by size; else none.
        learned_sparse: what makes it a sparse encoder, which pools nothing.
    """

    pooling: PoolingMode = "cls"
    include_prompt: bool = True
    dense: DenseModule | None = None
    sizes: Mapping[int, DenseModule] = field(default_factory=dict)
    learned_sparse: LearnedSparse | None = None

    @property
    def matrices(self) -> tuple[DenseModule, ...]:
        """Every matrix that there is."""
        if self.sizes:
            return tuple(self.sizes.values())
        return () if self.dense is None else (self.dense,)

    @property
    def settings(self) -> str:
        """All that changes the vectors beside the numbers in its matrices; "" for CLS alone."""
        parts = []
        if (self.pooling, self.include_prompt) != ("cls", True):
            parts.append(f"pooling={self.pooling} include_prompt={self.include_prompt}")
        parts += [f"{dense.directory.name}={dense.activation}" for dense in self.matrices]
        return "\n".join(parts)


def read_description(directory: Path, config: GTEConfig) -> Description:
    """Read how vectors are made.

    Raises:
        ConfigError: naming file, field and value, for a malformed file, and for vectors that this
            version does not compute.
    """
    if learned_sparse := read_learned_sparse(directory):
        return Description(learned_sparse=learned_sparse)
    listing = read_listing(directory)
    _check_model_type(listing)
    _refuse_masked_lm(directory / "config.json", config)
    if not listing.modules:
        return Description()
    _check_order(listing)
    for module in listing.modules:
        if check := _CHECKS.get(module.kind):
            check(module)
    pooling, dense = listing.find("Pooling"), listing.find("Dense")
    assert pooling is not None  # noqa: S101  the order has one
    made = Description(_pooling_mode(pooling), pooling.is_true("include_prompt", default=True))
    if dense is None:
        return made
    matrix = read_dense(dense, config.hidden_size)
    return replace(made, dense=matrix, sizes=read_sizes(dense, matrix))


def read_listing(directory: Path) -> Listing:
    """Read the files of sentence-transformers; ``ConfigError`` if one is malformed."""
    file = directory / SETTINGS_FILE
    fields = read_json_object(file, ConfigError) if exists(file) else {}
    model_type = fields.get("model_type")
    if model_type is not None and not isinstance(model_type, str):
        raise _refusal(file, "model_type", model_type, "a name")
    modules = tuple(_read_module(directory, *entry) for entry in _listed(directory))
    return Listing(directory, modules, model_type)


def description_files(directory: Path) -> list[Path]:
    """The files that say how vectors are made, as far as they are there."""
    try:
        listed = read_listing(directory).modules
    except ConfigError:
        return []  # loading says what is wrong
    files = [directory / MODULES_FILE, *(module.file for module in listed)]
    return [file for file in files if exists(file)]


def is_described(directory: Path) -> bool:
    """Whether ``modules.json`` is there, and the files it cannot be understood without."""
    if not exists(directory / MODULES_FILE) or lacks_query_table(directory):
        return False
    try:
        listed = _listed(directory)
    except ConfigError:
        return True  # loading says what is wrong
    return all(
        exists(directory / folder / name)
        for kind, folder in listed
        for name in _NEEDED.get(kind, ())
    )


def _listed(directory: Path) -> list[tuple[str, str]]:
    """Kind and folder of every module, from ``modules.json``; nothing without one."""
    file = directory / MODULES_FILE
    if not exists(file):
        return []
    entries = read_json(file, ConfigError)
    if not isinstance(entries, list) or not 0 < len(entries) <= _MOST_MODULES:
        raise ConfigError(
            f"{file} must hold a list of 1 to {_MOST_MODULES} modules, got {shown(entries)}."
        )
    return [_entry(file, entry) for entry in entries]


def _entry(file: Path, entry: Any) -> tuple[str, str]:
    fields = entry if isinstance(entry, dict) else {}
    name, folder = fields.get("type"), fields.get("path")
    if not isinstance(name, str) or not name.startswith(_LIBRARY):
        raise _refusal(file, "type", name, f"a class of {_LIBRARY[:-1]}")
    if not is_folder_name(folder):
        raise _refusal(file, "path", folder, "the name of a folder beside it")
    kind = name.rpartition(".")[2]
    if kind in _NEEDED and not folder:
        raise _refusal(file, f"path of the {kind}", folder, "the name of its own folder")
    return kind, str(folder)


def _read_module(directory: Path, kind: str, folder: str) -> Module:
    name = TRANSFORMER_FILE if kind == "Transformer" else "config.json"
    file = directory / folder / name
    if kind not in _NEEDED and not exists(file):
        return Module(kind, file)
    return Module(kind, file, read_json_object(file, ConfigError))


def _check_model_type(listing: Listing) -> None:
    if listing.model_type not in (None, "SentenceTransformer"):
        file = listing.directory / SETTINGS_FILE
        raise _refusal(file, "model_type", listing.model_type, "'SentenceTransformer'")


def _refuse_masked_lm(file: Path, config: GTEConfig) -> None:
    names = read_json_object(file, ConfigError).get("architectures") or []
    if config.task is None and any(name.endswith("ForMaskedLM") for name in names):
        raise ConfigError(
            f"{file}: architectures is {shown(names)}, a masked language model, and no "
            f"{MODULES_FILE} makes it a sparse encoder. It has no trained embedding, so its "
            "vectors would mean nothing. Load a model that was trained to embed, such as "
            "gte-multilingual-base; GTEModel loads the encoder of this one."
        )


def _check_order(listing: Listing) -> None:
    file = listing.directory / MODULES_FILE
    kinds = [module.kind for module in listing.modules]
    for kind in kinds:
        if kind not in _KINDS:
            raise _refusal(file, "type", kind, ", ".join(_KINDS))
    if kinds not in _ORDERS:
        raise _refusal(file, "the order", kinds, f"{', '.join(_KINDS)}, the last two or not")
    if (folder := listing.modules[0].file.parent) != listing.directory:
        raise _refusal(file, "path of the Transformer", folder.name, "''")


def _check_transformer(module: Module) -> None:
    task, output = "feature-extraction", "last_hidden_state"
    if found := find_unsupported(module.settings, task=task, output=output):
        raise module.refusal(*found)


def _pooling_mode(module: Module) -> PoolingMode:
    modes = module.pooling_modes()
    name, mode = modes[-1]
    if len(modes) == 1 and mode in _COMPUTED_MODES:
        return _COMPUTED_MODES[mode]
    raise module.refusal(name, "one mode, CLS or mean")


def _check_normalize(module: Module) -> None:
    for name in ("module_input_name", "module_output_name"):
        module.require(name, "sentence_embedding")


_CHECKS = {"Transformer": _check_transformer, "Normalize": _check_normalize}


def _refusal(file: Path, name: str, value: object, supported: str) -> ConfigError:
    return ConfigError(
        f"{file}: {name} is {shown(value)}; supported by this version is {supported}. Anything "
        "else changes the vectors, so this checkpoint does not embed. GTEModel gives the states of "
        "its tokens, for code of your own."
    )
