"""The configuration of the model type ``"new"`` in transformers, without the repository's code."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from transformers import PreTrainedConfig

from gte_core import GTEConfig

_SCALING = ("factor", "mixed_b")


class NewConfig(PreTrainedConfig):
    """Any published ``config.json`` of the model type ``"new"``.

    Names and defaults are those of the original class. ``unpad_inputs`` and
    ``use_memory_efficient_attention`` are kept and change nothing: packs have no padding.
    """

    model_type = "new"
    keys_to_ignore_at_inference = ("last_hidden_state",)

    def __init__(
        self,
        vocab_size: int = 30528,
        hidden_size: int = 768,
        num_hidden_layers: int = 12,
        num_attention_heads: int = 12,
        intermediate_size: int = 3072,
        hidden_act: str = "gelu",
        hidden_dropout_prob: float = 0.1,
        attention_probs_dropout_prob: float = 0.0,
        max_position_embeddings: int = 2048,
        type_vocab_size: int = 1,
        initializer_range: float = 0.02,
        layer_norm_type: str = "layer_norm",
        layer_norm_eps: float = 1e-12,
        position_embedding_type: str = "rope",
        rope_theta: float = 10_000.0,
        rope_scaling: Mapping[str, Any] | None = None,
        rope_parameters: Mapping[str, Any] | None = None,
        classifier_dropout: float | None = None,
        pack_qkv: bool = True,
        unpad_inputs: bool = False,
        use_memory_efficient_attention: bool = False,
        logn_attention_scale: bool = False,
        logn_attention_clip1: bool = False,
        pad_token_id: int | None = 0,
        auto_map: Mapping[str, Any] | None = None,
        tie_word_embeddings: bool = True,
        **others: Any,
    ) -> None:
        # auto_map names code in the repository. It is dropped, so that no Auto class asks for it.
        super().__init__(
            pad_token_id=pad_token_id, tie_word_embeddings=tie_word_embeddings, **others
        )
        self.vocab_size = vocab_size
        self.hidden_size = hidden_size
        self.num_hidden_layers = num_hidden_layers
        self.num_attention_heads = num_attention_heads
        self.intermediate_size = intermediate_size
        self.hidden_act = hidden_act
        self.hidden_dropout_prob = hidden_dropout_prob
        self.attention_probs_dropout_prob = attention_probs_dropout_prob
        self.max_position_embeddings = max_position_embeddings
        self.type_vocab_size = type_vocab_size
        self.initializer_range = initializer_range
        self.layer_norm_type = layer_norm_type
        self.layer_norm_eps = layer_norm_eps
        self.position_embedding_type = position_embedding_type
        # Where transformers 5 keeps both.
        given = dict(rope_parameters or rope_scaling or {})
        kind = given.pop("type", given.get("rope_type", "default"))
        self.rope_parameters = {"rope_theta": rope_theta} | given | {"rope_type": kind}
        self.classifier_dropout = classifier_dropout
        self.pack_qkv = pack_qkv
        self.unpad_inputs = unpad_inputs
        self.use_memory_efficient_attention = use_memory_efficient_attention
        self.logn_attention_scale = logn_attention_scale
        self.logn_attention_clip1 = logn_attention_clip1

    def to_dict(self) -> dict[str, Any]:
        """The fields of ``config.json``, the rotary ones also in the original form."""
        fields: dict[str, Any] = super().to_dict()
        parameters = fields.get("rope_parameters")
        if parameters:  # a comparison with the defaults of the class asks for a part of the fields
            scaling = {name: value for name, value in parameters.items() if name in _SCALING}
            fields["rope_theta"] = parameters["rope_theta"]
            kind = parameters["rope_type"]
            fields["rope_scaling"] = None if kind == "default" else {"type": kind, **scaling}
        return fields

    @property
    def network(self) -> GTEConfig:
        """The shape of the network; ``ConfigError``, naming the field, for what is not computed."""
        fields = self.to_dict()
        fields.pop("architectures", None)  # whoever derives a class gives it another name
        return GTEConfig.from_dict(fields)
