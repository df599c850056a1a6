"""What goes before texts, and how much of them is read, stays with a collection."""

import json

import pytest
from typer.testing import CliRunner

from gte_core import CollectionMismatch, EncoderSettings, GTEEmbedder, shared_encoder
from gte_core.testing import HashEncoder, random_checkpoint
from gte_integrations.cli.commands import app
from gte_integrations.langchain import GTEEmbeddings
from gte_integrations.llama_index import GTEEmbedding

DOCUMENTS = [("1", "w1 w2"), ("2", "w3 w4")]


@pytest.fixture
def checkpoint(tmp_path):
    """Of two prompts, and of fewer tokens than were read by default before it was asked."""
    directory = random_checkpoint(tmp_path / "checkpoint")
    prompts = {"prompts": {"query": "w8 ", "other": "w9 "}}
    (directory / "config_sentence_transformers.json").write_text(json.dumps(prompts))
    (directory / "sentence_bert_config.json").write_text('{"max_seq_length": 77}')
    return directory


def gte(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_what_goes_before_documents_is_recorded_and_compared(place):
    passages = HashEncoder(document_prefix="passage: ")
    index = place.open(passages)
    index.create()
    index.add(DOCUMENTS)
    assert index.metadata()["document_prefix"] == "passage: "
    place.open(HashEncoder(document_prefix="passage: ")).create()
    for other in ("", "text: "):
        message = f"document_prefix: the collection has 'passage: ', this index needs '{other}'"
        with pytest.raises(CollectionMismatch, match=message):
            place.open(HashEncoder(document_prefix=other)).create()


def test_a_collection_that_records_none_is_opened_by_any_encoder(place):
    place.open(HashEncoder()).create()
    index = place.open(HashEncoder(document_prefix="passage: "))
    index.create()
    assert "document_prefix" not in index.metadata()


def test_a_name_reads_as_much_as_the_collection_did(place, checkpoint):
    former = GTEEmbedder.from_pretrained(checkpoint, max_length=8192)
    with place.open(former) as index:
        index.create()
        index.add(DOCUMENTS)
    for encoder in (checkpoint, shared_encoder(EncoderSettings(model=str(checkpoint)))):
        with place.open(encoder) as index:
            index.create()
            assert index.add([("3", "w5 w6")]).written == 1
            assert index.vectorizer.encoder.fingerprint.max_length == 8192
            index.delete(["3"])
    index.drop()
    index.create()
    assert index.metadata()["max_length"] == 77

    loaded = GTEEmbedder.from_pretrained(checkpoint, max_length=99)
    told = shared_encoder(EncoderSettings(model=str(checkpoint), max_length=99))
    for encoder in (loaded, told):
        with pytest.raises(CollectionMismatch, match="needs 99; load the model with max_length=77"):
            place.open(encoder).create()


def test_the_command_line_reads_as_much_as_the_collection_did(checkpoint, tmp_path):
    store = f"qdrant:{tmp_path / 'index'}"
    (tmp_path / "a.txt").write_text("w1 w2")
    index = ("index", tmp_path / "a.txt", "-m", checkpoint, "--to", store)
    assert gte(*index, "-c", "former", "--max-length", 8192).exit_code == 0
    assert gte(*index, "-c", "own").exit_code == 0
    for collection, expected in (("former", 8192), ("own", 77)):
        assert gte(*index, "-c", collection).exit_code == 0
        found = gte("info", "--from", store, "-c", collection, "--json")
        assert json.loads(found.stdout)["max_length"] == expected
    refused = gte(*index, "-c", "own", "--max-length", 99)
    assert "load the model with --max-length 77" in refused.stderr


def test_a_collection_of_another_model_is_made_as_that_model_says(
    checkpoint, small_checkpoint, tmp_path
):
    store = f"qdrant:{tmp_path / 'index'}"
    (tmp_path / "a.txt").write_text("w1 w2")
    index = ("index", tmp_path / "a.txt", "-m", small_checkpoint, "--to", store, "-c", "old")
    assert gte(*index, "--max-length", 50, "--query-prefix", "q: ").exit_code == 0
    places = ("--from", store, "-c", "old", "--to", store)
    for name, options, expected in (
        ("same", [], (50, "q: ")),
        ("other", ["-m", checkpoint], (77, "w8 ")),
    ):
        assert gte("reindex", *places, "--to-collection", name, *options).exit_code == 0
        found = json.loads(gte("info", "--from", store, "-c", name, "--json").stdout)
        assert (found["max_length"], found["query_prefix"]) == expected


def test_the_command_line_puts_the_models_own_prompt_or_the_named(checkpoint, tmp_path, encoded):
    place = [f"qdrant:{tmp_path / 'index'}", "-c", "docs"]
    (tmp_path / "a.txt").write_text("w1 w2")
    index = ("index", tmp_path / "a.txt", "-m", checkpoint, "--to", *place)
    assert gte(*index).exit_code == 0
    assert encoded.pop() == ["w1 w2"]
    for options in ([], ["--prompt-name", "other"], ["--query-prefix", ""]):
        assert gte("search", "w1", "--from", *place, *options).exit_code == 0
    assert encoded == [["w8 w1"], ["w9 w1"], ["w1"]]
    assert "made with the query prefix 'w8 ', which is kept" in (
        gte(*index, "--prompt-name", "other").stderr
    )
    unknown = gte("explain", "w1", "w2", "-m", checkpoint, "--prompt-name", "third")
    assert "--prompt-name is 'third', but this checkpoint has the prompts 'query', 'other'" in (
        unknown.stderr
    )
    both = gte("search", "w1", "--from", *place, "--prompt-name", "other", "--query-prefix", "x")
    assert "pass one of them" in both.stderr


def test_the_command_line_says_which_prompt_it_puts_where_none_is_recorded(
    checkpoint, tmp_path, encoded
):
    place = [f"qdrant:{tmp_path / 'index'}", "-c", "docs"]
    (tmp_path / "a.txt").write_text("w1 w2")
    index = ("index", tmp_path / "a.txt", "-m", checkpoint, "--to", *place)
    assert gte(*index, "--query-prefix", "").exit_code == 0
    own, none = (gte("search", "w1", "--from", *place, *o) for o in ([], ["--query-prefix", ""]))
    assert "records no query prefix; the model's own, 'w8 ', goes before queries" in own.stderr
    assert (none.stderr, encoded) == ("", [["w1 w2"], ["w8 w1"], ["w1"]])


def test_the_frameworks_put_the_models_own_prompt_or_the_named(checkpoint, encoded):
    name = str(checkpoint)
    GTEEmbeddings(model=name).embed_query("w1")
    GTEEmbeddings(model=name, prompt_name="other").embed_query("w1")
    GTEEmbedding(model_name=name, prompt_name="other").get_query_embedding("w2")
    GTEEmbedding(model_name=name, query_prefix="").get_query_embedding("w2")
    assert encoded == [["w8 w1"], ["w9 w1"], ["w9 w2"], ["w2"]]
    for make in (
        lambda: GTEEmbeddings(model=name, prompt_name="other", query_prefix=""),
        lambda: GTEEmbedding(model_name=name, prompt_name="other", query_prefix=""),
    ):
        with pytest.raises(ValueError, match="both say what goes before queries"):
            make()


def test_cache_keys_hold_what_is_used(checkpoint):
    name = str(checkpoint)
    embeddings = [
        GTEEmbeddings(model=name),
        GTEEmbeddings(model=name, prompt_name="other"),
        GTEEmbeddings(model=name, max_length=76),
        GTEEmbeddings(encoder=HashEncoder()),
        GTEEmbeddings(encoder=HashEncoder(document_prefix="w9 ")),
    ]
    namespaces = {each.cache_namespace for each in embeddings}
    assert len(namespaces) == len(embeddings)
    same = GTEEmbeddings(model=name, query_prefix="w8 ", max_length=77)
    assert same.cache_namespace == embeddings[0].cache_namespace

    embedding = GTEEmbedding(model_name=name, prompt_name="other")
    assert embedding.to_dict()["prompt_name"] == "other"
    assert GTEEmbedding.from_dict(embedding.to_dict()).prompt_name == "other"
    adopted = GTEEmbedding(encoder=GTEEmbedder.from_pretrained(name, prompt_name="other"))
    assert adopted.to_dict()["prompt_name"] == "other"
    keys = [
        GTEEmbedding(encoder=HashEncoder(document_prefix=prefix)).to_dict()["encoder"]
        for prefix in ("", "w9 ")
    ]
    assert keys == ["hash max_length=512 float", f"{keys[0]} document_prefix='w9 '"]


def test_the_dict_of_a_former_version_keeps_what_it_held():
    former = {
        "model_name": "demo",
        "revision": None,
        "dimensions": 64,
        "max_length": 8192,
        "query_prefix": "",
        "class_name": "GTEEmbedding",
    }
    again = GTEEmbedding.from_dict(former)
    assert (again.max_length, again.query_prefix, again.prompt_name) == (8192, "", None)
    assert again.to_dict() == former
