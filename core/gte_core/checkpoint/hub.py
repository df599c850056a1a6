"""A hub id, a directory or ``"demo"`` -> a directory with a model's files.

No file from a repository is ever executed; only configuration, tokenizer and safetensors are
downloaded. Known models are pinned to a commit, the main one also to the SHA-256 of its files.
"""

from __future__ import annotations

import difflib
import hashlib
import logging
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from gte_core.checkpoint.files import exists, open_file, shortened, shown
from gte_core.checkpoint.learned_sparse import learned_sparse_files, network_directory
from gte_core.checkpoint.modules import DESCRIPTION_PATTERNS, MODULES_FILE, is_described
from gte_core.checkpoint.shards import weight_files
from gte_core.exceptions import HubError, WeightsError

logger = logging.getLogger(__name__)

DEFAULT_MODEL = "Alibaba-NLP/gte-multilingual-base"
DEMO = "demo"

_DEMO_DIRECTORY = Path(__file__).parent.parent / "data" / "demo"
_SMALL_FILES = ("config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")
_WEIGHT_PATTERNS = ("model.safetensors", "model.safetensors.index.json", "model-*.safetensors")
# A model cannot be loaded without the first; the others say how its vectors are made.
_NETWORK_PATTERNS = (*_SMALL_FILES, *_WEIGHT_PATTERNS)
_ALL_PATTERNS = (*_NETWORK_PATTERNS, *DESCRIPTION_PATTERNS)
_COMMIT = re.compile(r"[0-9a-f]{40}")
_MAY_LACK_MODULES = (
    " It may lack modules.json, which says how vectors are made; CLS pooling is assumed. Load it "
    "once with the hub in reach."
)


@dataclass(frozen=True, slots=True)
class Purpose:
    """What a model is needed for.

    Attributes:
        example: the hub id of a model that serves it, for errors to recommend.
        bundled: the name of a bundled one, None where none serves it.
        pools: whether it matters how the states of tokens become one vector.
    """

    example: str
    bundled: str | None = None
    pools: bool = False

    def choices(self, *others: str) -> str:
        """Everything that may be given, in words."""
        bundled = [f"{self.bundled!r} for the bundled demo model"] if self.bundled else []
        *most, last = [*others, *bundled]
        return f"{', '.join(most)}, or {last}" if most else last


@dataclass(frozen=True, slots=True)
class Pin:
    """The commit of a known model, and the SHA-256 of its files where it is known."""

    revision: str
    sha256: Mapping[str, str] = field(default_factory=dict)


# The commit of the main model comes from its own file list, those of the others from the model
# metadata of the mteb package. That has none for the reranker and gte-large-en-v1.5, which are not
# pinned.
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

_EMBEDDING = Purpose(DEFAULT_MODEL, DEMO, pools=True)


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """Where a model's files are.

    Attributes:
        directory: what was found; ``network`` says where in it the network is.
        model: the hub id, the absolute path of a directory, or ``"demo"``.
        revision: the commit, None for a directory.
        stamp: sizes and times of the files of a directory when they were found.
    """

    directory: Path
    model: str
    revision: str | None = None
    stamp: tuple[tuple[str, int, int], ...] = ()

    @classmethod
    def of_directory(cls, directory: Path, model: str) -> ModelFiles:
        """The files of a local directory, as they are now."""
        return cls(directory, model, stamp=_stamp(directory))

    @property
    def network(self) -> Path:
        """Where config.json, tokenizer.json and the safetensors are."""
        return network_directory(self.directory)

    @property
    def never_change(self) -> bool:
        """Whether nobody writes into them: a commit in the hub's cache, or the bundled model."""
        return self.revision is not None or self.model == DEMO

    @property
    def identity(self) -> str:
        """The hub id, or ``sha256:`` and 16 hex digits of the content of a directory.

        ``WeightsError`` if the files were changed since they were found.
        """
        if self.revision:
            return self.model
        if _stamp(self.directory) != self.stamp:
            raise WeightsError(
                f"The files in {self.directory} were changed after they were loaded, so it cannot "
                "be said which weights these are. Load the model again."
            )
        digest = hashlib.sha256()
        for path in _files_of(self.directory):
            digest.update(f"{path.name}\0{_sha256(path)}\n".encode())
        return f"sha256:{digest.hexdigest()[:16]}"


def find_model(
    model: str | Path,
    *,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
    purpose: Purpose = _EMBEDDING,
) -> ModelFiles:
    """Locate a model's files, downloading them where needed.

    An existing directory wins over a hub id; ``"demo"`` is always the bundled checkpoint. Without
    ``revision``, known models come at their pinned commit and others at the newest of main.
    Raises ``HubError`` if there is no such model or the hub cannot be reached.
    """
    if model == DEMO:
        _refuse_revision(DEMO, revision)
        return ModelFiles.of_directory(_DEMO_DIRECTORY, DEMO)
    directory = _directory(model)
    if directory is not None:
        _refuse_revision(str(model), revision)
        return ModelFiles.of_directory(directory, str(directory))
    if isinstance(model, Path) or not _is_hub_id(model):
        raise HubError(_no_such_directory(str(model), purpose))
    pin = PINS.get(model)
    pinned = pin is not None and revision in (None, pin.revision)
    source = _HubModel(
        model,
        pin.revision if pin and pinned else revision,
        str(cache_dir) if cache_dir else None,
        pin.sha256 if pin and pinned else {},
        known_pooling=pinned or not purpose.pools,
        purpose=purpose,
    )
    files = source.find(local_files_only=local_files_only)
    _verify(files.directory, source.sha256)
    logger.info("%s at revision %s", files.model, files.revision)
    return files


def _directory(model: str | Path) -> Path | None:
    try:
        path = Path(model).expanduser()
        return path.absolute() if str(model) and path.is_dir() else None
    except (OSError, RuntimeError, ValueError):  # too long, no such user, a NUL, no permission
        return None


def absolute_model(model: str) -> str:
    """The absolute path where ``model`` is a directory, ``model`` itself where it is not."""
    directory = None if model == DEMO else _directory(model)
    return model if directory is None else str(directory)


def _is_hub_id(model: str) -> bool:
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    try:
        validate_repo_id(model)
    except HFValidationError:
        return False
    return "/" in model


def _refuse_revision(model: str, revision: str | None) -> None:
    if revision is not None:
        raise ValueError(
            f"revision is {revision!r}, but {shown(model)} is a directory, which has none. Leave "
            "revision out, or give a hub id."
        )


def _no_such_directory(model: str, purpose: Purpose) -> str:
    hint = ""
    with suppress(OSError, RuntimeError, ValueError):
        path = Path(model).expanduser()
        if path.is_file():
            return f"{shown(model)} is a file. Give the directory that holds it."
        names = [sibling.name for sibling in path.parent.iterdir() if sibling.is_dir()]
        if close := difflib.get_close_matches(path.name, names, n=1):
            hint = f" Did you mean {str(path.with_name(close[0]))!r}?"
    choices = purpose.choices("an existing directory", f"a hub id such as {purpose.example!r}")
    return f"{shown(model)} is no directory here and no hub id.{hint} Give {choices}."


@dataclass(frozen=True, slots=True)
class _HubModel:
    """A model on the hub, or in the cache of what was downloaded from it.

    ``known_pooling`` says that modules.json is not needed: of a pinned commit it is known how its
    vectors are made, and to a reranker it does not matter.
    """

    model: str
    revision: str | None
    cache_dir: str | None
    sha256: Mapping[str, str]
    known_pooling: bool
    purpose: Purpose

    def find(self, *, local_files_only: bool) -> ModelFiles:
        """The files from the cache if they are all there, else downloaded; or ``HubError``."""
        # A commit never changes: if it is in the cache, the hub need not be asked.
        asked_for_commit = self.revision is not None and _COMMIT.fullmatch(self.revision)
        files = self._cached() if local_files_only or asked_for_commit else None
        if files and self._pooling_is_known(files):
            return files
        if files and local_files_only:
            logger.warning("%s comes from the cache.%s", self.model, _MAY_LACK_MODULES)
            return files
        if local_files_only:
            raise HubError(self._not_cached())
        try:
            return self._download()
        except Exception as error:  # what the HTTP stack raises is not one family
            files = files or (None if _is_refusal(error) else self._cached())
            if files is None:
                raise HubError(self._not_downloaded(error)) from error
            logger.warning(
                "%s comes from the cache, for the hub could not be asked (%s: %s).%s",
                self.model,
                type(error).__name__,
                _first_line(error),
                "" if self._pooling_is_known(files) else _MAY_LACK_MODULES,
            )
            return files

    def _cached(self) -> ModelFiles | None:
        try:
            files = self._snapshot(self.revision, _NETWORK_PATTERNS, offline=True)
        except OSError as error:
            logger.debug("%s is not in the cache: %s", self.model, error)
            return None
        return files if _is_complete(files.directory, self.sha256) else None

    def _pooling_is_known(self, files: ModelFiles) -> bool:
        return self.known_pooling or is_described(files.directory) or self._has_no_modules(files)

    def _has_no_modules(self, files: ModelFiles) -> bool:
        """Whether the hub has answered before that this commit has no ``modules.json``."""
        from huggingface_hub import _CACHED_NO_EXIST, try_to_load_from_cache

        found = try_to_load_from_cache(
            self.model, MODULES_FILE, cache_dir=self.cache_dir, revision=files.revision
        )
        return found is _CACHED_NO_EXIST

    def _download(self) -> ModelFiles:
        from huggingface_hub import HfApi

        # Asked for on its own, because the download itself would retry for half a minute.
        commit = HfApi().model_info(self.model, revision=self.revision, timeout=10).sha
        files = self._snapshot(commit, _ALL_PATTERNS, offline=False)
        if not self._pooling_is_known(files):
            self._ask_for_modules(files)
        return files

    def _ask_for_modules(self, files: ModelFiles) -> None:
        """Let the cache note that there is no ``modules.json``, so that it is asked for once."""
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import EntryNotFoundError

        with suppress(EntryNotFoundError):
            hf_hub_download(
                self.model, MODULES_FILE, revision=files.revision, cache_dir=self.cache_dir
            )

    def _snapshot(
        self, revision: str | None, patterns: Sequence[str], *, offline: bool
    ) -> ModelFiles:
        from huggingface_hub import snapshot_download

        directory = Path(
            snapshot_download(
                self.model,
                revision=revision,
                cache_dir=self.cache_dir,
                local_files_only=offline,
                allow_patterns=list(patterns),
            )
        )
        return ModelFiles(directory, self.model, directory.name)

    def _not_cached(self) -> str:
        where = f"the cache {self.cache_dir}" if self.cache_dir else "the Hugging Face cache"
        return (
            f"{self._what()} is not complete in {where}, and local_files_only forbids a download. "
            f"Allow it, or give {self.purpose.choices('a local directory')}."
        )

    def _not_downloaded(self, error: Exception) -> str:
        choices = self.purpose.choices("cache_dir=", "a local directory with a copy of it")
        return (
            f"{self._what()} could not be downloaded ({type(error).__name__}: "
            f"{_first_line(error)}). Check the name and the network; or give {choices}."
        )

    def _what(self) -> str:
        return f"{self.model!r} at revision {shortened(self.revision or 'main')}"


def _is_refusal(error: Exception) -> bool:
    """Whether the hub answered that there is no such model, or not for this user."""
    from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

    return isinstance(error, RepositoryNotFoundError | RevisionNotFoundError)


def _first_line(error: Exception) -> str:
    return shortened(next(iter(str(error).strip().splitlines()), ""))


def _is_complete(directory: Path, sha256: Mapping[str, str]) -> bool:
    network = network_directory(directory)
    try:
        weight_files(network)
    except WeightsError:
        return False
    return all(exists(network / name) for name in {"config.json", "tokenizer.json", *sha256})


def _verify(directory: Path, sha256: Mapping[str, str]) -> None:
    for name, expected in sha256.items():
        path = directory / name
        found = _sha256(path) if exists(path) else "none, for it is missing"
        if found != expected:
            raise HubError(
                f"{path} has SHA-256 {found}, but the pinned revision has {expected}. The file is "
                "damaged or was changed: delete it and download it again."
            )


def _files_of(directory: Path) -> list[Path]:
    network = network_directory(directory)
    small = [network / name for name in _SMALL_FILES if exists(network / name)]
    small += learned_sparse_files(directory)
    try:
        return small + weight_files(network)
    except WeightsError:
        return small  # loading says what is wrong


def _stamp(directory: Path) -> tuple[tuple[str, int, int], ...]:
    stats = [(path.name, path.stat()) for path in _files_of(directory)]
    return tuple((name, stat.st_size, stat.st_mtime_ns) for name, stat in stats)


def _sha256(path: Path) -> str:
    with open_file(path, HubError) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
