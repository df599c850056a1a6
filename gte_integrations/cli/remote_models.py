"""Models behind HTTP, as ``--model`` names them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gte_integrations.cli.options import ModelOptions, QueryOptions
    from gte_integrations.remote.encoder import RemoteEncoder

# openai:NAME and dashscope:NAME, or tei+URL and openai+URL#NAME
_FORM = re.compile(r"(openai|dashscope):(?!/|https?:)(.+)|(tei|openai)\+(https?://[^#]+)(?:#(.+))?")
_NEARLY = re.compile(r"(tei|openai|dashscope)[+:].+", re.IGNORECASE)
_FORMS = "tei+http://HOST:PORT, openai+http://HOST:PORT/v1#MODEL, openai:MODEL or dashscope:MODEL"
_OF_A_SERVER = ("tei:", "openai:", "dashscope:")  # fingerprints that no local model has

_LOCAL = ("revision", "device", "dtype", "max_length", "prompt_name")


def is_remote(model: str | None) -> bool:
    """Whether ``--model`` names a server, or a model of a cloud; ``ValueError`` if it nearly does.

    A key would go elsewhere than was meant.
    """
    if model is None or _FORM.fullmatch(model):
        return model is not None
    if _NEARLY.fullmatch(model):
        raise ValueError(f"model is {model!r}; write {_FORMS}.")
    return False


def refuse_recorded(name: str) -> None:
    """``ValueError`` for a recorded name that says which server's model it was, but not where.

    Nothing is sent to a server that a collection alone names.
    """
    if name.startswith(_OF_A_SERVER):
        raise ValueError(
            f"The collection was filled with {name!r}, the model of a server; pass that server as "
            f"--model, such as {_FORMS}."
        )


def open_remote(
    options: ModelOptions, query: QueryOptions | None, metadata: Mapping[str, Any] | None
) -> RemoteEncoder:
    """The encoder that ``--model`` names; the query prefix is the collection's if none is given.

    The size of ``--dimensions`` is cut from the model's own, as where a collection is opened.
    """
    given = asdict(options) | ({} if query is None else asdict(query))
    for name in _LOCAL:
        if given.get(name) is not None:
            raise ValueError(
                f"--{name.replace('_', '-')} is for a model that is loaded here, but "
                f"{options.model} is one of a server; leave it out."
            )
    prefix = given.get("query_prefix")
    if prefix is None:
        prefix = (metadata or {}).get("query_prefix") or ""
    return _opened(str(options.model), prefix, options.on_truncation)


def _opened(model: str, query_prefix: str, on_truncation: Any) -> RemoteEncoder:
    from gte_integrations.remote import DashScopeEncoder, OpenAIEncoder, TEIEncoder

    found = _FORM.fullmatch(model)
    cloud, cloud_name, kind, url, name = found.groups() if found else (None,) * 5
    kind, name = kind or cloud, name or cloud_name
    if kind == "tei" and url is not None:
        if name is not None:
            raise ValueError(f"--model is {model!r}, but that server has one model; leave out #.")
        return TEIEncoder(url, query_prefix=query_prefix, on_truncation=on_truncation or "warn")
    if on_truncation is not None:
        raise ValueError(
            f"--on-truncation is {on_truncation!r}, but {kind} does not say which texts were cut; "
            "leave it out."
        )
    if name is None:
        raise ValueError(f"--model is {model!r}; put the name of the model behind it, as in #name.")
    if kind == "dashscope":
        return DashScopeEncoder(name, query_prefix=query_prefix)
    return OpenAIEncoder(name, base_url=url, query_prefix=query_prefix)
