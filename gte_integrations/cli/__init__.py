"""``gte``: index files, search them, and look at vectors, from the command line.

``commands`` lists the commands, each a module of its name; ``options``, ``models`` and ``stores``
read what a user types, ``output`` and ``messages`` write what is answered.
"""

import os
import sys
from typing import Any

INTERRUPTED = 130  # the status of what Ctrl-C ended, as shells have it


def main() -> None:
    """Run the command line; the entry point of ``gte``."""
    if os.environ.get("COLUMNS") == "0":  # of a terminal that does not know its width
        del os.environ["COLUMNS"]
    try:  # importing takes long enough to be interrupted
        from gte_integrations.cli.commands import app
    except KeyboardInterrupt:
        sys.stderr.write("Interrupted.\n")
        sys.exit(INTERRUPTED)
    app(prog_name="gte")


def __getattr__(name: str) -> Any:
    if name == "app":
        from gte_integrations.cli.commands import app

        return app
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
