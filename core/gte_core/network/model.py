"""``GTEModel``: the network of a checkpoint. It takes padded batches, and computes packs inside."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import torch
from torch import Tensor, nn

from gte_core.checkpoint.config import GTEConfig, Task
from gte_core.checkpoint.files import read_json_object
from gte_core.checkpoint.hub import ModelFiles, find_model
from gte_core.checkpoint.renamed import class_names
from gte_core.checkpoint.weights import Checkpoint
from gte_core.exceptions import ConfigError, MissingHeadError
from gte_core.foreign import refuses_foreign
from gte_core.former import former_name
from gte_core.network.attention import PackLayout, has_varlen_kernel
from gte_core.network.device import best_float, choose_device, choose_dtype, is_quantized, to_device
from gte_core.network.kernels import choose_kernels
from gte_core.network.layers import Embeddings, EncoderLayer, Pooler, RotaryAngles
from gte_core.network.masked_lm import MaskedLMHead
from gte_core.network.padding import Padding, check_mask
from gte_core.network.placement import Placement, SharedWeights

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class GTEModelOutput:
    """What one padded batch gives.

    Attributes:
        last_hidden_state: ``(batch, length, hidden_size)``, zeros at padding.
        logits: raw, ``(batch, length, num_labels)`` of a token classifier (zeros at padding) or
            ``(batch, num_labels)`` of a sequence classifier; None without a classifier.
        pooler_output: ``(batch, hidden_size)``; None without a pooler.
    """

    last_hidden_state: Tensor
    logits: Tensor | None
    pooler_output: Tensor | None


class EncoderStack(nn.Module):
    """The stack of layers."""

    def __init__(self, layers: Iterable[EncoderLayer]) -> None:
        super().__init__()
        self.layer = nn.ModuleList(layers)

    @classmethod
    def of(cls, config: GTEConfig) -> EncoderStack:
        """As many layers as the network has."""
        return cls(EncoderLayer(config) for _ in range(config.num_hidden_layers))

    @classmethod
    def sharing(cls, config: GTEConfig, weights: Mapping[str, Tensor]) -> EncoderStack:
        """The layers over tensors that somebody else holds, by their names in a whole model.

        They have the fastest kernels for the type of the tensors on their device. These keep the
        weights of the products once more, in an order of their own; all others are shared.
        """
        first = next(iter(weights.values()))
        placement = Placement(
            first.device,
            first.dtype,
            head_dtype=first.dtype,
            kernels=choose_kernels(first.dtype, first.device),
        )
        model = nn.Module()
        with torch.device("meta"):
            model.encoder = stack = cls.of(config)
        placement.fill(model, SharedWeights(weights))
        return stack.requires_grad_(False).eval()

    def forward(self, hidden: Tensor, rotary: RotaryAngles, layout: PackLayout) -> Tensor:
        """Run ``(total_tokens, hidden_size)`` through every layer."""
        for layer in self.layer:
            hidden = layer(hidden, rotary, layout)
        return hidden

    def compute_cls(self, hidden: Tensor, rotary: RotaryAngles, layout: PackLayout) -> Tensor:
        """``forward`` for CLS tokens alone: the last layer computes nothing else."""
        *before, last = self.layer
        for layer in before:
            hidden = layer(hidden, rotary, layout)
        assert isinstance(last, EncoderLayer)  # noqa: S101  ModuleList has no type parameter
        return last.compute_cls(hidden, rotary, layout)


class GTEModel(nn.Module):
    """Encoder and heads of one checkpoint, for inference.

    Args:
        config: the shape of the network.
        task: the head to build, or None for none.
        num_labels: outputs of the classifier; 1 in every published checkpoint.
        pooler: whether to build a pooler; a sequence classifier always has one.
        tied: whether the decoder of ``"masked_lm"`` is the word embeddings.
    """

    def __init__(
        self,
        config: GTEConfig,
        *,
        task: Task | None = None,
        num_labels: int = 1,
        pooler: bool = False,
        tied: bool = True,
    ) -> None:
        super().__init__()
        self.config = config
        self.task = task
        self.embeddings = Embeddings(config)
        self.encoder = EncoderStack.of(config)
        pooled = pooler or task == "sequence_classification"
        self.pooler = Pooler(config.hidden_size) if pooled else None
        classifies = task is not None and task != "masked_lm"
        self.classifier = nn.Linear(config.hidden_size, num_labels) if classifies else None
        self.lm_head = MaskedLMHead(config, tied=tied) if task == "masked_lm" else None
        # Not a buffer: it must stay float32 when the model becomes half.
        self.inverse_frequencies = config.rotary.inverse_frequencies(config.head_dim)

    @classmethod
    @refuses_foreign
    def from_pretrained(
        cls,
        model: str | Path,
        *,
        revision: str | None = None,
        device: str | torch.device | None = None,
        dtype: str | torch.dtype = torch.float32,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
    ) -> GTEModel:
        """Load a hub id, a local directory, or ``"demo"``; safetensors only, no code is ever run.

        Raises ``HubError``, ``ConfigError`` or ``WeightsError``.
        """
        files = find_model(
            model, revision=revision, cache_dir=cache_dir, local_files_only=local_files_only
        )
        computed_on = choose_device(device or "cpu")
        computed_in = choose_dtype(dtype, computed_on)
        if is_quantized(computed_in):
            raise ValueError(
                f"dtype is {dtype!r}, but a GTEModel has float weights. Quantized, a model runs "
                "inside GTEEmbedder and GTEReranker alone."
            )
        placement = Placement(computed_on, computed_in, head_dtype=computed_in)
        return cls._from_directory(files.network, placement)

    @classmethod
    def for_inference(
        cls,
        files: ModelFiles,
        *,
        device: torch.device,
        dtype: torch.dtype,
        torch_compile: bool = False,
        masked_lm: bool = False,
    ) -> GTEModel:
        """The same network with the fastest kernels for this device and this type of products.

        It only computes: its layers may hold no parameters that could be moved, cast or saved. On
        a CPU its word embeddings stay mapped from the file, if that never changes.
        ``torch_compile`` fuses the steps of a layer between its products and its attention.
        ``masked_lm`` loads the head of a masked language model, whose passes read all of the word
        embeddings.
        """
        kernels = choose_kernels(dtype, device)
        activations = best_float(device) if is_quantized(dtype) else dtype
        placement = Placement(
            device,
            activations,
            head_dtype=torch.float32,
            kernels=kernels,
            table_stays_mapped=files.never_change and not masked_lm,
        )
        if torch_compile:
            _check_compilable(files.network, device, activations)
        model = cls._from_directory(files.network, placement, masked_lm=masked_lm)
        if torch_compile:
            for layer in model.encoder.layer:
                layer.compile()
        return model

    @classmethod
    def _from_directory(
        cls, directory: Path, placement: Placement, *, masked_lm: bool = False
    ) -> GTEModel:
        """The model that a directory describes, filled with its weights.

        The head is the one that config.json announces or, where it announces none, the one that
        the weights hold.
        """
        config = GTEConfig.from_pretrained(directory)
        checkpoint = Checkpoint(directory, lm_head=masked_lm)
        checkpoint.check_layers(config.num_hidden_layers)
        with torch.device("meta"):
            model = cls(
                config,
                task="masked_lm" if masked_lm else config.task or checkpoint.task,
                num_labels=config.num_labels or checkpoint.num_labels,
                pooler="pooler.dense.weight" in checkpoint,
                tied="lm_head.decoder.weight" not in checkpoint,
            )
        checkpoint.check({name: tuple(p.shape) for name, p in model.named_parameters()})
        _note_other_name(directory)
        placement.fill(model, checkpoint)
        # Moved now: a copy during a pass would make the host wait for the device.
        model.inverse_frequencies = model.inverse_frequencies.to(placement.device)
        return model.requires_grad_(False).eval()

    @property
    def has_sparse(self) -> bool:
        """Whether there is a head that gives one weight per token."""
        return (
            self.task == "token_classification"
            and self.classifier is not None
            and self.classifier.out_features == 1
        )

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.embeddings.LayerNorm.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """The type of the activations."""
        return self.embeddings.LayerNorm.weight.dtype

    @property
    def is_reranker(self) -> bool:
        """Whether there is a head that gives one score per sequence."""
        return (
            self.task == "sequence_classification"
            and self.classifier is not None
            and self.classifier.out_features == 1
        )

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
    ) -> GTEModelOutput:
        """Compute a padded batch ``(batch, length)``; padding may stand on either side.

        ``token_type_ids`` are read only by models with two or more types, and never changed.
        """
        _check_batch(input_ids, attention_mask, token_type_ids)
        padding = Padding.of(input_ids, attention_mask)
        types = None if token_type_ids is None else padding.pack(token_type_ids)
        packed = self.compute_pack(padding.pack(input_ids), padding.layout, token_type_ids=types)
        hidden = padding.unpack(packed)
        first = padding.first(hidden)
        pooled = None if self.pooler is None else self.pooler(first)
        return GTEModelOutput(hidden, self._logits(hidden, first, padding.mask), pooled)

    def compute_pack(
        self, input_ids: Tensor, layout: PackLayout, *, token_type_ids: Tensor | None = None
    ) -> Tensor:
        """Last hidden state ``(total_tokens, hidden_size)`` of ``(total_tokens,)`` packed ids."""
        hidden, rotary = self._embed(input_ids, layout, token_type_ids)
        states: Tensor = self.encoder(hidden, rotary, layout)
        return states

    def compute_cls(self, input_ids: Tensor, layout: PackLayout) -> Tensor:
        """The states of the CLS tokens alone, ``(n, hidden_size)``: cheaper than a whole pack."""
        hidden, rotary = self._embed(input_ids, layout)
        return self.encoder.compute_cls(hidden, rotary, layout)

    encode_pack = former_name("GTEModel.encode_pack", compute_pack)
    encode_first_tokens = former_name("GTEModel.encode_first_tokens", compute_cls)

    def lay_out(
        self, sequences: Sequence[Sequence[int]], left_out: Sequence[int] = ()
    ) -> tuple[Tensor, PackLayout]:
        """Token ids of several texts end to end, on the model's device.

        ``left_out`` says how many of its first tokens pooling leaves out of each, by default none.
        """
        lengths = [len(ids) for ids in sequences]
        layout = PackLayout.from_lengths(lengths, device=self.device, left_out=left_out)
        tokens = list(chain.from_iterable(sequences))
        input_ids = torch.tensor(tokens, dtype=torch.int64, device="cpu")
        return to_device(input_ids, self.device), layout

    def token_weights(self, hidden: Tensor) -> Tensor:
        """Sparse weight of every token ``(total_tokens,)``: ReLU of the token head's one logit."""
        if not self.has_sparse or self.classifier is None:
            raise MissingHeadError(
                "This model has no sparse head: it gives dense vectors alone. Load a token "
                "classifier of one label, such as gte-multilingual-base."
            )
        weights: Tensor = self.classifier(self._as_heads_want(hidden)).squeeze(-1).relu()
        return weights

    def vocabulary_logits(self, hidden: Tensor) -> Iterator[tuple[int, Tensor]]:
        """Logits of the states ``(total_tokens, hidden_size)``, as ``MaskedLMHead.logits``."""
        if self.lm_head is None:
            raise MissingHeadError(
                "This model has no head of a masked language model. Load a sparse encoder, such as "
                "opensearch-neural-sparse-encoding-doc-v3-gte."
            )
        return self.lm_head.logits(hidden, self.embeddings.word_embeddings.weight)

    def sequence_logits(self, cls: Tensor) -> Tensor:
        """Raw logits ``(n, num_labels)`` from the states ``(n, hidden_size)`` of CLS tokens."""
        if self.task != "sequence_classification" or not (self.pooler and self.classifier):
            raise MissingHeadError(
                "This model has no sequence classifier: it is no reranker. Load one, such as "
                "gte-multilingual-reranker-base."
            )
        logits: Tensor = self.classifier(self.pooler(self._as_heads_want(cls)))
        return logits

    def _embed(
        self, input_ids: Tensor, layout: PackLayout, token_type_ids: Tensor | None = None
    ) -> tuple[Tensor, RotaryAngles]:
        hidden = self.embeddings(input_ids, token_type_ids)
        return hidden, RotaryAngles.at(layout.positions, self.inverse_frequencies, hidden.dtype)

    def _as_heads_want(self, hidden: Tensor) -> Tensor:
        return hidden if self.classifier is None else hidden.to(self.classifier.weight.dtype)

    def _logits(self, hidden: Tensor, cls: Tensor, mask: Tensor) -> Tensor | None:
        if self.classifier is None:
            return None
        if self.task == "sequence_classification":
            return self.sequence_logits(cls)
        logits: Tensor = self.classifier(hidden)
        return logits * mask[..., None]


def _note_other_name(directory: Path) -> None:
    given, understood = class_names(read_json_object(directory / "config.json", ConfigError))
    if given != understood:
        logger.warning(
            "%s holds %s, understood as %s; code of its own is not run.",
            directory,
            given,
            understood,
        )


def _check_compilable(directory: Path, device: torch.device, dtype: torch.dtype) -> None:
    """Refuse a device without the varlen kernel: a compiled layer serves packs of any lengths."""
    if not has_varlen_kernel(device, dtype, GTEConfig.from_pretrained(directory).head_dim):
        raise ValueError(
            f"torch_compile is for half types and float8 on Ampere GPUs or newer, not for {dtype} "
            f"on {device}, where it gains nothing. Leave it out."
        )


def _check_batch(
    input_ids: Tensor, attention_mask: Tensor | None, token_type_ids: Tensor | None
) -> None:
    if input_ids.ndim != 2 or not input_ids.shape[1]:
        raise ValueError(
            f"input_ids has the shape {tuple(input_ids.shape)}, but must be (batch, length) with "
            "a length of at least 1."
        )
    if token_type_ids is not None and token_type_ids.shape != input_ids.shape:
        raise ValueError(
            f"token_type_ids has the shape {tuple(token_type_ids.shape)}, but must have that of "
            f"input_ids, {tuple(input_ids.shape)}."
        )
    check_mask(attention_mask, input_ids.shape)
