"""Sparse encoders: what the files say of a masked-LM checkpoint that weighs its whole vocabulary.

sentence-transformers lists a masked language model and a ``SpladePooling``, either in
``modules.json`` or as the documents' route of a ``Router``, whose other route looks queries up in a
table. Only these forms are computed; all others are refused by file, field and value.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast, get_args

from gte_core.checkpoint.files import (
    MODULES_FILE,
    SETTINGS_FILE,
    exists,
    is_folder_name,
    read_json,
    read_json_object,
    shown,
)
from gte_core.checkpoint.transformer import TRANSFORMER_FILE, find_unsupported
from gte_core.exceptions import ConfigError

Activation = Literal["relu", "log1p_relu"]

ROUTER_FILE = "router_config.json"
_TABLES = ("model.safetensors", "idf.json")
_QUERY_TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")

# What a cache of the hub holds of a route's folders, beside the settings of each.
SPARSE_PATTERNS = (
    ROUTER_FILE,
    *(f"query_0_*/{name}" for name in (*_TABLES, *_QUERY_TOKENIZER)),
    *(f"document_0_*/{name}" for name in ("*.json", "*.safetensors")),
)

_SPARSE_KINDS = frozenset(
    {"MLMTransformer", "SpladePooling", "SparseStaticEmbedding", "SparseAutoEncoder"}
)
# Under the second name, sentence-transformers gives the same numbers as a dense array.
_MODEL_TYPES = ("SparseEncoder", "SentenceTransformer")
_DOCUMENT = "a masked language model and a SpladePooling"

Step = tuple[str, str]  # the kind of a module, and its folder


@dataclass(frozen=True, slots=True)
class LearnedSparse:
    """How a sparse encoder makes its vectors.

    Attributes:
        activation: ``"relu"`` stands for log1p(relu(logit)), ``"log1p_relu"`` for the logarithm
            taken twice.
        network: the directory of the network and its tokenizer.
        pooling: the file of the pooling's settings.
        table: the file of the queries' weights, None where queries are computed as documents are.
    """

    activation: Activation
    network: Path
    pooling: Path
    table: Path | None = None

    @property
    def query_tokenizer(self) -> Path:
        """The directory of the tokenizer that queries are looked up with."""
        if self.table is not None and exists(self.table.parent / "tokenizer.json"):
            return self.table.parent
        return self.network


def read_learned_sparse(directory: Path) -> LearnedSparse | None:
    """What makes a checkpoint a sparse encoder, None if it is none.

    ``ConfigError``, naming file, field and value, for one that is not computed.
    """
    steps = _steps(directory)
    router = _read_router(directory) if steps == [("Router", "")] else None
    kinds = {kind for kind, _ in [*steps, *(router.types.values() if router else ())]}
    settings = _settings(directory, "", SETTINGS_FILE)
    is_named = settings.get("model_type") == _MODEL_TYPES[0]
    if not is_named and not kinds & _SPARSE_KINDS and not _fills_masks(directory, steps):
        return None
    _check_settings(directory / SETTINGS_FILE, settings)
    file = directory / (ROUTER_FILE if router else MODULES_FILE)
    if router is None:
        return _read_pass(directory, file, "the order", steps)
    document = router.steps("document")
    found = _read_pass(directory, file, "structure.document", document)
    query = router.steps("query") if "query" in router.structure else document
    return found if query == document else _with_table(found, directory, file, query)


def learned_sparse_files(directory: Path) -> list[Path]:
    """The files of a sparse encoder that decide its vectors, but for its network's; else none.

    Nothing is refused here: loading says what is wrong.
    """
    found = None
    with suppress(ConfigError):
        found = read_learned_sparse(directory)
    if found is None:
        return []
    files = [directory / MODULES_FILE, directory / ROUTER_FILE, found.pooling]
    if found.table is not None:
        files.append(found.table)
        if found.query_tokenizer != found.network:
            files += [found.query_tokenizer / name for name in _QUERY_TOKENIZER]
    return [file for file in files if exists(file)]


def lacks_query_table(directory: Path) -> bool:
    """Whether a router names a table that is not there, as in a cache of an earlier version."""
    if not exists(directory / ROUTER_FILE):
        return False
    with suppress(ConfigError):
        types = _read_router(directory).types.values()
        folders = [directory / folder for kind, folder in types if kind == "SparseStaticEmbedding"]
        return any(not any(exists(folder / table) for table in _TABLES) for folder in folders)
    return False


def network_directory(directory: Path) -> Path:
    """The directory of a checkpoint's network: its own, or the folder of the documents' route."""
    if exists(directory / "config.json"):
        return directory
    with suppress(ConfigError):
        if found := read_learned_sparse(directory):
            return found.network
    return directory


@dataclass(frozen=True, slots=True)
class _Router:
    """What ``router_config.json`` says: the modules by folder, and the folders of each route."""

    types: Mapping[str, Step]
    structure: Mapping[str, Sequence[str]]

    def steps(self, route: str) -> list[Step]:
        return [self.types[folder] for folder in self.structure[route]]


def _steps(directory: Path) -> list[Step]:
    """The modules that are listed; what is malformed is left to those who read all of it."""
    file = directory / MODULES_FILE
    entries = read_json(file, ConfigError) if exists(file) else []
    listed = [entry for entry in entries if isinstance(entry, dict)] if entries else []
    return [(_kind(entry.get("type")), str(entry.get("path"))) for entry in listed]


def _kind(name: object) -> str:
    return str(name).rpartition(".")[2]


def _check_settings(file: Path, settings: Mapping[str, Any]) -> None:
    if settings.get("model_type") not in (None, *_MODEL_TYPES):
        raise _refusal(file, "model_type", settings["model_type"], repr(_MODEL_TYPES[0]))
    if settings.get("max_active_dims") is not None:
        raise _refusal(file, "max_active_dims", settings["max_active_dims"], "null")


def _fills_masks(directory: Path, steps: Sequence[Step]) -> bool:
    """Whether a plain ``Transformer`` gives logits over the vocabulary."""
    return any(
        _settings(directory, folder, TRANSFORMER_FILE).get("transformer_task") == "fill-mask"
        for kind, folder in steps
        if kind == "Transformer" and is_folder_name(folder)
    )


def _read_router(directory: Path) -> _Router:
    file = directory / ROUTER_FILE
    fields = read_json_object(file, ConfigError)
    types, structure = fields.get("types"), fields.get("structure")
    if not isinstance(types, dict) or not all(map(is_folder_name, types)):
        raise _refusal(file, "types", types, "classes by the names of their folders")
    if not isinstance(structure, dict) or not {"document"} <= {*structure} <= {"document", "query"}:
        raise _refusal(file, "structure", structure, "a route 'document', and a route 'query'")
    for route, folders in structure.items():
        if not isinstance(folders, list) or not all(folder in [*types] for folder in folders):
            raise _refusal(file, f"structure.{route}", folders, "a list of folders named in types")
    parameters = fields.get("parameters")
    mappings = parameters.get("route_mappings") if isinstance(parameters, dict) else None
    if mappings:
        raise _refusal(file, "parameters.route_mappings", mappings, "none")
    steps = {folder: (_kind(name), folder) for folder, name in types.items()}
    return _Router(steps, structure)


def _read_pass(directory: Path, file: Path, field: str, steps: Sequence[Step]) -> LearnedSparse:
    """The way of a document, which is a query's too where there is no table."""
    kinds = [kind for kind, _ in steps]
    if kinds not in (["MLMTransformer", "SpladePooling"], ["Transformer", "SpladePooling"]):
        raise _refusal(file, field, kinds, _DOCUMENT)
    (kind, network), (_, pooling) = steps
    for folder in (network, pooling):
        if not is_folder_name(folder):
            raise _refusal(file, "path", folder, "the name of a folder beside it")
    if network and file.name == MODULES_FILE:
        raise _refusal(file, f"path of the {kind}", network, "''")
    _check_transformer(directory / network, kind)
    activation = _read_pooling(directory / pooling / "config.json")
    return LearnedSparse(activation, directory / network, directory / pooling / "config.json")


def _check_transformer(directory: Path, kind: str) -> None:
    file = directory / TRANSFORMER_FILE
    settings = _settings(directory, "", TRANSFORMER_FILE)
    if kind == "Transformer" and settings.get("transformer_task") is None:
        raise _refusal(file, "transformer_task", None, "'fill-mask'")
    if found := find_unsupported(settings, task="fill-mask", output="logits"):
        name, supported = found
        raise _refusal(file, name, settings[name], supported)


def _read_pooling(file: Path) -> Activation:
    settings = read_json_object(file, ConfigError)
    strategy = settings.get("pooling_strategy", "max")
    if strategy != "max":
        raise _refusal(file, "pooling_strategy", strategy, "'max'")
    activation = settings.get("activation_function", "relu")
    if activation not in get_args(Activation):
        raise _refusal(file, "activation_function", activation, "'relu' or 'log1p_relu'")
    return cast("Activation", activation)


def _with_table(
    found: LearnedSparse, directory: Path, file: Path, query: Sequence[Step]
) -> LearnedSparse:
    kinds = [kind for kind, _ in query]
    if kinds != ["SparseStaticEmbedding"]:
        supported = "a SparseStaticEmbedding, or the modules of the documents"
        raise _refusal(file, "structure.query", kinds, supported)
    folder = directory / query[0][1]
    name = _settings(folder, "", "config.json").get("path")
    if name not in (None, "idf.json"):
        raise _refusal(folder / "config.json", "path", name, "'idf.json'")
    tables = [folder / table for table in _TABLES if name in (None, table)]
    for table in tables:
        if exists(table):
            return LearnedSparse(found.activation, found.network, found.pooling, table)
    raise ConfigError(
        f"{folder} holds neither model.safetensors nor idf.json, but {file} says that queries are "
        "looked up there. Download the table."
    )


def _settings(directory: Path, folder: str, name: str) -> dict[str, Any]:
    file = directory / folder / name
    return read_json_object(file, ConfigError) if exists(file) else {}


def _refusal(file: Path, name: str, value: object, supported: str) -> ConfigError:
    return ConfigError(
        f"{file}: {name} is {shown(value)}; supported by this version is {supported}. Anything "
        "else changes the vectors of a sparse encoder, so this one does not encode. GTEModel gives "
        "the states of its tokens, for code of your own."
    )
