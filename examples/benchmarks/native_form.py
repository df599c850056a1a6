"""A checkpoint in the form that transformers and sentence-transformers read as the same model."""

import json
import shutil
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from gte_core import ConfigError, GTEConfig

MAX_LENGTH = 8192


def write_native_form(source: Path, directory: Path) -> Path:
    """Make a directory that both read; weights and vocabulary are links.

    The configurations are theirs, as neither reads the original ones. Raises ``ConfigError`` for a
    rotary scaling that transformers does not have.
    """
    directory.mkdir(parents=True)
    config = GTEConfig.from_pretrained(source)
    for path in (*source.glob("*.safetensors*"), source / "tokenizer.json"):
        link(path.resolve(), directory / path.name)
    tokenizer = Tokenizer.from_file(str(source / "tokenizer.json"))
    contents: dict[str, Any] = {
        "config.json": native_config(config),
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "pad_token": tokenizer.id_to_token(config.pad_token_id or 0),
            "model_max_length": MAX_LENGTH,
        },
        "modules.json": [
            {"idx": n, "name": str(n), "path": path, "type": f"sentence_transformers.models.{kind}"}
            for n, (path, kind) in enumerate(
                [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")]
            )
        ],
        "sentence_bert_config.json": {"max_seq_length": MAX_LENGTH},
        "1_Pooling/config.json": {
            "word_embedding_dimension": config.hidden_size,
            "pooling_mode_cls_token": True,
            "pooling_mode_mean_tokens": False,
        },
    }
    (directory / "2_Normalize").mkdir()
    for name, content in contents.items():
        (directory / name).parent.mkdir(exist_ok=True)
        (directory / name).write_text(json.dumps(content), encoding="utf-8")
    return directory


def native_config(config: GTEConfig) -> dict[str, Any]:
    """The ``config.json`` of transformers' own class for the same network."""
    same = (
        "vocab_size",
        "hidden_size",
        "num_hidden_layers",
        "num_attention_heads",
        "intermediate_size",
        "max_position_embeddings",
        "type_vocab_size",
        "layer_norm_eps",
        "pad_token_id",
    )
    return {
        "model_type": "gte",
        "architectures": ["GteModel"],
        "hidden_act": "gelu",
        **{name: getattr(config, name) for name in same},
        "rope_parameters": rope_parameters(config),
    }


def rope_parameters(config: GTEConfig) -> dict[str, Any]:
    """How transformers says the same rotation."""
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


def link(source: Path, target: Path) -> None:
    """Link a file, or copy it where a system or a user has no symbolic links."""
    try:
        target.symlink_to(source)
    except OSError:
        shutil.copyfile(source, target)
