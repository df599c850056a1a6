"""Which weights a directory holds: those of a hub model that was downloaded into it, or others.

A download leaves a record beside the files, with the SHA-256 of each. As long as they are the same,
vectors of the directory are those of the hub model, and share its collections.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from gte_core.checkpoint.files import exists, open_file, read_json_object, shortened
from gte_core.exceptions import ConfigError, HubError

RECORD_FILE = "gte_download.json"


class Origin(NamedTuple):
    """What vectors of a model are known by.

    Attributes:
        model: a hub id, or ``sha256:`` and 16 hex digits of the content of a directory.
        revision: the commit, None for the content of a directory.
    """

    model: str
    revision: str | None = None


@dataclass(frozen=True, slots=True)
class Record:
    """What a download leaves beside the files.

    Attributes:
        model: the hub id.
        revision: the commit.
        sha256: of every file, by its path below the directory.
    """

    model: str
    revision: str
    sha256: Mapping[str, str]

    @property
    def name(self) -> str:
        """The model at its commit, in words."""
        return f"{shortened(self.model)} at {shortened(self.revision)}"

    def write(self, directory: Path) -> None:
        """Write it into a directory."""
        fields = {"model": self.model, "revision": self.revision, "sha256": dict(self.sha256)}
        text = json.dumps(fields, indent=2) + "\n"
        with written_whole(directory / RECORD_FILE) as part:
            part.write_text(text, encoding="utf-8")


def read_record(directory: Path) -> Record | None:
    """The record of a directory, None without one; ``ConfigError`` if it is malformed."""
    file = directory / RECORD_FILE
    if not exists(file):
        return None
    fields = read_json_object(file, ConfigError)
    model, revision, sha256 = (fields.get(name) for name in ("model", "revision", "sha256"))
    if isinstance(model, str) and isinstance(revision, str) and isinstance(sha256, dict):
        return Record(model, revision, sha256)
    raise ConfigError(
        f"{file} must hold model, revision and sha256, as gte download writes them. Download the "
        "model again; or delete the file, and the directory is known by its content."
    )


def files_like(directory: Path, patterns: Collection[str]) -> dict[str, Path]:
    """The files of a directory that match a pattern, by their paths below it, in order."""
    found = {path for pattern in patterns for path in directory.glob(pattern) if path.is_file()}
    return {path.relative_to(directory).as_posix(): path for path in sorted(found)}


def changed_files(
    directory: Path, patterns: Collection[str], sha256: Mapping[str, str]
) -> list[str]:
    """Which files are not those of a record: other ones, more, or fewer; by what patterns match."""
    found = {name: file_sha256(path) for name, path in files_like(directory, patterns).items()}
    names = found.keys() | sha256.keys()
    return sorted(name for name in names if found.get(name) != sha256.get(name))


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file, as hex digits; ``HubError`` if it cannot be read."""
    with open_file(path, HubError) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Where to write a file first, so that it never bears its name before it is all there.

    What cannot be written, as on a full disk, leaves nothing; the ``OSError`` names the file.
    """
    part = _part_of(path)
    try:
        yield part
        part.replace(path)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        part.unlink(missing_ok=True)


def is_untouched(directory: Path) -> bool:
    """Whether nothing is in a directory, but for a record whose writing was cut off."""
    return all(path == _part_of(directory / RECORD_FILE) for path in directory.iterdir())


def _part_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.part")
