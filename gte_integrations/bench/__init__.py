"""``gte bench``: how fast the model is on this machine, beside every peer that is installed.

This module holds the names that a user may give and nothing heavy; ``run.run_bench`` does the work.
"""

from __future__ import annotations

from typing import Literal

WorkloadName = Literal["queries", "passages", "texts-512", "long-texts", "one-query"]

ContenderName = Literal[
    "gte",
    "gte-float32",
    "gte-bfloat16",
    "gte-float16",
    "gte-int8",
    "gte-float8",
    "gte-compiled",
    "gte-float8-compiled",
    "transformers",
    "transformers-bfloat16",
    "sentence-transformers",
    "sentence-transformers-bfloat16",
    "flagembedding",
]
