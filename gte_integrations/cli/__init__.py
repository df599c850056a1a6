"""``gte``: index files, search them, and look at vectors, from the command line.

``commands`` lists the commands, each a module of its name; ``options``, ``models`` and ``stores``
read what a user types, ``output`` and ``messages`` write what is answered.
"""

from gte_integrations.cli.commands import app as app
from gte_integrations.cli.commands import main as main
