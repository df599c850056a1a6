"""GTE where LlamaIndex users look: the wheel has this file as ``llama_index.embeddings.gte``."""

from gte_integrations.llama_index import GTEEmbedding

__all__ = ["GTEEmbedding"]
