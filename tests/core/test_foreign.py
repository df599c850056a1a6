"""Arguments that other libraries have: each error says what to write here."""

import inspect

import pytest

from gte_core import (
    EncoderSettings,
    GTEEmbedder,
    GTEModel,
    GTEReranker,
    PairedEncoder,
    SharedEncoder,
    shared_encoder,
)
from gte_core.foreign import foreign_advice, refuses_foreign
from gte_core.testing import HashEncoder

VERBS = ["encode", "encode_available", "encode_dense", "encode_sparse"]
OF_ENCODE = {
    "batch_size": "packed by their tokens",
    "show_progress_bar": "pass show_progress",
    "normalize_embeddings": "always have length 1",
    "convert_to_numpy": "results are NumPy arrays",
    "convert_to_tensor": "torch.from_numpy makes tensors",
    "prompt_name": 'pass role="query" for queries',
}
OF_LOADING = {
    "torch_dtype": "pass dtype",
    "trust_remote_code": "no code of a model's repository is ever run",
    "device_map": "pass device",
    "model_name_or_path": "pass model",
    "cache_folder": "pass cache_dir",
    "max_seq_length": "pass max_length",
    "truncate_dim": "pass dimensions",
}


@pytest.fixture(params=["loaded", "shared", "cached", "paired"])
def encoder(request, small_checkpoint):
    if request.param == "cached":
        return shared_encoder(HashEncoder())
    if request.param == "paired":
        return PairedEncoder(dense=HashEncoder(), sparse=HashEncoder())
    if request.param == "shared":
        return shared_encoder(EncoderSettings(model=str(small_checkpoint)))
    return GTEEmbedder.from_pretrained(small_checkpoint)


@pytest.mark.parametrize(("name", "advice"), OF_ENCODE.items())
async def test_verbs_say_what_stands_for_a_foreign_argument(encoder, name, advice):
    message = rf"encode\w*: '{name}' is no argument here, .*{advice}"
    for verb in VERBS:
        with pytest.raises(TypeError, match=message):
            getattr(encoder, verb)(["a"], **{name: 1})
    with pytest.raises(TypeError, match=message):
        await encoder.aencode(["a"], **{name: 1})


@pytest.mark.parametrize("kind", [GTEEmbedder, GTEReranker, GTEModel])
@pytest.mark.parametrize(("name", "advice"), OF_LOADING.items())
def test_loading_says_what_stands_for_a_foreign_argument(kind, name, advice):
    with pytest.raises(
        TypeError, match=rf"{kind.__name__}\.from_pretrained: '{name}' is .*{advice}"
    ):
        kind.from_pretrained("demo", **{name: 1})


def test_all_foreign_arguments_are_named(demo):
    with pytest.raises(TypeError, match=r"'batch_size' is .*; 'convert_to_tensor' is "):
        demo.encode("a", batch_size=3, role="query", convert_to_tensor=True)


@pytest.mark.parametrize("options", [{"rolle": "query"}, {"dimension": 3}])
def test_a_typo_stays_the_error_it_was(demo, options):
    with pytest.raises(TypeError, match=r"encode.* got an unexpected keyword argument"):
        demo.encode("a", **options)


def test_signatures_are_those_that_are_written():
    parameters = inspect.signature(GTEEmbedder.encode).parameters
    assert list(parameters) == ["self", "texts", "role", "dimensions", "show_progress"]
    for kind in (GTEEmbedder, SharedEncoder):
        assert inspect.iscoroutinefunction(kind.aencode)
        assert not inspect.iscoroutinefunction(kind.encode)
        assert "one pass" in kind.encode.__doc__ or "cost no pass" in kind.encode.__doc__


def test_what_exists_is_not_foreign():
    assert foreign_advice(["batch_size", "typo"], {"batch_size"}) == ""

    @refuses_foreign
    def rank(query, *, top_k=1):
        return query, top_k

    assert rank("q", top_k=3) == ("q", 3)
    with pytest.raises(TypeError, match="rank: 'batch_size' is no argument here"):
        rank("q", batch_size=3)
