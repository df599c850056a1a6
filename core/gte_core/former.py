"""Names of released versions: of modules, which pickles hold, and of methods; and the new ones."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Mapping
from functools import wraps
from importlib import import_module
from types import ModuleType
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


class _FormerModule(ModuleType):
    """A module under its former name, which looks up its attributes in the new one."""

    def __init__(self, name: str, home: str) -> None:
        super().__init__(name, f"Now {home}.")
        self._home = home

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # such as __file__, which inspect asks every module for
            raise AttributeError(name)
        return getattr(import_module(self._home), name)


def register_former(package: str, homes: Mapping[str, str]) -> None:
    """Let unpickling find what has moved: former module -> new one, both within the package."""
    for former, home in homes.items():
        name = f"{package}.{former}"
        sys.modules[name] = _FormerModule(name, f"{package}.{home}")


def former_name(former: str, method: Callable[P, R]) -> Callable[P, R]:
    """A method under its former name, which warns and names the new one."""

    @wraps(method)
    def renamed(*args: P.args, **kwargs: P.kwargs) -> R:
        warnings.warn(
            f"{former} is now called {method.__name__}, and goes with the next version.",
            DeprecationWarning,
            stacklevel=2,
        )
        return method(*args, **kwargs)

    return renamed
