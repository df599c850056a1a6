"""Other names of a collection: an alias is made with it, and led to it at the end of a rebuild."""

from __future__ import annotations

from functools import partial
from typing import Protocol

from gte_integrations._retry import Sender


class Aliased(Protocol):
    """What a store knows of aliases."""

    @property
    def place(self) -> tuple[object, ...]:
        """Equal to that of another store of this collection, as far as that can be told.

        Where there are aliases, it ends with the name that the collection was opened by.
        """
        ...

    @property
    def collection(self) -> str:
        """The name that the collection was opened by."""
        ...

    def check_alias(self, alias: str) -> None:
        """Raise ``ValueError`` for what no index could open a collection by."""
        ...

    def alias_target(self, alias: str) -> str | None:
        """The collection that an alias leads to, or that has this name; None if there is neither.

        ``NotImplementedError`` where there are no aliases.
        """
        ...

    def set_alias(self, alias: str, collection: str) -> None:
        """Let an alias, new or not, lead to a collection, which is named by no alias."""
        ...


def is_new(store: Aliased, alias: str, sender: Sender) -> bool:
    """Whether an alias is still to be made; ``ValueError`` if it leads elsewhere."""
    target, own = _targets(store, alias, sender)
    if target not in (None, own):
        raise ValueError(
            f"alias is {alias!r}, which leads to the collection {target!r}. Fill this one first, "
            f"without an alias, and then call switch_alias({alias!r})."
        )
    return target is None


def is_same(one: Aliased, other: Aliased) -> bool:
    """Whether both are one collection, perhaps by other names, as far as that can be told."""
    if one.place == other.place:
        return True
    is_beside = len(one.place) == 2 and one.place[:1] == other.place[:1]
    return is_beside and _real_name(one) == _real_name(other)


def _real_name(store: Aliased) -> str:
    return store.alias_target(store.collection) or store.collection


def check_no_alias(store: Aliased) -> None:
    """``ValueError`` where the name is an alias: whose collection is meant to go is not clear."""
    target = store.alias_target(store.collection)
    if target not in (None, store.collection):
        raise ValueError(
            f"{store.collection!r} is an alias of the collection {target!r}; open an index by that "
            "name to drop it."
        )


def switch(store: Aliased, alias: str, sender: Sender) -> str | None:
    """Let an alias lead to the store's collection; return where it led before, if elsewhere."""
    target, own = _targets(store, alias, sender)
    if target == own:
        return None
    sender.retry(partial(store.set_alias, alias, own))
    return target


def _targets(store: Aliased, alias: str, sender: Sender) -> tuple[str | None, str]:
    """Where an alias leads, if there is one, and the name of the store's own collection."""
    if not isinstance(alias, str) or not alias:
        raise TypeError(f"alias is {alias!r}, but must be a name, a str.")
    store.check_alias(alias)
    target = sender.retry(partial(store.alias_target, alias))
    own = sender.retry(partial(_real_name, store))  # engines differ on an alias of an alias
    if alias in (target, own):
        raise ValueError(
            f"alias is {alias!r}, but that is the name of a collection; choose another, or drop "
            "that collection before."
        )
    return target, own
