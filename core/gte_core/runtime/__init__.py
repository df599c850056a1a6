"""When it is computed: texts in packs, one pass after another, and their vectors in order."""
