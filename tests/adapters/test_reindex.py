"""``reindex``: a collection's documents in another model, size or engine."""

import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from qdrant_client import AsyncQdrantClient

from gte_core import CollectionMismatch, CollectionNotFound
from gte_integrations._index.document import Document
from gte_integrations.qdrant import QdrantHybridIndex

DOCUMENTS = [
    Document(
        number if number % 2 else f"doc/{number} é'\"\\%20",
        f"oak \ud800 and pine {number}" if number % 7 == 0 else f"oak and pine {number}",
        {"nested": {"n": [number, None, 0.5, 1.0]}},
        "there" if number % 5 else None,
    )
    for number in range(90)
]


@pytest.fixture
def source(index):
    index.add(DOCUMENTS)
    return index


@pytest.fixture
def engine():
    return "edge"


@pytest.fixture
def target(engine, make_place, tmp_path, make_encoder):
    """Another size on another engine, or on the same."""
    directory = tmp_path / "target"
    directory.mkdir()
    place = make_place(engine, directory)
    index = place.open(make_encoder(dimensions=16))
    index.create()
    yield index
    place.close()


def by_id(documents):
    return sorted(documents, key=lambda document: repr(document.id))


@pytest.mark.parametrize("engine", ["edge", "memory", "milvus"])
def test_everything_but_the_vectors_is_carried_over(source, target):
    report = source.reindex(to=target)
    assert (report.written, report.total) == (90, 90)
    assert by_id(target) == by_id(source)
    assert {len(document.dense) for document in target.documents(with_vectors=True)} == {16}
    assert target.add(DOCUMENTS).unchanged == 90
    assert source.add(DOCUMENTS).unchanged == 90


def test_what_is_there_already_is_not_embedded_again(source, target):
    target.add([*DOCUMENTS[:30], Document("only here", "elm")])
    target.add([replace(DOCUMENTS[5], text="an older text", origin="there")])
    encoder = target.vectorizer.encoder
    encoder.texts.clear()
    report = source.reindex(to=target, batch_size=50)
    assert (report.unchanged, report.replaced, report.written) == (29, 1, 60)
    assert len(encoder.texts) == 61
    assert source.reindex(to=target).unchanged == 90
    assert "only here" in target


def test_no_more_than_a_few_batches_are_read_ahead(source, target):
    encoder = target.vectorizer.encoder
    read = []

    def counted(documents):
        for document in documents:
            read.append(document.id)
            yield document

    add = target.add
    target.add = lambda documents, **options: add(counted(documents), **options)
    first = next(iter(source)).text
    encoder.failures[first] = RuntimeError("stop")
    with pytest.raises(RuntimeError, match="stop"):
        source.reindex(to=target, batch_size=10)
    assert len(read) <= 30


def test_an_index_is_not_reindexed_onto_itself(place, encoder, source):
    for same in (source, place.open(encoder)):
        with pytest.raises(ValueError, match="is the one that is read; pass an index on another"):
            source.reindex(to=same)
    with pytest.raises(TypeError, match="to is a str, but must be an index"):
        source.reindex(to="docs")


def test_two_collections_of_one_place(place, make_encoder, source):
    other = place.open(make_encoder(dimensions=8), "other")
    with pytest.raises(CollectionNotFound, match=r"does not exist; call create\(\) first"):
        source.reindex(to=other)
    other.create()
    assert source.reindex(to=other).written == 90
    assert by_id(other) == by_id(source)


def test_a_source_that_is_not_there_or_of_another_model_is_an_error(place, encoder, target):
    with pytest.raises(CollectionNotFound, match=r"does not exist; call create\(\) first"):
        place.open(encoder, "missing").reindex(to=target)
    with place.open(encoder, "made") as made:
        made.create()
    with pytest.raises(CollectionMismatch, match="dimensions"):
        place.open(encoder, "made", dimensions=8).reindex(to=target)
    assert len(target) == 0


async def test_it_can_be_awaited_between_clients_of_both_kinds(source, encoder):
    client = AsyncQdrantClient(":memory:")
    one, other = (QdrantHybridIndex(client, name, encoder) for name in ("one", "other"))
    await one.acreate()
    await other.acreate()
    assert (await source.areindex(to=one)).written == 90
    assert (await one.areindex(to=other)).written == 90
    assert (await one.areindex(to=source)).unchanged == 90
    with pytest.raises(ValueError, match="is the one that is read"):
        await one.areindex(to=QdrantHybridIndex(client, "one", encoder))
    assert by_id([document async for document in other.adocuments()]) == by_id(source)
    await client.close()


KILLED_RUN = """
import os, signal, sys
from pathlib import Path

sys.path.insert(0, {folder!r})
import conftest

directory = Path({directory!r})
source = conftest.Place({engine!r}, directory).open(conftest.RecordingEncoder())
target = conftest.Place("edge", directory / "target").open(conftest.RecordingEncoder(8))
target.create()
encode = target.vectorizer.encoder.encode


def encode_until_killed(texts, **options):
    if len(target.vectorizer.encoder.texts) >= 60:
        os.kill(os.getpid(), signal.SIGKILL)
    return encode(texts, **options)


target.vectorizer.encoder.encode = encode_until_killed
source.reindex(to=target, batch_size=20)
"""


@pytest.mark.parametrize("place", ["edge"], indirect=True)
def test_a_killed_run_goes_on(place, make_place, make_encoder, source):
    source.close()
    folder, directory = str(Path(__file__).parent), str(place.directory)
    code = KILLED_RUN.format(folder=folder, engine=place.engine, directory=directory)
    killed = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()

    target = make_place("edge", place.directory / "target").open(make_encoder(8))
    report = source.reindex(to=target, batch_size=20)
    assert report.unchanged >= 20
    assert (report.total, report.replaced) == (90, 0)
    assert by_id(target) == by_id(source)
    target.close()
