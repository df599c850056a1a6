"""The GTE embedding models on torch alone: dense and sparse vectors in one forward pass.

Nothing heavy is imported until a name is used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from gte_core.former import register_former

if TYPE_CHECKING:
    from gte_core.cached import CachedEncoder as CachedEncoder
    from gte_core.cached import CachingEncoder as CachingEncoder
    from gte_core.capabilities import Capabilities as Capabilities
    from gte_core.capabilities import read_capabilities as read_capabilities
    from gte_core.checkpoint.config import GTEConfig as GTEConfig
    from gte_core.checkpoint.download import DownloadedModel as DownloadedModel
    from gte_core.checkpoint.download import download_model as download_model
    from gte_core.completion import as_encoder as as_encoder
    from gte_core.completion import as_reranker as as_reranker
    from gte_core.embedder import GTEEmbedder as GTEEmbedder
    from gte_core.embeddings import HybridEmbeddings as HybridEmbeddings
    from gte_core.encoder import Encoder as Encoder
    from gte_core.encoder import Fingerprint as Fingerprint
    from gte_core.encoder import Role as Role
    from gte_core.encoder import as_queries as as_queries
    from gte_core.exceptions import CollectionMismatch as CollectionMismatch
    from gte_core.exceptions import CollectionNotFound as CollectionNotFound
    from gte_core.exceptions import ConfigError as ConfigError
    from gte_core.exceptions import GTEError as GTEError
    from gte_core.exceptions import HubError as HubError
    from gte_core.exceptions import MissingHeadError as MissingHeadError
    from gte_core.exceptions import NonFiniteError as NonFiniteError
    from gte_core.exceptions import TextTooLargeError as TextTooLargeError
    from gte_core.exceptions import TruncationError as TruncationError
    from gte_core.exceptions import WeightsError as WeightsError
    from gte_core.explanation import Explanation as Explanation
    from gte_core.explanation import TokenContribution as TokenContribution
    from gte_core.network.model import GTEModel as GTEModel
    from gte_core.network.model import GTEModelOutput as GTEModelOutput
    from gte_core.paired import PairedEncoder as PairedEncoder
    from gte_core.ranking import RankedDocument as RankedDocument
    from gte_core.ranking import Reranker as Reranker
    from gte_core.ranking import ScoringReranker as ScoringReranker
    from gte_core.reranker import GTEReranker as GTEReranker
    from gte_core.settings import EncoderSettings as EncoderSettings
    from gte_core.settings import OnTruncation as OnTruncation
    from gte_core.settings import RerankerSettings as RerankerSettings
    from gte_core.shared import SharedEncoder as SharedEncoder
    from gte_core.shared import SharedReranker as SharedReranker
    from gte_core.shared import release_shared as release_shared
    from gte_core.shared import shared_encoder as shared_encoder
    from gte_core.shared import shared_reranker as shared_reranker
    from gte_core.texts import TruncationSide as TruncationSide

__version__ = "0.3.0"

register_former(__name__, {"config": "checkpoint.config"})

_HOMES = {
    "cached": ("CachedEncoder", "CachingEncoder"),
    "capabilities": ("Capabilities", "read_capabilities"),
    "checkpoint.config": ("GTEConfig",),
    "checkpoint.download": ("DownloadedModel", "download_model"),
    "completion": ("as_encoder", "as_reranker"),
    "embedder": ("GTEEmbedder",),
    "embeddings": ("HybridEmbeddings",),
    "encoder": ("Encoder", "Fingerprint", "Role", "as_queries"),
    "exceptions": (
        "CollectionMismatch",
        "CollectionNotFound",
        "ConfigError",
        "GTEError",
        "HubError",
        "MissingHeadError",
        "NonFiniteError",
        "TextTooLargeError",
        "TruncationError",
        "WeightsError",
    ),
    "explanation": ("Explanation", "TokenContribution"),
    "network.model": ("GTEModel", "GTEModelOutput"),
    "paired": ("PairedEncoder",),
    "ranking": ("RankedDocument", "Reranker", "ScoringReranker"),
    "reranker": ("GTEReranker",),
    "settings": ("EncoderSettings", "OnTruncation", "RerankerSettings"),
    "shared": (
        "SharedEncoder",
        "SharedReranker",
        "release_shared",
        "shared_encoder",
        "shared_reranker",
    ),
    "texts": ("TruncationSide",),
}
_MODULE_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = sorted(_MODULE_OF)  # noqa: PLE0605


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
