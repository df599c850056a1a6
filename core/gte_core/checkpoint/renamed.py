"""Checkpoints whose class is this network under another name, such as ``VietnameseModel``.

Their repositories bring a copy of the original code with its classes renamed. That code is not
read, so ``config.json`` must show by itself that the copy computes the same: it says everything
that decides the result, because the defaults of a foreign class are not known, and it says nothing
that this network does not know. That the tensors match is checked as for every checkpoint.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from gte_core.checkpoint.files import shortened, shown
from gte_core.exceptions import ConfigError

_MODEL_TYPES = ("gte", "new")

# The part of an architecture's name that says what is built on the encoder.
_HEADS = ("ForTokenClassification", "ForSequenceClassification", "ForMaskedLM", "Model")

_OWN_CLASSES = ("New", "Gte", "GTE")
_ARCHITECTURE = re.compile(rf"([A-Za-z_]\w{{0,100}}?)({'|'.join(_HEADS)})")

# No other architecture has this field: it marks a copy of the original code.
_MARK = "pack_qkv"

_NEEDED = frozenset(
    {
        "vocab_size",
        "hidden_size",
        "num_hidden_layers",
        "num_attention_heads",
        "intermediate_size",
        "max_position_embeddings",
        "type_vocab_size",
        "layer_norm_eps",
        "layer_norm_type",
        "hidden_act",
        "position_embedding_type",
        _MARK,
    }
)
_ROTARY = frozenset({"rope_theta", "rope_scaling", "rope_parameters"})

# What changes no result: of training, of how it is computed, and of the books that others keep.
_WITHOUT_EFFECT = frozenset(
    {
        "_name_or_path",
        "architectures",
        "attention_probs_dropout_prob",
        "auto_map",
        "bos_token_id",
        "classifier_dropout",
        "cls_token_id",
        "dtype",
        "eos_token_id",
        "head_dim",  # compared with the sizes
        "hidden_dropout_prob",
        "id2label",
        "initializer_range",
        "label2id",
        "logn_attention_clip1",  # refused as in every checkpoint
        "logn_attention_scale",
        "mask_token_id",
        "matryoshka_dimensions",
        "model_type",
        "num_labels",
        "pad_token_id",
        "problem_type",
        "quantization_config",  # refused as in every checkpoint
        "return_dict",
        "sep_token_id",
        "tie_word_embeddings",
        "tokenizer_class",
        "torch_dtype",
        "transformers_version",
        "unk_token_id",
        "unpad_inputs",
        "use_cache",
        "use_memory_efficient_attention",
    }
)


def is_renamed(raw: Mapping[str, Any]) -> bool:
    """Whether ``config.json`` names other classes than the published ones."""
    stems = [named[0] for name in _listed(raw) if (named := split_architecture(name))]
    return not _is_own(raw) or any(stem not in _OWN_CLASSES for stem in stems)


def split_architecture(name: object) -> tuple[str, str] | None:
    """``("New", "ForMaskedLM")`` of ``"NewForMaskedLM"``; None for a head that is not known."""
    found = _ARCHITECTURE.fullmatch(name) if isinstance(name, str) else None
    return (found[1], found[2]) if found else None


def check_renamed(raw: Mapping[str, Any]) -> None:
    """``ConfigError`` unless the fields show that a renamed class is this network."""
    if not isinstance(raw.get("model_type"), str) or (not _is_own(raw) and _MARK not in raw):
        raise ConfigError(_refusal(raw))
    missing = sorted(name for name in _NEEDED if raw.get(name) is None)
    if raw.get("rope_theta") is None and not isinstance(raw.get("rope_parameters"), Mapping):
        missing.append("rope_theta")
    if missing:
        raise ConfigError(
            f"{_refusal(raw)} Another class may be this network renamed, but then it has to say "
            f"all that decides the result, and config.json lacks {shown(missing)}."
        )
    known = _NEEDED | _ROTARY | _WITHOUT_EFFECT
    # A feature that is off is none.
    foreign = sorted(str(name) for name in raw if name not in known and raw[name])
    if foreign:
        raise ConfigError(
            f"{_refusal(raw)} Another class may be this network renamed, but config.json has the "
            f"fields {shown(foreign)}, which this network does not know and that class may use."
        )


def class_names(raw: Mapping[str, Any]) -> tuple[str, str]:
    """The class that a checked configuration names, and the published one that it is."""
    *_, given = _listed(raw) or ["NewModel"]
    if not is_renamed(raw):
        return given, given
    stem, head = split_architecture(given) or ("", "Model")
    named = str(raw["model_type"]) if stem in _OWN_CLASSES else given
    return shortened(named), f"New{head}"


def _refusal(raw: Mapping[str, Any]) -> str:
    if _is_own(raw):
        return f"architectures names {shown(_listed(raw))}; supported are those of 'New' and 'Gte'."
    return (
        f"model_type is {shown(raw.get('model_type'))}; supported are {list(_MODEL_TYPES)}. "
        "Only checkpoints of the GTE architecture can be loaded."
    )


def _is_own(raw: Mapping[str, Any]) -> bool:
    return raw.get("model_type") in _MODEL_TYPES


def _listed(raw: Mapping[str, Any]) -> Sequence[Any]:
    architectures = raw.get("architectures")
    return architectures if isinstance(architectures, list) else []
