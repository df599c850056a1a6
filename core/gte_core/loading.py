"""The name of a model and its settings -> what an embedder is made of."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch

from gte_core.checkpoint.config import GTEConfig, Task
from gte_core.checkpoint.files import shown
from gte_core.checkpoint.hub import DEFAULT_MODEL, ModelFiles, find_model
from gte_core.checkpoint.learned_sparse import LearnedSparse
from gte_core.checkpoint.modules import check_computed
from gte_core.checkpoint.query_table import read_query_table
from gte_core.embeddings import check_dimensions
from gte_core.encoder import missing_dense_head
from gte_core.exceptions import MissingHeadError
from gte_core.forks import computing
from gte_core.look_up import LookUp
from gte_core.network.device import choose_device, choose_dtype
from gte_core.network.model import GTEModel
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
        engine: computes vectors of ids.
        settings: all of them decided, but for ``device`` and ``dtype``, which are as given.
        device: where it computes, such as ``"cuda:0"``.
        dtype: the type of its matrix products, such as ``"bfloat16"``.
        look_up: how queries are looked up, None where they are computed as documents are.
    """

    files: ModelFiles
    config: GTEConfig
    tokenizer: GTETokenizer
    engine: VectorEngine | LearnedSparseEngine
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


def load(settings: EncoderSettings, model: str | Path) -> LoadedModel:
    """Load a model; ``model`` is what ``settings`` name, of the type that it was given in."""
    files, device, dtype = located(settings, model)
    config = GTEConfig.from_pretrained(files.network)
    _refuse_classifier(files.model, config.task)
    sparse = check_computed(files.directory, config)
    tokenizer = _tokenizer(files.network, config)
    settings = replace(
        settings,
        model=files.model,
        revision=files.revision,
        dimensions=_dimensions(settings, files, config, sparse),
        max_length=check_max_length(settings.max_length, tokenizer.n_special),
    )
    for_inference = partial(
        GTEModel.for_inference, files, device=torch.device(device), masked_lm=sparse is not None
    )
    with computing():
        network = for_inference(dtype=getattr(torch, dtype), torch_compile=settings.torch_compile)
    _refuse_classifier(files.model, network.task)
    load_float32 = partial(for_inference, dtype=torch.float32)
    engine: VectorEngine | LearnedSparseEngine
    if sparse is None:
        engine = VectorEngine(
            network,
            load_float32,
            dropped_ids=tokenizer.dropped_ids,
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
    look_up = _look_up(sparse, config, settings.max_length)
    return LoadedModel(files, config, tokenizer, engine, settings, device, dtype, look_up)


def _tokenizer(directory: Path, config: GTEConfig) -> GTETokenizer:
    tokenizer = GTETokenizer.from_pretrained(directory, pad_token_id=config.pad_token_id)
    check_vocabulary(tokenizer, config.vocab_size)
    return tokenizer


def _dimensions(
    settings: EncoderSettings, files: ModelFiles, config: GTEConfig, sparse: LearnedSparse | None
) -> int | None:
    """The size of the dense vectors, None where there are none."""
    if sparse is None:
        size = config.hidden_size if settings.dimensions is None else settings.dimensions
        return check_dimensions(size, config.hidden_size)
    if settings.dimensions is not None:
        raise missing_dense_head(files.model)
    return None


def _look_up(sparse: LearnedSparse | None, config: GTEConfig, max_length: int) -> LookUp | None:
    if sparse is None or sparse.table is None:
        return None
    tokenizer = _tokenizer(sparse.query_tokenizer, config)
    weights = read_query_table(sparse.table, config.vocab_size, tokenizer.token_id)
    return LookUp(tokenizer, weights, max_length)


def _refuse_classifier(model: str, task: Task | None) -> None:
    """Asked of config.json first, then of the weights, which know where it announces no head."""
    if task == "sequence_classification":
        raise MissingHeadError(
            f"{shown(model)} is a sequence classifier: it scores pairs of texts, as a reranker "
            "does, and has no trained embedding. Load it with GTEReranker (GTEModel gives its "
            f"logits), or load an embedding model, such as {DEFAULT_MODEL!r}."
        )
