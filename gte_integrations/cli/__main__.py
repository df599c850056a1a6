"""``python -m gte_integrations.cli``."""

from gte_integrations.cli import main

main()
