"""A setting is defined once: every other place that names it agrees with the list."""

import inspect
import pickle
from dataclasses import MISSING, fields, replace

import pytest

from gte_core import EncoderSettings, GTEEmbedder, GTEReranker, RerankerSettings


def listed(settings):
    """Name -> default, as the list has them."""
    return {field.name: field.default for field in fields(settings)}


def of_signature(function):
    parameters = inspect.signature(function).parameters.values()
    return {parameter.name: parameter.default for parameter in parameters}


def of_fields(kind, *names, **renamed):
    """Of a pydantic class, but for fields that are no settings."""
    found = {renamed.get(name, name): field.default for name, field in kind.model_fields.items()}
    return {name: default for name, default in found.items() if name not in names}


@pytest.mark.parametrize(
    ("settings", "function"),
    [
        (EncoderSettings, GTEEmbedder.from_pretrained),
        (RerankerSettings, GTEReranker.from_pretrained),
    ],
)
def test_what_loads_a_model_takes_the_whole_list(settings, function):
    assert of_signature(function) == listed(settings)


def test_the_classes_of_langchain_take_the_whole_list():
    from gte_integrations.langchain import GTECrossEncoder, GTEEmbeddings
    from gte_integrations.langchain_milvus import GTEMilvusSparse
    from gte_integrations.langchain_qdrant import GTEQdrantSparse

    for kind in (GTEEmbeddings, GTEQdrantSparse, GTEMilvusSparse):
        assert of_fields(kind, "given_encoder") == listed(EncoderSettings)
    assert of_fields(GTECrossEncoder, "given_reranker") == listed(RerankerSettings)


def test_the_classes_of_llama_index_take_the_whole_list():
    from llama_index.core.base.embeddings.base import BaseEmbedding

    from gte_integrations.llama_index import GTEEmbedding, GTERerank

    of_base = set(BaseEmbedding.model_fields) - {"model_name"}
    found = of_fields(GTEEmbedding, "given_encoder", *of_base, model_name="model")
    assert found == listed(EncoderSettings)
    own = ("top_n", "keep_retrieval_score", "callback_manager", "given_reranker")
    assert of_fields(GTERerank, *own, model_name="model") == listed(RerankerSettings)


def test_the_command_line_offers_settings_of_the_list():
    from gte_integrations.cli.options import ModelOptions, QueryOptions

    groups = (ModelOptions, QueryOptions)
    options = [field for group in groups for field in fields(group)]
    offered = {field.name for field in options}
    assert offered <= set(listed(EncoderSettings))
    assert {"query_prefix", "prompt_name", "max_length"} <= offered
    assert all(field.default in (None, MISSING) for field in options)


@pytest.mark.parametrize("settings", [EncoderSettings, RerankerSettings])
def test_a_pickle_holds_values_by_name(settings):
    made = settings(model="some/model", max_length=77, torch_compile=True)
    *_, state = made.__reduce_ex__(4)[:3]
    assert state == {name: getattr(made, name) for name in listed(settings)}
    assert pickle.loads(pickle.dumps(made)) == made


def test_a_pickle_with_fields_of_another_version_is_read():
    made = EncoderSettings(model="some/model", max_length=77)
    state = made.__getstate__()
    del state["deterministic"]
    again = EncoderSettings.__new__(EncoderSettings)
    again.__setstate__(state | {"of_a_later_version": 1})
    assert again == made


def test_what_makes_no_sense_is_refused_before_anything_is_loaded():
    with pytest.raises(ValueError, match="on_truncation is 'eror'; allowed are"):
        EncoderSettings(on_truncation="eror")
    with pytest.raises(TypeError, match="query_prefix must be a str, got int"):
        replace(EncoderSettings(), query_prefix=5)
    with pytest.raises(TypeError, match="prompt_name must be a str, got int"):
        EncoderSettings(prompt_name=5)
    both = "query_prefix is '' and prompt_name is 'query', but .* pass one of them"
    with pytest.raises(ValueError, match=both):
        EncoderSettings(query_prefix="", prompt_name="query")
