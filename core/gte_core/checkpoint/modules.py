"""How a checkpoint turns the states of a text's tokens into its vector, as its files say.

sentence-transformers lists the steps in ``modules.json``; each has a directory with its settings.
Without that file the published way counts: the state of the first token. ``read_description``
reads what the files say; ``check_computed`` refuses what this version does not compute.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gte_core.checkpoint.config import GTEConfig
from gte_core.checkpoint.files import (
    exists,
    is_folder_name,
    read_json,
    read_json_object,
    shown,
)
from gte_core.checkpoint.learned_sparse import (
    SPARSE_PATTERNS,
    LearnedSparse,
    read_learned_sparse,
)
from gte_core.exceptions import ConfigError

MODULES_FILE = "modules.json"
SETTINGS_FILE = "config_sentence_transformers.json"

# Every file of a checkpoint, beside its network and tokenizer, that says how a vector is made.
DESCRIPTION_PATTERNS = (
    MODULES_FILE,
    "*/config.json",
    SETTINGS_FILE,
    "sentence_bert_config.json",
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

_LIBRARY = "sentence_transformers."
_MOST_MODULES = 100


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
        chosen = [name for name in _POOLING_FIELDS if self._is_true(name)]
        return [(name, _POOLING_FIELDS[name]) for name in chosen] or [("pooling_mode", "mean")]

    def require(self, name: str, supported: object) -> None:
        """``ConfigError`` unless a setting has this value, is null, or is left out."""
        if self.settings.get(name) not in (None, supported):
            raise self.refusal(name, repr(supported))

    def refusal(self, name: str, supported: str) -> ConfigError:
        """The error about a setting that is not supported."""
        return _refusal(self.file, name, self.settings.get(name), supported)

    def _is_true(self, name: str) -> bool:
        value = self.settings.get(name, False)
        if not isinstance(value, bool):
            raise self.refusal(name, "true or false")
        return value


@dataclass(frozen=True, slots=True)
class Description:
    """What a checkpoint says about its vectors.

    Attributes:
        directory: whose files these are.
        modules: the steps in order; none where the checkpoint does not list them.
        model_type: what sentence-transformers calls it, such as ``"SparseEncoder"``.
    """

    directory: Path
    modules: tuple[Module, ...] = ()
    model_type: str | None = None


def read_description(directory: Path) -> Description:
    """Read the files of sentence-transformers; ``ConfigError`` if one is malformed."""
    file = directory / SETTINGS_FILE
    fields = read_json_object(file, ConfigError) if exists(file) else {}
    model_type = fields.get("model_type")
    if model_type is not None and not isinstance(model_type, str):
        raise _refusal(file, "model_type", model_type, "a name")
    modules = tuple(_read_module(directory, *entry) for entry in _listed(directory))
    return Description(directory, modules, model_type)


def is_described(directory: Path) -> bool:
    """Whether ``modules.json`` is there, and the settings it cannot be understood without."""
    if not exists(directory / MODULES_FILE):
        return False
    try:
        needed = [folder for kind, folder in _listed(directory) if kind == "Pooling"]
    except ConfigError:
        return True  # loading says what is wrong
    return all(exists(directory / folder / "config.json") for folder in needed)


def check_computed(directory: Path, config: GTEConfig) -> LearnedSparse | None:
    """What makes it a sparse encoder, if it is one.

    ``ConfigError``, naming file, field and value, for vectors that are made another way.
    """
    if found := read_learned_sparse(directory):
        return found
    description = read_description(directory)
    _check_model_type(description)
    _refuse_masked_lm(directory / "config.json", config)
    if description.modules:
        _check_order(description)
        for module in description.modules:
            _CHECKS[module.kind](module)
    return None


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
    return name.rpartition(".")[2], str(folder)


def _read_module(directory: Path, kind: str, folder: str) -> Module:
    name = "sentence_bert_config.json" if kind == "Transformer" else "config.json"
    file = directory / folder / name
    if kind != "Pooling" and not exists(file):
        return Module(kind, file)
    return Module(kind, file, read_json_object(file, ConfigError))


def _check_model_type(description: Description) -> None:
    if description.model_type not in (None, "SentenceTransformer"):
        file = description.directory / SETTINGS_FILE
        raise _refusal(file, "model_type", description.model_type, "'SentenceTransformer'")


def _refuse_masked_lm(file: Path, config: GTEConfig) -> None:
    names = read_json_object(file, ConfigError).get("architectures") or []
    if config.task is None and any(name.endswith("ForMaskedLM") for name in names):
        raise ConfigError(
            f"{file}: architectures is {shown(names)}, a masked language model, and no "
            f"{MODULES_FILE} makes it a sparse encoder. It has no trained embedding, so its "
            "vectors would mean nothing. Load a model that was trained to embed, such as "
            "gte-multilingual-base; GTEModel loads the encoder of this one."
        )


def _check_order(description: Description) -> None:
    file = description.directory / MODULES_FILE
    kinds = [module.kind for module in description.modules]
    for kind in kinds:
        if kind not in _CHECKS:
            raise _refusal(file, "type", kind, "Transformer, Pooling or Normalize")
    if kinds not in (["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"]):
        raise _refusal(file, "the order", kinds, "Transformer, Pooling, Normalize")
    if (folder := description.modules[0].file.parent) != description.directory:
        raise _refusal(file, "path of the Transformer", folder.name, "''")


def _check_transformer(module: Module) -> None:
    module.require("do_lower_case", False)


def _check_pooling(module: Module) -> None:
    for name, mode in module.pooling_modes():
        if mode != "cls":
            raise _refusal(module.file, name, module.settings.get(name, mode), "CLS pooling")
    module.require("include_prompt", True)


def _check_normalize(module: Module) -> None:
    for name in ("module_input_name", "module_output_name"):
        module.require(name, "sentence_embedding")


_CHECKS = {
    "Transformer": _check_transformer,
    "Pooling": _check_pooling,
    "Normalize": _check_normalize,
}


def _refusal(file: Path, name: str, value: object, supported: str) -> ConfigError:
    return ConfigError(
        f"{file}: {name} is {shown(value)}; supported by this version is {supported}. Anything "
        "else changes the vectors, so this checkpoint does not embed. GTEModel gives the states of "
        "its tokens, for code of your own."
    )
