"""The name of a model: a directory, a hub id, or ``"demo"``."""

from __future__ import annotations

import difflib
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from gte_core.checkpoint.files import shown

DEFAULT_MODEL = "Alibaba-NLP/gte-multilingual-base"
DEMO = "demo"


@dataclass(frozen=True, slots=True)
class Purpose:
    """What a model is needed for.

    Attributes:
        example: the hub id of a model that serves it, for errors to recommend.
        bundled: the name of a bundled one, None where none serves it.
        pools: whether it matters how the states of tokens become one vector.
        weighs: whether weights are needed; if not, they are neither downloaded nor verified.
        keeps_all: whether all files are wanted, also what is known of a pinned commit.
    """

    example: str
    bundled: str | None = None
    pools: bool = False
    weighs: bool = True
    keeps_all: bool = False

    def choices(self, *others: str) -> str:
        """Everything that may be given, in words."""
        bundled = [f"{self.bundled!r} for the bundled demo model"] if self.bundled else []
        *most, last = [*others, *bundled]
        return f"{', '.join(most)}, or {last}" if most else last


def directory_of(model: str | Path) -> Path | None:
    """The absolute path of an existing directory, None for anything else."""
    try:
        path = Path(model).expanduser()
        return path.absolute() if str(model) and path.is_dir() else None
    except (OSError, RuntimeError, ValueError):  # too long, no such user, a NUL, no permission
        return None


def absolute_model(model: str) -> str:
    """The absolute path where ``model`` is a directory, ``model`` itself where it is not."""
    directory = None if model == DEMO else directory_of(model)
    return model if directory is None else str(directory)


def is_hub_id(model: str) -> bool:
    """Whether the hub could have a model of this name, such as ``"someone/model"``."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    try:
        validate_repo_id(model)
    except HFValidationError:
        return False
    return "/" in model


def no_such_directory(model: str, purpose: Purpose) -> str:
    """The error about a name that is neither a directory nor a hub id."""
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
