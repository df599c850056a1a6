"""Adapters of :mod:`gte_core` to vector stores and frameworks, one flat module each.

``gte_integrations.qdrant`` and ``gte_integrations.milvus`` need the pip extra of the same name.
"""

from gte_core import __version__ as __version__
