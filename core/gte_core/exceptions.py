"""Every error this library raises on purpose, beside plain ``TypeError`` and ``ValueError``.

::

    GTEError
    ├── ConfigError(ValueError)       a file of the model is malformed, or not supported
    ├── WeightsError(ValueError)      the weight files do not hold this model
    ├── HubError(OSError)             the model's files were not found or downloaded
    ├── MissingHeadError              the checkpoint lacks the head that a call needs
    ├── NonFiniteError                a vector came out as NaN or infinity
    ├── TruncationError(ValueError)   texts are too long, and on_truncation is "error"
    ├── TextTooLargeError(MemoryError)  a text does not fit in memory, even alone
    ├── CollectionMismatch            a collection was made by something else
    └── CollectionNotFound(LookupError)  there is no such collection

Each message says what was given, what is allowed and what to do.
"""

from __future__ import annotations

from collections.abc import Iterable


class GTEError(Exception):
    """The base of every error below."""


class ConfigError(GTEError, ValueError):
    """A file of the model is malformed, contradicts itself, or asks for what is not computed."""


class WeightsError(GTEError, ValueError):
    """The weight files are not safetensors, are damaged, or do not match the configuration."""


class HubError(GTEError, OSError):
    """The files of a model could not be found, downloaded or verified."""


class MissingHeadError(GTEError):
    """The checkpoint lacks what the call needs: the sparse head, a classifier, or an embedding."""


class NonFiniteError(GTEError):
    """A text's vector holds NaN or infinity, even when computed in float32."""


class TextTooLargeError(GTEError, MemoryError):
    """A text does not fit in the device's memory, even in a pass of its own."""


class TruncationError(GTEError, ValueError):
    """Texts are longer than ``max_length``, and ``on_truncation`` is ``"error"``.

    Attributes:
        indices: places of the texts in the call.
    """

    def __init__(self, message: str, indices: Iterable[int] = ()) -> None:
        super().__init__(message)
        self.indices = tuple(indices)


class CollectionMismatch(GTEError):
    """An existing collection was built with another model, size, metric or type."""


class CollectionNotFound(GTEError, LookupError):
    """There is no collection of this name yet."""
