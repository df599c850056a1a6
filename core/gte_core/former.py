"""Module names that pickles of released versions hold, and where their classes live now."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from importlib import import_module
from types import ModuleType
from typing import Any


class _FormerModule(ModuleType):
    """Stands under a former name, and looks in the new place when it is asked for something."""

    def __init__(self, name: str, home: str) -> None:
        super().__init__(name, f"Now {home}.")
        self._home = home

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # asked of every module by whoever looks through them all
            raise AttributeError(name)
        return getattr(import_module(self._home), name)


def register_former(package: str, homes: Mapping[str, str]) -> None:
    """Let unpickling find what has moved: former module -> new one, both within the package."""
    for former, home in homes.items():
        name = f"{package}.{former}"
        sys.modules[name] = _FormerModule(name, f"{package}.{home}")
