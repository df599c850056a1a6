"""What a checkpoint is and what it gives, read from its files without its weights or torch."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Literal

from gte_core.checkpoint.config import GTEConfig, Task
from gte_core.checkpoint.files import exists, read_bytes, read_json_object, shortened, shown
from gte_core.checkpoint.hub import ModelFiles, find_model
from gte_core.checkpoint.modules import read_description
from gte_core.checkpoint.naming import DEFAULT_MODEL, DEMO, Purpose
from gte_core.checkpoint.prompts import own_max_length, read_prompts
from gte_core.checkpoint.renamed import class_names
from gte_core.checkpoint.weights import Checkpoint
from gte_core.exceptions import ConfigError, MissingHeadError, WeightsError

SparseKind = Literal["tokens", "vocabulary"]

_READING = Purpose(DEFAULT_MODEL, DEMO, pools=True, weighs=False)
_WEIGHTS = ("model.safetensors", "model.safetensors.index.json")

_FRONT_MATTER = re.compile(r"\A\s*---[ \t]*\n(.*?)\n---[ \t]*$", re.MULTILINE | re.DOTALL)
_LICENCE = re.compile(r"^license: *['\"]?([\w.+-]+)['\"]? *$", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Capabilities:
    """What a checkpoint is, as its files say.

    Attributes:
        model: the hub id, the absolute path of a directory, or ``"demo"``.
        revision: the commit, None for a directory.
        architecture: the class that ``config.json`` names.
        understood_as: the published class that a renamed one is, None for all others.
        refusal: why ``GTEEmbedder`` does not load it, None where it does.
        has_dense: whether it gives dense vectors.
        sparse: ``"tokens"`` where each token of a text gets one weight, ``"vocabulary"`` where the
            whole vocabulary is weighed, None where there are no sparse vectors.
        is_reranker: whether ``GTEReranker`` loads it.
        pooling: which state of a text's tokens, or mean of them, becomes the dense vector.
        dimensions: of the dense vectors when no other size is asked for; 0 where there are none.
        sizes: where each size has a matrix of its own, all of them; else none, and every size from
            1 to ``dimensions`` is a cut.
        sparse_width: of the sparse vectors, 0 where there are none.
        max_length: tokens of a text that are read when nothing else is asked for.
        prompts: what the files offer to put before texts, by name.
        query_prefix: the one that goes before queries.
        document_prefix: the one that goes before documents.
        queries_are_looked_up: whether a query's weights come from a table, without a pass.
        n_parameters: numbers in the tensors of the network and its head, None where they were not
            downloaded. Then only ``config.json`` says which head there is.
        licence: as the front matter of its README says, None where there is none.
    """

    model: str
    revision: str | None = None
    architecture: str
    understood_as: str | None = None
    refusal: str | None = None
    has_dense: bool = False
    sparse: SparseKind | None = None
    is_reranker: bool = False
    pooling: str | None = None
    dimensions: int = 0
    sizes: tuple[int, ...] = ()
    sparse_width: int = 0
    max_length: int = 0
    prompts: Mapping[str, str] = field(default_factory=dict, hash=False)
    query_prefix: str = ""
    document_prefix: str = ""
    queries_are_looked_up: bool = False
    n_parameters: int | None = None
    licence: str | None = None

    def __repr__(self) -> str:
        """What there is; what the checkpoint lacks is left out."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        shown = [f"{name}={value!r}" for name, value in values.items() if value]
        return f"Capabilities({', '.join(shown)})"

    @property
    def has_sparse(self) -> bool:
        """Whether it gives sparse vectors."""
        return self.sparse is not None


def read_capabilities(
    model: str | Path = DEFAULT_MODEL,
    *,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
) -> Capabilities:
    """Read what a checkpoint is and gives; arguments as in ``GTEEmbedder.from_pretrained``.

    No weights are read, but for their names and shapes, and none are downloaded. A checkpoint that
    does not embed, such as a reranker or one of another architecture, gives a record whose
    ``refusal`` says why.

    Raises:
        HubError: there is no such model, or it cannot be reached.
        ConfigError: it has no readable ``config.json``, so it cannot be said what it is.
    """
    files = find_model(
        model,
        revision=revision,
        cache_dir=cache_dir,
        local_files_only=local_files_only,
        purpose=_READING,
    )
    return capabilities_of(files)


def capabilities_of(files: ModelFiles) -> Capabilities:
    """The same for files that were found."""
    raw = read_json_object(files.network / "config.json", ConfigError)
    known = Capabilities(
        model=files.model,
        revision=files.revision,
        architecture=_named(raw),
        licence=_licence(files.directory / "README.md"),
    )
    try:
        config = GTEConfig.from_pretrained(files.network)
        checkpoint = _tensors(files)
    except (ConfigError, WeightsError) as error:
        return replace(known, refusal=str(error))
    task = config.task or (checkpoint.task if checkpoint else None)
    is_single = (config.num_labels or (checkpoint.num_labels if checkpoint else 1)) == 1
    given, understood = class_names(raw)
    known = replace(
        known,
        understood_as=None if given == understood else understood,
        is_reranker=task == "sequence_classification" and is_single,
        n_parameters=checkpoint.n_parameters if checkpoint else None,
        max_length=config.max_position_embeddings,
    )
    try:
        refuse_classifier(files.model, task)
        has_weights = task == "token_classification" and is_single
        return _embedding(known, files, config, has_token_weights=has_weights)
    except (ConfigError, MissingHeadError) as error:
        return replace(known, refusal=str(error))


def refuse_classifier(model: str, task: Task | None) -> None:
    """``MissingHeadError`` for a checkpoint that scores pairs of texts."""
    if task == "sequence_classification":
        raise MissingHeadError(
            f"{shown(model)} is a sequence classifier: it scores pairs of texts, as a reranker "
            "does, and has no trained embedding. Load it with GTEReranker (GTEModel gives its "
            f"logits), or load an embedding model, such as {DEFAULT_MODEL!r}."
        )


def _tensors(files: ModelFiles) -> Checkpoint | None:
    """The tensors by their names; None of a model on the hub that was not downloaded in full."""
    if files.revision and not any(exists(files.network / name) for name in _WEIGHTS):
        return None
    return Checkpoint(files.network, lm_head=True)


def _embedding(
    known: Capabilities, files: ModelFiles, config: GTEConfig, *, has_token_weights: bool
) -> Capabilities:
    """What is known, and how vectors are made."""
    made = read_description(files.directory, config)
    prompts = read_prompts(files.directory)
    known = replace(
        known,
        max_length=own_max_length(files.network, config.max_position_embeddings),
        prompts=prompts.by_name,
        query_prefix=prompts.query_prefix(),
        document_prefix=prompts.document_prefix,
    )
    if made.learned_sparse is not None:
        return replace(
            known,
            sparse="vocabulary",
            sparse_width=config.vocab_size,
            queries_are_looked_up=made.learned_sparse.table is not None,
        )
    return replace(
        known,
        has_dense=True,
        sparse="tokens" if has_token_weights else None,
        pooling=made.pooling,
        dimensions=config.hidden_size if made.dense is None else made.dense.out_features,
        sizes=tuple(made.sizes),
        sparse_width=config.vocab_size if has_token_weights else 0,
    )


def _named(raw: Mapping[str, object]) -> str:
    """The class that any ``config.json`` names, or its type of model."""
    architectures = raw.get("architectures")
    named = architectures[-1] if isinstance(architectures, list) and architectures else None
    return shortened(str(named or raw.get("model_type") or "not named"))


def _licence(readme: Path) -> str | None:
    with suppress(ConfigError):
        text = read_bytes(readme, ConfigError).decode("utf-8", "replace").replace("\r\n", "\n")
        if (matter := _FRONT_MATTER.match(text)) and (found := _LICENCE.search(matter[1])):
            return shortened(found[1])
    return None
