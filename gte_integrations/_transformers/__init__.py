"""The classes behind ``gte_integrations.transformers``."""
