"""``gte``: index files, search them, and look at vectors, from the command line.

``commands`` is what a user types; ``options`` and ``output`` are how it is read and shown.
"""

from gte_integrations.cli.commands import app as app
from gte_integrations.cli.commands import main as main
