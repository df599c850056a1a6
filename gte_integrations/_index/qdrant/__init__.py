"""Where a Qdrant collection lives: behind a client, or in a directory of the embedded engine."""
