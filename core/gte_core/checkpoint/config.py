"""Read any published ``config.json`` of the architecture into one frozen, validated dataclass."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from gte_core.checkpoint.files import read_json_object, shown
from gte_core.exceptions import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

RotaryScaling = Literal["default", "linear", "ntk"]
Task = Literal["token_classification", "sequence_classification", "masked_lm"]

# What the two published configuration classes assume for a field that config.json leaves out.
_COMMON_DEFAULTS: dict[str, Any] = {
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "type_vocab_size": 1,
    "layer_norm_eps": 1e-12,
    "pack_qkv": True,
}
_CLASS_DEFAULTS: dict[str, dict[str, Any]] = {
    "new": _COMMON_DEFAULTS
    | {"vocab_size": 30528, "max_position_embeddings": 2048, "rope_theta": 10_000.0},
    "gte": _COMMON_DEFAULTS
    | {"vocab_size": 250_048, "max_position_embeddings": 8192, "rope_theta": 160_000.0},
}

# Fields that change the result, with the only values this implementation computes.
_SUPPORTED_VALUES: dict[str, tuple[Any, ...]] = {
    "hidden_act": ("gelu",),
    "layer_norm_type": ("layer_norm",),
    "position_embedding_type": ("rope",),
    "is_decoder": (False, None),
    "add_cross_attention": (False, None),
    "pruned_heads": ({}, None),
    "quantization_config": (None,),
}

# Fields that scale attention by the length of a text, which this implementation does not compute.
_REFUSED_IF_TRUE = ("logn_attention_scale", "logn_attention_clip1")

_LARGEST_VOCABULARY = 2**24

# The smallest and the largest value of every size of the network. The largest are far above any
# published model, and small enough that no product of two overflows or takes long to refuse.
_SIZES = {
    "vocab_size": (1, _LARGEST_VOCABULARY),
    "hidden_size": (2, 2**16),
    "num_hidden_layers": (1, 1024),
    "num_attention_heads": (1, 2**12),
    "intermediate_size": (1, 2**18),
    "max_position_embeddings": (1, 2**31 - 1),
    "type_vocab_size": (0, 2**16),
}
_MOST_LABELS = 2**16

_ROTARY_FIELDS = frozenset(
    {
        "type",
        "rope_type",
        "rope_theta",
        "factor",
        "mixed_b",
        "partial_rotary_factor",
        "original_max_position_embeddings",
    }
)

# The part of an architecture's name behind "New", "Gte" or "GTE" -> the head it carries.
_ARCHITECTURE_TASKS: dict[str, Task | None] = {
    "ForTokenClassification": "token_classification",
    "ForSequenceClassification": "sequence_classification",
    "ForMaskedLM": None,
    "Model": None,
}


@dataclass(frozen=True, slots=True)
class RotaryConfig:
    """How positions turn into rotation angles.

    ``scaling`` is ``"default"``, ``"linear"`` or ``"ntk"``. The NTK variant is static: it holds at
    every length, exactly as the original code computes it (it scales its table once, at start).
    """

    theta: float
    scaling: RotaryScaling = "default"
    factor: float = 1.0
    mixed_b: float | None = None

    def __post_init__(self) -> None:
        """Refuse what no rotation can be computed from."""
        if self.scaling not in get_args(RotaryScaling):
            raise ConfigError(
                f"The rotary scaling is {shown(self.scaling)}; supported are "
                f"{list(get_args(RotaryScaling))}. This checkpoint cannot be loaded."
            )
        _check_number("rope_theta", self.theta, 1e-6, 1e12)
        _check_number("factor of the rotary scaling", self.factor, 1e-6, 1e6)
        if self.mixed_b is not None:
            _check_number("mixed_b", self.mixed_b, 1e-6, 4)
            if self.scaling != "ntk":
                raise ConfigError(
                    f"mixed_b is {self.mixed_b}, but it belongs to the scaling 'ntk', and this one "
                    f"is {self.scaling!r}. Remove it if the checkpoint was trained without."
                )

    def inverse_frequencies(self, head_dim: int) -> Tensor:
        """Rotation per position of each pair of components, float32, shape ``(head_dim / 2,)``.

        The operations, their order and float32 are the original's: at position 8,000, one unit in
        the last place here becomes a visible angle. NTK follows "NTK-aware scaled RoPE", with the
        mixed variant of https://kexue.fm/archives/9706.
        """
        import torch

        half = head_dim // 2
        exponents = torch.arange(0, head_dim, 2, device="cpu").float() / head_dim
        ntk = self.scaling == "ntk" and self.factor > 1
        if ntk and self.mixed_b is None:
            stretched: Tensor = torch.pow(self.theta * self.factor, exponents).reciprocal()
            return stretched / math.pow(self.factor, 2 / head_dim)
        plain: Tensor = torch.pow(self.theta, exponents).reciprocal()
        if ntk and self.mixed_b is not None:
            steepness = math.log(self.factor) / half**self.mixed_b
            steps = torch.arange(1, half + 1, device="cpu").float()
            return plain / torch.exp(steepness * steps.pow(self.mixed_b))
        return plain / self.factor if self.scaling == "linear" else plain


@dataclass(frozen=True, slots=True)
class GTEConfig:
    """The shape of a checkpoint: everything that decides what the network computes.

    ``task`` names the head that the configuration announces, ``None`` where it announces none.
    ``num_labels`` is ``None`` where the file does not say; the weights decide then.
    """

    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    max_position_embeddings: int
    type_vocab_size: int
    layer_norm_eps: float
    rotary: RotaryConfig
    pad_token_id: int | None = None
    num_labels: int | None = None
    task: Task | None = None

    def __post_init__(self) -> None:
        """Refuse sizes that make no network."""
        for name, (least, most) in _SIZES.items():
            _check_integer(name, getattr(self, name), least, most)
        _check_number("layer_norm_eps", self.layer_norm_eps, 1e-30, 1)
        head_dim, remainder = divmod(self.hidden_size, self.num_attention_heads)
        if remainder or head_dim % 2:
            raise ConfigError(
                f"hidden_size {self.hidden_size} cannot be split into {self.num_attention_heads} "
                "attention heads of an even size; check hidden_size and num_attention_heads."
            )

    @property
    def head_dim(self) -> int:
        """Size of one attention head."""
        return self.hidden_size // self.num_attention_heads

    @classmethod
    def from_pretrained(cls, directory: str | Path) -> GTEConfig:
        """Read ``directory/config.json``; ``ConfigError`` if it is missing or malformed."""
        path = Path(directory) / "config.json"
        fields = read_json_object(path, ConfigError)
        try:
            return cls.from_dict(fields)
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from error

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> GTEConfig:
        """Build the configuration from the fields of any published form of ``config.json``.

        Raises ``ConfigError``, naming the field, for a value that changes the result and is
        not supported.
        """
        fields = _CLASS_DEFAULTS[_model_type(raw)] | dict(raw)
        _check_supported(fields)
        _boolean("pack_qkv", fields["pack_qkv"])
        config = cls(
            **{name: fields[name] for name in (*_SIZES, "layer_norm_eps")},
            rotary=RotaryConfig(1.0),
            pad_token_id=_pad_token_id(fields),
            num_labels=_num_labels(fields),
            task=_task(fields),
        )
        if fields.get("head_dim") not in (None, config.head_dim):
            raise ConfigError(
                f"head_dim is {shown(fields['head_dim'])}; supported is hidden_size / "
                f"num_attention_heads = {config.head_dim}."
            )
        return replace(config, rotary=_rotary(fields, config.head_dim))


def _model_type(raw: Mapping[str, Any]) -> str:
    model_type = raw.get("model_type")
    if not isinstance(model_type, str) or model_type not in _CLASS_DEFAULTS:
        raise ConfigError(
            f"model_type is {shown(model_type)}; supported are {sorted(_CLASS_DEFAULTS)}. "
            "Only checkpoints of the GTE architecture can be loaded."
        )
    return model_type


def _check_supported(fields: Mapping[str, Any]) -> None:
    for name, allowed in _SUPPORTED_VALUES.items():
        if name in fields and fields[name] not in allowed:
            raise ConfigError(
                f"{name} is {shown(fields[name])}; supported is {allowed[0]!r}. Any other value "
                "changes the vectors, so this checkpoint cannot be loaded."
            )
    for name in _REFUSED_IF_TRUE:
        if fields.get(name) is not None and _boolean(name, fields[name]):
            raise ConfigError(
                f"{name} is true; supported is false. This version does not scale attention by the "
                "length of a text, so this checkpoint cannot be loaded."
            )


def _boolean(name: str, value: Any) -> bool:
    # Some published files hold "true" as text, such as snowflake-arctic-embed-m-v2.0.
    text = value.lower() if isinstance(value, str) else value
    if text in ("true", "false"):
        return text == "true"
    if not isinstance(value, bool):
        raise ConfigError(f"{name} must be true or false, got {shown(value)}.")
    return value


def _check_integer(name: str, value: Any, least: int, most: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ConfigError(f"{name} must be an integer of at least {least}, got {shown(value)}.")
    if value > most:
        raise ConfigError(f"{name} must be an integer of at most {most:,}, got {shown(value)}.")


def _check_number(name: str, value: Any, least: float, most: float) -> None:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not value > 0:
        raise ConfigError(f"{name} must be a positive number, got {shown(value)}.")
    if not least <= value <= most:
        raise ConfigError(
            f"{name} must be a positive number from {least:g} to {most:g}, got {shown(value)}."
        )


def _pad_token_id(fields: Mapping[str, Any]) -> int | None:
    pad_token_id: int | None = fields.get("pad_token_id")
    if pad_token_id is not None:
        _check_integer("pad_token_id", pad_token_id, 0, _LARGEST_VOCABULARY)
    return pad_token_id


def _rotary(fields: Mapping[str, Any], head_dim: int) -> RotaryConfig:
    """Read ``rope_scaling`` (the original form), ``rope_parameters`` (transformers 5), or both."""
    forms = {
        name: _rotary_form(name, fields[name], fields["rope_theta"])
        for name in ("rope_parameters", "rope_scaling")
        if fields.get(name) is not None
    }
    if not forms:
        return RotaryConfig(fields["rope_theta"])
    if len(forms) == 2:
        _check_same_angles(forms, head_dim)
    return next(iter(forms.values()))


def _rotary_form(name: str, form: Any, theta: Any) -> RotaryConfig:
    if not isinstance(form, Mapping):
        raise ConfigError(f"{name} must be an object or null, got {shown(form)}.")
    if unknown := sorted(map(str, form.keys() - _ROTARY_FIELDS)):
        raise ConfigError(
            f"{name} has the unknown fields {shown(unknown)}; known are {sorted(_ROTARY_FIELDS)}."
        )
    types = [form[key] for key in ("rope_type", "type") if form.get(key) is not None]
    if types and types[0] != types[-1]:
        raise ConfigError(f"{name} has two types, {shown(types)}. Remove the wrong one.")
    scaling: Any = types[0] if types else "default"
    if form.get("partial_rotary_factor") not in (None, 1, 1.0):
        raise ConfigError(
            f"{name}.partial_rotary_factor is {shown(form['partial_rotary_factor'])}; supported is "
            "1.0."
        )
    factor: Any = 1.0 if scaling == "default" else form.get("factor")
    own_theta = theta if form.get("rope_theta") is None else form["rope_theta"]
    try:
        return RotaryConfig(own_theta, scaling, factor, form.get("mixed_b"))
    except ConfigError as error:
        raise ConfigError(f"{name}: {error}") from error


def _check_same_angles(forms: Mapping[str, RotaryConfig], head_dim: int) -> None:
    (first, one), (second, other) = forms.items()
    angles = one.inverse_frequencies(head_dim)
    if not angles.allclose(other.inverse_frequencies(head_dim), rtol=1e-5, atol=0):
        raise ConfigError(
            f"{first} ({one}) and {second} ({other}) describe different rotary angles. Remove the "
            "one that the checkpoint was not trained with."
        )


def _num_labels(fields: Mapping[str, Any]) -> int | None:
    labels = fields.get("id2label")
    if labels is not None and not isinstance(labels, Mapping):
        raise ConfigError(f"id2label must be an object or null, got {shown(labels)}.")
    count: int | None = fields.get("num_labels", len(labels) if labels else None)
    if count is not None:
        _check_integer("num_labels", count, 1, _MOST_LABELS)
    return count


def _task(fields: Mapping[str, Any]) -> Task | None:
    architectures = fields.get("architectures") or []
    if not isinstance(architectures, list):
        raise ConfigError(f"architectures must be a list, got {shown(architectures)}.")
    tasks = [_architecture_task(name) for name in architectures]
    return next((task for task in reversed(tasks) if task is not None), None)


def _architecture_task(name: Any) -> Task | None:
    known = isinstance(name, str) and name[:3] in ("New", "Gte", "GTE")
    suffix = name[3:] if known else None
    if suffix not in _ARCHITECTURE_TASKS:
        raise ConfigError(
            f"architectures names {shown(name)}; supported are 'New' or 'Gte' followed by "
            f"{sorted(_ARCHITECTURE_TASKS)}."
        )
    return _ARCHITECTURE_TASKS[suffix]
