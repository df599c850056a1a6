"""Encoders behind HTTP, which every index and adapter takes in the place of a local model."""

from gte_integrations.remote.base import RemoteError

__all__ = ["RemoteError"]
