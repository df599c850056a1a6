"""The name of a model and its settings -> what an embedder is made of."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch

from gte_core.checkpoint.config import GTEConfig, Task
from gte_core.checkpoint.files import shown
from gte_core.checkpoint.hub import DEFAULT_MODEL, ModelFiles, find_model
from gte_core.checkpoint.modules import Description, read_description
from gte_core.checkpoint.prompts import Prompts, own_max_length, read_prompts
from gte_core.exceptions import MissingHeadError
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
        prompts: those of the checkpoint.
        query_prefix: what goes before queries.
        max_length: tokens of a text that are read.
        settings: model, revision and dimensions are decided, the others as they were given.
        device: where it computes, such as ``"cuda:0"``.
        dtype: the type of its matrix products, such as ``"bfloat16"``.
    """

    files: ModelFiles
    config: GTEConfig
    tokenizer: GTETokenizer
    engine: VectorEngine
    description: Description
    projection: Projection
    prompts: Prompts
    query_prefix: str
    max_length: int
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


def decided_length(max_length: int | None, files: ModelFiles) -> int:
    """The ``max_length`` that was given, else the checkpoint's own; no weights are read."""
    if max_length is not None:
        return max_length
    positions = GTEConfig.from_pretrained(files.directory).max_position_embeddings
    return own_max_length(files.directory, positions)


def load(settings: EncoderSettings, model: str | Path) -> LoadedModel:
    """Load a model; ``model`` is what ``settings`` name, of the type that it was given in."""
    files, device, dtype = located(settings, model)
    config = GTEConfig.from_pretrained(files.directory)
    _refuse_classifier(files.model, config.task)
    description = read_description(files.directory, config)
    projection = Projection(config.hidden_size, description, deterministic=settings.deterministic)
    tokenizer = GTETokenizer.from_pretrained(files.directory, pad_token_id=config.pad_token_id)
    check_vocabulary(tokenizer, config.vocab_size)
    max_length = check_max_length(decided_length(settings.max_length, files), tokenizer.n_special)
    prompts = read_prompts(files.directory)
    query_prefix = prompts.query_prefix(settings.query_prefix, settings.prompt_name)
    settings = replace(
        settings,
        model=files.model,
        revision=files.revision,
        dimensions=projection.size(settings.dimensions),
    )
    for_inference = partial(GTEModel.for_inference, files, device=torch.device(device))
    with computing():
        network = for_inference(dtype=getattr(torch, dtype), torch_compile=settings.torch_compile)
    _refuse_classifier(files.model, network.task)
    engine = VectorEngine(
        network,
        partial(for_inference, dtype=torch.float32),
        dropped_ids=tokenizer.dropped_ids,
        pooling=description.pooling,
        deterministic=settings.deterministic,
        graphed=settings.torch_compile,
    )
    return LoadedModel(
        files=files,
        config=config,
        tokenizer=tokenizer,
        engine=engine,
        description=description,
        projection=projection,
        prompts=prompts,
        query_prefix=query_prefix,
        max_length=max_length,
        settings=settings,
        device=device,
        dtype=dtype,
    )


def _refuse_classifier(model: str, task: Task | None) -> None:
    """Asked of config.json first, then of the weights, which know where it announces no head."""
    if task == "sequence_classification":
        raise MissingHeadError(
            f"{shown(model)} is a sequence classifier: it scores pairs of texts, as a reranker "
            "does, and has no trained embedding. Load it with GTEReranker (GTEModel gives its "
            f"logits), or load an embedding model, such as {DEFAULT_MODEL!r}."
        )
