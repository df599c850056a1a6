"""Settings of sentence-transformers' ``Transformer`` that would change what is computed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

TRANSFORMER_FILE = "sentence_bert_config.json"

# All are supported where they are null or left out, and beside that with these values.
_SUPPORTED: Mapping[str, Any] = {
    "do_lower_case": False,
    "module_output_name": "token_embeddings",
    "processing_kwargs": {},
    "tokenizer_name_or_path": None,
    "query_length": None,
    "document_length": None,
    "query_expansion": None,
}


def find_unsupported(
    settings: Mapping[str, Any], *, task: str, output: str
) -> tuple[str, str] | None:
    """The first setting that is not computed, and what is supported instead; None if all are.

    Args:
        settings: of ``sentence_bert_config.json``.
        task: the ``transformer_task`` that is computed.
        output: what the network has to hand to the next module.
    """
    modalities = {"text": {"method": "forward", "method_output_name": output}}
    supported = {"transformer_task": task, **_SUPPORTED, "modality_config": modalities}
    for name, value in supported.items():
        if settings.get(name) not in (None, value):
            return name, repr(value)
    return None
