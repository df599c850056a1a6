"""The name of a model and its settings -> what an embedder is made of."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch

from gte_core.capabilities import refuse_classifier
from gte_core.checkpoint.config import GTEConfig
from gte_core.checkpoint.hub import ModelFiles, find_model
from gte_core.checkpoint.modules import Description, read_description
from gte_core.forks import computing
from gte_core.network.device import choose_device, choose_dtype
from gte_core.network.model import GTEModel
from gte_core.projection import Projection
from gte_core.runtime.vectors import VectorEngine
from gte_core.settings import EncoderSettings
from gte_core.texts import check_max_length
from gte_core.tokenizer import GTETokenizer, check_vocabulary


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """What an embedder is made of.

    Attributes:
        files: where the model was found.
        config: its shape.
        tokenizer: makes ids of texts.
        engine: computes pooled states and sparse vectors of ids.
        description: how a vector is made of the states of tokens.
        projection: makes dense vectors of pooled states.
        settings: all of them decided, but for ``device`` and ``dtype``, which are as given.
        device: where it computes, such as ``"cuda:0"``.
        dtype: the type of its matrix products, such as ``"bfloat16"``.
    """

    files: ModelFiles
    config: GTEConfig
    tokenizer: GTETokenizer
    engine: VectorEngine
    description: Description
    projection: Projection
    settings: EncoderSettings
    device: str
    dtype: str


def located(settings: EncoderSettings, model: str | Path) -> tuple[ModelFiles, str, str]:
    """Where the files of a model are, its device and its dtype; no weights are read."""
    device = choose_device(settings.device)
    dtype = choose_dtype(settings.dtype, device)
    files = find_model(
        model,
        revision=settings.revision,
        cache_dir=settings.cache_dir,
        local_files_only=settings.local_files_only,
    )
    return files, str(device), str(dtype).removeprefix("torch.")


def load(settings: EncoderSettings, model: str | Path) -> LoadedModel:
    """Load a model; ``model`` is what ``settings`` name, of the type that it was given in."""
    files, device, dtype = located(settings, model)
    config = GTEConfig.from_pretrained(files.directory)
    refuse_classifier(files.model, config.task)  # the weights know where config.json does not
    description = read_description(files.directory, config)
    projection = Projection(config.hidden_size, description, deterministic=settings.deterministic)
    tokenizer = GTETokenizer.from_pretrained(files.directory, pad_token_id=config.pad_token_id)
    check_vocabulary(tokenizer, config.vocab_size)
    settings = replace(
        settings,
        model=files.model,
        revision=files.revision,
        dimensions=projection.size(settings.dimensions),
        max_length=check_max_length(settings.max_length, tokenizer.n_special),
    )
    for_inference = partial(GTEModel.for_inference, files, device=torch.device(device))
    with computing():
        network = for_inference(dtype=getattr(torch, dtype), torch_compile=settings.torch_compile)
    refuse_classifier(files.model, network.task)
    engine = VectorEngine(
        network,
        partial(for_inference, dtype=torch.float32),
        dropped_ids=tokenizer.dropped_ids,
        pooling=description.pooling,
        deterministic=settings.deterministic,
        graphed=settings.torch_compile,
    )
    return LoadedModel(
        files, config, tokenizer, engine, description, projection, settings, device, dtype
    )
