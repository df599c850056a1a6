"""Collections and pickles that released versions wrote stay readable."""

import importlib.util
import json
import pickle
import re
import tarfile
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from gte_core import GTEEmbedder, release_shared
from gte_integrations.cli.commands import app

FOLDER = Path(__file__).parent / "archive"
VERSIONS = sorted(path.name.removesuffix(".tar.xz") for path in FOLDER.glob("*.tar.xz"))
_specification = importlib.util.spec_from_file_location("archive_make", FOLDER / "make.py")
make = importlib.util.module_from_spec(_specification)
_specification.loader.exec_module(make)

BLOCK = 2**20


def extract(archive, target):
    """Unpack; the zeros that an engine reserves take no space on the disk."""
    with tarfile.open(archive) as packed:
        for member in packed:
            path = target / member.name
            if member.isdir():
                path.mkdir(parents=True, exist_ok=True)
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            with packed.extractfile(member) as source, path.open("wb") as file:
                while block := source.read(BLOCK):
                    if block.count(0) == len(block):
                        file.seek(len(block), 1)
                    else:
                        file.write(block)
                file.truncate()


@pytest.fixture(scope="module", params=VERSIONS)
def archive(request, tmp_path_factory):
    target = tmp_path_factory.mktemp("archive")
    extract(FOLDER / f"{request.param}.tar.xz", target)
    return target


@pytest.fixture(scope="module")
def embedders(archive):
    return make.open_models(archive / "models")


@pytest.mark.parametrize("name", ["hub", "directory", "demo"])
@pytest.mark.parametrize("engine", ["qdrant", "milvus"])
def test_a_collection_opens_finds_the_same_and_takes_documents(archive, embedders, engine, name):
    embedder = embedders[name]
    expected = json.loads((archive / "found.json").read_text("utf-8"))[f"{engine}/{name}"]
    with make.open_indexes(archive, name, embedder)[engine] as index:
        index.create()
        [hits] = index.search(make.QUERY, mode=make.mode_of(embedder), limit=10)
        assert [hit.id for hit in hits] == [document_id for document_id, _ in expected]
        assert [hit.score for hit in hits] == pytest.approx(
            [score for _, score in expected], abs=1e-5
        )
        payloads = {hit.id: hit.payload for hit in hits}
        # Since 0.2.0, a document without a text is not stored.
        stored = {document_id: payload for document_id, text, payload in make.DOCUMENTS if text}
        assert payloads | stored == payloads

        documents = list(index.documents(with_vectors=True))
        assert documents == index.get(document.id for document in documents)
        given = {
            document_id: (text, payload)
            for document_id, text, payload in make.DOCUMENTS
            if document_id in payloads
        }
        assert {document.id: (document.text, document.payload) for document in documents} == given
        assert {document.origin for document in documents} == {None}
        assert {len(document.dense) for document in documents} == {index.vectorizer.dimensions}

        again = index.add(make.DOCUMENTS)
        assert (again.written, again.replaced) == (0, 0)
        changed = index.add([("1", "w3 w4 changed"), ("new", "w1 w1 w2")])
        assert (changed.written, changed.replaced) == (1, 1)
        assert index.delete(["new"]) == 1


@pytest.mark.parametrize("engine", ["qdrant", "milvus"])
def test_a_collection_opens_by_the_name_of_its_model_and_reads_as_much_as_it_did(archive, engine):
    with make.open_indexes(archive, "demo", "demo")[engine] as index:
        index.create()
        assert index.vectorizer.encoder.fingerprint.max_length == make.MAX_LENGTH
        assert index.search(make.QUERY)[0]


def test_pickles_keep_what_they_held(archive):
    embeddings = pickled(archive, "langchain.GTEEmbeddings")
    assert (embeddings.max_length, embeddings.prompt_name) == (8192, None)
    assert pickled(archive, "langchain.GTECompressor").cross_encoder.max_length == 8192
    assert pickled(archive, "GTEEmbedder").settings.query_prefix == ""


@pytest.mark.parametrize("engine", ["qdrant:{}/qdrant", "milvus:{}/milvus.db"])
def test_the_command_line_searches_a_collection_whose_model_may_have_moved(archive, engine):
    def search(collection, *options):
        arguments = ["search", make.QUERY, "--from", engine.format(archive), "-c", collection]
        return CliRunner().invoke(app, [*arguments, "--json", *options])

    assert json.loads(search("demo").stdout)["model"] == "demo model"
    unknown = search("directory")
    assert unknown.exit_code == 1
    where = "not where it is; pass its directory|is gone; pass the one where the model is now"
    assert re.search(f"({where}) as --model", unknown.stderr)
    directory = str(archive / "models" / "directory")
    assert json.loads(search("directory", "--model", directory).stdout)["model"] == directory


def test_the_command_line_opens_a_hub_model_by_its_recorded_commit(archive, monkeypatch):
    monkeypatch.setattr(
        GTEEmbedder,
        "from_pretrained",
        partial(GTEEmbedder.from_pretrained, cache_dir=archive / "models" / "hub"),
    )
    store = f"qdrant:{archive / 'qdrant'}"
    result = CliRunner().invoke(app, ["search", make.QUERY, "--from", store, "-c", "hub", "--json"])
    assert json.loads(result.stdout)["model"] == f"{make.HUB_MODEL}@{make.HUB_COMMIT[:12]}"


def pickled(archive, name):
    return pickle.loads((archive / "pickles" / f"{name}.pickle").read_bytes())


def shown(value):
    """The repr without the addresses of callbacks."""
    return re.sub(r" at 0x[0-9a-f]+", "", repr(value))


@pytest.fixture(scope="module")
def expected():
    """The same objects, made by this version."""
    yield make.public_objects()
    release_shared()


NAMES = [
    "Explanation",
    "Fingerprint",
    "EncoderSettings",
    "SharedEncoder",
    "RerankerSettings",
    "SharedReranker",
    "RankedDocument",
    "GTEConfig",
    "qdrant.Document",
    "qdrant.Hit",
    "qdrant.IndexReport",
    "qdrant.Linear",
    "qdrant.RRF",
    "langchain.GTEEmbeddings",
    "langchain.GTECrossEncoder",
    "langchain.GTECompressor",
    "langchain_qdrant.GTEQdrantSparse",
    "langchain_milvus.GTEMilvusSparse",
    "llama_index.GTEEmbedding",
    "llama_index.GTERerank",
]
WITH_A_MODEL = [
    "GTEEmbedder",
    "HybridEmbeddings",
    "qdrant.QdrantVectorizer",
    "milvus.MilvusVectorizer",
    "milvus.GTEEmbeddingFunction",
]


def test_every_pickle_is_looked_at(archive):
    found = {path.stem for path in (archive / "pickles").iterdir()}
    assert found == {*NAMES, *WITH_A_MODEL}


@pytest.mark.parametrize("name", NAMES)
def test_a_pickle_equals_what_is_made_today(archive, expected, name):
    found = pickled(archive, name)
    if name == "Explanation":  # of floats that another machine computed
        assert found.tokens
        assert found.score == pytest.approx(expected[name].score, abs=1e-3)
        return
    assert type(found) is type(expected[name])
    assert shown(found) == shown(expected[name])
    if not name.startswith(("Shared", "llama_index.")):  # those know no equality
        assert found == expected[name]


def test_shared_objects_are_found_again_by_their_settings(archive):
    encoder, reranker = pickled(archive, "SharedEncoder"), pickled(archive, "SharedReranker")
    assert encoder.settings == pickled(archive, "EncoderSettings")
    assert reranker.settings == pickled(archive, "RerankerSettings")


def test_pickled_models_and_vectors_work(archive, expected):
    embedder = pickled(archive, "GTEEmbedder")
    assert repr(embedder) == repr(expected["GTEEmbedder"])
    both = pickled(archive, "HybridEmbeddings")
    np.testing.assert_allclose(both.dense, expected["HybridEmbeddings"].dense, atol=0.02)
    assert both.token_weights(0)
    document = [("a", "print a booklet")]
    assert pickled(archive, "qdrant.QdrantVectorizer").points(document)
    assert pickled(archive, "milvus.MilvusVectorizer").rows(document)
    assert pickled(archive, "milvus.GTEEmbeddingFunction")(["print"])["dense"][0].shape == (16,)
