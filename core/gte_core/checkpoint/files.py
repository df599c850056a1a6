"""Opens the files of a model directory, and quotes values from them.

Nobody vouches for these files. All are opened by ``open_file``, which takes only regular files
of a bounded size. All values that errors quote pass through ``shown``, which keeps them short.
"""

from __future__ import annotations

import json
import os
import re
import reprlib
import stat
from io import BufferedReader
from pathlib import Path
from typing import Any

from gte_core.exceptions import GTEError

# Where sentence-transformers lists the steps to a vector, and where it keeps its other settings.
MODULES_FILE = "modules.json"
SETTINGS_FILE = "config_sentence_transformers.json"

# Far above what is published: a tokenizer takes 17 MB, indexes and configurations kilobytes.
_LARGEST = {
    "tokenizer.json": 64 * 2**20,
    "model.safetensors.index.json": 16 * 2**20,
    "idf.json": 16 * 2**20,
}
_LARGEST_JSON = 4 * 2**20
_LARGEST_WEIGHTS = 64 * 2**30

_KINDS = {
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}

_FOLDER = re.compile(r"(?!\.)[\w.-]{0,100}")

_QUOTED = 200  # characters of a value that an error quotes

_REPR = reprlib.Repr()
_REPR.maxlevel = 2
_REPR.maxstring = _REPR.maxother = _QUOTED


def is_folder_name(value: object) -> bool:
    """Whether a value names a folder of a checkpoint, or is ``""``, the checkpoint itself."""
    return isinstance(value, str) and _FOLDER.fullmatch(value) is not None


def exists(path: Path) -> bool:
    """Whether there is something at a path, or at the end of a link; False where it cannot be."""
    return os.path.exists(path)  # noqa: PTH110  Path.exists raises for a name that is too long


def open_file(path: Path, error_type: type[GTEError]) -> BufferedReader:
    """A file open for reading; ``error_type`` if it is missing, no regular file, or too large."""
    try:
        # Checked first, because opening a pipe waits until somebody writes to it.
        found = path.stat()
        if problem := _problem(path, found):
            raise error_type(f"{path} is {problem}. Replace it by the checkpoint's own file.")
        return path.open("rb")
    except GTEError:
        raise
    except FileNotFoundError as error:
        raise error_type(
            f"{path} does not exist. A model directory holds config.json, tokenizer.json and "
            "*.safetensors; check the path."
        ) from error
    except (OSError, ValueError) as error:
        raise error_type(f"{path} cannot be read ({error}). Check the path.") from error


def read_bytes(path: Path, error_type: type[GTEError]) -> bytes:
    """The content of a small file; ``error_type`` if it cannot be read or is too large."""
    try:
        with open_file(path, error_type) as file:
            # Of a file that grows or tells no size: enough to see that it is too large.
            content = file.read(_largest(path) + 1)
    except GTEError:
        raise
    except OSError as error:
        raise error_type(f"{path} cannot be read ({error}). Check the path.") from error
    if len(content) > _largest(path):
        raise error_type(f"{path} is {_too_large(path, len(content))}.")
    return content


def read_json(path: Path, error_type: type[GTEError]) -> Any:
    """The value in a JSON file; ``error_type`` if there is no such file or no JSON in it."""
    content = read_bytes(path, error_type)
    try:
        return json.loads(content.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise error_type(f"{path} is not valid JSON ({error}). Download it again.") from error


def read_json_object(path: Path, error_type: type[GTEError]) -> dict[str, Any]:
    """The object in a JSON file; ``error_type`` if there is no such file or no object in it."""
    value = read_json(path, error_type)
    if not isinstance(value, dict):
        raise error_type(f"{path} must hold a JSON object, not {type(value).__name__}.")
    return value


def shown(value: object) -> str:
    """How an error quotes a value: its repr, or the beginning of it."""
    try:
        return shortened(_REPR.repr(value))
    except ValueError:  # an integer of more digits than Python writes out
        return f"a {type(value).__name__} too long to write out"


def shortened(text: str) -> str:
    """At most 200 characters of a text from a file, such as another library's message.

    What would steer a terminal is escaped.
    """
    printable = "".join(
        character if character.isprintable() else repr(character)[1:-1]
        for character in text[: _QUOTED + 1]
    )
    return printable if len(printable) <= _QUOTED else f"{printable[: _QUOTED - 3]}..."


def listing(names: list[str], limit: int = 20) -> str:
    """The first names in order, each shortened, and how many more there are."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(map(shortened, sorted(names)[:limit])) + more


def _problem(path: Path, found: os.stat_result) -> str | None:
    if not stat.S_ISREG(found.st_mode):
        return f"{_KINDS.get(stat.S_IFMT(found.st_mode), 'something else')}, no regular file"
    return _too_large(path, found.st_size) if found.st_size > _largest(path) else None


def _too_large(path: Path, size: int) -> str:
    return f"{size:,} bytes or more, but at most {_largest(path):,} are read"


def _largest(path: Path) -> int:
    if path.suffix == ".safetensors":
        return _LARGEST_WEIGHTS
    return _LARGEST.get(path.name, _LARGEST_JSON)
