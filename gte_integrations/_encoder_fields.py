"""What the pydantic classes of both frameworks share: settings of a model, or the object."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PrivateAttr, model_validator

from gte_core import (
    CachingEncoder,
    EncoderSettings,
    OnTruncation,
    Reranker,
    as_encoder,
    as_reranker,
    shared_encoder,
)
from gte_core.foreign import foreign_advice

# A path, a torch.device and a torch.dtype are taken as their names.
Text = Annotated[str, BeforeValidator(lambda value: value if value is None else str(value))]


_OF_A_MODEL = {field.name for field in fields(EncoderSettings)} - {"dimensions"}


def _caching(encoder: Any) -> CachingEncoder | None:
    return None if encoder is None else shared_encoder(as_encoder(encoder))


# The annotation of a field that holds an encoder of the user's, with a cache of both its vectors.
GivenEncoder = Annotated[Any, BeforeValidator(_caching)]


def _reranker(given: Any) -> Reranker | None:
    return None if given is None else as_reranker(given)


# The annotation of a field that holds a reranker of the user's.
GivenReranker = Annotated[Any, BeforeValidator(_reranker)]


def refuse_settings_beside(held: object, given: set[str], kind: str = "encoder") -> None:
    """Raise ``ValueError`` where an object of this kind was given, and settings as well."""
    if held is not None and given:
        article = "an" if kind == "encoder" else "a"
        raise ValueError(
            f"{kind} was given, and so was {', '.join(sorted(given))}; {article} {kind} has its "
            "own settings, so pass one or the other."
        )


def name_of_reranker(reranker: Reranker) -> str:
    """What a reranker calls its model, or else the name of its class."""
    name = getattr(reranker, "model", None)
    return name if isinstance(name, str) else type(reranker).__name__


def with_later_fields(cls: type[BaseModel], state: dict[Any, Any]) -> dict[Any, Any]:
    """The state of a pickle of a former version, with the fields that came later."""
    defaults = {name: field.get_default() for name, field in cls.model_fields.items()}
    return state | {"__dict__": defaults | state["__dict__"]}


def repr_arguments(
    face: Any, shown: Iterable[tuple[str | None, Any]], of_a_model: set[str]
) -> Iterable[tuple[str | None, Any]]:
    """What a repr shows: the object in place of the settings that it was given instead of."""
    for kind in ("encoder", "reranker"):
        held = getattr(face, f"given_{kind}", None)
        if held is not None:
            return [(kind, held), *(pair for pair in shown if pair[0] not in of_a_model)]
    return shown


def refuse_foreign(cls: type[BaseModel], given: Any) -> Any:
    """Raise ``ValueError`` that says what to write for a field of another library's class."""
    if isinstance(given, dict):
        aliases = {field.alias for field in cls.model_fields.values() if field.alias}
        if advice := foreign_advice(given, cls.model_fields.keys() | aliases):
            raise ValueError(f"{advice}.")
    return given


def check_query(query: object) -> None:
    """Raise ``TypeError`` unless it is one text; of several, one vector would be the first's."""
    if not isinstance(query, str):
        raise TypeError(
            f"A query is a {type(query).__name__}, but must be a str; embed one at a time."
        )


class EncoderFields(BaseModel):
    """A model by its settings, or an encoder that is there; loaded at first use.

    The fields are arguments of ``GTEEmbedder.from_pretrained``, described there. In place of all
    but ``dimensions``, ``encoder`` takes what ``gte_core.as_encoder`` takes: a loaded
    ``GTEEmbedder``, or any other object that satisfies ``Encoder``.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    model: Text = EncoderSettings().model
    revision: str | None = None
    device: Text | None = None
    dtype: Text = "auto"
    dimensions: int | None = Field(default=None, ge=1, strict=True)
    max_length: int | None = None
    query_prefix: str | None = None
    prompt_name: str | None = None
    on_truncation: OnTruncation = "warn"
    deterministic: bool = False
    torch_compile: bool = False
    cache_dir: Text | None = None
    local_files_only: bool = False
    given_encoder: GivenEncoder = Field(default=None, alias="encoder", exclude=True, repr=False)

    _encoder: CachingEncoder | None = PrivateAttr(default=None)
    _no_foreign = model_validator(mode="before")(refuse_foreign)

    @model_validator(mode="after")
    def _one_model(self) -> EncoderFields:
        if self.given_encoder is not None:
            refuse_settings_beside(self.given_encoder, _OF_A_MODEL & self.model_fields_set)
            self.__dict__["model"] = self.given_encoder.model
        self._settings()  # refuses what makes no sense together
        return self

    def _settings(self) -> EncoderSettings:
        return EncoderSettings(**self.model_dump(exclude={"dimensions"}))

    def __repr_args__(self) -> Iterable[tuple[str | None, Any]]:
        return repr_arguments(self, super().__repr_args__(), _OF_A_MODEL)

    def __setstate__(self, state: dict[Any, Any]) -> None:
        super().__setstate__(with_later_fields(type(self), state))

    @property
    def encoder(self) -> CachingEncoder:
        """The encoder in use, with a cache that all who use it share; nothing is loaded by asking.

        The one that was given, or the one that all objects of these settings share.
        """
        # Held here, and looked up again, because a copy may have other settings.
        self._encoder = self.given_encoder or shared_encoder(self._settings())
        return self._encoder

    def arguments(self) -> dict[str, Any]:
        """What makes another object with the same encoder."""
        given = {} if self.given_encoder is None else {"encoder": self.given_encoder}
        return self.model_dump(exclude_unset=True) | given
