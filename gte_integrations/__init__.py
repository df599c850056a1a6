"""Adapters of ``gte_core`` to vector stores and frameworks, one flat module each.

``gte_integrations.qdrant`` and ``gte_integrations.milvus`` need the pip extra of the same name.
"""

from gte_core import __version__ as __version__
from gte_core.former import register_former

register_former(
    __name__,
    {
        "_adding": "_index.reports",
        "_fusion": "_index.fusion",
        "_indexing": "_index.search",
        "_records": "_index.document",
    },
)
