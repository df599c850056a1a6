"""Which weights are benched, and the same weights in the form that transformers reads."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from huggingface_hub import try_to_load_from_cache
from tokenizers import Tokenizer

from gte_core import ConfigError, GTEConfig, GTEEmbedder, HubError

PUBLISHED = "Alibaba-NLP/gte-multilingual-base"

_REAL_SHAPE = {
    "vocab_size": 250_048,
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "max_position_embeddings": 8192,
}
_REAL_PIECES = 250_002
_MAX_LENGTH = 8192


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Weights on disk; ``label`` is what a reader knows them by."""

    label: str
    directory: Path
    random_weights: bool = False


def find_checkpoint(model: str | None, directory: Path) -> Checkpoint:
    """The model asked for; by default the published one if it is here, else random weights.

    Args:
        model: a hub id, a directory, ``"demo"``, or None.
        directory: where random weights are written; their owner removes it.
    """
    if model is not None:
        return _named(model)
    try:
        return _cached(PUBLISHED, local_files_only=True)
    except HubError:
        return _random(directory)


def _named(model: str) -> Checkpoint:
    if model == "demo":
        return Checkpoint("demo", Path(str(files("gte_core") / "data" / "demo")))
    if Path(model).is_dir():
        return Checkpoint(model, Path(model).resolve())
    return _cached(model, local_files_only=False)


def _cached(model: str, *, local_files_only: bool) -> Checkpoint:
    # Loading it is what downloads it, and what knows its revision.
    loaded = GTEEmbedder.from_pretrained(model, device="cpu", local_files_only=local_files_only)
    config = try_to_load_from_cache(model, "config.json", revision=loaded.revision)
    if not isinstance(config, str):
        raise HubError(f"{model} is not in the local cache; pass the directory of its files.")
    return Checkpoint(f"{model}@{str(loaded.revision)[:12]}", Path(config).parent)


def _random(directory: Path) -> Checkpoint:
    import torch

    from gte_core.testing import random_checkpoint

    random_checkpoint(
        directory,
        _REAL_SHAPE,
        dtype=torch.float16,
        initializer_range=0.02,
        n_pieces=_REAL_PIECES,
    )
    return Checkpoint("random weights of the shape of " + PUBLISHED, directory, True)


def write_native_form(source: Path, directory: Path) -> Path:
    """Make a directory that transformers and sentence-transformers read as the same model.

    Weights and vocabulary are links; the configurations are theirs, as neither reads the original
    ones. Raises ``ConfigError`` for a rotary scaling that transformers does not have.
    """
    directory.mkdir(parents=True)
    config = GTEConfig.from_pretrained(source)
    for path in (*source.glob("*.safetensors*"), source / "tokenizer.json"):
        _link(path.resolve(), directory / path.name)
    tokenizer = Tokenizer.from_file(str(source / "tokenizer.json"))
    (directory / "1_Pooling").mkdir()
    (directory / "2_Normalize").mkdir()
    contents: dict[str, Any] = {
        "config.json": native_config(config),
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "pad_token": tokenizer.id_to_token(config.pad_token_id or 0),
            "model_max_length": _MAX_LENGTH,
        },
        "modules.json": [
            _module(0, "", "Transformer"),
            _module(1, "1_Pooling", "Pooling"),
            _module(2, "2_Normalize", "Normalize"),
        ],
        "sentence_bert_config.json": {"max_seq_length": _MAX_LENGTH},
        "1_Pooling/config.json": {
            "word_embedding_dimension": config.hidden_size,
            "pooling_mode_cls_token": True,
            "pooling_mode_mean_tokens": False,
        },
    }
    for name, content in contents.items():
        (directory / name).write_text(json.dumps(content), encoding="utf-8")
    return directory


def native_config(config: GTEConfig) -> dict[str, Any]:
    """The ``config.json`` of transformers' own class for the same network."""
    return {
        "model_type": "gte",
        "architectures": ["GteModel"],
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "num_hidden_layers": config.num_hidden_layers,
        "num_attention_heads": config.num_attention_heads,
        "intermediate_size": config.intermediate_size,
        "max_position_embeddings": config.max_position_embeddings,
        "type_vocab_size": config.type_vocab_size,
        "layer_norm_eps": config.layer_norm_eps,
        "hidden_act": "gelu",
        "pad_token_id": config.pad_token_id,
        "rope_parameters": _rope_parameters(config),
    }


def _rope_parameters(config: GTEConfig) -> dict[str, Any]:
    rotary = config.rotary
    if rotary.mixed_b is not None:
        raise ConfigError("transformers has no rotary scaling with mixed_b, so it cannot compare.")
    if rotary.scaling == "ntk" and rotary.factor > 1:
        # The static NTK of the original code is a larger base and a constant stretch.
        return {
            "rope_type": "linear",
            "rope_theta": rotary.theta * rotary.factor,
            "factor": rotary.factor ** (2 / config.head_dim),
        }
    if rotary.scaling == "linear":
        return {"rope_type": "linear", "rope_theta": rotary.theta, "factor": rotary.factor}
    return {"rope_type": "default", "rope_theta": rotary.theta}


def _module(index: int, path: str, kind: str) -> dict[str, Any]:
    name = f"sentence_transformers.models.{kind}"
    return {"idx": index, "name": str(index), "path": path, "type": name}


def _link(source: Path, target: Path) -> None:
    try:
        target.symlink_to(source)
    except OSError:  # a system or a user without symbolic links
        shutil.copyfile(source, target)
