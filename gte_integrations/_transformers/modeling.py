"""The models of the type ``"new"`` in transformers: ordinary parameters, computed in packs.

Names of classes, parameters and outputs are those of the original code.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import (
    BaseModelOutputWithPooling,
    MaskedLMOutput,
    SequenceClassifierOutput,
)
from transformers.utils.generic import ModelOutput

from gte_core import GTEConfig
from gte_core.network.kernels import gated
from gte_core.network.layers import Embeddings, EncoderLayer, GatedMLP, Pooler, RotaryAngles
from gte_core.network.masked_lm import MaskedLMHead
from gte_core.network.model import EncoderStack
from gte_core.network.padding import Padding, check_mask
from gte_integrations._transformers.configuration import NewConfig
from gte_integrations._transformers.dropout import add_dropout
from gte_integrations._transformers.prepared import Kernels


@dataclass
class NewTokenClassifierOutput(ModelOutput):
    """What a token classifier gives.

    Attributes:
        loss: cross entropy, where ``labels`` were given.
        logits: ``(batch, length, num_labels)``, raw.
        last_hidden_state: ``(batch, length, hidden_size)``, zeros at padding.
        hidden_states: of every layer, where they were asked for.
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    last_hidden_state: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None


class NewPreTrainedModel(PreTrainedModel):
    """What the models share."""

    config_class = NewConfig
    base_model_prefix = "new"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _no_split_modules = ["NewLayer", "Embeddings"]  # noqa: RUF012  as transformers declares them
    # Tables that old files hold.
    _keys_to_ignore_on_load_unexpected = [  # noqa: RUF012
        r"rotary_emb\.",
        r"inv_freq$",
        r"position_ids$",
    ]


class NewMLP(GatedMLP):
    """The MLP over an ordinary product, which adapters and quantized ones may take the place of."""

    up_gate_kind = nn.Linear

    def __init__(self, network: GTEConfig, dropout: float) -> None:
        super().__init__(network.hidden_size, network.intermediate_size)
        self.dropout = nn.Dropout(dropout)

    def transform(self, hidden: Tensor) -> Tensor:
        """``forward`` of a part that is computed at once."""
        out: Tensor = self.down_proj(self.dropout(gated(self.up_gate_proj(hidden))))
        return out


class NewLayer(GradientCheckpointingLayer, EncoderLayer):
    """A layer of the core that may compute its states once more in place of keeping them."""

    def __init__(self, network: GTEConfig, dropout: float) -> None:
        super().__init__(network, NewMLP(network, dropout))


class NewModel(NewPreTrainedModel):
    """The encoder.

    Without gradients it computes with the fastest kernels for its weights. With gradients, or in
    training mode, it computes with torch's own.
    """

    # The heads of checkpoints that have some.
    _keys_to_ignore_on_load_unexpected = [  # noqa: RUF012
        *NewPreTrainedModel._keys_to_ignore_on_load_unexpected,
        r"^(new\.)?(classifier|pooler|lm_head)\.",
    ]

    def __init__(self, config: NewConfig, add_pooling_layer: bool = False) -> None:
        super().__init__(config)
        network = config.network
        probability = config.hidden_dropout_prob
        self.embeddings = Embeddings(network)
        self.encoder = EncoderStack(
            NewLayer(network, probability) for _ in range(network.num_hidden_layers)
        )
        self.pooler = Pooler(network.hidden_size) if add_pooling_layer else None
        self._network_config = network
        self._kernels = Kernels(type(module) for module in self.encoder.modules())
        # Not a buffer: it must stay float32 when the model becomes half.
        self._inverse_frequencies = network.rotary.inverse_frequencies(network.head_dim)
        add_dropout(self.embeddings, self.encoder, probability)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """The word embeddings."""
        return self.embeddings.word_embeddings

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Use other word embeddings."""
        self.embeddings.word_embeddings = cast("nn.Embedding", value)

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> BaseModelOutputWithPooling | tuple[Any, ...]:
        """Compute a batch ``(batch, length)``, padded on either side.

        Args:
            input_ids: token ids.
            attention_mask: 1 for tokens and 0 for padding; None for tokens everywhere.
            token_type_ids: read where the model knows two or more types, and never changed.
            position_ids: of every token, by default its place in the row.
            inputs_embeds: ``(batch, length, hidden_size)`` in place of ``input_ids``.
            output_attentions: not computed; True is a ``ValueError``.
            output_hidden_states: also return the states before the first and behind every layer.
            return_dict: False for a tuple.

        Returns:
            ``last_hidden_state`` ``(batch, length, hidden_size)``, zeros at padding;
            ``pooler_output`` ``(batch, hidden_size)`` where there is a pooler.
        """
        if output_attentions or (output_attentions is None and self.config.output_attentions):
            raise ValueError(
                "output_attentions is True, but attention is computed by kernels that keep no "
                "probabilities. Leave it out."
            )
        given = _either(input_ids, inputs_embeds)
        shape = given.shape[:2]
        check_mask(attention_mask, shape)
        padding = Padding.of(given, attention_mask, positions=position_ids)
        types = None if token_type_ids is None else padding.pack(token_type_ids.expand(shape))
        embedded = self.embeddings(padding.pack(given), types)
        wanted = _chosen(output_hidden_states, self.config.output_hidden_states)
        states = deque(self._states(embedded, padding), maxlen=None if wanted else 1)
        hidden = padding.unpack(states[-1])
        output = BaseModelOutputWithPooling(
            last_hidden_state=cast("torch.FloatTensor", hidden),
            pooler_output=None if self.pooler is None else self.pooler(padding.first(hidden)),
            hidden_states=cast("Any", tuple(map(padding.unpack, states))) if wanted else None,
        )
        return output if _chosen(return_dict, self.config.return_dict) else output.to_tuple()

    def _states(self, hidden: Tensor, padding: Padding) -> Iterator[Tensor]:
        """The packed states before the first layer and behind every one."""
        computed = self._computed_encoder(hidden)
        layout = padding.layout
        rotary = RotaryAngles.at(layout.positions, self._inverse_frequencies, hidden.dtype)
        yield hidden
        for layer in computed.layer:
            hidden = layer(hidden, rotary, layout)
            yield hidden

    def _computed_encoder(self, hidden: Tensor) -> EncoderStack:
        needs_gradients = torch.is_grad_enabled() and (
            hidden.requires_grad
            or any(weight.requires_grad for weight in self.encoder.parameters())
        )
        if not (self.training or needs_gradients):
            return self._kernels.encoder(self._network_config, self.encoder, hidden)
        if self.training and self.config.attention_probs_dropout_prob:
            raise ValueError(
                f"attention_probs_dropout_prob is {self.config.attention_probs_dropout_prob}, but "
                "attention is computed without dropout, as in every published model. Set it to 0."
            )
        return self.encoder


class NewModelWithHead(NewPreTrainedModel):
    """The encoder and a head, which a subclass adds."""

    new: NewModel

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> ModelOutput | tuple[Any, ...]:
        """As ``NewModel.forward``, with the head's output; ``labels`` are what its loss is of."""
        encoded = self.new(
            input_ids,
            attention_mask,
            token_type_ids,
            position_ids,
            inputs_embeds,
            output_attentions,
            output_hidden_states,
            return_dict=True,
        )
        output = self._output(encoded, labels)
        return output if _chosen(return_dict, self.config.return_dict) else output.to_tuple()

    def _output(self, encoded: BaseModelOutputWithPooling, labels: Tensor | None) -> ModelOutput:
        """What the head makes of what the encoder gave."""
        raise NotImplementedError


class NewForTokenClassification(NewModelWithHead):
    """The encoder and a classifier of tokens; of one label, it is the sparse head."""

    def __init__(self, config: NewConfig) -> None:
        super().__init__(config)
        self.num_labels = config.num_labels
        self.new = NewModel(config)
        self.dropout = _classifier_dropout(config)
        self.classifier = nn.Linear(config.hidden_size, config.num_labels or 1)
        self.post_init()

    def _output(self, encoded: BaseModelOutputWithPooling, labels: Tensor | None) -> ModelOutput:
        """``labels`` ``(batch, length)`` are ids, -100 to be ignored."""
        logits = self.classifier(self.dropout(encoded.last_hidden_state))
        return NewTokenClassifierOutput(
            _token_loss(logits, labels), logits, encoded.last_hidden_state, encoded.hidden_states
        )


class NewForSequenceClassification(NewModelWithHead):
    """The encoder, a pooler and a classifier of sequences; of one label, it is a reranker."""

    def __init__(self, config: NewConfig) -> None:
        super().__init__(config)
        self.num_labels = config.num_labels
        self.new = NewModel(config, add_pooling_layer=True)
        self.dropout = _classifier_dropout(config)
        self.classifier = nn.Linear(config.hidden_size, config.num_labels or 1)
        self.post_init()

    def _output(self, encoded: BaseModelOutputWithPooling, labels: Tensor | None) -> ModelOutput:
        """The loss of ``labels`` follows ``config.problem_type``.

        The pooled state is that of each row's first token, on whichever side the padding stands.
        """
        logits = self.classifier(self.dropout(encoded.pooler_output))
        loss = None
        if labels is not None:
            loss = self.loss_function(
                labels=labels, logits=logits, pooled_logits=logits, config=self.config
            )
        return SequenceClassifierOutput(loss, logits, encoded.hidden_states)


class LanguageModelHead(MaskedLMHead):
    """The core's head over an ordinary decoder, which gives all logits at once."""

    def __init__(self, config: NewConfig) -> None:
        super().__init__(config.network, tied=True)
        self.decoder = cast("Any", nn.Linear(config.hidden_size, config.vocab_size))

    def forward(self, hidden: Tensor) -> Tensor:
        """``(..., hidden_size)`` -> logits ``(..., vocab_size)``."""
        logits: Tensor = self.decoder(self.transform(hidden))
        return logits


class NewForMaskedLM(NewModelWithHead):
    """The encoder and the head of a masked language model, tied to the word embeddings."""

    _tied_weights_keys = {  # noqa: RUF012
        "lm_head.decoder.weight": "new.embeddings.word_embeddings.weight"
    }

    def __init__(self, config: NewConfig) -> None:
        super().__init__(config)
        self.new = NewModel(config)
        self.lm_head = LanguageModelHead(config)
        self.post_init()

    def get_output_embeddings(self) -> nn.Module:
        """The decoder."""
        return cast("nn.Module", self.lm_head.decoder)

    def set_output_embeddings(self, new_embeddings: nn.Module) -> None:
        """Use another decoder."""
        self.lm_head.decoder = cast("nn.Linear", new_embeddings)

    def _output(self, encoded: BaseModelOutputWithPooling, labels: Tensor | None) -> ModelOutput:
        """``labels`` ``(batch, length)`` are ids, -100 to be ignored."""
        logits = self.lm_head(encoded.last_hidden_state)
        return MaskedLMOutput(_token_loss(logits, labels), logits, encoded.hidden_states)


def _either(input_ids: Tensor | None, inputs_embeds: Tensor | None) -> Tensor:
    given = [tensor for tensor in (input_ids, inputs_embeds) if tensor is not None]
    if len(given) != 1:
        raise ValueError(
            f"{len(given)} of input_ids and inputs_embeds were given; give one of them."
        )
    if given[0].ndim < 2:
        raise ValueError(
            f"input_ids has the shape {tuple(given[0].shape)}, but must be (batch, length); of one "
            "text, give input_ids[None]."
        )
    return given[0]


def _token_loss(logits: Tensor, labels: Tensor | None) -> Tensor | None:
    return None if labels is None else cross_entropy(logits.flatten(0, 1), labels.flatten())


def _chosen(given: bool | None, default: bool | None) -> bool:
    return bool(default if given is None else given)


def _classifier_dropout(config: NewConfig) -> nn.Dropout:
    own = config.classifier_dropout
    return nn.Dropout(config.hidden_dropout_prob if own is None else own)
