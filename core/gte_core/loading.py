"""The name of a model and its settings -> what an embedder is made of."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch

from gte_core.capabilities import refuse_classifier
from gte_core.checkpoint.config import GTEConfig
from gte_core.checkpoint.hub import ModelFiles, find_model
from gte_core.checkpoint.learned_sparse import LearnedSparse
from gte_core.checkpoint.modules import Description, read_description
from gte_core.checkpoint.prompts import Prompts, own_max_length, read_prompts
from gte_core.checkpoint.query_table import read_query_table
from gte_core.encoder import missing_dense_head
from gte_core.forks import computing
from gte_core.look_up import LookUp
from gte_core.network.device import choose_device, choose_dtype
from gte_core.network.model import GTEModel
from gte_core.projection import Projection
from gte_core.runtime.learned_sparse import LearnedSparseEngine
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
        look_up: how queries are looked up, None where they are computed as documents are.
    """

    files: ModelFiles
    config: GTEConfig
    tokenizer: GTETokenizer
    engine: VectorEngine | LearnedSparseEngine
    description: Description
    projection: Projection
    prompts: Prompts
    query_prefix: str
    max_length: int
    settings: EncoderSettings
    device: str
    dtype: str
    look_up: LookUp | None = None


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
    positions = GTEConfig.from_pretrained(files.network).max_position_embeddings
    return own_max_length(files.network, positions)


def load(settings: EncoderSettings, model: str | Path) -> LoadedModel:
    """Load a model; ``model`` is what ``settings`` name, of the type that it was given in."""
    files, device, dtype = located(settings, model)
    config = GTEConfig.from_pretrained(files.network)
    refuse_classifier(files.model, config.task)  # the weights know where config.json does not
    description = read_description(files.directory, config)
    sparse = description.learned_sparse
    pooled_size = 0 if sparse else config.hidden_size
    projection = Projection(pooled_size, description, deterministic=settings.deterministic)
    tokenizer = _tokenizer(files.network, config, weighs_mask=sparse is None)
    max_length = check_max_length(decided_length(settings.max_length, files), tokenizer.n_special)
    prompts = read_prompts(files.directory)
    query_prefix = prompts.query_prefix(settings.query_prefix, settings.prompt_name)
    settings = replace(
        settings,
        model=files.model,
        revision=files.revision,
        dimensions=_dimensions(settings, files, projection),
    )
    for_inference = partial(
        GTEModel.for_inference, files, device=torch.device(device), masked_lm=sparse is not None
    )
    with computing():
        network = for_inference(dtype=getattr(torch, dtype), torch_compile=settings.torch_compile)
    refuse_classifier(files.model, network.task)
    load_float32 = partial(for_inference, dtype=torch.float32)
    engine: VectorEngine | LearnedSparseEngine
    if sparse is None:
        engine = VectorEngine(
            network,
            load_float32,
            dropped_ids=tokenizer.dropped_ids,
            pooling=description.pooling,
            deterministic=settings.deterministic,
            graphed=settings.torch_compile,
        )
    else:
        engine = LearnedSparseEngine(
            network,
            load_float32,
            activation=sparse.activation,
            dropped_ids=tokenizer.dropped_ids,
            deterministic=settings.deterministic,
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
        look_up=_look_up(sparse, config, max_length),
    )


def _tokenizer(directory: Path, config: GTEConfig, *, weighs_mask: bool) -> GTETokenizer:
    tokenizer = GTETokenizer.from_pretrained(
        directory, pad_token_id=config.pad_token_id, weighs_mask=weighs_mask
    )
    check_vocabulary(tokenizer, config.vocab_size)
    return tokenizer


def _dimensions(settings: EncoderSettings, files: ModelFiles, projection: Projection) -> int | None:
    """The size of the dense vectors, None where there are none."""
    if projection.hidden_size:
        return projection.size(settings.dimensions)
    if settings.dimensions is not None:
        raise missing_dense_head(files.model)
    return None


def _look_up(sparse: LearnedSparse | None, config: GTEConfig, max_length: int) -> LookUp | None:
    if sparse is None or sparse.table is None:
        return None
    tokenizer = _tokenizer(sparse.query_tokenizer, config, weighs_mask=False)
    weights = read_query_table(sparse.table, config.vocab_size, tokenizer.token_id)
    return LookUp(tokenizer, weights, max_length)
