"""A hub id, a directory or ``"demo"`` -> a directory with a model's files.

No file from a repository is ever executed; only configuration, tokenizer and safetensors are
downloaded. Known models are pinned to a commit, the main one also to the SHA-256 of its files.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from gte_core.checkpoint.config import GTEConfig
from gte_core.checkpoint.files import MODULES_FILE, SETTINGS_FILE, exists, listing, shortened, shown
from gte_core.checkpoint.learned_sparse import learned_sparse_files, network_directory
from gte_core.checkpoint.modules import (
    DESCRIPTION_PATTERNS,
    Description,
    description_files,
    is_described,
    read_description,
)
from gte_core.checkpoint.naming import (
    DEFAULT_MODEL,
    DEMO,
    Purpose,
    directory_of,
    is_hub_id,
    no_such_directory,
)
from gte_core.checkpoint.origin import Origin, changed_files, file_sha256, read_record
from gte_core.checkpoint.shards import weight_files
from gte_core.exceptions import ConfigError, HubError, WeightsError

logger = logging.getLogger(__name__)


_DEMO_DIRECTORY = Path(__file__).parent.parent / "data" / "demo"
_SMALL_FILES = ("config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")
_WEIGHT_PATTERNS = ("model.safetensors", "model.safetensors.index.json", "model-*.safetensors")
# A model cannot be loaded without the first; the others say how its vectors are made.
_NETWORK_PATTERNS = (*_SMALL_FILES, *_WEIGHT_PATTERNS)
MODEL_PATTERNS = (*_NETWORK_PATTERNS, *DESCRIPTION_PATTERNS)
_WEIGHTLESS_PATTERNS = (*_SMALL_FILES, *DESCRIPTION_PATTERNS, "README.md")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_LACKS_PROMPTS = (
    f" It lacks {SETTINGS_FILE}, which holds its prompts, so none goes before queries. Load it "
    "once with the hub in reach, or pass query_prefix."
)
_MAY_LACK_MODULES = (
    " It may lack modules.json, which says how vectors are made; CLS pooling is assumed. Load it "
    "once with the hub in reach."
)


@dataclass(frozen=True, slots=True)
class Pin:
    """The commit of a known model.

    Attributes:
        revision: the commit.
        sha256: of its files, where it is known.
        has_prompts: whether it cannot do without the file that holds them.
    """

    revision: str
    sha256: Mapping[str, str] = field(default_factory=dict)
    has_prompts: bool = False


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
    "Snowflake/snowflake-arctic-embed-m-v2.0": Pin(
        "f2a7d59d80dfda5b1d14f096f3ce88bb6bf9ebdc", has_prompts=True
    ),
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
    def origin(self) -> Origin:
        """What their vectors are known by.

        That is the hub id and commit, also of a directory that was downloaded and not changed, or
        the content of a directory. ``WeightsError`` if files changed since they were found.
        """
        if self.revision:
            return Origin(self.model, self.revision)
        if _stamp(self.directory) != self.stamp:
            raise WeightsError(
                f"The files in {self.directory} were changed after they were loaded, so it cannot "
                "be said which weights these are. Load the model again."
            )
        return self._recorded() or self._content()

    def _recorded(self) -> Origin | None:
        """The hub model that was downloaded into this directory, if its files are still the same.

        Where they are not, a warning says so.
        """
        record = read_record(self.directory)
        if record is None:
            return None
        pin = PINS.get(record.model)
        pinned = pin.sha256 if pin and pin.revision == record.revision else {}
        changed = changed_files(self.directory, MODEL_PATTERNS, {**record.sha256, **pinned})
        if not changed:
            return Origin(record.model, record.revision)
        logger.warning(
            "%s was downloaded as %s, but %s changed since, so it is known by its content and "
            "shares no collection with that model. Download it again if that was not meant.",
            self.directory,
            shown(record.model),
            listing(changed),
        )
        return None

    def _content(self) -> Origin:
        digest = hashlib.sha256()
        for path in _files_of(self.directory):
            digest.update(f"{_name(path, self.directory)}\0{file_sha256(path)}\n".encode())
        # Empty for CLS alone: collections of version 0.1.0 know such a directory by its files.
        digest.update(_described(self.directory).settings.encode())
        return Origin(f"sha256:{digest.hexdigest()[:16]}")


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
    directory = directory_of(model)
    if directory is not None:
        _refuse_revision(str(model), revision)
        return ModelFiles.of_directory(directory, str(directory))
    if isinstance(model, Path) or not is_hub_id(model):
        raise HubError(no_such_directory(str(model), purpose))
    pin = PINS.get(model)
    pinned = pin is not None and revision in (None, pin.revision)
    source = _HubModel(
        model,
        pin.revision if pin and pinned else revision,
        str(cache_dir) if cache_dir else None,
        pin.sha256 if pin and pinned and purpose.weighs else {},
        known_pooling=(pinned or not purpose.pools) and not purpose.keeps_all,
        has_prompts=pin is not None and pinned and pin.has_prompts and purpose.pools,
        purpose=purpose,
    )
    files = source.find(local_files_only=local_files_only)
    _verify(files.directory, source.sha256)
    logger.info("%s at revision %s", files.model, files.revision)
    return files


def _refuse_revision(model: str, revision: str | None) -> None:
    if revision is not None:
        raise ValueError(
            f"revision is {revision!r}, but {shown(model)} is a directory, which has none. Leave "
            "revision out, or give a hub id."
        )


@dataclass(frozen=True, slots=True)
class _HubModel:
    """A model on the hub, or in the cache of what was downloaded from it.

    ``known_pooling`` says that modules.json is not needed: of a pinned commit it is known how its
    vectors are made, and to a reranker it does not matter. ``has_prompts`` says that the file that
    holds its prompts is.
    """

    model: str
    revision: str | None
    cache_dir: str | None
    sha256: Mapping[str, str]
    known_pooling: bool
    has_prompts: bool
    purpose: Purpose

    def find(self, *, local_files_only: bool) -> ModelFiles:
        """The files from the cache if they are all there, else downloaded; or ``HubError``."""
        # A commit never changes: if it is in the cache, the hub need not be asked.
        asked_for_commit = self.revision is not None and _COMMIT.fullmatch(self.revision)
        files = self._cached() if local_files_only or asked_for_commit else None
        if files and not self._lacking(files):
            return files
        if files and local_files_only:
            logger.warning("%s comes from the cache.%s", self.model, self._lacking(files))
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
                self._lacking(files),
            )
            return files

    def _cached(self) -> ModelFiles | None:
        try:
            files = self._snapshot(self.revision, _NETWORK_PATTERNS, offline=True)
        except OSError as error:
            logger.debug("%s is not in the cache: %s", self.model, error)
            return None
        weighs = self.purpose.weighs
        return files if _is_complete(files.directory, self.sha256, weighs=weighs) else None

    def _lacking(self, files: ModelFiles) -> str:
        """What a warning says of files that are not there, nothing where they are."""
        if self.has_prompts and not exists(files.directory / SETTINGS_FILE):
            return _LACKS_PROMPTS
        return "" if self._pooling_is_known(files) else _MAY_LACK_MODULES

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
        HfApi().model_info(self.model, revision=self.revision, timeout=10)
        patterns = MODEL_PATTERNS if self.purpose.weighs else _WEIGHTLESS_PATTERNS
        # By the name of a branch, which the cache then knows when the hub is away.
        files = self._snapshot(self.revision, patterns, offline=False)
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


def _is_complete(directory: Path, sha256: Mapping[str, str], *, weighs: bool) -> bool:
    network = network_directory(directory)
    try:
        if weighs:
            weight_files(network)
    except WeightsError:
        return False
    return all(exists(network / name) for name in {"config.json", "tokenizer.json", *sha256})


def _verify(directory: Path, sha256: Mapping[str, str]) -> None:
    for name, expected in sha256.items():
        path = directory / name
        found = file_sha256(path) if exists(path) else "none, for it is missing"
        if found != expected:
            raise HubError(
                f"{path} has SHA-256 {found}, but the pinned revision has {expected}. The file is "
                "damaged or was changed: delete it and download it again."
            )


def _files_of(directory: Path) -> list[Path]:
    network = network_directory(directory)
    small = [network / name for name in _SMALL_FILES if exists(network / name)]
    small += learned_sparse_files(directory)
    matrices = [dense.matrix_file for dense in _described(directory).matrices]
    matrices = [path for path in matrices if exists(path)]  # loading says what is missing
    try:
        return [*small, *weight_files(network), *matrices]
    except WeightsError:
        return small  # loading says what is wrong


def _described(directory: Path) -> Description:
    try:
        return read_description(directory, GTEConfig.from_pretrained(directory))
    except ConfigError:
        return Description()  # loading says what is wrong


def _stamp(directory: Path) -> tuple[tuple[str, int, int], ...]:
    files = [*_files_of(directory), *description_files(directory)]
    stats = [(_name(path, directory), path.stat()) for path in files]
    return tuple((name, stat.st_size, stat.st_mtime_ns) for name, stat in stats)


def _name(path: Path, directory: Path) -> str:
    return path.relative_to(directory).as_posix()
