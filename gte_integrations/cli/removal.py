"""What ``gte delete`` and ``gte prune`` share: saying what goes, asking, and what was done."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import typer
from rich.text import Text

from gte_integrations.cli import output
from gte_integrations.cli.stores import StoreLocation

if TYPE_CHECKING:
    from gte_integrations._index.fusion import DocumentId
    from gte_integrations._index.records import StoredDocument

_MOST_IDS = 5


@dataclass(frozen=True, slots=True)
class Removal:
    """Documents that are to go.

    Attributes:
        store: where the collection is.
        collection: its name.
        ids: of the documents.
        origins: how many come from where.
    """

    store: StoreLocation
    collection: str
    ids: list[DocumentId] = field(default_factory=list)
    origins: Counter[str | None] = field(default_factory=Counter)

    @classmethod
    def of(
        cls, store: StoreLocation, collection: str, documents: Iterable[StoredDocument]
    ) -> Removal:
        """What is to be said of documents, which are not kept."""
        removal = cls(store, collection)
        for document in documents:
            removal.ids.append(document.id)
            removal.origins[document.origin] += 1
        return removal

    def is_agreed(self, *, yes: bool, dry_run: bool, as_json: bool) -> bool:
        """Say what goes, and ask if it may. ``ValueError`` where nobody can be asked."""
        if dry_run:
            if as_json:
                output.write_json({**self._place, "would_delete": self.ids})
            else:
                output.show(self._described())
            return False
        if yes or not self.ids:
            return True
        if not sys.stdin.isatty():
            raise ValueError(
                f"{self._counted()} would go: {self._some_ids()}. Nothing was removed, "
                "for nobody can be asked here; give --yes to remove them, or --dry-run to see more."
            )
        output.note(self._described().plain)
        try:
            agreed = typer.confirm("Remove them?", err=True)
        except typer.Abort:  # by Ctrl-C or Ctrl-D, behind the question on its line
            output.note("\nNothing was removed.")
            raise
        if not agreed:
            output.note("Nothing was removed.")
        return agreed

    def show_done(self, removed: int, left: int, *, as_json: bool) -> None:
        """Say what was removed."""
        if as_json:
            output.write_json({**self._place, "deleted": removed, "count": left})
            return
        grid = output.fields()
        grid.add_row(
            "Documents", Text.assemble((f"{removed:,} removed", "bold"), f" · {left:,} left")
        )
        grid.add_row("Collection", Text(f"{self.collection} in {self.store}", overflow="fold"))
        output.show(grid)

    @property
    def _place(self) -> dict[str, str]:
        return {"store": str(self.store), "collection": self.collection}

    def _described(self) -> Text:
        lines = [f"{self._counted()} of {self.collection} in {self.store} would go"]
        if self.ids:
            lines.append(f"  {self._some_ids()}")
        lines += [
            f"  {count:,} from {output.one_line(origin)}"
            for origin, count in self.origins.most_common()
            if origin is not None
        ]
        return Text("\n".join(lines))

    def _counted(self) -> str:
        return f"{len(self.ids):,} document{'s' if len(self.ids) != 1 else ''}"

    def _some_ids(self) -> str:
        named = [output.one_line(str(document_id)) for document_id in self.ids[:_MOST_IDS]]
        return ", ".join([*named, "…"] if len(self.ids) > len(named) else named)
