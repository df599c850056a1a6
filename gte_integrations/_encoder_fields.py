"""The settings of a model as pydantic fields, for the objects of LangChain."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, PrivateAttr

from gte_core import EncoderSettings, OnTruncation, SharedEncoder, shared_encoder


class EncoderFields(BaseModel):
    """The settings of a model, and the shared encoder behind them; loaded at first use.

    Every field is an argument of ``GTEEmbedder.from_pretrained``, described there.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    model: str = EncoderSettings().model
    revision: str | None = None
    device: str | None = None
    dtype: str = "auto"
    dimensions: int | None = None
    max_length: int = 8192
    query_prefix: str = ""
    on_truncation: OnTruncation = "warn"
    cache_dir: str | None = None
    local_files_only: bool = False

    _encoder: SharedEncoder = PrivateAttr()

    def model_post_init(self, context: Any, /) -> None:
        """Take the process's encoder of these settings; nothing is loaded yet."""
        settings = EncoderSettings(**self.model_dump(exclude={"dimensions"}))
        self._encoder = shared_encoder(settings)

    @property
    def encoder(self) -> SharedEncoder:
        """The encoder that all objects of these settings share."""
        return self._encoder
