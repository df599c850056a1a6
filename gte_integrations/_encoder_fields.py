"""The settings of a model as pydantic fields, for the objects of LangChain."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PrivateAttr

from gte_core import EncoderSettings, OnTruncation, SharedEncoder, shared_encoder

# A path, a torch.device and a torch.dtype are taken as their names.
Text = Annotated[str, BeforeValidator(lambda value: value if value is None else str(value))]


class EncoderFields(BaseModel):
    """The settings of a model, and the shared encoder behind them; loaded at first use.

    The fields are arguments of ``GTEEmbedder.from_pretrained``, described there.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    model: Text = EncoderSettings().model
    revision: str | None = None
    device: Text | None = None
    dtype: Text = "auto"
    dimensions: int | None = Field(default=None, ge=1, strict=True)
    max_length: int = 8192
    query_prefix: str = ""
    on_truncation: OnTruncation = "warn"
    torch_compile: bool = False
    cache_dir: Text | None = None
    local_files_only: bool = False

    _encoder: SharedEncoder | None = PrivateAttr(default=None)

    @property
    def encoder(self) -> SharedEncoder:
        """The encoder that all objects of these settings share; nothing is loaded by asking."""
        settings = EncoderSettings(**self.model_dump(exclude={"dimensions"}))
        # Held here, and looked up again, because a copy may have other settings.
        self._encoder = shared_encoder(settings)
        return self._encoder
