"""Random checkpoints of any shape on disk: for tests, benchmarks and trying things out.

Their vectors mean nothing, but loading, shapes and speed are those of a real model.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from torch import Tensor

from gte_core.checkpoint.config import GTEConfig, Task
from gte_core.network.model import GTEModel

_SPECIAL_TOKENS = ("<s>", "<pad>", "</s>", "<unk>")
_ARCHITECTURES = {
    "token_classification": "NewForTokenClassification",
    "sequence_classification": "NewForSequenceClassification",
    "masked_lm": "NewForMaskedLM",
    None: "NewModel",
}
_SMALL_CONFIG: dict[str, Any] = {
    "model_type": "new",
    "vocab_size": 512,
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 128,
    "max_position_embeddings": 8192,
    "type_vocab_size": 1,
    "rope_theta": 20000,
    "rope_scaling": {"type": "ntk", "factor": 8.0},
    "pad_token_id": 1,
    "num_labels": 1,
}


def random_checkpoint(
    directory: str | Path,
    config: Mapping[str, Any] | None = None,
    *,
    task: Task | None = "token_classification",
    prefix: str = "new.",
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
    initializer_range: float = 0.1,
    n_pieces: int | None = None,
) -> Path:
    """Write a checkpoint in the original layout, with a tokenizer, and return its directory.

    Args:
        directory: created if it is missing.
        config: fields of config.json that differ from a small gte-multilingual-base.
        task: the head it gets, None for the encoder alone.
        prefix: of every tensor's name but a head's, ``"new."`` or ``""``.
        dtype: the type the weights are stored in.
        seed: of the random weights.
        initializer_range: standard deviation of the weights. The default makes every layer of a
            small network matter; at the real shape it makes attention so sharp that the rounding
            of one kernel against another turns a vector around, so use the 0.02 that real models
            start training from.
        n_pieces: of the tokenizer, by default as many as ``vocab_size``.
    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    fields = _SMALL_CONFIG | {"architectures": [_ARCHITECTURES[task]]} | dict(config or {})
    parsed = GTEConfig.from_dict(fields)
    (directory / "config.json").write_text(json.dumps(fields, indent=2), encoding="utf-8")
    weights = random_weights(parsed, task=task, seed=seed, initializer_range=initializer_range)
    save_file(
        {
            name if name.startswith(("classifier.", "lm_head.")) else prefix + name: weight.to(
                dtype
            )
            for name, weight in weights.items()
        },
        directory / "model.safetensors",
    )
    tokenizer = word_tokenizer(n_pieces or parsed.vocab_size)
    tokenizer.save(str(directory / "tokenizer.json"))
    roles = {
        "cls_token": "<s>",
        "sep_token": "</s>",
        "eos_token": "</s>",
        "pad_token": "<pad>",
        "unk_token": "<unk>",
        "mask_token": "<mask>",
    }
    (directory / "tokenizer_config.json").write_text(json.dumps(roles), encoding="utf-8")
    return directory


def random_weights(
    config: GTEConfig, *, task: Task | None, seed: int = 0, initializer_range: float = 0.1
) -> dict[str, Tensor]:
    """Float32 weights under their original names; those of norms scatter around 1."""
    generator = torch.Generator().manual_seed(seed)
    with torch.device("meta"):
        model = GTEModel(config, task=task, num_labels=config.num_labels or 1)
    weights = {}
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        is_norm = (
            "LayerNorm.weight" in name or "_ln.weight" in name or name == "lm_head.norm.weight"
        )
        weights[name] = 1 + 2 * initializer_range * noise if is_norm else initializer_range * noise
    return weights


def word_tokenizer(vocab_size: int) -> Tokenizer:
    """A Unigram tokenizer laid out as XLM-RoBERTa's, with at most ``vocab_size`` pieces.

    It knows the printable ASCII characters and, as far as there is room, the words ``w0``, ``w1``,
    and so on; every other character is ``<unk>``.
    """
    characters = ["▁", *(chr(code) for code in range(33, 127))]
    room = vocab_size - len(_SPECIAL_TOKENS) - len(characters) - 1
    if room < 0:
        raise ValueError(f"vocab_size is {vocab_size}, but must be at least {vocab_size - room}.")
    words = [f"▁w{number}" for number in range(room)]
    pieces = [(token, 0.0) for token in _SPECIAL_TOKENS]
    pieces += [(piece, -10.0) for piece in characters]
    pieces += [(piece, -5.0) for piece in words]
    tokenizer = Tokenizer(models.Unigram([*pieces, ("<mask>", 0.0)], unk_id=3))
    tokenizer.add_special_tokens([*_SPECIAL_TOKENS, "<mask>"])
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>",
        pair="<s> $A </s> </s> $B </s>",
        special_tokens=[("<s>", 0), ("</s>", 2)],
    )
    return tokenizer
