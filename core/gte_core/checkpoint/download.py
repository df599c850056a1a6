"""A hub model into a directory that loads by its path, on a machine without network too."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from gte_core.checkpoint.files import shown
from gte_core.checkpoint.hub import MODEL_PATTERNS, find_model
from gte_core.checkpoint.naming import DEFAULT_MODEL, Purpose
from gte_core.checkpoint.origin import (
    RECORD_FILE,
    Record,
    file_sha256,
    files_like,
    is_untouched,
    read_record,
    written_whole,
)

_COPY = Purpose(DEFAULT_MODEL, keeps_all=True)


@dataclass(frozen=True, slots=True)
class DownloadedModel:
    """A hub model in a directory of its own.

    Attributes:
        directory: its absolute path, which every door takes for a model.
        model: the hub id.
        revision: the commit.
        size: of its files, in bytes.
    """

    directory: Path
    model: str
    revision: str
    size: int


def download_model(
    model: str,
    directory: str | Path,
    *,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
) -> DownloadedModel:
    """Put the files that a hub model needs into a directory, and a record of what they are.

    They come by way of the cache, where an interrupted download goes on. The directory may be
    moved and copied to other machines. While its files stay as they are, its vectors count as those
    of the hub id, in collections too.

    Args:
        model: a hub id.
        directory: a new or an empty one, or one where this very model was downloaded before.
        revision: branch, tag or commit; by default the pinned commit of known models.
        cache_dir: where downloads are kept, by default the Hugging Face cache.
        local_files_only: never ask the hub, but copy what is in the cache.

    Raises:
        HubError: there is no such model, the hub cannot be reached, or a file of a pinned model
            has another SHA-256.
        OSError: a file cannot be written.
        ValueError: ``model`` is no hub id, or something else is in the directory.
    """
    target = Path(directory).expanduser().absolute()
    before = _record_in(target)
    found = find_model(
        model,
        revision=revision,
        cache_dir=cache_dir,
        local_files_only=local_files_only,
        purpose=_COPY,
    )
    if found.revision is None:
        raise ValueError(
            f"{shown(model)} is a model which is on this machine already: use or copy "
            f"{str(found.directory)!r}. To download, give a hub id such as {DEFAULT_MODEL!r}."
        )
    sources = files_like(found.directory, MODEL_PATTERNS)
    sha256 = {name: file_sha256(path) for name, path in sources.items()}
    record = Record(found.model, found.revision, sha256)
    if before is not None and before.name != record.name:
        raise _holds(target, f"{before.name}, not {record.name}")
    target.mkdir(parents=True, exist_ok=True)
    record.write(target)  # first, so that what was interrupted here is known and goes on
    for name, source in sources.items():
        _copy(source, target / name, sha256[name])
    size = sum(path.stat().st_size for path in sources.values())
    return DownloadedModel(target, found.model, found.revision, size)


def _record_in(target: Path) -> Record | None:
    """What was downloaded there before, None where nothing is; ``ValueError`` for other files."""
    record = read_record(target)
    if record is None and target.exists() and not (target.is_dir() and is_untouched(target)):
        raise _holds(target, f"something without {RECORD_FILE}")
    return record


def _holds(target: Path, what: str) -> ValueError:
    return ValueError(
        f"directory is {str(target)!r}, which holds {what}. Give a new or an empty directory."
    )


def _copy(source: Path, target: Path, sha256: str) -> None:
    """Copy a file, unless it is there."""
    if target.is_file() and file_sha256(target) == sha256:
        return
    target.parent.mkdir(exist_ok=True)
    with written_whole(target) as part:
        shutil.copyfile(source, part)
