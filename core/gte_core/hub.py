"""A hub id, a directory or ``"demo"`` -> a directory with a model's files.

No file from a repository is ever executed; only configuration, tokenizer and safetensors are
downloaded. Known models are pinned to a commit, the main one also to the SHA-256 of its files.
"""

from __future__ import annotations

import difflib
import hashlib
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from gte_core.exceptions import HubError, WeightsError
from gte_core.weights import weight_files

logger = logging.getLogger(__name__)

DEFAULT_MODEL = "Alibaba-NLP/gte-multilingual-base"
DEMO = "demo"

_DEMO_DIRECTORY = Path(__file__).parent / "data" / "demo"
_SMALL_FILES = ("config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")
_WEIGHT_PATTERNS = ("model.safetensors", "model.safetensors.index.json", "model-*.safetensors")
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True, slots=True)
class Pin:
    """The commit of a known model, and what its files must be where that is known."""

    revision: str
    sha256: Mapping[str, str] = field(default_factory=dict)


# Revisions as named by the model metadata of the mteb package, the first by its own file list.
PINS: Mapping[str, Pin] = {
    DEFAULT_MODEL: Pin(
        "9bbca17d9273fd0d03d5725c7a4b0f6b45142062",
        {
            "config.json": "711bdc81365fc25d30533cf05b9fdf588e5ba01f18540fbbb1307d787597a313",
            "tokenizer_config.json": (
                "24cebbf2ef20fc317256e03e52ac7b2ca326586f946a8427ecac036332bf0933"
            ),
            "special_tokens_map.json": (
                "8c785abebea9ae3257b61681b4e6fd8365ceafde980c21970d001e834cf10835"
            ),
            "tokenizer.json": "f59925fcb90c92b894cb93e51bb9b4a6105c5c249fe54ce1c704420ac39b81af",
            "model.safetensors": "f5a35a10faa54da7717870af1517c9b41e9bd8e3880bc5a8e9363d4c3c63e9b0",
        },
    ),
    "Alibaba-NLP/gte-base-en-v1.5": Pin("a829fd0e060bb84554da0dfd354d0de0f7712b7f"),
    "Snowflake/snowflake-arctic-embed-m-v2.0": Pin("f2a7d59d80dfda5b1d14f096f3ce88bb6bf9ebdc"),
}


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """Where a model's files are.

    Attributes:
        directory: holds config.json, tokenizer.json and the safetensors.
        model: the hub id, the absolute path of a directory, or ``"demo"``.
        revision: the commit, None for a directory.
        cache_dir: the cache it came from, None for the usual one.
    """

    directory: Path
    model: str
    revision: str | None = None
    cache_dir: str | None = None

    @property
    def identity(self) -> str:
        """The hub id, or ``sha256:`` and 16 hex digits of the content of a directory."""
        return self.model if self.revision else f"sha256:{self._content_hash()[:16]}"

    def _content_hash(self) -> str:
        digest = hashlib.sha256()
        small = [self.directory / name for name in _SMALL_FILES]
        for path in [*filter(Path.exists, small), *weight_files(self.directory)]:
            digest.update(f"{path.name}\0{_sha256(path)}\n".encode())
        return digest.hexdigest()


def find_model(
    model: str | Path,
    *,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
) -> ModelFiles:
    """Locate a model's files, downloading them where needed.

    An existing directory wins over a hub id; ``"demo"`` is always the bundled checkpoint. Without
    ``revision``, known models come at their pinned commit and others at the newest of main.
    Raises :class:`HubError` if there is no such model or the hub cannot be reached.
    """
    if model == DEMO:
        return ModelFiles(_DEMO_DIRECTORY, DEMO)
    path = Path(model).expanduser()
    if str(model) and path.is_dir():
        return ModelFiles(path.absolute(), str(path.absolute()))
    if isinstance(model, Path) or not _HUB_ID.fullmatch(model):
        raise HubError(_no_such_directory(str(model), path))
    pin = PINS.get(model)
    files = _from_hub(
        model,
        revision=revision or (pin.revision if pin else None),
        cache_dir=cache_dir,
        local_files_only=local_files_only,
    )
    if pin and files.revision == pin.revision:
        _verify(files.directory, pin)
    logger.info("%s at revision %s", files.model, files.revision)
    return files


def _no_such_directory(model: str, path: Path) -> str:
    if path.is_file():
        return f"{model!r} is a file. Give the directory that holds it."
    siblings = path.parent.iterdir() if path.parent.is_dir() else ()
    names = [sibling.name for sibling in siblings if sibling.is_dir()]
    close = difflib.get_close_matches(path.name, names, n=1)
    hint = f" Did you mean {str(path.with_name(close[0]))!r}?" if close else ""
    return (
        f"{model!r} is no directory here and no hub id.{hint} Give an existing directory, a hub id "
        f"such as {DEFAULT_MODEL!r}, or {DEMO!r} for the bundled demo model."
    )


@dataclass(frozen=True, slots=True)
class _HubModel:
    """A model on the hub, or in the cache of what was downloaded from it."""

    model: str
    revision: str | None
    cache_dir: str | None

    def cached(self) -> ModelFiles | None:
        """The files if all of them are in the cache."""
        try:
            files = self._snapshot(self.revision, offline=True)
        except OSError as error:
            logger.debug("%s is not in the cache: %s", self.model, error)
            return None
        return files if _is_complete(files.directory) else None

    def download(self) -> ModelFiles:
        """The files, those missing downloaded; whatever the HTTP stack raises."""
        from huggingface_hub import HfApi

        # Asked for on its own, because the download itself would retry for half a minute.
        commit = HfApi().model_info(self.model, revision=self.revision, timeout=10).sha
        return self._snapshot(commit, offline=False)

    def _snapshot(self, revision: str | None, *, offline: bool) -> ModelFiles:
        from huggingface_hub import snapshot_download

        directory = Path(
            snapshot_download(
                self.model,
                revision=revision,
                cache_dir=self.cache_dir,
                local_files_only=offline,
                allow_patterns=[*_SMALL_FILES, *_WEIGHT_PATTERNS],
            )
        )
        return ModelFiles(directory, self.model, directory.name, self.cache_dir)


def _from_hub(
    model: str, *, revision: str | None, cache_dir: str | Path | None, local_files_only: bool
) -> ModelFiles:
    source = _HubModel(model, revision, str(cache_dir) if cache_dir else None)
    # A commit never changes: if it is in the cache, the hub need not be asked.
    asked_for_commit = revision is not None and _COMMIT.fullmatch(revision)
    if (local_files_only or asked_for_commit) and (files := source.cached()):
        return files
    if local_files_only:
        raise HubError(_not_cached(source))
    try:
        return source.download()
    except Exception as error:  # what the HTTP stack raises is not one family
        if files := source.cached():
            logger.warning("The hub cannot be reached; %s comes from the cache.", model)
            return files
        raise HubError(_unreachable(source, error)) from error


def _is_complete(directory: Path) -> bool:
    try:
        weight_files(directory)
    except WeightsError:
        return False
    return (directory / "config.json").exists() and (directory / "tokenizer.json").exists()


def _not_cached(source: _HubModel) -> str:
    where = f"the cache {source.cache_dir}" if source.cache_dir else "the Hugging Face cache"
    return (
        f"{source.model!r} at revision {source.revision or 'main'} is not complete in {where}, and "
        "local_files_only forbids a download. Allow it, give a local directory, or use "
        f"{DEMO!r}, the bundled demo model."
    )


def _unreachable(source: _HubModel, error: Exception) -> str:
    first_line = next(iter(str(error).strip().splitlines()), "")
    return (
        f"{source.model!r} at revision {source.revision or 'main'} could not be downloaded "
        f"({type(error).__name__}: {first_line}). Check the name and the network; or download it "
        "elsewhere and give its local directory, give cache_dir=, or use "
        f"{DEMO!r}, the bundled demo model."
    )


def _verify(directory: Path, pin: Pin) -> None:
    for name, expected in pin.sha256.items():
        path = directory / name
        if path.exists() and (found := _sha256(path)) != expected:
            raise HubError(
                f"{path} has SHA-256 {found}, but revision {pin.revision} has {expected}. The file "
                "is damaged or was changed: delete it and download it again."
            )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
