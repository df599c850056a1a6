"""An XLM-RoBERTa checkpoint of the same shape, for peers that are built on that network."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from gte_core import GTEConfig


def write_xlm_roberta(config: GTEConfig, native: Path, directory: Path) -> Path:
    """Write random weights as wide and deep as ``config``, with the tokenizer of ``native``."""
    import torch
    from safetensors.torch import save_file

    directory.mkdir(parents=True)
    fields = {
        "model_type": "xlm-roberta",
        "architectures": ["XLMRobertaModel"],
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "num_hidden_layers": config.num_hidden_layers,
        "num_attention_heads": config.num_attention_heads,
        "intermediate_size": config.intermediate_size,
        "max_position_embeddings": config.max_position_embeddings + 2,
        "type_vocab_size": 1,
        "pad_token_id": config.pad_token_id or 0,
        "bos_token_id": 0,
        "eos_token_id": 2,
    }
    (directory / "config.json").write_text(json.dumps(fields), encoding="utf-8")
    generator = torch.Generator().manual_seed(0)
    weights = {
        name: 1 + torch.zeros(shape)
        if name.endswith("LayerNorm.weight")
        else 0.02 * torch.randn(shape, generator=generator)
        for name, shape in _shapes(config).items()
    }
    save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(native / name, directory / name)
    return directory


def _shapes(config: GTEConfig) -> dict[str, tuple[int, ...]]:
    hidden, inner = config.hidden_size, config.intermediate_size
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.word_embeddings.weight": (config.vocab_size, hidden),
        "embeddings.position_embeddings.weight": (config.max_position_embeddings + 2, hidden),
        "embeddings.token_type_embeddings.weight": (1, hidden),
    }
    linears = {
        "attention.self.query": (hidden, hidden),
        "attention.self.key": (hidden, hidden),
        "attention.self.value": (hidden, hidden),
        "attention.output.dense": (hidden, hidden),
        "intermediate.dense": (inner, hidden),
        "output.dense": (hidden, inner),
    }
    norms = ["embeddings.LayerNorm"]
    for layer in range(config.num_hidden_layers):
        place = f"encoder.layer.{layer}"
        for name, shape in linears.items():
            shapes[f"{place}.{name}.weight"] = shape
            shapes[f"{place}.{name}.bias"] = shape[:1]
        norms += [f"{place}.attention.output.LayerNorm", f"{place}.output.LayerNorm"]
    shapes["pooler.dense.weight"], shapes["pooler.dense.bias"] = (hidden, hidden), (hidden,)
    for name in norms:
        shapes[f"{name}.weight"] = shapes[f"{name}.bias"] = (hidden,)
    return shapes
